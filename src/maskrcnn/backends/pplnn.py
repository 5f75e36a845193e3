"""Runs `.parts` and `.onnx` of other tools with PPL.NN, OpenPPL's x86 engine, through its module `pyppl`."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.backends.pplnn_graph import check_graph
from maskrcnn.backends.whole_graph import is_foreign
from maskrcnn.errors import UserError
from maskrcnn.stored_spec import found_spec

if TYPE_CHECKING:
    from maskrcnn.backends.foreign_graph import ForeignGraph

# GetRetCodeStr of another number reads beyond its table.
KNOWN_CODES = range(13)
TRIAL_SECONDS = 300
# Types that it takes besides float32.
WHOLE = (np.dtype("i4"), np.dtype("i8"), np.dtype("?"))
# A first run with an image of this side, or with one box.
TRIAL_SIDE = 128
TRIAL = "import sys; from maskrcnn.backends.pplnn import trial; trial(sys.argv[1])"


# How memory is reused: name in tools/pplnn.py, and in the engine.
POLICIES = {"perf": "MM_MRU", "mem": "MM_COMPACT", "plain": "MM_PLAIN"}


@dataclass(frozen=True)
class X86Settings:
    """Of PPL.NN's x86 engine. policy: one of POLICIES, None for its own. False leaves out what it has."""

    policy: str | None = None
    avx512: bool = True
    avx_fma3: bool = True
    fusion: bool = True


