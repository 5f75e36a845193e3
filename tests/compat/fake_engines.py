"""TensorRT and IxRT that build engines too: what they build is run by ONNX Runtime on plain memory."""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

FAKE = runpy.run_path(str(Path(__file__).parents[1] / "backends" / "fake_tensorrt.py"))
RUNTIME = "maskrcnn.backends.tensorrt_runtime"
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}


def install(name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let `import tensorrt` or `import ixrt` find it, and no other; returns the builder's flags by name."""
    machine = FAKE["Machine"]({})
    FAKE["install"](machine, monkeypatch)
    module = sys.modules["tensorrt"]
    flags: list[str] = []
    _add_builder(module, machine, flags)
    if name == "ixrt":
        _make_ixrt(module, monkeypatch)
    return flags


def _make_ixrt(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """As IxRT differs: its name, what TensorRT 8 did not have, and the older name of the CUDA runtime."""
    runtime = sys.modules["cuda.bindings.runtime"]
    for absent in ("tensorrt", "cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, absent, None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cuda.cudart", runtime)
    monkeypatch.setitem(sys.modules, "ixrt", module)
    module.__version__ = "1.0.0"  # type: ignore[attr-defined]
    del module.NetworkDefinitionCreationFlag.STRONGLY_TYPED  # type: ignore[attr-defined]
    read = module.Runtime.deserialize_cuda_engine  # type: ignore[attr-defined]

    def deserialize_cuda_engine(self: Any, plan: bytes) -> Any:
        engine = read(self, plan)
        engine.num_bindings = engine.num_io_tensors
        del engine.num_io_tensors
        return engine

    module.Runtime.deserialize_cuda_engine = deserialize_cuda_engine  # type: ignore[attr-defined]


def _add_builder(module: ModuleType, machine: Any, flags: list[str]) -> None:
    shapes: dict[str, tuple[Any, ...]] = {}
    graphs: list[bytes] = []

    class Builder:
        def __init__(self, logger: object) -> None: ...

        def create_network(self, bits: int) -> object:
            flags.extend(key for key, value in vars(numbers).items() if bits == 1 << value)
            return object()

        def create_builder_config(self) -> SimpleNamespace:
            return SimpleNamespace(add_optimization_profile=lambda _: None, set_flag=flags.append)

        def create_optimization_profile(self) -> SimpleNamespace:
            return SimpleNamespace(set_shape=lambda name, *three: shapes.update({name: three}))

        def build_serialized_network(self, network: object, config: object) -> bytes | None:
            if b"QuantizeLinear" in graphs[-1] and not {"STRONGLY_TYPED", "INT8"} & set(flags):
                return None
            plan = b"plan %d" % len(machine.plans)
            machine.plans[plan] = _plan(graphs[-1], shapes)
            return plan

    class OnnxParser:
        def __init__(self, network: object, logger: object) -> None:
            self.reasons: list[str] = []

        @property
        def num_errors(self) -> int:
            return len(self.reasons)

        def get_error(self, number: int) -> SimpleNamespace:
            return SimpleNamespace(desc=lambda: self.reasons[number])

        def parse(self, graph: bytes) -> bool:
            graphs.append(graph)
            self.reasons = list(refused(graph))
            return not self.reasons

    numbers = SimpleNamespace(EXPLICIT_BATCH=0, STRONGLY_TYPED=1)
    module.Builder, module.OnnxParser = Builder, OnnxParser  # type: ignore[attr-defined]
    module.NetworkDefinitionCreationFlag = numbers  # type: ignore[attr-defined]
    module.BuilderFlag = SimpleNamespace(FP16="FP16", INT8="INT8")  # type: ignore[attr-defined]


def refused(graph: bytes) -> Iterator[str]:
    """What the parser of TensorRT 8 would not take of the pairs of a graph, and its words for it."""
    import onnx

    parsed = onnx.load_from_string(graph).graph
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in parsed.initializer}
    axes = {"Conv": 0, "Gemm": 0, "ConvTranspose": 0, "MatMul": 1}
    dequantised = {}
    for node in parsed.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = stored.get(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
            if node.op_type == "DequantizeLinear" and node.input[0] in stored:
                yield f"{node.name}: only activation types allowed as input to this layer."
            elif zero is None or zero.dtype != np.int8:
                yield f"{node.name}: only signed 8 bits are known"
            elif zero.any():
                yield "TRT only supports symmetric quantization - zeroPt must be all zeros"
            dequantised[node.output[0]] = node
        elif node.op_type in axes and node.input[1] in dequantised:
            pair = dequantised[node.input[1]]
            axis = next((each.i for each in pair.attribute if each.name == "axis"), 1)
            if stored[pair.input[1]].ndim and axis != axes[node.op_type]:
                yield f"{node.name}: scales stand along axis {axis}"


def _plan(graph: bytes, shapes: dict[str, tuple[Any, ...]]) -> Any:
    """A plan of fake_tensorrt that ONNX Runtime runs; shapes are those of the profile."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    inputs = {
        each.name: (DTYPES[each.type], shapes[each.name][0], shapes[each.name][2])
        for each in session.get_inputs()
    }
    outputs = {
        each.name: (DTYPES[each.type], lambda batch, rest=tuple(each.shape[1:]): (batch, *rest))
        for each in session.get_outputs()
    }
    return FAKE["Plan"](
        lambda arrays: dict(zip(names, session.run(None, arrays), strict=True)), inputs, outputs
    )
