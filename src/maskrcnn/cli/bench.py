"""`maskrcnn bench`: how fast models are, measured in turns."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskrcnn.cli.network import Offline
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.bench.timing import Measured, Report, Setting, Stage

# Rows that a person is shown; --json has all.
MOST_LAYERS = 15
GATES = ("fps", "speed")
MODELS = (
    "Model files, `example`, or zoo:NAME; after them the images: files, folders and patterns. Without "
    "images a synthetic picture is used."
)
BATCH = "Images that go through the network at once; 1,4 measures both."
THREADS = "CPU threads of the engine; 1,2 measures both."
STREAMS = "Runs that go on side by side, for throughput; 1,2 measures both."
END_TO_END = "From image files to pictures with objects drawn, and not the network alone."
AT_LEAST = "Exit with 1 if fps, or speed against the first model, is below the value, as fps=7.3. Repeatable."
METRIC = "Also print the lines that the test benches of IxRT look for."


@dataclass(frozen=True)
class _Limit:
    key: str
    value: float

    def failures(self, report: "Report") -> list[str]:
        """In words, of every model; the first is what `speed` compares with."""
        found = []
        for number, (label, each) in enumerate(zip(report.labels(), report.models, strict=True)):
            reached = each.fps if self.key == "fps" else report.speeds()[number].median
            if reached < self.value and (self.key == "fps" or number > 0):
                found.append(f"{self.key} of {label} is {reached:.3g}, less than {self.value:g}")
        return found


def bench(
    words: Annotated[list[str], typer.Argument(metavar="MODEL... [IMAGES...]", help=MODELS)],
    end_to_end: Annotated[bool, typer.Option("--end-to-end", help=END_TO_END)] = False,
    loop: Annotated[int, typer.Option(min=1, help="Timed runs of each model and stream.")] = 20,
    warm_up: Annotated[int, typer.Option(min=0, help="Runs before them that are not timed.")] = 3,
    batch: Annotated[str, typer.Option(metavar="N,...", help=BATCH)] = "1",
    threads: Annotated[str, typer.Option(metavar="N,...", help=THREADS)] = "",
    streams: Annotated[str, typer.Option(metavar="N,...", help=STREAMS)] = "1",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda and others of the engines.")] = "auto",
    engine: Annotated[str | None, typer.Option(help="Engine, where not that of the suffix.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show the slowest layers of each.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the times into this .png or .jpg.")] = None,
    at_least: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help=AT_LEAST)] = None,
    metric_result: Annotated[bool, typer.Option("--metric-result", help=METRIC)] = False,
    offline: Offline = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Measure latency, throughput, memory, start-up and stages of models, in turns and side by side."""
    import json

    from maskrcnn.bench.measure import measure
    from maskrcnn.bench.timing import Setting

    models, sources = divided(words)
    some = [_numbers("--batch", batch), _numbers("--threads", threads), _numbers("--streams", streams)]
    settings = [
        Setting(model, each or 1, several, side_by_side or 1, device, engine, end_to_end)
        for model in models
        for each, several, side_by_side in product(*(numbers or (None,) for numbers in some))
    ]
    limits = [_limit(text) for text in at_least or []]
    _refuse_what_cannot_work(settings, limits, layers, plot, metric_result, as_json)
    images = _images(sources, loop * max(each.batch * each.streams for each in settings))
    with _status() as tell:
        report = measure(settings, images, loop, warm_up, layers, tell)
    if len(report.failed) == len(settings) == 1:
        raise UserError(report.failed[0].message, hint=report.failed[0].hint)
    if report.models:
        if plot is not None:
            from maskrcnn.bench.plot import write_plot

            write_plot(report, plot)
        print(json.dumps(report.to_json()) if as_json else "\n".join(lines(report)))
        if metric_result:
            print("\n".join(metric_lines(report, limits)))
    _say_what_is_wrong(report, limits)


def divided(words: list[str]) -> tuple[list[str], list[str]]:
    """Models and images of a command line; the first word is a model in any case."""
    from maskrcnn.predict import CHECKPOINTS, ENGINES, EXAMPLE

    suffixes = {suffix for engine in ENGINES.values() for suffix in engine.suffixes} | set(CHECKPOINTS)

    def is_model(word: str) -> bool:
        return word == EXAMPLE or word.startswith("zoo:") or Path(word).suffix.lower() in suffixes

    models = [word for number, word in enumerate(words) if number == 0 or is_model(word)]
    return models, [word for word in words[1:] if not is_model(word)]


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        numbers = (0,)
    if any(number < 1 for number in numbers):
        raise UserError(f"{option} {text}: is no number from 1 on", hint=f"write it like {option} 1,2")
    return numbers


