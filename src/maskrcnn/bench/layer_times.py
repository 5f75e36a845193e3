"""How long each layer of a network takes, as its engine tells it."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from maskrcnn.bench.timing import Layer, Setting
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    import numpy as np


PARTS = ".parts"
# By the suffix of a graph.
ENGINES = {".safetensors": "pytorch", ".onnx": "onnxruntime", ".xml": "openvino"}
# One call of a layer: name, kind, microseconds.
Call = tuple[str, str, float]
# One run of a network: milliseconds and calls of each layer by its name and kind.
Times = dict[tuple[str, str], tuple[float, int]]
Input = tuple["np.ndarray", "np.ndarray"]


def layer_times(path: Path, backend: Any, setting: Setting, given: Input, count: int) -> list[Layer]:
    """Layers of the network in a file, slowest first, by the median of `count` runs after one more.

    backend: the opened model. given: image (B, 3, H, W) and size (B, 2), its input. Times are those that the
    engine measures, which costs time itself: their sum is more than a run takes.
    """
    engine = told_by(path, setting)
    if engine == "pytorch":
        return slowest_first(_pytorch(backend, given, count))
    return slowest_first(_graphs(path, backend, setting, engine, given, count))


def told_by(path: Path, setting: Setting) -> str:
    """The engine that tells the layers of a file. Raises UserError where none does."""
    suffix = path.suffix.lower()
    if suffix == PARTS:
        suffix = next((graph.suffix for graph in path.glob("dense.*")), PARTS)
    engine = setting.engine or ENGINES.get(suffix, "")
    if engine not in ENGINES.values():
        raise UserError(
            f"--layers: {engine or path} does not tell its layers",
            hint=f"leave --layers out, or use one of {', '.join(ENGINES.values())}",
        )
    if setting.device not in ("auto", "cpu"):
        raise UserError(
            f"--layers: layers are timed on the CPU and not on {setting.device}", hint="use --device cpu"
        )
    return engine


def slowest_first(runs: Sequence[Times]) -> list[Layer]:
    """Medians over runs; a layer that was left out of one took no time there."""
    keys = {key: None for run in runs for key in run}
    layers = []
    for name, kind in keys:
        times = [run.get((name, kind), (0.0, 0)) for run in runs]
        took, calls = median(each[0] for each in times), max(each[1] for each in times)
        layers.append(Layer(name, kind, took, calls))
    return sorted(layers, key=lambda layer: -layer.milliseconds)


def added(calls: Iterable[Call]) -> Times:
    """Single calls -> what each layer took, and how often."""
    milliseconds: dict[tuple[str, str], float] = defaultdict(float)
    number: dict[tuple[str, str], int] = defaultdict(int)
    for name, kind, microseconds in calls:
        milliseconds[name, kind] += microseconds / 1000
        number[name, kind] += 1
    return {key: (milliseconds[key], number[key]) for key in milliseconds}


def _pytorch(backend: Any, given: Input, count: int) -> list[Times]:
    """Modules without parts by their names, and every operation outside them by its own."""
    from torch.profiler import ProfilerActivity, profile

    if backend.device.type != "cpu":
        raise UserError("--layers: layers are timed on the CPU only", hint="use --device cpu")
    kinds = {name: type(module).__name__ for name, module in backend.model.named_modules()}
    runs = []
    with _named(backend.model):
        backend.run(*given)
        for _ in range(count):
            with profile(activities=[ProfilerActivity.CPU]) as told:
                backend.run(*given)
            events = [event for event in told.events() if event.cpu_parent is None]
            runs.append(added((each.name, kinds.get(each.name, ""), each.cpu_time_total) for each in events))
    return runs


@contextmanager
def _named(model: Any) -> Iterator[None]:
    """Let every module without parts be told by its name to torch's profiler."""
    from torch.profiler import record_function

    begun: list[record_function] = []

    def begin(name: str) -> Callable[..., None]:
        def enter(*_: object) -> None:
            begun.append(record_function(name))
            begun[-1].__enter__()

        return enter

    def end(*_: object) -> None:
        begun.pop().__exit__(None, None, None)

    hooks = []
    for name, module in model.named_modules():
        if not list(module.children()):
            hooks += [module.register_forward_pre_hook(begin(name)), module.register_forward_hook(end)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _graphs(path: Path, backend: Any, setting: Setting, engine: str, given: Input, count: int) -> list[Times]:
    """Nodes as the engine has merged them; in a `.parts` folder after the name of their graph."""
    listening = _OnnxRuntime if engine == "onnxruntime" else _OpenVino
    precision = backend.spec.precision
    with tempfile.TemporaryDirectory(prefix="maskrcnn-layers-") as folder:
        if path.suffix.lower() == PARTS:
            from maskrcnn.backends.parts import GRAPHS, Graphs, PartsBackend

            files = {name: next(path.glob(f"{name}.*")) for name in GRAPHS}
            graphs = {name: listening(file, setting, precision, folder) for name, file in files.items()}
            again: Any = PartsBackend(backend.spec, Graphs(**graphs))
        else:
            from maskrcnn.backends.whole_graph import WholeGraph

            graphs = {"": listening(path, setting, precision, folder)}
            again = WholeGraph(backend.spec, graphs[""])
        for number in range(count + 1):
            for graph in graphs.values():
                graph.run = number
            again.run(*given)
        told = {name: graph.calls() for name, graph in graphs.items()}
    return [
        added(
            (f"{graph}/{name.lstrip('/')}" if graph else name, kind, microseconds)
            for graph, runs in told.items()
            for name, kind, microseconds in runs.get(number, [])
        )
        for number in range(1, count + 1)
    ]


class _OnnxRuntime:
    """A graph on ONNX Runtime's CPU code that tells its nodes. run: number of the network's run."""

    def __init__(self, path: Path, setting: Setting, precision: str, folder: str) -> None:
        from maskrcnn.backends.onnx_runtime import session

        profile = Path(folder, path.stem)
        self.session = session(path, "cpu", setting.threads, precision=precision, profile=profile)
        self.run = 0
        self.runs: list[int] = []

    def __call__(self, arrays: "dict[str, np.ndarray]") -> "dict[str, np.ndarray]":
        """As the session."""
        self.runs.append(self.run)
        return self.session(arrays)

    def calls(self) -> dict[int, list[Call]]:
        """Those of each run; ends the profile."""
        profile = Path(self.session.session.end_profiling())
        return calls_of_profile(json.loads(profile.read_text("utf-8")), self.runs)


def calls_of_profile(events: Sequence[dict[str, Any]], runs: Sequence[int]) -> dict[int, list[Call]]:
    """ONNX Runtime's events -> kernel calls of each run. runs: number of the run of each call of the graph.

    Kernels inside the body of a loop or a branch are part of that node.
    """
    whole = sorted((each for each in events if each["name"] == "model_run"), key=lambda each: each["ts"])
    kernels = [each for each in events if each["name"].endswith("_kernel_time")]
    found: dict[int, list[Call]] = defaultdict(list)
    for number, run in zip(runs, whole, strict=True):
        end, inside = run["ts"] + run["dur"], 0
        for each in sorted(kernels, key=lambda kernel: (kernel["ts"], -kernel["dur"])):
            if run["ts"] <= each["ts"] <= end and each["ts"] >= inside:
                name, kind = each["name"].removesuffix("_kernel_time"), each["args"].get("op_name", "")
                found[number].append((name, kind, each["dur"]))
                inside = each["ts"] + each["dur"]
    return found


class _OpenVino:
    """A graph on OpenVINO's CPU plug-in that tells its nodes. run: number of the network's run."""

    def __init__(self, path: Path, setting: Setting, precision: str, folder: str) -> None:
        from maskrcnn.backends.openvino_runtime import session

        self.session = session(path, "cpu", setting.threads, precision, profile=True)
        self.run = 0
        self.found: dict[int, list[Call]] = defaultdict(list)

    def __call__(self, arrays: "dict[str, np.ndarray]") -> "dict[str, np.ndarray]":
        """As the session, whose only request then knows its times."""
        found = self.session(arrays)
        request = self.session.idle.get_nowait()
        for node in request.profiling_info:
            if node.status == node.Status.EXECUTED:
                microseconds = node.real_time.total_seconds() * 1e6
                self.found[self.run].append((node.node_name, node.exec_type, microseconds))
        self.session.idle.put(request)
        return found

    def calls(self) -> dict[int, list[Call]]:
        """Those of each run."""
        return self.found
