"""Compiles the loops of the engine `native`; without a C compiler the package is complete but for it."""

from pathlib import Path

from setuptools import Extension, setup

FOLDER = "src/maskrcnn/host/native"
# ctypes finds the functions, so that the sources need no header of Python.
COMPILED = Extension(
    "maskrcnn.host.native.compiled",
    sources=[f"{FOLDER}/native.c"],
    depends=sorted(str(path) for path in Path(FOLDER).glob("*.h")),
    extra_compile_args=["-O3", "-Wno-psabi"],
    optional=True,
)

setup(ext_modules=[COMPILED])
