"""What is measured of a model's speed, and the figures that are made of it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from maskrcnn.bench.machine import Machine

# In the order of their work; the network's own parts are told as `network.masks` and so on.
STAGES = ("decode", "resize", "network", "masks", "draw")


@dataclass(frozen=True)
class Setting:
    """One model as it is measured.

    batch: images a run. threads: CPU threads of the engine, None for its own choice. streams: runs side by
    side. device, engine: as `open_model` takes them; engine None for the one of the file's suffix.
    end_to_end: from the bytes of image files to pictures, and not the network alone.
    """

    model: str
    batch: int = 1
    threads: int | None = None
    streams: int = 1
    device: str = "auto"
    engine: str | None = None
    end_to_end: bool = False


@dataclass(frozen=True)
class Run:
    """Milliseconds of one run by stage. cpu: of all threads of the process; {} when runs overlap."""

    wall: dict[str, float]
    cpu: dict[str, float]

    @property
    def milliseconds(self) -> float:
        """Of the whole run."""
        return sum(self.wall.values())


@dataclass(frozen=True)
class Round:
    """Some runs of one model. seconds: from the first one's start to the last one's end. cpu: those of all
    threads. found: objects in all their images.
    """

    seconds: float
    cpu: float
    runs: tuple[Run, ...]
    found: int = 0


@dataclass(frozen=True)
class Opened:
    """Seconds until a model answers, in a process of its own.

    start: of Python, importing the engine and reading the model. first: of the first run.
    imports: those of `start` for importing, opening: for reading the model and compiling it.
    versions: of what was imported.
    """

    start: float
    imports: float
    opening: float
    first: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Layer:
    """One layer of a network. milliseconds: of one run, the median of several. calls: a run."""

    name: str
    kind: str
    milliseconds: float
    calls: int = 1


@dataclass(frozen=True)
class Latency:
    """Milliseconds a run."""

    min: float
    p50: float
    p90: float
    p99: float
    mean: float


@dataclass(frozen=True)
class Stage:
    """Medians of one stage in milliseconds a run. cpu: None when runs overlap. share: of the whole wall time,
    None for a part of another stage.
    """

    name: str
    wall: float
    cpu: float | None
    share: float | None


@dataclass(frozen=True)
class Speed:
    """How many times as fast as the first model: the median over the rounds, the slowest and the fastest."""

    median: float
    low: float
    high: float
    cpu: float


@dataclass(frozen=True)
class Measured:
    """All that was measured of one model.

    parts: runs whose stages are parts of the network; they were timed apart. memory: bytes at most, above
    those of an empty Python; None where the system does not tell.
    """

    setting: Setting
    opened: Opened
    rounds: tuple[Round, ...]
    parts: tuple[Run, ...] = ()
    memory: int | None = None
    layers: tuple[Layer, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """Those of all rounds."""
        return [run for each in self.rounds for run in each.runs]

    @property
    def fps(self) -> float:
        """Images a second over all rounds."""
        return self.setting.batch * len(self.runs) / sum(each.seconds for each in self.rounds)

    @property
    def detections(self) -> float:
        """Objects that it finds in an image, on average."""
        return sum(each.found for each in self.rounds) / (self.setting.batch * len(self.runs))

    def latency(self) -> Latency:
        """Of the runs."""
        times = sorted(run.milliseconds for run in self.runs)
        p50, p90, p99 = (percentile(times, share) for share in (0.5, 0.9, 0.99))
        return Latency(times[0], p50, p90, p99, fmean(times))

    def cpu_ms(self) -> float:
        """Milliseconds of all threads an image, in the round that took least: other programs only add."""
        return min(1000 * each.cpu / len(each.runs) for each in self.rounds) / self.setting.batch

    def stages(self) -> list[Stage]:
        """In the order of their work, the network's parts after it."""
        whole = self.latency().mean
        found = []
        for name in self.runs[0].wall:
            walls = [run.wall[name] for run in self.runs]
            found.append(Stage(name, median(walls), _median_cpu(self.runs, name), fmean(walls) / whole))
            if name == "network" and self.parts:
                found += [
                    Stage(
                        part,
                        median(run.wall[part] for run in self.parts),
                        _median_cpu(self.parts, part),
                        None,
                    )
                    for part in self.parts[0].wall
                ]
        return found

    def speed(self, first: "Measured") -> Speed:
        """Against another model that was measured in the same rounds."""
        ratios = sorted(
            _images(self, mine) / mine.seconds * theirs.seconds / _images(first, theirs)
            for mine, theirs in zip(self.rounds, first.rounds, strict=True)
        )
        cpu = first.cpu_ms() / self.cpu_ms() if self.cpu_ms() else float("nan")
        return Speed(median(ratios), ratios[0], ratios[-1], cpu)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of values in ascending order; between two of them in proportion, as numpy does it."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _images(measured: Measured, part: Round) -> int:
    return measured.setting.batch * len(part.runs)


def _median_cpu(runs: Sequence[Run], stage: str) -> float | None:
    times = [run.cpu[stage] for run in runs if stage in run.cpu]
    return median(times) if times else None


@dataclass(frozen=True)
class Failure:
    """A model that could not be measured, and why."""

    setting: Setting
    message: str
    hint: str


@dataclass(frozen=True)
class Report:
    """All models of one measurement, in which they took turns.

    images: names of the files; () for a synthetic picture. sizes: (height, width) of each image, or of that
    picture. loop: timed runs of each model and stream. warm_up: runs before them.
    """

    machine: Machine
    images: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    loop: int
    warm_up: int
    models: tuple[Measured, ...]
    failed: tuple[Failure, ...] = ()

    def labels(self) -> list[str]:
        """Of each model: its name, and those settings in which the models differ."""
        return labels([each.setting for each in self.models])

    def speeds(self) -> list[Speed]:
        """Of each model against the first."""
        return [each.speed(self.models[0]) for each in self.models]

    def to_json(self) -> dict[str, Any]:
        """Plain values of everything; milliseconds a run, bytes, seconds of start-up."""
        models = [
            {
                "label": label,
                **asdict(each.setting),
                "fps": each.fps,
                "latency_ms": asdict(each.latency()),
                "cpu_ms": each.cpu_ms(),
                "speed": asdict(speed),
                "memory": each.memory,
                "startup_s": asdict(each.opened),
                "detections": each.detections,
                "stages": [asdict(stage) for stage in each.stages()],
                "layers": [asdict(layer) for layer in each.layers],
                "runs_ms": [[run.milliseconds for run in part.runs] for part in each.rounds],
            }
            for label, each, speed in zip(self.labels(), self.models, self.speeds(), strict=True)
        ]
        return {
            "machine": asdict(self.machine),
            "images": list(self.images),
            "sizes": [list(size) for size in self.sizes],
            "loop": self.loop,
            "warm_up": self.warm_up,
            "models": models,
            "failed": [asdict(each) for each in self.failed],
        }


def labels(settings: Sequence[Setting]) -> list[str]:
    """Of each its model's name, and what of batch, threads and streams differs among them."""
    words: list[tuple[str, Callable[[Setting], object]]] = [
        ("batch", lambda each: each.batch),
        ("threads", lambda each: each.threads),
        ("streams", lambda each: each.streams),
    ]
    differing = [(word, value) for word, value in words if len(set(map(value, settings))) > 1]
    return [
        ", ".join([each.model, *(f"{word} {value(each)}" for word, value in differing)]) for each in settings
    ]
