"""Compiles the loops of the engine `native`; without a C compiler the package is complete but for it."""

from setuptools import Extension, setup

FOLDER = "src/maskrcnn/host/native"
# ctypes finds the functions, so that the sources need no header of Python.
COMPILED = Extension(
    "maskrcnn.host.native.compiled",
    sources=[f"{FOLDER}/native.c"],
    depends=[f"{FOLDER}/kernels.h", f"{FOLDER}/regions.h"],
    extra_compile_args=["-O3", "-Wno-psabi"],
    optional=True,
)

setup(ext_modules=[COMPILED])