def _limit(text: str) -> _Limit:
    from math import isfinite

    key, _, value = text.partition("=")
    try:
        if not key or not isfinite(float(value)):
            raise ValueError
    except ValueError:
        raise UserError(f"--at-least {text}: is no KEY=VALUE", hint="write it like fps=7.3") from None
    if key not in GATES:
        raise UserError(f"--at-least {text}: there is no `{key}`", hint=f"choose from {', '.join(GATES)}")
    return _Limit(key, float(value))


def _refuse_what_cannot_work(
    settings: "list[Setting]",
    limits: list[_Limit],
    layers: bool,
    plot: Path | None,
    metric_result: bool,
    as_json: bool,
) -> None:
    """Before anything is measured."""
    if len(settings) == 1 and any(limit.key == "speed" for limit in limits):
        raise UserError("--at-least speed: compares with a first model", hint="name two models")
    if metric_result and (len(settings) > 1 or as_json):
        words = (
            "--json prints one document" if as_json else f"it tells one model, and there are {len(settings)}"
        )
        raise UserError(f"--metric-result: {words}", hint="run it by itself, with one model")
    if plot is not None:
        from maskrcnn.bench.plot import check_plot_name

        check_plot_name(plot)
    if layers:
        from maskrcnn.bench.layer_times import told_by

        for setting in settings:
            named = setting.model == "example" or setting.model.startswith("zoo:")
            path = Path(f"{setting.model}.safetensors" if named else setting.model)
            if named or path.exists():
                told_by(path, setting)


def _images(sources: list[str], most: int) -> list[Path]:
    """The files that the runs take in turn."""
    if not sources:
        return []
    from maskrcnn.images import find_images

    found = find_images(sources)
    if len(found) > most:
        print(f"note: {most} of {len(found)} images are used; --loop takes more", file=sys.stderr)
    return [image.path for image in found[:most]]


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """What is being done, on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda words: None
        return
    with console.status("") as status:
        yield status.update


def _say_what_is_wrong(report: "Report", limits: list[_Limit]) -> None:
    """Notes, failures and figures below a limit on stderr; ends the program with 1 or 2 if there are any."""
    if report.machine.busy:
        print(
            f"note: other programs keep this machine busy (load {report.machine.load:.1f} on "
            f"{report.machine.cores} cores): trust CPU times and speeds more than the wall's",
            file=sys.stderr,
        )
    if not report.images and report.models:
        print(
            "note: a synthetic picture has few objects; name photographs to measure a model's whole work",
            file=sys.stderr,
        )
    for failure in report.failed:
        print(f"error: {failure.message}", file=sys.stderr)
    if report.failed:
        total = len(report.failed) + len(report.models)
        print(f"hint: {len(report.failed)} of {total} models were left out", file=sys.stderr)
    below = [words for limit in limits for words in limit.failures(report)]
    for words in below:
        print(f"below: {words}", file=sys.stderr)
    if report.failed or below:
        raise typer.Exit(1 if report.models else 2)


def metric_lines(report: "Report", limits: list[_Limit]) -> list[str]:
    """As the performance test of IxRT's samples prints them."""
    fps = report.models[0].fps
    rows = [str({"metricResult": {"FPS": round(fps, 3)}}), "", f"FPS :  {fps:.3f}"]
    for limit in limits:
        rows += [f"Performance Check : Test {fps:.3f} >= target {limit.value:g}"]
        rows += ["pass!" if fps >= limit.value else "failed!"]
    return rows


def lines(report: "Report") -> list[str]:
    """The report for a person: circumstances, the models side by side, stages, layers."""
    rows = [f"{'machine':<10}{report.machine.words()}", f"{'versions':<10}{_versions(report)}"]
    rows += [f"{'input':<10}{_input(report)}", f"{'measured':<10}{_method(report)}", "", *_models(report)]
    if any(len(each.stages()) > 1 for each in report.models):
        rows += ["", *_stages(report)]
    for label, each in zip(report.labels(), report.models, strict=True):
        if each.layers:
            rows += ["", *_layers(label, each)]
    return rows


