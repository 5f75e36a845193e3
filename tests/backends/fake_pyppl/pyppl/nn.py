"""Engine, builder, runtime and tensors in the order of calls of the real module."""

import os
import signal
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np

from pyppl import common
from pyppl.common import CALLS

INVALID_DIM_VALUE = -1


def SetLoggingLevel(level: int) -> None:  # noqa: N802
    """Log lines go to stderr."""
    CALLS.append(("SetLoggingLevel", level))


class _Engine:
    @staticmethod
    def Create(options: Any) -> "_Engine":  # noqa: N802
        CALLS.append(("EngineFactory.Create", *sorted(vars(options).items())))
        return _Engine()

    def Configure(self, option: int, *values: Any) -> int:  # noqa: N802
        CALLS.append(("Configure", option, *values))
        return common.RC_SUCCESS


class _Resources:
    engines: list[_Engine] = []  # noqa: RUF012


class _Builder:
    @staticmethod
    def Create() -> "_Builder":  # noqa: N802
        CALLS.append(("RuntimeBuilderFactory.Create",))
        return _Builder()

    def __init__(self) -> None:
        self.path = ""
        self.engines: list[_Engine] = []
        self.ready = False

    def LoadModelFromFile(self, path: str) -> int:  # noqa: N802
        import onnx

        CALLS.append(("LoadModelFromFile", os.path.basename(path)))
        assert isinstance(path, str), "TypeError: argument"
        if not os.path.exists(path):
            return common.RC_OTHER_ERROR
        if os.path.getsize(path) == 0:
            return common.RC_INVALID_VALUE
        try:
            model = onnx.load(path)
        except Exception:
            return common.RC_OTHER_ERROR
        if model.opset_import[0].version > 16:
            return common.RC_UNSUPPORTED
        self.path = path
        return common.RC_SUCCESS

    def SetResources(self, resources: _Resources) -> int:  # noqa: N802
        CALLS.append(("SetResources",))
        assert self.path, "no model is loaded"
        self.engines = resources.engines
        return common.RC_SUCCESS

    def Preprocess(self) -> int:  # noqa: N802
        CALLS.append(("Preprocess",))
        if not self.engines:
            return common.RC_UNSUPPORTED
        self.ready = True
        return common.RC_SUCCESS

    def CreateRuntime(self) -> "_Runtime | None":  # noqa: N802
        CALLS.append(("CreateRuntime",))
        return _Runtime(self) if self.ready else None


class _Runtime:
    def __init__(self, builder: _Builder) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(builder.path, options, providers=["CPUExecutionProvider"])
        self.owners = [weakref.ref(each) for each in (builder, *builder.engines)]
        self.inputs = [_Tensor(each.name, each.shape) for each in self.session.get_inputs()]
        self.outputs = [_Tensor(each.name, [0] * len(each.shape)) for each in self.session.get_outputs()]

    def GetInputCount(self) -> int:  # noqa: N802
        return len(self.inputs)

    def GetOutputCount(self) -> int:  # noqa: N802
        return len(self.outputs)

    def GetInputTensor(self, number: int) -> "_Tensor":  # noqa: N802
        return self.inputs[number]

    def GetOutputTensor(self, number: int) -> "_Tensor":  # noqa: N802
        return self.outputs[number]

    def Run(self) -> int:  # noqa: N802
        CALLS.append(("Run",))
        assert all(owner() is not None for owner in self.owners), "engine or builder were freed"
        if os.environ.get("FAKE_PYPPL_CRASHES"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if any(tensor.values is None for tensor in self.inputs):
            return 3
        try:
            found = self.session.run(None, {tensor.name: tensor.values for tensor in self.inputs})
        except Exception:
            return common.RC_INVALID_VALUE
        for tensor, values in zip(self.outputs, found, strict=True):
            tensor.values, tensor.dims = values, list(values.shape)
        return common.RC_SUCCESS


class _Tensor:
    def __init__(self, name: str, dims: list[Any]) -> None:
        self.name = name
        self.dims = [side if isinstance(side, int) else INVALID_DIM_VALUE for side in dims]
        self.values: np.ndarray | None = None

    def GetName(self) -> str:  # noqa: N802
        return self.name

    def GetShape(self) -> Any:  # noqa: N802
        return SimpleNamespace(GetDims=lambda: list(self.dims), GetDataType=lambda: common.DATATYPE_FLOAT32)

    def ConvertFromHost(self, array: np.ndarray) -> int:  # noqa: N802
        """Strides are not looked at: the memory is taken as it lies."""
        CALLS.append(("ConvertFromHost", self.name, array.shape))
        if array.dtype in (np.uint8, np.float16):
            return common.RC_UNSUPPORTED
        self.values = array.ravel(order="K").reshape(array.shape).astype(np.float32)
        self.dims = list(array.shape)
        return common.RC_SUCCESS

    def ConvertToHost(self) -> "_NdArray":  # noqa: N802
        CALLS.append(("ConvertToHost", self.name))
        assert self.values is not None
        return _NdArray(self.values)


class _NdArray:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __bool__(self) -> bool:
        return self.values.size > 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.values.size == 0:
            raise RuntimeError("no memory")
        return self.values


x86 = SimpleNamespace(
    EngineOptions=SimpleNamespace,
    EngineFactory=_Engine,
    ENGINE_CONF_GRAPH_FUSION=0,
    MM_COMPACT=0,
    MM_MRU=1,
    MM_PLAIN=2,
)
onnx = SimpleNamespace(RuntimeBuilderFactory=_Builder, RuntimeBuilderResources=_Resources)
