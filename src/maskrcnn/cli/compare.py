"""`maskrcnn compare`: where two models first differ, and by how much."""

import sys
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrcnn.cli.engine import NAMES
from maskrcnn.cli.network import Offline
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.agreement import Single, Spread
    from maskrcnn.compare import Compared, Comparison, Report, Stage
    from maskrcnn.images import ImageFile
    from maskrcnn.stages import Difference

# Objects that only one model found: a person is shown so many, --json has all.
MOST_SINGLES = 10
MODEL = "Model file, `example`, or zoo:NAME."
ENGINES = f"Of A and B, with a comma, or one for both; each of {NAMES}."
IMAGES = (
    "Image files, folders, patterns, archives, http addresses, and - for a list of these on standard input."
)
TOLERANCE = (
    "Largest difference allowed: of a stage, as a share of its largest value; of a score (0..1), as it is."
)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=MODEL)],
    b: Annotated[str, typer.Argument(metavar="B", help="Model to compare with it.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help=IMAGES)],
    stages: Annotated[
        bool, typer.Option("--stages", help="Compare every stage and not only what is found.")
    ] = False,
    tolerance: Annotated[float, typer.Option(min=0, help=TOLERANCE)] = 1e-3,
    box_tolerance: Annotated[
        float, typer.Option(min=0, help="Image pixels by which a box and the outline of a mask may move.")
    ] = 0.5,
    score: Annotated[
        float, typer.Option(min=0, max=1, help="Detections of at least this score need a partner.")
    ] = 0.1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda and others of the engines.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the networks.")] = None,
    engines: Annotated[str | None, typer.Option(metavar="A[,B]", help=ENGINES)] = None,
    offline: Offline = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Show where two models first differ, and by how much; exit code 1 if beyond the tolerance."""
    import json

    from maskrcnn.agreement import Tolerance
    from maskrcnn.compare import Comparison, Report, Staged, spec_differences
    from maskrcnn.export.staged import open_staged
    from maskrcnn.predict import open_model

    for option, value in (("--tolerance", tolerance), ("--box-tolerance", box_tolerance)):
        if not isfinite(value):
            raise UserError(f"{option} {value}: is no limit", hint="leave it out for the usual one")
    files = _find_images(images)
    first, _, second = (engines or "").partition(",")
    models = (
        open_staged(a, lambda path: open_model(path, device, 1, threads, first or None), stages),
        open_staged(b, lambda path: open_model(path, device, 1, threads, second or first or None), stages),
    )
    limits = Tolerance(tolerance, box_tolerance, score)
    comparison = Comparison(*models, limits, stages)
    for name, model in zip((a, b), models, strict=True):
        if stages and not isinstance(model.backend, Staged):
            print(f"note: {name} tells only its final result, so that is what is compared", file=sys.stderr)
    compared, unreadable = _compare_files(files, comparison)
    if len(unreadable) == len(files) == 1:
        raise unreadable[0]
    for error in unreadable:
        print(f"error: {error.message}", file=sys.stderr)
    if unreadable:
        print(f"hint: {len(unreadable)} of {len(files)} images were left out", file=sys.stderr)
    if not compared:
        raise typer.Exit(2)
    settings = tuple(spec_differences(models[0].spec, models[1].spec))
    report = Report(a, b, limits, settings, tuple(compared))
    if as_json:
        left_out = [error.message for error in unreadable]
        print(json.dumps(report.to_json() | {"unreadable": left_out}, indent=2, allow_nan=False))
    else:
        print("\n".join(lines(report)))
    if unreadable or not report.within():
        raise typer.Exit(1)


def _find_images(words: list[str]) -> "list[ImageFile]":
    from maskrcnn.media.find import Stills, find_sources, words_in

    listed = words_in(sys.stdin.buffer.read()) if "-" in words else []
    files: list[ImageFile] = []
    for part in find_sources(words, listed):
        if not isinstance(part, Stills):
            raise UserError(f"{part.place}: is no image but a video", hint="name images, or frames of it")
        files += part.files
    return files


def _compare_files(
    files: "Sequence[ImageFile]", comparison: "Comparison"
) -> "tuple[list[Compared], list[UserError]]":
    """Every image that can be read, and why the others cannot."""
    from rich.console import Console
    from rich.progress import track

    from maskrcnn.whole_file import shown

    compared: list[Compared] = []
    unreadable: list[UserError] = []
    console = Console(stderr=True)
    quiet = not console.is_terminal or len(files) == 1
    for file in track(files, "", console=console, transient=True, disable=quiet):
        try:
            image = file.read()
        except UserError as error:
            unreadable.append(error)
            continue
        compared.append(comparison(shown(file.name), image))
    return compared, unreadable


def lines(report: "Report") -> list[str]:
    """The report for a person: settings, stages, detections, and the verdict at the end."""
    rows = [f"A   {report.a}", f"B   {report.b}"]
    if report.settings:
        width = max(18, *(len(setting.field) for setting in report.settings))
        rows += ["", f"{'settings that differ':<{width + 2}}  A -> B"]
        rows += [f"  {each.field:<{width}}  {_brief(each.a)} -> {_brief(each.b)}" for each in report.settings]
    stages = report.stages()
    if stages:
        rows += ["", *_table(stages)]
    return [*rows, "", *_detections(report), "", report.verdict()]


def _brief(value: Any) -> str:
    """A setting's value; of a long list the beginning."""
    if isinstance(value, list | tuple):
        shown = ", ".join(_brief(each) for each in value[:3])
        return f"{len(value)}: {shown}, ..." if len(value) > 4 else f"({', '.join(map(_brief, value))})"
    return str(value)


def _table(stages: "list[Stage]") -> list[str]:
    """A row a stage; `>` marks the first that differs, `!` what is beyond the tolerance."""
    from maskrcnn.compare import number

    head = ("", "stage", "difference", "relative", "beyond", "by itself", "where")
    rows = [head]
    differs = False
    for stage in stages:
        mark = "" if stage.within else "!" if differs else ">"
        differs = differs or not stage.within
        found = stage.as_run
        beyond = f"{number(100 * found.beyond)} %" if found.beyond else ""
        rows.append((mark, stage.name, *_figures(found), beyond, _by_itself(stage.by_itself), _where(found)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _figures(found: "Difference") -> tuple[str, str]:
    """`0.013 of 8.1` and `1.6e-03`; pixels have no share."""
    from maskrcnn.compare import number

    if not isfinite(found.largest):
        return found.words, ""
    if found.of is None:
        return f"{number(found.largest)} px", ""
    return f"{number(found.largest)} of {number(found.of)}", number(found.relative)


def _by_itself(found: "Difference | None") -> str:
    from maskrcnn.compare import number

    if found is None:
        return "-"
    if not isfinite(found.largest):
        text = found.words
    else:
        text = number(found.relative) + (" px" if found.of is None else "")
    return text if found.within else f"{text} !"


def _where(found: "Difference") -> str:
    words = found.words if isfinite(found.largest) else ""
    place = f"{found.where} ({found.image})" if found.where else ""
    return ", ".join(part for part in (place, words) if part)


def _detections(report: "Report") -> list[str]:
    """What both found, and what only one did."""
    found = report.totals()
    rows = [
        f"detections  {found.a} in A, {found.b} in B, {found.matched} matched, "
        f"{found.relabelled} named differently"
    ]
    if found.box and found.score and found.mask_iou:
        rows.append(_spread("box", found.box, "{:.2g} px"))
        rows.append(_spread("score", found.score, "{:.2g}"))
        rows.append(_spread("mask IoU", found.mask_iou, "{:.4f}"))
    singles = list(_singles(report))
    if len(singles) > MOST_SINGLES:
        singles[MOST_SINGLES:] = [f"  and {len(singles) - MOST_SINGLES} more"]
    return rows + singles


def _spread(title: str, figure: "Spread", form: str) -> str:
    middle, worst = form.format(figure.median), form.format(figure.worst)
    return f"  {title:<10}median {middle}, worst {worst} ({figure.image})"


def _singles(report: "Report") -> "Iterator[str]":
    """`  only in A   dog 0.43 at 10, 20, 30, 40 (1.jpg), B has cat there`."""
    for image in report.images:
        for owner, other, singles in (("A", "B", image.agreement.only_a), ("B", "A", image.agreement.only_b)):
            yield from (_single(owner, other, single, image.image) for single in singles)


def _single(owner: str, other: str, single: "Single", image: str) -> str:
    box = ", ".join(f"{side:.0f}" if isfinite(side) else str(side) for side in single.box)
    text = f"  only in {owner} {single.name} {single.score:.2f} at {box} ({image})"
    return f"{text}, {other} has {single.other} there" if single.other else text
