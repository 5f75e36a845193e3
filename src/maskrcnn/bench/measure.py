"""Measures the speed of models in turns, each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import IO, Any

from maskrcnn.bench.machine import this_machine
from maskrcnn.bench.timing import Failure, Layer, Measured, Opened, Report, Round, Run, Setting
from maskrcnn.errors import UserError

# The runs of a model are spread over so many rounds: a slow moment of the machine then meets every model.
ROUNDS = 5
PART_RUNS = 5  # in which the parts of the network are timed, and its layers
QUALITY = 90  # of the JPEG that a synthetic picture is decoded from


def _to_nobody(words: str) -> None:
    pass


def measure(
    settings: Sequence[Setting],
    images: Sequence[Path] = (),
    loop: int = 20,
    warm_up: int = 3,
    layers: bool = False,
    tell: Callable[[str], None] = _to_nobody,
) -> Report:
    """Time `loop` runs of each model after `warm_up` others, in up to five rounds in which they take turns.
    With streams it is so many runs of each stream.

    images: files, used in turn; () for a synthetic picture of the first model's size. layers: time the
    network's layers as well. tell: is called with a few words before each step.
    A model that fails is in `failed`, and the others are measured. Raises UserError for an image that cannot
    be read.
    """
    sizes = [_size(path) for path in images]
    machine = this_machine()
    failed: list[Failure] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="maskrcnn-bench-")))
        said = [stack.enter_context(open(folder / str(number), "w+b")) for number in range(len(settings))]
        entrants = [_Entrant(setting, stack, file) for setting, file in zip(settings, said, strict=True)]
        entrants = _still_in(entrants, failed, _Entrant.open, "open", tell)
        paths = list(images)
        if not images and entrants:
            sizes, paths = [entrants[0].size], [folder / "synthetic.jpg"]
            paths[0].write_bytes(synthetic_picture(sizes[0]))
        entrants = _still_in(entrants, failed, lambda each: each.first(paths), "first run", tell)
        if warm_up:
            entrants = _still_in(entrants, failed, lambda each: each.round(warm_up), "warm-up", tell)
        for each in entrants:
            each.rounds.clear()
        rounds = min(ROUNDS, loop)
        for number in range(rounds):
            runs = loop // rounds + (number < loop % rounds)
            step = f"round {number + 1} of {rounds}"
            # Every other round backwards: who follows whom should not matter.
            order = entrants[:: -1 if number % 2 else 1]
            left = _still_in(order, failed, partial(_Entrant.round, count=runs), step, tell)
            entrants = [each for each in entrants if each in left]
        entrants = _still_in(entrants, failed, lambda each: each.finish(layers), "parts", tell)
        models = tuple(each.measured() for each in entrants)
    return Report(machine, tuple(map(str, images)), tuple(sizes), loop, warm_up, models, tuple(failed))


def synthetic_picture(size: tuple[int, int]) -> bytes:
    """A JPEG of (height, width) with structure at every scale, its power falling as in photographs."""
    import cv2
    import numpy as np

    height, width = size
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    noise = np.random.default_rng(0).standard_normal((3, height, width))
    planes = np.fft.ifft2(np.fft.fft2(noise) / np.hypot(rows, columns).clip(1 / max(size))).real
    planes /= planes.std((1, 2), keepdims=True)
    picture = (planes.transpose(1, 2, 0) * 50 + 118).clip(0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


@dataclass(eq=False)
class _Entrant:
    """One model in its process, and what is known of it so far. said: a file for what its engine prints."""

    setting: Setting
    stack: ExitStack
    said: IO[bytes]
    rounds: list[Round] = field(default_factory=list)
    parts: tuple[Run, ...] = ()
    layers: tuple[Layer, ...] = ()
    memory: int | None = None

    def open(self) -> None:
        """Start its process and open the model there."""
        from maskrcnn.predict import file_for

        path = file_for(self.setting.model, self.setting.engine)
        start = perf_counter()
        self.child = self.stack.enter_context(_Child(self.setting.model, self.said))
        done = self.child.ask("open", {"setting": asdict(self.setting), "path": os.fsdecode(path)})
        self.size: tuple[int, int] = tuple(done["size"])
        seconds = perf_counter() - start
        self.opened = Opened(seconds, done["imports"], done["opening"], 0.0, done["versions"])

    def first(self, paths: Sequence[Path]) -> None:
        """The first run, on what are its images from here on."""
        seconds = self.child.ask("first", [os.fsdecode(path) for path in paths])
        self.opened = replace(self.opened, first=seconds)

    def round(self, count: int) -> None:
        """So many runs."""
        done = self.child.ask("round", count)
        runs = tuple(Run(**run) for run in done.pop("runs"))
        self.rounds.append(Round(**done, runs=runs))

    def finish(self, layers: bool) -> None:
        """What would change the figures if it were done before."""
        self.memory = self.child.ask("memory", None)
        self.parts = tuple(Run(**run) for run in self.child.ask("parts", PART_RUNS))
        if layers:
            self.layers = tuple(Layer(**layer) for layer in self.child.ask("layers", PART_RUNS))
        self.child.close()

    def measured(self) -> Measured:
        """All of it."""
        return Measured(self.setting, self.opened, tuple(self.rounds), self.parts, self.memory, self.layers)


def _still_in(
    entrants: Iterable[_Entrant],
    failed: list[Failure],
    step: Callable[[_Entrant], None],
    words: str,
    tell: Callable[[str], None],
) -> list[_Entrant]:
    """Those that a step went well for; the others are added to `failed`."""
    left = []
    for entrant in entrants:
        tell(f"{words}: {entrant.setting.model}")
        try:
            step(entrant)
            left.append(entrant)
        except UserError as error:
            failed.append(Failure(entrant.setting, error.message, error.hint))
    return left


class _Child:
    """A process that answers as `maskrcnn.bench.stopwatch` does; it ends when its context is left.

    model: its name in errors. said: a file for what engines print.
    """

    def __init__(self, model: str, said: IO[bytes]) -> None:
        self.model, self.said = model, said
        # -P: a file of the working folder must not be taken for a module.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "maskrcnn.bench.stopwatch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("MASKRCNN_DEBUG") else said,
            text=True,
        )

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, verb: str, values: Any) -> Any:
        """The answer to {verb: values}. Raises UserError for a refusal, and if the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        line = ""
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({verb: values}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line:
            raise self._died()
        reply = json.loads(line)
        if "error" in reply:
            message = reply["error"]
            named = message if self.model in message else f"{self.model}: {message}"
            raise UserError(named, hint=reply["hint"])
        return reply["done"]

    def close(self) -> None:
        """End the process, which has nothing to save, and free its memory for the others."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self.process.wait()

    def _died(self) -> UserError:
        code = self.process.wait()
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        self.said.seek(0)
        last = (self.said.read().decode(errors="replace").strip().splitlines() or [""])[-1]
        words = f" ({last})" if last else ""
        hint = "is there enough memory?" if code == -signal.SIGKILL else "MASKRCNN_DEBUG=1 shows all it said"
        return UserError(f"{self.model}: the engine's process ended with {how}{words}", hint=hint)


def _size(path: Path) -> tuple[int, int]:
    from maskrcnn.images import read_image

    height, width = read_image(path).shape[:2]
    return height, width