class PplnnSession:
    """One graph on the CPU; calls from several threads wait for each other, as one runtime has one caller."""

    def __init__(self, path: Path, pyppl: "_Pyppl", engine: Any, builder: Any, runtime: Any) -> None:
        self.path = path
        self.pyppl = pyppl
        # A runtime does not keep alive what it was made of.
        self.owners = (engine, builder)
        self.runtime = runtime
        self.lock = Lock()

    def __call__(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by the names of the graph's inputs -> all its outputs by name."""
        with self.lock:
            for tensor in self.inputs():
                # Strides are ignored, and bytes and float16 refused.
                given = arrays[tensor.GetName()]
                array = np.ascontiguousarray(given, given.dtype if given.dtype in WHOLE else np.float32)
                self._check(tensor.ConvertFromHost(array), f"input {tensor.GetName()}")
            self._check(self.runtime.Run(), "a run")
            return {tensor.GetName(): self._array(tensor) for tensor in self.outputs()}

    def inputs(self) -> list[Any]:
        """The tensors that a run reads, in the order of the graph."""
        return [self.runtime.GetInputTensor(n) for n in range(self.runtime.GetInputCount())]

    def outputs(self) -> list[Any]:
        """The tensors that a run writes, in the order of the graph; their sides are known after it."""
        return [self.runtime.GetOutputTensor(n) for n in range(self.runtime.GetOutputCount())]

    def _array(self, tensor: Any) -> np.ndarray:
        dims = [int(side) for side in tensor.GetShape().GetDims()]
        if 0 in dims:
            return np.zeros(dims, np.float32)  # what the engine makes of no elements is no array
        host = tensor.ConvertToHost()
        if not host:
            raise _failed(self.path, f"output {tensor.GetName()} cannot be read")
        return np.asarray(host)

    def _check(self, code: int, what: str) -> None:
        self.pyppl.check(self.path, code, what)


class _Pyppl:
    """The two modules of the engine."""

    def __init__(self, nn: ModuleType, common: ModuleType) -> None:
        self.nn: Any = nn
        self.common: Any = common

    def check(self, path: Path, code: int, what: str) -> None:
        """Raise UserError unless a call returned success."""
        if code != self.common.RC_SUCCESS:
            words = self.common.GetRetCodeStr(code) if code in KNOWN_CODES else "unknown"
            raise _failed(path, f"{what}: {words}, code {code}")


def open_pplnn(path: str | Path, device: str = "auto", threads: int | None = None) -> "ForeignGraph":
    """Open an `.onnx` of another tool; our own detectors run here as `.parts`.

    Arguments as for `session`. Raises UserError for a whole graph of ours, and as `session` does.
    """
    from maskrcnn.backends.foreign_graph import Interface, open_foreign
    from maskrcnn.weights.unpasted_graph import without_pasting

    path = Path(path)
    spec = found_spec(path)
    if not is_foreign(spec):
        raise UserError(
            f"{path}: is one graph from image to objects, which PPL.NN does not run",
            hint="`maskrcnn export MODEL OUT.parts --opset 11` writes the three that it runs",
        )
    with without_pasting(path) as runnable:
        graph = session(runnable, device, threads, spec.precision if spec else "fp32", whole=True)
    interface = Interface(_shapes(graph.inputs()), _shapes(graph.outputs()))
    return open_foreign(path, spec, graph, interface, "PPL.NN, CPU")


def is_installed() -> bool:
    """Whether OpenPPL's `pyppl` is there, and not another program of that name."""
    try:
        _import_pyppl()
    except UserError:
        return False
    return True


def session(
    path: Path,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "fp32",
    guarded: bool = True,
    whole: bool = False,
    settings: X86Settings | None = None,
) -> PplnnSession:
    """Open one graph.

    device: `auto` or `cpu`. threads: OpenMP threads of the whole process, None to leave them.
    whole: it is a detector, and not one of the three of a `.parts` model.
    guarded: what is known to give wrong numbers or to end the process is refused, and the first run happens
        in a child process, so that no graph can end this one.
    settings: of the engine, None for its own.
    Raises UserError where `pyppl` is missing and for a graph that it cannot run.
    """
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: PPL.NN runs on the CPU here", hint="use --device cpu")
    if precision != "fp32":
        raise UserError(
            f"{path}: computes in {precision}, and PPL.NN on a CPU in fp32", hint="export the model in fp32"
        )
    pyppl = _import_pyppl()
    if guarded:
        check_graph(path, whole)
        _try_in_child(path)
    if threads is not None:
        _set_threads(threads)
    return _open(path, pyppl, settings or X86Settings())


def _import_pyppl() -> _Pyppl:
    try:
        from pyppl import common, nn  # type: ignore[import-not-found]
    except ImportError as error:
        raise _not_installed(str(error)) from error
    missing = [name for name in ("x86", "onnx") if not hasattr(nn, name)]
    if missing:
        raise _not_installed(f"its pyppl was built without {' and '.join(missing)}")
    return _Pyppl(nn, common)


def _open(path: Path, pyppl: _Pyppl, settings: X86Settings) -> PplnnSession:
    nn = pyppl.nn
    nn.SetLoggingLevel(pyppl.common.LOG_LEVEL_ERROR)
    engine = nn.x86.EngineFactory.Create(_options(nn, settings))
    if not engine:
        raise _failed(path, "no x86 engine on this machine")
    if not settings.fusion:
        pyppl.check(path, engine.Configure(nn.x86.ENGINE_CONF_GRAPH_FUSION, 0), "switching fusion off")
    builder = nn.onnx.RuntimeBuilderFactory.Create()
    if not builder:
        raise _failed(path, "no builder")
    pyppl.check(path, builder.LoadModelFromFile(str(path)), "loading")
    resources = nn.onnx.RuntimeBuilderResources()
    resources.engines = [engine]
    pyppl.check(path, builder.SetResources(resources), "setting the engine")
    pyppl.check(path, builder.Preprocess(), "preparing")
    runtime = builder.CreateRuntime()
    if not runtime:
        raise _failed(path, "no runtime")
    return PplnnSession(path, pyppl, engine, builder, runtime)


def _options(nn: Any, settings: X86Settings) -> Any:
    options = nn.x86.EngineOptions()
    if settings.policy is not None:
        options.mm_policy = getattr(nn.x86, POLICIES[settings.policy])
    if not settings.avx512:
        options.disable_avx512 = True
    if not settings.avx_fma3:
        options.disable_avx_fma3 = True
    return options


def _try_in_child(path: Path) -> None:
    """Several of the engine's kernels end the process on graphs that they do not expect."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    command = [sys.executable, "-c", TRIAL, str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, env=environment, timeout=TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(path, f"a first run took over {TRIAL_SECONDS} s") from error
    if done.returncode < 0:
        raise _failed(path, f"it ends the process by {signal.Signals(-done.returncode).name}")
    # What it refuses in words it says again here.


def trial(path: str) -> None:
    """Open a graph and run it once on zeros, an image of one size or one box."""
    opened = session(Path(path), guarded=False)
    arrays = {}
    for tensor in opened.inputs():
        dims = [int(side) for side in tensor.GetShape().GetDims()]
        arrays[tensor.GetName()] = np.zeros(_with_sides(dims), np.float32)
    opened(arrays)


def _with_sides(dims: Sequence[int]) -> list[int]:
    """Free dimensions are -1: the first is a count, the others are sides of an image."""
    return [side if side >= 0 else TRIAL_SIDE if place else 1 for place, side in enumerate(dims)]


def _shapes(tensors: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """By name, 0 for a side that may be any."""
    return {
        tensor.GetName(): tuple(max(int(side), 0) for side in tensor.GetShape().GetDims())
        for tensor in tensors
    }


def _set_threads(threads: int) -> None:
    """pyppl has no call for it; the library that counts threads is also torch's."""
    try:
        ctypes.CDLL("libgomp.so.1").omp_set_num_threads(threads)
    except OSError as error:
        raise UserError(
            f"--threads {threads}: libgomp.so.1, which counts PPL.NN's threads, cannot be loaded",
            hint=f"leave --threads out and set OMP_NUM_THREADS={threads}",
        ) from error


def _failed(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path}: PPL.NN cannot run it ({reason})",
        hint="export the model in opset 11, ours as .parts; its log is on stderr",
    )


def _not_installed(reason: str) -> UserError:
    return UserError(
        f"PPL.NN cannot be imported ({reason})",
        hint="build OpenPPL's pyppl from source with x86 and ONNX; pyppl on PyPI is another program",
    )
