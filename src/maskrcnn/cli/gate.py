"""What the verbs share that write a file only after a check: their options, and what they say of it."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.export.gate import Asked, Gated, Watch

CheckImages = Annotated[
    list[str] | None,
    typer.Option("--check", metavar="IMAGES", help="Images or folders to check the file on. Repeatable."),
]
Verify = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA", help="Annotated images: measure average precision before and after as well."
    ),
]
Tolerance = Annotated[
    float, typer.Option(min=0, metavar="FACTOR", help="Times what the check lets a file differ by.")
]


def asked_for(
    check: Sequence[str] | None,
    verify: Path | None,
    tolerance: float = 1.0,
    max_drop: float | None = None,
    threads: int | None = None,
) -> "Asked":
    """The options as `export.gate` has them. Raises UserError for images that are not there."""
    from math import isfinite

    from maskrcnn.export.gate import Asked
    from maskrcnn.images import find_images

    if not isfinite(tolerance):
        raise UserError(f"--tolerance {tolerance}: is no limit", hint="leave it out for the usual one")
    images = tuple(find_images(check)) if check else ()
    return Asked(images, verify, tolerance, max_drop, threads)


def write_checked(
    model: str | Path, out: Path, write: Callable[[Path], object], asked: "Asked", as_json: bool = False
) -> "Gated":
    """`export.gate.write_checked`, told to the user. Ends the program with 1 if the file was rejected."""
    from maskrcnn.export import gate

    with watching() as watch:
        gated = gate.write_checked(model, out, write, asked, watch)
    tell(model, out, gated, as_json)
    return gated


def tell(model: str | Path, out: Path, gated: "Gated", as_json: bool = False) -> None:
    """What a check found. Ends the program with 1 if it rejected the file that was to be `out`."""
    if as_json:
        print(json.dumps(as_values(gated), indent=2, allow_nan=False))
    elif gated.passed:
        print(passed_in_words(gated))
    if gated.passed and not gated.check.matched:
        print(
            "note: nothing was found in the images of the check; --check IMAGES takes others", file=sys.stderr
        )
    if not gated.passed:
        tell_rejected(model, out, gated)
        raise typer.Exit(1)


def as_values(gated: "Gated") -> dict[str, Any]:
    """For --json."""
    check = asdict(gated.check)
    on, stages = check.pop("on"), dict(check.pop("stages"))
    return {
        "file": str(gated.path),
        "passed": gated.passed,
        "fault": gated.fault,
        "on": on,
        "check": check,
        "stages": stages,
    }


def passed_in_words(gated: "Gated") -> str:
    """`checked on 6 images: 59 objects, boxes within 0.003 px, masks agree on 99.998 % of pixels, ...`."""
    from maskrcnn.compare import number

    check, parts = gated.check, []
    if check.matched:
        count = check.matched + check.missed
        parts = [
            f"{check.matched} of {count} detections" if check.missed else f"all {count} detections",
            f"boxes within {number(check.box_px)} px",
            f"scores within {number(check.score)}",
            f"masks agree on {_percent(check.mask_pixels)} % of pixels",
        ]
    parts += [f"{_metric(name)} {100 * a:.1f} -> {100 * b:.1f}" for name, a, b in check.precision]
    if check.stages:
        value, name = max((value, name) for name, value in check.stages)
        parts.append(f"stages within {number(value)} (`{name}`)")
    return f"checked on {check.on}: {', '.join(parts) or 'nothing was found'}"


def tell_rejected(model: str | Path, out: Path, gated: "Gated") -> None:
    """`error:` with what differs and where, `hint:` with the command that shows it."""
    from maskrcnn.cli.main import print_error

    message = f"{out} {gated.fault}; kept as {gated.path}"
    if gated.shows:
        words = ["maskrcnn", "compare", str(model), str(gated.path), gated.shows, "--stages"]
        hint = f"`{shlex.join(words)}` shows it"
    else:
        hint = "use a higher precision, or --tolerance to let it pass"
    print_error(UserError(message, hint))


def _percent(share: float) -> str:
    """As many digits as tell it from 100; never rounded up to it."""
    if share == 1:
        return "100"
    return next(
        text for digits in range(2, 12) if float(text := f"{100 * share:.{digits}f}") < 100 or digits == 11
    )


def _metric(name: str) -> str:
    return name.replace("/", " ")


@contextmanager
def watching() -> "Iterator[Watch]":
    """What is told how far a check is: a bar on a terminal's stderr."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    with Progress(console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def watch(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield watch
