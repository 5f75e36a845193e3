"""Images one by one: predicted, written and told of; shared by the processes of the command."""

import base64
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.cli.account import Account, counts, progress
from maskrcnn.cli.json_lines import json_line
from maskrcnn.errors import UserError
from maskrcnn.results import Written
from maskrcnn.stream import Finished, Found, Unreadable, predict_files
from maskrcnn.whole_file import shown

if TYPE_CHECKING:
    from maskrcnn.cli.recording import Showing
    from maskrcnn.detections import Detections
    from maskrcnn.media.find import Stills
    from maskrcnn.predict import Predictor
    from maskrcnn.results import Output
    from maskrcnn.spec import Spec
    from maskrcnn.team import Team

# These kinds are files of the whole run: of several processes the first writes them.
OF_RUN = ("yolo", "csv", "cvat")


@dataclass(frozen=True)
class _Done:
    written: Written
    line: str
    packed: str
    picture: np.ndarray | None


@dataclass(frozen=True)
class _Told:
    """What the first process says of an image and adds to the files of the run, of what JSON can hold.

    parts: of its line. paths: of its own files. line: as JSON. packed: what was found, "" if nobody asks.
    error, hint: why it was left out; "" if it was not.
    """

    parts: Sequence[str] = ()
    paths: Sequence[str] = ()
    line: str = ""
    coco: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = ()
    packed: str = ""
    error: str = ""
    hint: str = ""


def predict_stills(
    predictor: "Predictor",
    stills: "Stills",
    output: "Output",
    account: Account,
    team: "Team",
    showing: "Showing | None" = None,
) -> bool:
    """Every image, in order -> whether to go on: False when the user ended what is shown.

    One that cannot be read is left out.
    """
    files = stills.files
    share = team.share(files, (file.name for file in files))
    of_run = output.only(tuple(kind for kind in OF_RUN if kind in output.kinds and team.place.count > 1))
    own = output.only(tuple(kind for kind in output.kinds if kind not in of_run.kinds))
    show = _Shown(showing)
    write = _writer(own, account.stream, bool(of_run.kinds), show.wanted)
    outcomes = predict_files(predictor, share, write, "image" in output.kinds or show.wanted)
    done = 0
    with progress(len(files), "images") as advance, closing(outcomes):  # type: ignore[type-var]
        try:
            for message in team.collected(_told(outcomes, output.score, show), len(files)):
                told = _Told(**message)
                added = Written((), ())
                if told.packed:
                    found = Found(files[done], None, _unpacked(told.packed, predictor.spec), 0)
                    added = of_run.write(found)
                _tell(files[done].name, told, added, account)
                done += 1
                advance()
                if show.is_left:
                    break
        except KeyboardInterrupt:
            print(f"stopped: {done} of {len(files)} images are done", file=sys.stderr)
            raise
    return not show.is_left


class _Shown:
    """Shows the pictures of a run that has a display. is_left: the user wants no more of it."""

    def __init__(self, showing: "Showing | None") -> None:
        self._showing, self.is_left = showing, False
        self.wanted = showing is not None and showing.display is not None

    def __call__(self, picture: np.ndarray | None) -> None:
        if self._showing is not None and self._showing.display is not None and picture is not None:
            self.is_left = not self._showing.display.show(picture, self._showing.delay)


def _writer(output: "Output", stream: bool, pack: bool, show: bool) -> Callable[[Found], _Done]:
    def write(found: Found) -> _Done:
        place = found.file.place or str(found.file.path)
        good = found.detections.above(output.score)
        line = json_line(place, good) if stream else ""
        picture = None
        if show and found.image is not None:
            from maskrcnn.drawing import draw

            picture = draw(found.image, good, output.boxes)
        return _Done(output.write(found), line, _packed(good) if pack else "", picture)

    return write


def _told(
    outcomes: "Iterator[Finished[_Done] | Unreadable]", score: float, show: _Shown
) -> Iterator[dict[str, Any]]:
    """The fields of a _Told for each image."""
    for outcome in outcomes:
        if isinstance(outcome, Unreadable):
            told = _Told(error=outcome.error.message, hint=outcome.error.hint)
        else:
            found, done = outcome.found, outcome.written
            told = _Told(
                parts=(counts(found.detections.above(score)), f"{found.milliseconds:.0f} ms"),
                paths=[str(path) for path in done.written.paths],
                line=done.line,
                coco=done.written.coco,
                notes=done.written.notes,
                packed=done.packed,
            )
            show(done.picture)
        yield vars(told)


def _tell(name: str, told: _Told, added: Written, account: Account) -> None:
    if told.error:
        account.left_out(UserError(told.error, hint=told.hint))
        return
    account.json_line(told.line)
    account.written(Written((), tuple(told.coco), (*told.notes, *added.notes)))
    paths: list[str | Path] = [*told.paths, *added.paths]
    account.line(shown(name), *told.parts, *([f"-> {shown(paths[0])}"] if paths else []))


def _packed(detections: "Detections") -> str:
    from safetensors.numpy import save

    names = ("boxes", "scores", "labels", "roi_masks", "size")
    # safetensors takes the bytes as they lie.
    arrays = {name: np.ascontiguousarray(getattr(detections, name)) for name in names}
    return base64.b64encode(save(arrays)).decode()


def _unpacked(packed: str, spec: "Spec") -> "Detections":
    from safetensors.numpy import load

    from maskrcnn.detections import Detections

    arrays = load(base64.b64decode(packed))
    height, width = arrays.pop("size").tolist()
    paste = spec.model.conventions.mask_paste
    return Detections(**arrays, size=(height, width), classes=spec.classes, mask_paste=paste)
