"""`maskrcnn eval`: COCO average precision of a model, or of the results list of any program."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from maskrcnn.cli.engine import Engine
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.evaluation.ground_truth import GroundTruth
    from maskrcnn.evaluation.metrics import KindMetrics, Metrics
    from maskrcnn.evaluation.result_list import ResultList
    from maskrcnn.team import Team

Item = dict[str, Any]
KINDS = {"bbox": "boxes", "segm": "masks"}
# Up to so many classes the confusion matrix is printed, beyond that so many of its largest numbers.
WIDEST_MATRIX = 12
MOST_CONFUSIONS = 10
# COCOeval's precision of 1 is 1 - 2.2e-16.
ROUNDING = 1e-9
# Between two lines of progress where stderr is no terminal.
SECONDS = 30

MODEL = "Model file, or `example`; left out where --detections is given."
ANNOTATIONS = "COCO annotation file; it and what follows may be URLs of a store, as s3://bucket/val.json."
IMAGES = "Folder that the annotations' file names start from."
DETECTIONS = "COCO results list to score instead of a model's, of any program."
AT_LEAST = "Exit with 1 if this number of --json is below the value, as segm/AP=0.34. Repeatable."
MOST = "Detections of an image and class that count, best first; more than COCO's 100 for crowded images."
SCORE = "Score of precision, recall, F1 and confusion."
FLIP = "Predict the mirrored image as well, and merge what both views find."
SCALES = "Predict each image at these short sides, as 640,800, and merge what all views find."
TILES = "Predict large images in overlapping tiles of this side, as 640 or 640,0.2, and join what they cut."
METRIC = "Also print the lines that the test benches of IxRT look for."
MASK_AREAS = (
    "A mask is small, medium or large by its own area, as in detectron2 and mmdetection, and not by its "
    "box's as in pycocotools."
)


def evaluate(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL, show_default=False)] = None,
    annotations: Annotated[str | None, typer.Option(metavar="PATH", help=ANNOTATIONS)] = None,
    images: Annotated[str | None, typer.Option(metavar="PATH", help=IMAGES)] = None,
    detections: Annotated[str | None, typer.Option(metavar="PATH", help=DETECTIONS)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    at_least: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help=AT_LEAST)] = None,
    metric_result: Annotated[bool, typer.Option("--metric-result", help=METRIC)] = False,
    max_detections: Annotated[int, typer.Option(min=100, help=MOST)] = 100,
    score: Annotated[float, typer.Option(min=0, max=1, help=SCORE)] = 0.5,
    mask_areas: Annotated[bool, typer.Option("--mask-areas", help=MASK_AREAS)] = False,
    save: Annotated[
        str | None, typer.Option(metavar="PATH", help="Write the model's COCO results list here.")
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help=FLIP)] = False,
    scales: Annotated[str, typer.Option(metavar="PIXELS,...", help=SCALES)] = "",
    tiles: Annotated[str | None, typer.Option(metavar="SIDE[,OVERLAP]", help=TILES)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda and others of the engine.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Images that go through the network at once.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the network.")] = None,
    engine: Engine = None,
) -> None:
    """Measure average precision, precision and recall, and which class is taken for which."""
    from time import perf_counter

    from maskrcnn.cli.together import together

    with together(device) as team:
        limits = [limit_of(text, max_detections) for text in at_least or []]
        if metric_result and as_json:
            raise UserError("--metric-result: --json prints one document", hint="use one of the two")
        _refuse_what_cannot_work(model, images, annotations, detections, save)
        assert annotations is not None
        from maskrcnn.evaluation import coco_metrics
        from maskrcnn.evaluation.ground_truth import read_ground_truth
        from maskrcnn.evaluation.result_list import read_results
        from maskrcnn.storage import fetched_path, is_url

        truth, seconds = read_ground_truth(fetched_path(annotations, _say)), None
        if detections is None:
            folder = fetched_path(images or "", _say)
            named = str(fetched_path(model, _say)) if model and is_url(model) else str(model)
            run = _Run(named, device, batch, threads, engine, flip, _sides(scales), tiles, max_detections)
            start = perf_counter()
            results = _predicted(run, folder, truth, save, team)
            seconds = perf_counter() - start
        elif team.place.is_first:
            results = read_results(fetched_path(detections, _say), truth)
        if team.place.is_first:
            options = max_detections, score, mask_areas
            metrics = coco_metrics.evaluate(truth, results, ("bbox", "segm"), *options)
            extra = metric_lines(metrics, limits, seconds) if metric_result else []
            tell(metrics, limits, as_json, extra)


def tell(
    metrics: "Metrics", limits: "Sequence[Limit]", as_json: bool = False, extra: Sequence[str] = ()
) -> None:
    """Print the measurement and further lines. Ends the program with 1 if a number is below its limit."""
    import json

    print(json.dumps(metrics.to_json()) if as_json else "\n".join([*lines(metrics), *extra]))
    for note in metrics.notes:
        print(f"note: {note}", file=sys.stderr)
    known = metrics.numbers()
    failed = [words for limit in limits if (words := limit.failure(known))]
    for words in failed:
        print(f"below: {words}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _refuse_what_cannot_work(
    model: str | None,
    images: str | None,
    annotations: str | None,
    detections: str | None,
    save: str | None,
) -> None:
    if annotations is None:
        raise UserError("--annotations is missing", hint="name the COCO annotation file with the truth")
    if (model is None) == (detections is None):
        raise UserError(
            "there is nothing to measure" if model is None else f"both {model} and --detections are given",
            hint="give a model with --images, or --detections with a results list",
        )
    if model is not None and images is None:
        raise UserError("--images is missing", hint="name the folder of the annotated images")
    if detections is not None and (save is not None or images is not None):
        raise UserError("--images and --save need a model", hint="leave them out with --detections")


@dataclass(frozen=True)
class _Run:
    """How a model is run.

    scales: short sides, none for its own. tiles: as the user writes them. max_detections: that will count.
    """

    model: str
    device: str
    batch: int
    threads: int | None
    engine: str | None
    flip: bool
    scales: tuple[int, ...]
    tiles: str | None
    max_detections: int


def _sides(text: str) -> tuple[int, ...]:
    """`640,800` as numbers."""
    try:
        return tuple(int(part) for part in text.split(",") if text)
    except ValueError:
        raise UserError(f"--scales {text}: is no list of pixels", hint="write it like 640,800") from None


@dataclass(frozen=True)
class Limit:
    """A number that must not be below a value."""

    key: str
    value: float

    def failure(self, numbers: dict[str, float]) -> str:
        """In words, "" if there is none; a number that is undefined fails, and one that was not measured."""
        found = numbers.get(self.key, float("nan"))
        if found >= self.value - ROUNDING:
            return ""
        return f"{self.key} is {_number(found, 6)}, less than {self.value:g}"


def limit_of(text: str, max_detections: int = 100) -> Limit:
    """`segm/AP=0.34` as a limit. Raises UserError for another text and for a number that there is not."""
    from math import isfinite

    from maskrcnn.evaluation.metrics import OPERATING, coco_names

    key, _, value = text.partition("=")
    try:
        if not key or not isfinite(float(value)):
            raise ValueError
    except ValueError:
        raise UserError(f"--at-least {text}: is no KEY=VALUE", hint="write it like segm/AP=0.34") from None
    names = [*coco_names(max_detections), *OPERATING]
    known = [f"{kind}/{name}" for kind in KINDS for name in names]
    if key not in known:
        raise UserError(f"--at-least {text}: there is no `{key}`", hint=f"choose from {', '.join(known)}")
    return Limit(key, float(value))


def metric_lines(metrics: "Metrics", limits: "Sequence[Limit]", seconds: float | None) -> list[str]:
    """As the accuracy test of IxRT's samples prints them.

    seconds: from opening the model to its last result; None where results were given.
    """
    numbers = metrics.numbers()
    found: dict[str, float] = {} if seconds is None else {"E2E time": round(seconds, 3)}
    rows = [] if seconds is None else [f"E2E time : {seconds:.3f} seconds"]
    for kind in KINDS:
        key, name = f"{kind}/AP50", f"{kind} mAP@0.5"
        if key in numbers:
            value = numbers[key]
            found[name] = round(value, 3)
            rows.append(f"{name} :  {value:.4f}")
            checks = [each.value for each in limits if each.key == key]
            rows += [f"{kind} Accuracy Check : Test {value:.4f} >= target {target:g}" for target in checks]
    rows.append(str({"metricResult": found}))
    if limits:
        rows.append("failed!" if any(each.failure(numbers) for each in limits) else "pass!")
    return rows


def _predicted(run: _Run, folder: Path, truth: "GroundTruth", save: str | None, team: "Team") -> "ResultList":
    """What a model finds in all images, also written to `save`; in processes other than the first nothing."""
    from dataclasses import replace

    from maskrcnn.evaluation.class_mapping import map_classes
    from maskrcnn.evaluation.photographs import limits_in_words, locate, predict_items
    from maskrcnn.evaluation.result_list import results_of
    from maskrcnn.evaluation.views import Views
    from maskrcnn.predict import open_model

    photographs = locate(truth, folder)
    predictor = open_model(run.model, run.device, run.batch, run.threads, run.engine)
    if run.flip or run.scales:
        predictor = Views(predictor, run.flip, run.scales)
    if run.tiles is not None:
        from maskrcnn.tiles import tiled

        predictor = tiled(predictor, run.tiles)
    mapping = map_classes(predictor.spec.classes, predictor.spec.model.classes, truth)
    share = team.share(photographs, truth.file_names)
    groups = team.collected(predict_items(predictor, truth, share, mapping), len(photographs))
    with _writing(save if team.place.is_first else None) as file:
        groups = _written(counted(groups, len(photographs)), file)
        items = (item for group in groups for item in group)
        results = results_of(items, truth, f"the results of {run.model}")
    notes = (*mapping.notes, *limits_in_words(predictor, truth, photographs, run.max_detections))
    return replace(results, notes=(*notes, *results.notes))


@contextmanager
def _writing(path: str | None) -> "Iterator[IO[str] | None]":
    """The file that takes its name, or goes to the store, when everything is in it."""
    from maskrcnn.storage import sent_file
    from maskrcnn.whole_file import whole_file

    if path is None:
        yield None
        return
    with (
        sent_file(path, _say) as here,
        whole_file(here) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        yield file


def _written(groups: "Iterable[list[Item]]", file: "IO[str] | None") -> "Iterator[list[Item]]":
    """The groups, each also written as part of one JSON list."""
    import json

    if file is None:
        yield from groups
        return
    before = "[\n"
    for group in groups:
        for item in group:
            file.write(before + json.dumps(item, separators=(",", ":")))
            before = ",\n"
        yield group
    file.write("\n]\n" if before == ",\n" else "[]\n")


def counted(groups: "Iterable[list[Item]]", total: int) -> "Iterator[list[Item]]":
    """The groups, with a bar on a terminal's stderr and a line every half minute elsewhere."""
    import time

    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(groups, "", total=total, console=console, transient=True)
        return
    begun = told = time.monotonic()
    for done, group in enumerate(groups, start=1):
        if (at := time.monotonic()) - told > SECONDS and done < total:
            rate = done / (at - begun)
            left = (total - done) / rate / 60
            print(f"{done} of {total} images, {rate:.1f} images/s, {left:.0f} min left", file=sys.stderr)
            told = at
        yield group