def _versions(report: "Report") -> str:
    found: dict[str, str] = {}
    for each in report.models:
        found |= each.opened.versions
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _input(report: "Report") -> str:
    if not report.images:
        height, width = report.sizes[0]
        return f"a synthetic picture of {height} x {width} pixels"
    sizes = sorted(set(report.sizes))
    shown = [f"{height} x {width}" for height, width in sizes]
    of = shown[0] if len(shown) == 1 else f"{shown[0]} to {shown[-1]}"
    return f"{len(report.images)} image{'s' * (len(report.images) != 1)} of {of} pixels"


def _method(report: "Report") -> str:
    first = report.models[0].setting
    what = "from image file to picture" if first.end_to_end else "the network alone"
    rounds = len(report.models[0].rounds)
    turns = " in turn" if len(report.models) > 1 else ""
    return f"{what}, {report.loop} runs in {rounds} rounds{turns} after {report.warm_up} for warming up"


def _models(report: "Report") -> list[str]:
    """A row a model. Latencies are of a run, CPU time is of an image."""
    several = len(report.models) > 1
    head = ["", "p50 ms", "p90", "p99", "min", "mean", "images/s", "CPU ms", "memory", "start-up", "objects"]
    rows = [[*head, "speed" if several else ""]]
    for label, each, speed in zip(report.labels(), report.models, report.speeds(), strict=True):
        found = each.latency()
        times = [number(value) for value in (found.p50, found.p90, found.p99, found.min, found.mean)]
        memory = "n/a" if each.memory is None else f"{each.memory / 1e6:.0f} MB"
        startup = f"{each.opened.start + each.opened.first:.1f} s"
        row = [
            label,
            *times,
            number(each.fps),
            number(each.cpu_ms()),
            memory,
            startup,
            number(each.detections),
        ]
        low, high, cpu = (number(value) for value in (speed.low, speed.high, speed.cpu))
        spread = f"{number(speed.median)} ({low} to {high}), by CPU time {cpu}"
        rows.append([*row, ("1" if each is report.models[0] else spread) if several else ""])
    return table(rows)


def _stages(report: "Report") -> list[str]:
    """A row a stage, a column a model; what is indented is part of the stage above, and was timed apart."""
    stages = [{stage.name: stage for stage in each.stages()} for each in report.models]
    names: list[str] = []
    for name in ("decode", "resize", "network", "masks", "draw"):
        of_it = [part for each in stages for part in each if part == name or part.startswith(f"{name}.")]
        names += dict.fromkeys(of_it)
    rows = [["ms of a stage", *report.labels()]]
    for name in names:
        row = [f"  {name.partition('.')[2]}" if "." in name else name]
        for each in stages:
            stage = each.get(name)
            row.append(_stage(stage) if stage else "-")
        rows.append(row)
    return table(rows)


def _stage(stage: "Stage") -> str:
    cpu = "" if stage.cpu is None else f"{number(stage.cpu)} CPU"
    share = "" if stage.share is None else f"{100 * stage.share:.1f} %"
    told = ", ".join(part for part in (cpu, share) if part)
    return f"{number(stage.wall)} ({told})" if told else number(stage.wall)


def _layers(label: str, measured: "Measured") -> list[str]:
    found = measured.layers
    total = sum(layer.milliseconds for layer in found)
    rows = [["ms", "share", "calls", f"the slowest of {len(found)} layers of {label}", "kind"]]
    for layer in found[:MOST_LAYERS]:
        share = f"{100 * layer.milliseconds / total:.1f} %" if total else ""
        rows.append([number(layer.milliseconds), share, str(layer.calls), layer.name, layer.kind])
    return table(rows)


def number(value: float) -> str:
    """Three digits, as `0.123`, `1.23`, `12.3`, `123`, `1234`."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"


def table(rows: list[list[str]]) -> list[str]:
    """Columns two spaces apart; numbers stand to the right, the first row is a heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    numeric = [all(row[column][:1] in "0123456789-n" for row in rows[1:]) for column in range(len(widths))]
    return [
        "  ".join(
            f"{text:>{width}}" if right else f"{text:<{width}}"
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]
