"""Times one model in a process of its own, so that its memory and start-up are its own.

`python -m maskrcnn.bench.stopwatch` answers each line of JSON on standard input with one on standard output.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from typing import IO, TYPE_CHECKING, Any

from maskrcnn.bench.machine import imported_versions, peak_memory
from maskrcnn.bench.timing import Layer, Round, Run, Setting
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from maskrcnn.detections import Raw
    from maskrcnn.predict import Backend, Predictor

Work = Callable[["Stopwatch"], object]
# A picture of a model's own size that is as wide as most photographs.
WIDE = 1.5
SUFFIX_OF_OPENVINO = ".xml"
DRAWN = 0.5  # score from which `maskrcnn predict` draws
# Where a backend computes a part of its network, and the part's name. What a backend lacks is not told.
PARTS_OF_NETWORK = {
    "model.features": "features",
    "model.propose": "proposals",
    "model.detect": "boxes",
    "model.segment": "masks",
    "graphs.dense": "dense",
    "proposer": "proposals",
    "pool": "pooling",
    "graphs.box_head": "box_head",
    "graphs.mask_head": "mask_head",
}


class Stopwatch:
    """Adds up milliseconds by name: of the wall, and of all threads of the process."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        wall, cpu = perf_counter(), process_time()
        yield
        self.cpu[name] = self.cpu.get(name, 0) + 1000 * (process_time() - cpu)
        self.wall[name] = self.wall.get(name, 0) + 1000 * (perf_counter() - wall)


class Trial:
    """One model and its images, and how long it takes for them."""

    def __init__(self, setting: Setting, path: Path) -> None:
        start = perf_counter()
        self.setting, self.path = setting, path
        _import_engine(path, setting.engine)
        self.imports = perf_counter() - start
        self.predictor = _open(path, setting)
        self.opening = perf_counter() - start - self.imports
        self.pictures: list[bytes] = []
        self.found: list[int] = []
        self.turn = 0

    def size(self) -> tuple[int, int]:
        """(height, width) of a picture that this model does not resize."""
        rule = self.predictor.spec.preprocess
        if rule.resize == "shortest_edge":
            return rule.short, min(round(WIDE * rule.short), rule.long)
        return rule.short, rule.long

    def first(self, paths: Sequence[str]) -> float:
        """Seconds of the first run on these image files, which are held in memory from here on."""
        self.pictures = [Path(path).read_bytes() for path in paths]
        stopwatch = Stopwatch()
        self._work(0)(stopwatch)
        return sum(stopwatch.wall.values()) / 1000

    def round(self, count: int) -> Round:
        """So many runs of each stream, side by side if there are several, after an untimed one of each."""
        count *= self.setting.streams
        works = [self._work(self.turn + number) for number in range(count)]
        self.turn += count
        if self.setting.streams > 1:
            return self._side_by_side(works)
        works[0](Stopwatch())
        self.found.clear()
        runs = tuple(_timed_alone(work) for work in works)
        cpu = sum(sum(run.cpu.values()) for run in runs)
        return Round(sum(run.milliseconds for run in runs) / 1000, cpu / 1000, runs, sum(self.found))

    def parts(self, count: int) -> list[Run]:
        """So many runs by the parts of the network, as far as its engine tells them; else none."""
        runs = []
        for turn in range(count):
            image, size = self._input(self._decoded(turn))
            stopwatch = Stopwatch()
            with _timed_parts(self.predictor.backend, stopwatch):
                self.predictor.backend.run(image, size)
            if stopwatch.wall:
                runs.append(Run(stopwatch.wall, stopwatch.cpu))
        return runs

    def layers(self, count: int) -> list[Layer]:
        """The layers of the network, slowest first, by the median of so many runs."""
        from maskrcnn.bench.layer_times import layer_times

        image, size = self._input(self._decoded(0))
        return layer_times(self.path, self.predictor.backend, self.setting, (image, size), count)

    def _side_by_side(self, works: Sequence[Work]) -> Round:
        def timed(work: Work) -> Run:
            return Run(_timed_alone(work).wall, {})

        with ThreadPoolExecutor(self.setting.streams) as pool:
            list(pool.map(timed, works[: self.setting.streams]))
            self.found.clear()
            cpu, start = process_time(), perf_counter()
            runs = tuple(pool.map(timed, works))
            return Round(perf_counter() - start, process_time() - cpu, runs, sum(self.found))

    def _work(self, turn: int) -> Work:
        """One run; what it passes to the stopwatch is timed. Inputs of runs side by side are made before."""
        if self.setting.end_to_end:
            return lambda stopwatch: self._end_to_end(turn, stopwatch)
        if self.setting.streams == 1:
            return lambda stopwatch: self._network(*self._input(self._decoded(turn)), stopwatch)
        made = self._input(self._decoded(turn))
        return lambda stopwatch: self._network(*made, stopwatch)

    def _network(self, image: "np.ndarray", size: "np.ndarray", stopwatch: Stopwatch) -> "Raw":
        with stopwatch("network"):
            raw = self.predictor.backend.run(image, size)
        self.found.append(int((raw.scores > 0).sum()))
        return raw

    def _end_to_end(self, turn: int, stopwatch: Stopwatch) -> None:
        """From the bytes of image files to pictures with objects drawn, as `maskrcnn predict` does it."""
        from maskrcnn.detections import Detections
        from maskrcnn.drawing import draw
        from maskrcnn.preprocess import batch

        spec = self.predictor.spec
        with stopwatch("decode"):
            images = self._decoded(turn)
        with stopwatch("resize"):
            prepared = [self.predictor.prepare(image) for image in images]
            image, size = batch([each.planes for each in prepared], spec.preprocess)
        raw = self._network(image, size, stopwatch)
        with stopwatch("masks"):
            found = [Detections.from_raw(raw, row, each.geometry, spec) for row, each in enumerate(prepared)]
            for detections in found:
                detections.rles()
        with stopwatch("draw"):
            for picture, detections in zip(images, found, strict=True):
                draw(picture, detections.above(DRAWN))

    def _decoded(self, turn: int) -> "list[np.ndarray]":
        from maskrcnn.images import decode

        batch = self.setting.batch
        numbers = range(turn * batch, (turn + 1) * batch)
        return [decode(self.pictures[number % len(self.pictures)], "a picture") for number in numbers]

    def _input(self, images: "Sequence[np.ndarray]") -> "tuple[np.ndarray, np.ndarray]":
        from maskrcnn.preprocess import batch

        planes = [self.predictor.prepare(image).planes for image in images]
        return batch(planes, self.predictor.spec.preprocess)