def lines(metrics: "Metrics") -> list[str]:
    """The evaluation for a person: classes, what is taken for what, and the overall numbers at the end."""
    rows = []
    for each in metrics.kinds:
        rows += [f"{KINDS[each.kind]}, by class", *_class_table(each), ""]
        rows += [*_confusions(each, metrics.score), ""]
    rows += [
        f"{metrics.images} images, {metrics.objects} objects, {metrics.detections} detections; precision, "
        f"recall and F1 at a score of {metrics.score:g} and an IoU of 0.5",
        "",
        "".join([" " * 12, *(f"{KINDS[each.kind]:>10}" for each in metrics.kinds)]),
    ]
    names = [*metrics.kinds[0].numbers, *metrics.kinds[0].operating.numbers()]
    numbers = metrics.numbers()
    for name in names:
        values = "".join(f"{_number(numbers[f'{each.kind}/{name}']):>10}" for each in metrics.kinds)
        rows.append(f"{name:<12}{values}")
    return rows


def _class_table(metrics: "KindMetrics") -> list[str]:
    names = _class_names(metrics)
    width = max(len(name) for name in ["class", *names])
    rows = [
        f"  {'class':<{width}}  objects      AP    AP50  precision  recall      F1  best F1  at score",
    ]
    for name, each in zip(names, metrics.classes, strict=True):
        at = each.operating
        rows.append(
            f"  {name:<{width}}  {each.objects:7d}  {_number(each.ap):>6}  {_number(each.ap50):>6}"
            f"  {_number(at.precision):>9}  {_number(at.recall):>6}  {_number(at.f1):>6}"
            f"  {_number(at.best_f1):>7}  {_number(at.best_score):>8}"
        )
    return rows


