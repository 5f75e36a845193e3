"""`maskrcnn predict`: images, videos and cameras in, pictures and results out."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrcnn.cli.engine import Engine
from maskrcnn.cli.network import Offline
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.cli.predict_video import Wanted
    from maskrcnn.cli.recording import Showing
    from maskrcnn.images import ImageFile
    from maskrcnn.media.find import Moving, Stills
    from maskrcnn.predict import Predictor
    from maskrcnn.results import Output
    from maskrcnn.team import Team

SCORE = 0.5
MODEL = "Model file, `example` for the one that comes along, or zoo:NAME."
SOURCES = (
    "Image files, folders, patterns such as 'photos/*.jpg', archives (.zip, .tar), videos, http addresses, "
    "camera:0, rtsp:// streams, places of a store as s3://bucket/photos, and - for a list of these on "
    "standard input."
)
OUT = "Folder to write to, or a place of a store, as s3://bucket/found."
SAVE = (
    "What to write, with commas: image (a picture each, an annotated video), json (a file each), masks (a "
    "PNG of instance numbers each), coco (one predictions.json, a COCO results list), labelme, geojson and "
    "yolo (a file each), cvat (one annotations.xml), csv (one predictions.csv). When left out image, and "
    "with --stream or --show nothing."
)
LEAST = f"Least score. When left out {SCORE}, but coco then holds everything, as average precision needs."
IDS = "COCO annotation file that gives the image ids of coco by file name."
STREAM = "Print a line of JSON for each image or frame as soon as it is done; words go to stderr."
FRAMES = "End each video and camera after so many frames."
TILES = "Predict large images in overlapping tiles of this side, as 640 or 640,0.2, and join what they cut."
SECONDS = "End each video and camera after so many seconds."
TRACK = (
    "Number the objects of a video or camera, so that each keeps its colour and has a track_id in results."
)
SHOW = (
    "Show each picture when it is done: auto (a window, or an address for a browser where there can be "
    "none), window, or a port of this machine for a browser, as 8080. Esc or q ends the run."
)
DELAY = "With --show: milliseconds that each picture stays at least; 0 waits for a key."
SHOW_FPS = "Draw into videos how many frames a second are done, and tell it at the end."


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help=SOURCES)],
    out: Annotated[str, typer.Option(metavar="FOLDER", help=OUT)] = "predictions",
    save: Annotated[str | None, typer.Option(help=SAVE, show_default=False)] = None,
    score: Annotated[float | None, typer.Option(min=0, max=1, help=LEAST)] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, mps and others of the engine.")
    ] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Images that go through the network at once.")] = 1,
    tiles: Annotated[str | None, typer.Option(metavar="SIDE[,OVERLAP]", help=TILES)] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="Draw boxes as well.")] = False,
    annotations: Annotated[Path | None, typer.Option(help=IDS)] = None,
    stream: Annotated[bool, typer.Option("--stream", help=STREAM)] = False,
    frames: Annotated[int | None, typer.Option(min=1, help=FRAMES)] = None,
    seconds: Annotated[float | None, typer.Option(min=0.001, help=SECONDS)] = None,
    track: Annotated[bool, typer.Option("--track/--no-track", help=TRACK)] = True,
    show: Annotated[str | None, typer.Option(metavar="WHERE", help=SHOW)] = None,
    delay: Annotated[int | None, typer.Option(min=0, metavar="MS", help=DELAY)] = None,
    show_fps: Annotated[bool, typer.Option("--show-fps", help=SHOW_FPS)] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the network.")] = None,
    engine: Engine = None,
    offline: Offline = False,
) -> None:
    """Find and outline the objects in images, videos and what cameras see."""
    from maskrcnn.cli.together import together
    from maskrcnn.media.find import find_sources, words_in
    from maskrcnn.predict import open_model

    with (
        together(device) as team,
        _showing(show, delay, show_fps, team) as showing,
        _written_to(out, team) as folder,
    ):
        _refuse_to_share(sources, (), team)
        listed = words_in(sys.stdin.buffer.read()) if "-" in sources else []
        parts = find_sources(_brought(sources), _brought(listed), skip=folder)
        _check_ends(parts, endless=frames is None and seconds is None)
        _refuse_to_share(sources, parts, team)
        kinds = _kinds(("" if stream or show else "image") if save is None else save)
        output = replace(_output(parts, folder, kinds, score, annotations), boxes=boxes)
        predictor = open_model(model, device, batch, threads, engine)
        if tiles is not None:
            from maskrcnn.tiles import tiled

            predictor = tiled(predictor, tiles)
        from maskrcnn.cli.predict_video import Limits, Wanted

        wanted = Wanted(Limits(frames, seconds), track, showing)
        _predict_all(predictor, parts, output, stream, wanted, team)


def _predict_all(
    predictor: "Predictor",
    parts: "Sequence[Stills | Moving]",
    output: "Output",
    stream: bool,
    wanted: "Wanted",
    team: "Team",
) -> None:
    """Predict, write, show and tell."""
    from maskrcnn.cli.account import Account
    from maskrcnn.media.find import Stills
    from maskrcnn.results import COCO_FILE, GrowingList
    from maskrcnn.whole_file import shown

    items = _items(parts)
    if output.kinds:
        output.check_folder(items)
    coco_path = output.folder / COCO_FILE
    lists = "coco" in output.kinds and team.place.is_first
    with GrowingList(coco_path) if lists else nullcontext() as coco:
        width = max(len(shown(item.name)) for item in items)
        images = all(isinstance(part, Stills) for part in parts)
        account = Account(stream, len(items), width, images, coco)
        for part in parts:
            if isinstance(part, Stills):
                from maskrcnn.cli.predict_stills import predict_stills

                goes_on = predict_stills(predictor, part, output, account, team, wanted.showing)
            else:
                from maskrcnn.cli.predict_video import predict_moving

                goes_on = predict_moving(predictor, part, output, account, wanted)
            if not goes_on:
                break
    if account.listed and coco is not None:
        account.words(f"{account.listed} images   -> {coco_path}")
    account.finish()


@contextmanager
def _written_to(out: str, team: "Team") -> "Iterator[Path]":
    """The folder on this machine; what is in it goes to the store that `out` may name."""
    from maskrcnn.media.find import in_a_store

    if not in_a_store(out):
        yield Path(out)
        return
    from maskrcnn.storage import sent_folder

    if team.place.count > 1:
        raise UserError(
            f"--out {out}: cannot be shared by {team.place.count} processes",
            hint="name a folder, or start one process",
        )
    with sent_folder(out, _say) as folder:
        yield folder


def _brought(words: "Sequence[str]") -> list[str]:
    """With copies on this machine in the place of what lies in a store."""
    from maskrcnn.media.find import in_a_store

    if not any(map(in_a_store, words)):
        return list(words)
    from maskrcnn.storage import fetched_path

    return [str(fetched_path(word, _say)) if in_a_store(word) else word for word in words]


def _say(words: str) -> None:
    print(words, file=sys.stderr)


def _refuse_to_share(sources: Sequence[str], parts: "Sequence[Stills | Moving]", team: "Team") -> None:
    """What several processes cannot read: the standard input of one of them, and frames out of order."""
    from maskrcnn.media.find import Stills

    if team.place.count == 1:
        return
    moving = [part.place for part in parts if not isinstance(part, Stills)]
    if "-" in sources or moving:
        name = "the list on standard input" if "-" in sources else moving[0]
        raise UserError(
            f"{name}: cannot be shared by {team.place.count} processes",
            hint="they share images that are named; start one process for anything else",
        )


@contextmanager
def _showing(show: str | None, delay: int | None, rate: bool, team: "Team") -> "Iterator[Showing]":
    """What is seen while it is made. Raises UserError where nothing can be shown."""
    from maskrcnn.cli.recording import Showing

    if show is None:
        if delay is not None:
            raise UserError(f"--delay {delay}: nothing is shown", hint="add --show auto")
        yield Showing(rate=rate)
        return
    from maskrcnn.media.display import open_display

    if team.place.count > 1:
        raise UserError(f"--show: {team.place.count} processes share the images", hint="start one process")
    display = open_display(show)
    print(f"note: pictures are shown {display.place}, Esc or q there ends it", file=sys.stderr, flush=True)
    try:
        yield Showing(display, delay, rate)
    finally:
        display.close()


def _check_ends(parts: "Sequence[Stills | Moving]", endless: bool) -> None:
    for part in parts[:-1]:
        if endless and getattr(part, "live", False):
            raise UserError(
                f"{part.place}: has no end, and there are sources after it",  # type: ignore[union-attr]
                hint="name it last, or end it with --frames or --seconds",
            )


def _items(parts: "Sequence[Stills | Moving]") -> "list[ImageFile]":
    """Everything that has results of its own name."""
    from maskrcnn.media.find import Stills

    return [item for part in parts for item in (part.files if isinstance(part, Stills) else (part,))]


def _kinds(save: str) -> tuple[str, ...]:
    from maskrcnn.results import KINDS

    kinds = tuple(dict.fromkeys(kind.strip() for kind in save.split(","))) if save else ()
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UserError(f"--save {save}: there is no `{unknown[0]}`", hint=f"choose from {', '.join(KINDS)}")
    return kinds


def _output(
    parts: "Sequence[Stills | Moving]",
    out: Path,
    kinds: tuple[str, ...],
    score: float | None,
    annotations: Path | None,
) -> "Output":
    """What to write where; refuses options that cannot work before the model is opened."""
    from maskrcnn.media.find import Stills
    from maskrcnn.results import Output, stems_of

    images = [file for part in parts if isinstance(part, Stills) for file in part.files]
    stems: Any = stems_of(_items(parts), taken=("predictions",) if "coco" in kinds else ())
    ids: Any = _image_ids(images, annotations)
    if len(images) < len(_items(parts)):
        from maskrcnn.cli.recording import ids_with_frames, stems_with_frames

        stems, ids = stems_with_frames(stems), ids_with_frames(ids, alone=len(parts) == 1)
    return Output(
        folder=out,
        kinds=kinds,
        score=SCORE if score is None else score,
        coco_score=0.0 if score is None else score,
        stems=stems,
        image_ids=ids,
    )


def _image_ids(images: "Sequence[ImageFile]", annotations: Path | None) -> dict[Path, int]:
    from maskrcnn.results import ids_from_annotations, ids_from_names
    from maskrcnn.whole_file import shown

    if annotations is None:
        return ids_from_names(images)
    ids = ids_from_annotations(images, annotations)
    missing = [shown(image.name) for image in images if image.path not in ids]
    if missing:
        print(
            f"note: {len(missing)} of {len(images)} images are not in {annotations} and get no image_id, "
            f"the first is {missing[0]}",
            file=sys.stderr,
        )
    return ids
