"""`maskrcnn predict`: image files in, pictures and results out."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress

    from maskrcnn.detections import Detections
    from maskrcnn.images import ImageFile
    from maskrcnn.results import Output, Written
    from maskrcnn.stream import Finished, Unreadable

SCORE = 0.5
MODEL = "Model file, or `example` for the one that comes along."
SOURCES = "Image files, folders, and patterns such as 'photos/*.jpg'."
SAVE = (
    "What to write, with commas: image (a picture each), json (a file each), masks (a PNG of instance "
    "numbers each), coco (one predictions.json, a COCO results list)."
)
LEAST = f"Least score. When left out {SCORE}, but coco then holds everything, as average precision needs."
IDS = "COCO annotation file that gives the image ids of coco by file name."


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help=SOURCES)],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("predictions"),
    save: Annotated[str, typer.Option(help=SAVE)] = "image",
    score: Annotated[float | None, typer.Option(min=0, max=1, help=LEAST)] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps and others of the engine.")
    ] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Images that go through the network at once.")] = 1,
    annotations: Annotated[Path | None, typer.Option(help=IDS)] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the network.")] = None,
) -> None:
    """Find and outline the objects in images."""
    from maskrcnn.images import find_images
    from maskrcnn.predict import open_model
    from maskrcnn.results import COCO_FILE
    from maskrcnn.stream import predict_files

    images = find_images(sources, skip=out)
    output = _output(images, out, save, score, annotations)
    predictor = open_model(model, device, batch, threads)
    output.check_folder(images)
    outcomes = predict_files(predictor, images, output.write, keep_images="image" in output.kinds)
    unreadable = _report(outcomes, images, output)
    if "coco" in output.kinds and len(unreadable) < len(images):
        print(f"{len(images) - len(unreadable)} images   -> {out / COCO_FILE}")
    if len(unreadable) == len(images) == 1:
        raise unreadable[0].error
    for each in unreadable:
        print(f"error: {each.error.message}", file=sys.stderr)
    if unreadable:
        print(f"hint: {len(unreadable)} of {len(images)} images were left out", file=sys.stderr)
        raise typer.Exit(2 if len(unreadable) == len(images) else 1)


def _output(
    images: "Sequence[ImageFile]", out: Path, save: str, score: float | None, annotations: Path | None
) -> "Output":
    """What to write where; refuses options that cannot work before the model is opened."""
    from maskrcnn.results import KINDS, Output, ids_from_annotations, ids_from_names, stems_of
    from maskrcnn.whole_file import shown

    kinds = tuple(dict.fromkeys(kind.strip() for kind in save.split(",")))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UserError(f"--save {save}: there is no `{unknown[0]}`", hint=f"choose from {', '.join(KINDS)}")
    ids = ids_from_names(images)
    if annotations is not None:
        ids = ids_from_annotations(images, annotations)
        missing = [shown(image.name) for image in images if image.path not in ids]
        if missing:
            print(
                f"note: {len(missing)} of {len(images)} images are not in {annotations} and get no image_id, "
                f"the first is {missing[0]}",
                file=sys.stderr,
            )
    return Output(
        folder=out,
        kinds=kinds,
        score=SCORE if score is None else score,
        coco_score=0.0 if score is None else score,
        stems=stems_of(images, taken=("predictions",) if "coco" in kinds else ()),
        image_ids=ids,
    )


def _report(
    outcomes: "Iterator[Finished[Written] | Unreadable]", images: "Sequence[ImageFile]", output: "Output"
) -> "list[Unreadable]":
    """Say what was found in each image as it is done; -> the files that could not be read."""
    from maskrcnn.results import COCO_FILE, GrowingList
    from maskrcnn.stream import Unreadable
    from maskrcnn.whole_file import shown

    unreadable: list[Unreadable] = []
    listing = GrowingList(output.folder / COCO_FILE) if "coco" in output.kinds else nullcontext()
    width = min(40, max(len(shown(image.name)) for image in images))
    done = 0
    with listing as coco, _progress(len(images)) as progress:
        try:
            for outcome in outcomes:
                if isinstance(outcome, Unreadable):
                    unreadable.append(outcome)
                else:
                    if coco is not None:
                        coco.add(outcome.written.coco)
                    print(_line(outcome, output.score, width), flush=True)
                done += 1
                progress.update(progress.task_ids[0], advance=1)
        except KeyboardInterrupt:
            print(f"stopped: {done} of {len(images)} images are done", file=sys.stderr)
            raise
    return unreadable


def _line(finished: "Finished[Written]", score: float, width: int) -> str:
    """`street.jpg   3 person, 1 bicycle   48 ms   -> predictions/street.jpg`."""
    from maskrcnn.whole_file import shown

    found, written = finished.found, finished.written
    parts = [f"{shown(found.file.name):<{width}}", counts(found.detections.above(score))]
    parts.append(f"{found.milliseconds:.0f} ms")
    if written.paths:
        parts.append(f"-> {shown(written.paths[0])}")
    return "   ".join(parts)


def counts(detections: "Detections") -> str:
    """`3 person, 1 bicycle`, most frequent first."""
    numbers = Counter(detections.names()).most_common()
    return ", ".join(f"{number} {name}" for name, number in numbers) or "nothing found"


@contextmanager
def _progress(total: int) -> "Iterator[Progress]":
    """A bar with images/s and the time left on a terminal's stderr; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: "object") -> Text:
            speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
            return Text(f"{speed:.1f} images/s" if speed else "")

    console = Console(stderr=True)
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or total == 1,
        # Lines printed to a terminal go above the bar; a pipe gets them as they are.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        progress.add_task("", total=total)
        yield progress