def _class_names(metrics: "KindMetrics") -> list[str]:
    from maskrcnn.whole_file import shown

    return [shown(each.name or str(each.category_id)) for each in metrics.classes]


def _confusions(metrics: "KindMetrics", score: float) -> list[str]:
    """The whole matrix where it fits a terminal, else the largest numbers beside the diagonal."""
    names = _class_names(metrics)
    title = (
        f"{KINDS[metrics.kind]}, objects of a class (rows) found as a class (columns) at a score of {score:g}"
    )
    if len(names) <= WIDEST_MATRIX:
        columns, wide = [*names, "missed"], max(len(name) for name in [*names, "background"])
        widths = [max(len(name), 6) for name in columns]
        rows = [f"{title}; in the last row detections where there is no object"]
        head = "  ".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True))
        rows.append(f"  {'':<{wide}}  {head}")
        for name, counts in zip([*names, "background"], metrics.confusion.tolist(), strict=True):
            cells = "  ".join(f"{count:>{width}}" for count, width in zip(counts, widths, strict=True))
            rows.append(f"  {name:<{wide}}  {cells}")
        return rows
    matrix = metrics.confusion[:-1, :-1].copy()
    right, missed, invented = matrix.trace(), metrics.confusion[:-1, -1].sum(), metrics.confusion[-1].sum()
    matrix[range(len(names)), range(len(names))] = 0
    rows = [
        f"{KINDS[metrics.kind]} at a score of {score:g}: {right} objects found, {matrix.sum()} found as "
        f"another class, {missed} missed, {invented} detections without an object (--json has the matrix)"
    ]
    largest = matrix.ravel().argsort(kind="stable")[::-1][:MOST_CONFUSIONS].tolist()
    for place in largest:
        row, column = divmod(place, len(names))
        if matrix[row, column]:
            rows.append(f"  {matrix[row, column]:5d}  {names[row]} found as {names[column]}")
    return rows


def _say(words: str) -> None:
    print(words, file=sys.stderr)


def _number(value: float, digits: int = 4) -> str:
    from math import isnan

    return "n/a" if isnan(value) else f"{value:.{digits}f}"