def _timed_alone(work: Work) -> Run:
    stopwatch = Stopwatch()
    work(stopwatch)
    return Run(stopwatch.wall, stopwatch.cpu)


def _import_engine(path: Path, engine: str | None) -> None:
    """Before the model is opened, so that both can be timed; what is missing is told by opening it."""
    from maskrcnn.predict import ENGINES, PARTS

    chosen = engine or next(
        (name for name, each in ENGINES.items() if path.suffix.lower() in each.suffixes), ""
    )
    with suppress(ImportError):
        if path.suffix.lower() == PARTS:
            import_module("maskrcnn.backends.parts")
        elif chosen in ENGINES:
            import_module(ENGINES[chosen].module)


def _open(path: Path, setting: Setting) -> "Predictor":
    """OpenVINO divides its threads among as many streams; other engines just run in several threads."""
    from maskrcnn.predict import Predictor, open_model

    if setting.streams > 1 and (setting.engine or SUFFIX_OF_OPENVINO) in ("openvino", path.suffix.lower()):
        from maskrcnn.backends.openvino_runtime import open_openvino

        return Predictor(open_openvino(path, setting.device, setting.threads, setting.streams), setting.batch)
    return open_model(path, setting.device, setting.batch, setting.threads, setting.engine)


@contextmanager
def _timed_parts(backend: "Backend", stopwatch: Stopwatch) -> Iterator[None]:
    """Let the parts of a network be timed while it runs, where all of it happens on the CPU."""
    with ExitStack() as stack:
        # Another device works on after the call has returned.
        on_cpu = str(getattr(backend, "device", "cpu")) == "cpu"
        for place, part in PARTS_OF_NETWORK.items() if on_cpu else ():
            inside, _, name = place.rpartition(".")
            owner = getattr(backend, inside, None) if inside else backend
            if hasattr(owner, name):
                timed = _timed(getattr(owner, name), stopwatch, f"network.{part}")
                stack.enter_context(_in_place_of(owner, name, timed))
        yield


@contextmanager
def _in_place_of(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another attribute of one object, even of one that does not change."""
    before = vars(owner).get(name)
    object.__setattr__(owner, name, value)
    try:
        yield
    finally:
        if before is None:
            object.__delattr__(owner, name)
        else:
            object.__setattr__(owner, name, before)


def _timed(function: Callable[..., Any], stopwatch: Stopwatch, name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        with stopwatch(name):
            return function(*arguments, **named)

    return call


def answer(requests: Iterable[str], replies: IO[str]) -> None:
    """Do what each line asks for, `{"open": ...}` first. A reply has `done`, or `error` and `hint`."""
    empty = peak_memory()
    trial: Trial | None = None

    def opened(values: dict[str, Any]) -> dict[str, Any]:
        nonlocal trial
        trial = Trial(Setting(**values["setting"]), Path(values["path"]))
        times = {"imports": trial.imports, "opening": trial.opening}
        return {**times, "versions": imported_versions(), "size": trial.size()}

    for line in requests:
        ((verb, values),) = json.loads(line).items()
        try:
            if verb == "open":
                done: Any = opened(values)
            elif verb == "memory":
                peak = peak_memory()
                done = None if peak is None or empty is None else peak - empty
            else:
                done = getattr(trial, verb)(values)
            reply = {"done": done}
        except Exception as error:  # every engine has its own
            reply = _told(error)
        replies.write(json.dumps(reply, default=asdict) + "\n")
        replies.flush()


def _told(error: Exception) -> dict[str, str]:
    if os.environ.get("MASKRCNN_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, UserError):
        return {"error": error.message, "hint": error.hint}
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return {"error": "out of memory", "hint": "use a smaller --batch, or smaller images"}
    reason = (str(error).strip().splitlines() or [""])[0]
    return {
        "error": f"it failed with {type(error).__name__}: {reason}",
        "hint": "MASKRCNN_DEBUG=1 shows where",
    }


def main() -> None:
    """Answer until standard input ends; what engines print goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's interrupt the asking process knows
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer(sys.stdin, replies)


if __name__ == "__main__":
    main()
