"""Runs `.xml` and `.onnx` models with OpenVINO, on CPU, GPU or NPU."""

import re
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.backends.silent_openvino import openvino
from maskrcnn.backends.whole_graph import WholeGraph, check_names, is_foreign, runnable_file
from maskrcnn.errors import UserError
from maskrcnn.stored_spec import found_spec

if TYPE_CHECKING:
    from maskrcnn.backends.foreign_graph import ForeignGraph

HINT = "INFERENCE_PRECISION_HINT"
# Spec.precision: the hint. Left out, the CPU plug-in computes in bf16 where the processor
# can. What is not quantised in an int8 model is float32.
ARITHMETIC = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
# The hint: what the device calls its ability.
ABILITY = {"f32": "FP32", "f16": "FP16", "bf16": "BF16"}
# The version of a network stands in its first line; OpenVINO 2022 ceased to read those before 10.
HEAD, OLDEST = 4096, 10


class OpenVinoSession:
    """One compiled graph; may be called from several threads at once, which share the streams."""

    def __init__(self, path: Path, model: openvino.Model, compiled: openvino.CompiledModel) -> None:
        self.path = path
        self.compiled = compiled
        # Of the file: where the compiler drops a node, its own output bears the name of an inner value.
        self.inputs = tuple(_name(each) for each in model.inputs)
        self.outputs = tuple(_name(each) for each in model.outputs)
        self.idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()

    def __call__(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by the names of the graph's inputs -> all its outputs by name, copied."""
        try:
            request = self.idle.get_nowait()
        except Empty:
            request = self.compiled.create_infer_request()
        try:
            found = request.infer([arrays[name] for name in self.inputs], share_inputs=True)
        except RuntimeError as error:
            raise _failed(self.path, error) from error
        finally:
            self.idle.put(request)
        return {name: found[number] for number, name in enumerate(self.outputs)}


def open_openvino(
    path: str | Path, device: str = "auto", threads: int | None = None, streams: int | None = None
) -> "WholeGraph | ForeignGraph":
    """Open a whole `.xml` or `.onnx` model, ours or one of a tool that `foreign_graph` knows.

    device: `cpu`, `gpu`, `gpu.1`, `npu` or any other name of OpenVINO, such as HETERO:GPU,CPU; `auto` is the
        CPU.
    threads: CPU threads, None for its own choice.
    streams: runs that go on at once when `run` is called by as many threads; None for the least latency.
    Raises UserError for a wrong file or device.
    """
    path = Path(path)
    spec = found_spec(path)
    with runnable_file(path, spec) as runnable:
        graph = session(runnable, device, threads, spec.precision if spec else "fp32", streams)
    used = " ".join(graph.compiled.get_property("EXECUTION_DEVICES"))
    runs_on = f"OpenVINO {_version()}, {used}"
    if HINT in graph.compiled.get_property("SUPPORTED_PROPERTIES"):
        runs_on += f", {graph.compiled.get_property(HINT).to_string()}"
    if spec is None or is_foreign(spec):
        from maskrcnn.backends.foreign_graph import Interface, open_foreign

        interface = Interface(
            _shapes(graph.inputs, graph.compiled.inputs), _shapes(graph.outputs, graph.compiled.outputs)
        )
        return open_foreign(path, spec, graph, interface, runs_on)
    check_names(path, graph.inputs, graph.outputs)
    return WholeGraph(spec, graph, runs_on)


def session(
    path: Path,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "fp32",
    streams: int | None = None,
    profile: bool = False,
) -> OpenVinoSession:
    """Open one graph; arguments as for `open_openvino`, and the arithmetic that it was exported for.

    profile: measure each layer, for `request.profiling_info` of the requests in `idle`.
    """
    _refuse_old(path)
    core = openvino.Core()
    name = _device(core, device)
    settings: dict[str, Any] = {
        HINT: _arithmetic(core, name, precision),
        "PERF_COUNT": profile,
    }
    if streams is None:
        settings["PERFORMANCE_HINT"] = "LATENCY"
    else:
        settings["NUM_STREAMS"] = streams
    if threads is not None and name == "CPU":
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        model = _read(core, path)
        compiled = core.compile_model(model, name, settings)
    except RuntimeError as error:
        raise _failed(path, error) from error
    return OpenVinoSession(path, model, compiled)


def _read(core: openvino.Core, path: Path) -> openvino.Model:
    try:
        return core.read_model(path)
    except RuntimeError:
        if path.suffix.lower() != ".onnx":
            raise
        from maskrcnn.backends.contracts.segmentoly import mended

        graph = mended(path)
        if graph is None:
            raise
        return core.read_model(graph, b"")


def _device(core: openvino.Core, device: str) -> str:
    if device == "auto":
        return "CPU"
    name = device.upper()
    available = core.available_devices
    # `GPU` stands for GPU.0; AUTO, MULTI and HETERO are made of others.
    known = {each.partition(".")[0] for each in available} | set(available) | {"AUTO", "MULTI", "HETERO"}
    if name.partition(":")[0] not in known:
        raise UserError(
            f"--device {device}: OpenVINO has only {', '.join(available).lower()} here",
            hint="choose one of them, or install the driver of the device",
        )
    return name


def _arithmetic(core: openvino.Core, name: str, precision: str) -> str:
    """The nearest that the device can; asked for float16, a CPU without it would take the coarser bf16."""
    wanted = ARITHMETIC[precision]
    if ":" in name:
        return wanted
    able = core.get_property(name, "OPTIMIZATION_CAPABILITIES")
    return next(hint for hint in (wanted, "f32", "f16") if ABILITY[hint] in able)


def _shapes(names: Sequence[str], values: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """Of inputs or outputs by name, 0 for a side that may be any."""
    return {
        name: tuple(side.get_length() if side.is_static else 0 for side in value.get_partial_shape())
        for name, value in zip(names, values, strict=True)
    }


def _name(value: Any) -> str:
    """Of an input or output; networks of other tools may have names for their layers alone.

    Where Model Optimizer drops an operation of no effect, one value has its name and that of what it was made
    of; the layer keeps the one that was asked for.
    """
    if not value.names:
        return value.node.friendly_name
    layer = value.node.input_value(0).get_node() if value.node.get_input_size() else value.node
    return layer.friendly_name if layer.friendly_name in value.names else value.any_name


def _refuse_old(path: Path) -> None:
    """Raise UserError for a network of before 2020, of which OpenVINO only says that it is none."""
    if path.suffix.lower() != ".xml":
        return
    with open(path, "rb") as file:
        found = re.search(rb"<net\b[^>]*\bversion=\"(\d+)\"", file.read(HEAD))
    if found and int(found[1]) < OLDEST:
        raise UserError(
            f"{path}: is an OpenVINO network of version {int(found[1])}, and OpenVINO {_version()} reads "
            f"{OLDEST} and later",
            hint="`maskrcnn convert` the checkpoint that it was made of, and `maskrcnn export` that",
        )


def _failed(path: Path, error: RuntimeError) -> Exception:
    """An error of the engine in words; out of memory stays what it is."""
    text = str(error)
    if "bad_alloc" in text or "out of memory" in text.lower():
        return MemoryError(text)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("Exception from")]
    reason = (" ".join(lines) or type(error).__name__)[:300]
    return UserError(
        f"{path}: OpenVINO {_version()} cannot run it ({reason})",
        hint="export it again, or try a newer openvino",
    )


def _version() -> str:
    return str(openvino.__version__).partition("-")[0]
