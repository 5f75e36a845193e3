"""Runs `.onnx` models with ONNX Runtime, on its CPU code or any of its execution providers by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from maskrcnn.backends.whole_graph import WholeGraph, check_names, is_foreign, runnable_file
from maskrcnn.errors import UserError
from maskrcnn.stored_spec import found_spec

if TYPE_CHECKING:
    from maskrcnn.backends.foreign_graph import ForeignGraph

CPU = "CPUExecutionProvider"
CLOUD = "AzureExecutionProvider"  # in every build; it sends what it is given to a server
# What a user calls them: what ONNX Runtime does.
PROVIDERS = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cann": "CANNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
LONGEST = 300  # characters of the engine's own words
Provider = str | tuple[str, dict[str, Any]]


class OnnxSession:
    """One graph on ONNX Runtime; may be called from several threads at once."""

    def __init__(self, path: Path, session: onnxruntime.InferenceSession) -> None:
        self.path = path
        self.session = session
        self.inputs = tuple(each.name for each in session.get_inputs())
        self.outputs = tuple(each.name for each in session.get_outputs())

    def __call__(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by the names of the graph's inputs -> all its outputs by name."""
        try:
            found = self.session.run(None, {name: arrays[name] for name in self.inputs})
        except Exception as error:  # its exceptions have no class of their own in common
            raise _failed(self.path, error, self.session.get_providers()[0]) from error
        return dict(zip(self.outputs, found, strict=True))


def open_onnx_runtime(
    path: str | Path,
    device: str = "auto",
    threads: int | None = None,
    providers: Sequence[Provider] | None = None,
) -> "WholeGraph | ForeignGraph":
    """Open a whole `.onnx` model, ours or one of a tool that `foreign_graph` knows.

    device: a name of PROVIDERS or of ONNX Runtime's own, with an index or device after a colon as in
        `cuda:1` and `openvino:GPU`; `auto` is CUDA where it works and else the CPU.
    threads: CPU threads, None for one on each core.
    providers: the list that ONNX Runtime takes, in place of what device stands for.
    Raises UserError for a wrong file, and where ONNX Runtime would fall back to another provider.
    """
    path = Path(path)
    spec = found_spec(path)
    with runnable_file(path, spec) as runnable:
        graph = session(runnable, device, threads, providers, spec.precision if spec else "fp32")
    runs_on = f"ONNX Runtime {onnxruntime.__version__}, {graph.session.get_providers()[0]}"
    if spec is None or is_foreign(spec):
        from maskrcnn.backends.foreign_graph import Interface, open_foreign

        interface = Interface(_shapes(graph.session.get_inputs()), _shapes(graph.session.get_outputs()))
        return open_foreign(path, spec, graph, interface, runs_on)
    check_names(path, graph.inputs, graph.outputs)
    return WholeGraph(spec, graph, runs_on)


def session(
    path: Path,
    device: str = "auto",
    threads: int | None = None,
    providers: Sequence[Provider] | None = None,
    precision: str = "fp32",
    profile: Path | None = None,
) -> OnnxSession:
    """Open one graph; arguments as for `open_onnx_runtime`, and the arithmetic that it was exported for.

    profile: begin of the name of the file that `session.end_profiling` writes; None to measure nothing.
    """
    wanted = list(providers) if providers is not None else _providers(device, precision)
    options = _options(wanted, threads)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        # Its own fallback prints to stdout and goes on with the CPU.
        opened = onnxruntime.InferenceSession(path, options, providers=wanted, enable_fallback=0)
    except Exception as error:
        if device == "auto" and providers is None and len(wanted) > 1:
            return session(path, "cpu", threads, None, precision, profile)
        raise _failed(path, error, _name(wanted[0])) from error
    if device != "auto" or providers is not None:
        _refuse_fallback(_name(wanted[0]), opened.get_providers())
    return OnnxSession(path, opened)


def _providers(device: str, precision: str) -> list[Provider]:
    """In the order in which they take nodes; the CPU comes last, for what no other can."""
    available = onnxruntime.get_available_providers()
    if device == "auto":
        device = "cuda" if PROVIDERS["cuda"] in available else "cpu"
    word, _, place = device.partition(":")
    name = PROVIDERS.get(word.lower(), word)
    if name not in available:
        known = {long: short for short, long in PROVIDERS.items()}
        raise UserError(
            f"--device {device}: this build of ONNX Runtime has only "
            f"{', '.join(known.get(each, each) for each in available if each != CLOUD)}",
            hint="choose one of them, or install the build of ONNX Runtime that has it instead",
        )
    if name == CPU:
        return [CPU]
    wanted: list[Provider] = [(name, _settings(word.lower(), place, precision))]
    if word.lower() == "tensorrt" and PROVIDERS["cuda"] in available:
        wanted.append((PROVIDERS["cuda"], _settings("cuda", place, precision)))
    return [*wanted, CPU]


def _settings(word: str, place: str, precision: str) -> dict[str, str]:
    """Options of a provider that keep the arithmetic at the model's precision; each has another habit."""
    index = {"device_id": place or "0"}
    half = precision == "fp16"
    return {
        # By default float32 is multiplied as TF32, of 10 bits, and each new size of input searched for its
        # fastest kernels, for seconds.
        "cuda": index | {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
        "tensorrt": index
        | {
            "trt_fp16_enable": str(half),
            "trt_bf16_enable": str(precision == "bf16"),
            "trt_int8_enable": str(precision == "int8"),
        },
        "openvino": {"device_type": place or "CPU", "precision": "FP16" if half else "FP32"},
        # Graphs are computed in float16 by default.
        "cann": index | {"precision_mode": "must_keep_origin_dtype"},
        # The older format has no types and may compute in float16.
        "coreml": {"ModelFormat": "MLProgram"},
        "directml": index,
    }.get(word, {})


def _options(wanted: Sequence[Provider], threads: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Errors are raised as well; warnings of nodes that stay on the CPU help no user.
    options.log_severity_level = 4
    if _name(wanted[0]) == PROVIDERS["directml"]:
        # It supports neither memory patterns nor parallel execution.
        options.enable_mem_pattern = False
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return options


def _refuse_fallback(wanted: str, used: Sequence[str]) -> None:
    """ONNX Runtime goes on with what is left when a provider cannot be loaded."""
    if wanted not in used:
        raise UserError(
            f"ONNX Runtime cannot use {wanted} here and would fall back to {used[0]}",
            hint="install the driver and the libraries that it needs, or use --device cpu",
        )


def _shapes(values: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """Of inputs or outputs by name, 0 for a side that may be any."""
    return {each.name: tuple(s if isinstance(s, int) else 0 for s in each.shape) for each in values}


def _name(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


def _failed(path: Path, error: Exception, provider: str) -> Exception:
    """An error of the engine in words; out of memory stays what it is."""
    text = " ".join(str(error).split())
    if "allocate memory" in text or "bad_alloc" in text:
        return MemoryError(text)
    # What happened stands at the end, after where in its source.
    reason = text.rpartition("[ONNXRuntimeError] : ")[2][-LONGEST:]
    return UserError(
        f"{path}: ONNX Runtime {onnxruntime.__version__} with {provider} cannot run it ({reason})",
        hint="export it again, or try a newer onnxruntime"
        if provider == CPU
        else "install the driver and the libraries that it needs, or use --device cpu",
    )
