"""The Python module of TensorRT, or of IxRT, which is Iluvatar's engine and has TensorRT's names."""

import ctypes
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

# By module; where both are there, TensorRT is taken.
NAMES = {"tensorrt": "TensorRT", "ixrt": "IxRT"}


@dataclass(frozen=True)
class Api:
    """module: with Logger, Runtime, Builder and the rest. name: of the engine."""

    module: Any
    name: str

    @property
    def words(self) -> str:
        """`TensorRT 10.13.0`."""
        return f"{self.name} {self.module.__version__}"


def tensorrt_api() -> Api:
    """The engine that is installed. Raises ModuleNotFoundError of tensorrt where there is neither."""
    for module, name in NAMES.items():
        try:
            return Api(import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
    raise ModuleNotFoundError("there is neither tensorrt nor ixrt", name="tensorrt")


def cuda_runtime() -> ModuleType:
    """The CUDA runtime of cuda-python; the one that IxRT comes with has it under its older name."""
    try:
        return import_module("cuda.bindings.runtime")
    except ModuleNotFoundError as error:
        if error.name == "cuda":
            raise
        return import_module("cuda.cudart")


def load_plugins(api: Api, logger: Any) -> None:
    """Let the engine know its own plug-ins; IxRT's are in a library that it does not load by itself."""
    beside = Path(getattr(api.module, "__file__", None) or "").parent / "lib" / "libixrt_plugin.so"
    if beside.is_file():
        ctypes.CDLL(str(beside), mode=ctypes.RTLD_GLOBAL)
    api.module.init_libnvinfer_plugins(logger, "")
