"""`maskrcnn quantize`: an int8 model, calibrated on photographs and checked before it gets its name."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskrcnn.cli.gate import CheckImages, Tolerance, Verify
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.export.quantize import Made
    from maskrcnn.images import ImageFile

MODEL = "Model file, `example`, zoo:NAME, or what `maskrcnn export` made of one in float32."
OUT = "What to write: .xml for OpenVINO, .onnx for ONNX Runtime, .engine for TensorRT or IxRT, or .parts."
CALIBRATE = "Photographs like those that the model will see: files, folders or patterns. Repeatable."
LIMIT = "At most so many photographs are taken, spread evenly over all."
MAX_DROP = (
    "Points of average precision that may be lost, of boxes or of masks: layers are put back to float32, the "
    "worst first, until it holds. Measured on --verify, or on --calibrate where that is annotated."
)
SYMMETRIC = "Write the .onnx that TensorRT and IxRT build engines of: signed bytes, zero points 0."
KEEP = "Layer that stays float32, as `box_head.deltas` or `backbone.res2.0`. Repeatable."
# Calibration images on which both models are compared where nothing else is given.
COMPARED = 8


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help=OUT)],
    calibrate: Annotated[list[str], typer.Option(metavar="IMAGES", help=CALIBRATE)],
    images_limit: Annotated[int, typer.Option(min=1, help=LIMIT)] = 64,
    max_drop: Annotated[float | None, typer.Option(min=0, metavar="POINTS", help=MAX_DROP)] = None,
    verify: Verify = None,
    keep: Annotated[list[str] | None, typer.Option(metavar="LAYER", help=KEEP)] = None,
    symmetric: Annotated[bool, typer.Option("--symmetric", help=SYMMETRIC)] = False,
    check: CheckImages = None,
    tolerance: Tolerance = 1.0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of what is measured.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Make an int8 model, several times faster on a CPU; exit code 1 if it finds too little."""
    import json
    from dataclasses import asdict, replace

    from maskrcnn.cli.gate import as_values, asked_for, passed_in_words, tell_rejected
    from maskrcnn.export.gate import write_checked
    from maskrcnn.export.quantize import float_graph
    from maskrcnn.export.quantize import quantize as quantize_graph
    from maskrcnn.images import find_images
    from maskrcnn.predict import model_path

    path = model_path(model)
    if path.absolute() == out.absolute():
        raise UserError(f"{out}: is the model itself", hint="give the quantised one another name")
    if symmetric and out.suffix.lower() != ".onnx":
        raise UserError(f"--symmetric: {out} is no .onnx", hint="leave it out; an .engine is made so anyway")
    if max_drop is not None and verify is None:
        verify = _annotated(calibrate)
    files = spread(find_images(calibrate), images_limit)
    for file in files:
        file.read()  # what cannot be read is told before the minutes that tracing takes
    asked = asked_for(check, verify, tolerance, max_drop, threads)
    if not asked.images and verify is None:
        asked = replace(asked, images=tuple(spread(files, COMPARED)))
    made: list[Made] = []
    with _watching() as watch, float_graph(path, out) as source:

        def write(file: Path) -> None:
            choice = (keep or (), verify, max_drop, threads, watch, symmetric)
            made.append(quantize_graph(source, file, files, *choice))

        gated = write_checked(path, out, write, asked, watch)
    if as_json:
        print(json.dumps(asdict(made[0]) | as_values(gated), indent=2, allow_nan=False))
    else:
        found = [passed_in_words(gated)] if gated.passed else []
        print("\n".join([*lines(made[0]), *found, f"-> {gated.path}"]))
    if not gated.passed:
        tell_rejected(path, out, gated)
        raise typer.Exit(1)


def spread(files: "list[ImageFile]", most: int) -> "list[ImageFile]":
    """At most so many of the files, spread evenly over all."""
    count = min(most, len(files))
    return [files[number * len(files) // count] for number in range(count)]


def lines(made: "Made") -> list[str]:
    """For a person: what is int8, what is not, and why."""
    every = len(made.layers) + len(made.kept)
    rows = [
        f"{len(made.layers)} of {every} layers in int8 for {made.engine}, calibrated on {made.images} "
        f"image{'s' * (made.images > 1)}, {made.megabytes_before:.1f} -> {made.megabytes:.1f} MB"
    ]
    for reason in dict.fromkeys(each.reason for each in made.kept):
        names = [each.layer for each in made.kept if each.reason == reason]
        rows.append(f"kept in f32: {', '.join(names)} ({reason})")
    return rows


def _annotated(calibrate: list[str]) -> Path:
    """The images of --calibrate, if they are annotated. Raises UserError if they are not."""
    from maskrcnn.export.verify import read_annotated

    try:
        read_annotated(Path(calibrate[0]))
    except UserError as error:
        raise UserError(
            f"--max-drop: there is nothing to measure on ({error.message})",
            hint="name annotated images with --verify",
        ) from error
    return Path(calibrate[0])


@contextmanager
def _watching() -> Iterator[Callable[[str, int, int], None]]:
    """What is being done, on stderr: one changing line on a terminal, and else a line for each thing."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            yield lambda what, done, total: status.update(f"{what}, {done} of {total}" if total else what)
        return
    told: list[str] = []

    def tell(what: str, done: int, total: int) -> None:
        if told[-1:] != [what]:
            told[:] = [what]
            print(what, file=sys.stderr)

    yield tell
