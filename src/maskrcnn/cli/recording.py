"""What is written of a video or camera, and what was in it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from maskrcnn.cli.account import Account
from maskrcnn.cli.json_lines import json_line
from maskrcnn.drawing import draw
from maskrcnn.errors import UserError
from maskrcnn.media.find import Moving
from maskrcnn.media.frames import Frame
from maskrcnn.media.rate import Rate, write_rate
from maskrcnn.media.video_writer import VideoWriter
from maskrcnn.results import GrowingText, Output, Written
from maskrcnn.stream import Finished, Found
from maskrcnn.whole_file import shown

if TYPE_CHECKING:
    from maskrcnn.media.display import Display

# Of these a video has one file, not one a frame.
OF_VIDEOS = ("image", "json")
Value = TypeVar("Value")


@dataclass(frozen=True)
class FrameWritten:
    """picture: the frame as drawn, or None. line: as JSON, or "". written: the files of its own."""

    picture: np.ndarray | None
    line: str
    written: Written


@dataclass(frozen=True)
class Showing:
    """What is seen while it is made.

    display: None for nothing. delay: as Display's. rate: whether frames a second are drawn and told.
    """

    display: "Display | None" = None
    delay: int | None = None
    rate: bool = False


class Recording:
    """Takes the frames of one video in order: writes a video, a .jsonl and files of their own, and counts.

    is_left: the user wants no more of it.
    """

    def __init__(
        self,
        moving: Moving,
        output: Output,
        account: Account,
        video: VideoWriter | None,
        showing: Showing,
    ) -> None:
        self._moving, self._output, self._account, self._video = moving, output, account, video
        self._showing, self._rate, self.is_left = showing, Rate(), False
        stem = output.folder / output.stems[moving.path]
        self._lines = GrowingText(stem.with_name(f"{stem.name}.jsonl")) if "json" in output.kinds else None
        self._frame_output = output.only(tuple(kind for kind in output.kinds if kind not in OF_VIDEOS))
        self.count = 0
        self._dropped = 0
        self._milliseconds = 0.0
        self._seen: Counter[str] = Counter()
        self._damage: list[UserError] = []

    @property
    def draws(self) -> bool:
        """Whether it wants the pixels of frames."""
        return self._video is not None or self._showing.display is not None

    def write(self, found: Found) -> FrameWritten:
        """What threads can do side by side: drawing, and the files of each frame."""
        frame = found.file
        assert isinstance(frame, Frame)
        good = found.detections.above(self._output.score)
        picture = None
        if self.draws and found.image is not None:
            picture = draw(found.image, good, self._output.boxes)
        if picture is not None and self._showing.rate and self._rate.of_the_moment():
            write_rate(picture, self._rate.of_the_moment())
        line = ""
        if self._lines is not None or self._account.stream:
            dropped = frame.dropped if self._moving.live else None
            line = json_line(self._moving.place, good, frame.index, float(frame.seconds), dropped)
        without_image = Found(frame, None, found.detections, found.milliseconds)
        return FrameWritten(picture, line, self._frame_output.write(without_image))

    def add(self, finished: Finished[FrameWritten]) -> None:
        """The next frame. Raises UserError if the disk refuses."""
        frame, done = finished.found.file, finished.written
        assert isinstance(frame, Frame)
        self._rate.tick()
        if self._video is not None and done.picture is not None:
            self._video.add(done.picture, frame.seconds)
        if self._lines is not None:
            self._lines.add("", lambda _: f"{done.line}\n")
        self._account.json_line(done.line)
        self._account.written(done.written)
        self.count += 1
        self._dropped += frame.dropped
        self._milliseconds += finished.found.milliseconds
        self._seen.update(set(finished.found.detections.above(self._output.score).names()))
        if self._showing.display is not None and done.picture is not None:
            self.is_left = not self._showing.display.show(done.picture, self._showing.delay)

    def damaged(self, error: UserError) -> None:
        """Some of it could not be read."""
        self._damage.append(error)

    def end(self, at_its_own_end: bool) -> None:
        """After the last frame; at its own end its sound may go on."""
        if self._video is not None and at_its_own_end:
            self._video.add_rest_of_sound()

    def tell(self) -> None:
        """`clip.mp4   300 frames   person in 212, bicycle in 20   48 ms a frame   -> out/clip.mp4`."""
        if self.count:
            parts = [self._frames(), self._contents(), f"{self._milliseconds / self.count:.0f} ms a frame"]
            if self._showing.rate:
                parts.append(f"{self._rate.of_all():.1f} fps")
            path = self._video.path if self._video is not None else self._lines and self._lines.path
            self._account.line(shown(self._moving.name), *parts, *([f"-> {shown(path)}"] if path else []))
        if self._damage:
            first = self._damage[0]
            more = f", and in {len(self._damage) - 1} more places" if len(self._damage) > 1 else ""
            error = UserError(f"{first.message}{more}", hint=first.hint)
            (self._account.damaged if self.count else self._account.left_out)(error)

    def _frames(self) -> str:
        dropped = f" ({self._dropped} dropped, the model is slower)" if self._dropped else ""
        return f"{self.count} frame{'s' * (self.count != 1)}{dropped}"

    def _contents(self) -> str:
        seen = ", ".join(f"{name} in {number}" for name, number in self._seen.most_common())
        return seen or "nothing found"


class _ByPath(Mapping[Path, Value]):
    """What belongs to images by path, and what is computed of the path of a frame, of which there is no end.

    of_frame: raises KeyError for what is no frame.
    """

    def __init__(self, images: Mapping[Path, Value], of_frame: Callable[[Path], Value]) -> None:
        self._images, self._of_frame = images, of_frame

    def __getitem__(self, path: Path) -> Value:
        return self._images[path] if path in self._images else self._of_frame(path)

    def __contains__(self, path: object) -> bool:
        return path in self._images

    def __iter__(self) -> Iterator[Path]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)


def stems_with_frames(stems: Mapping[Path, str]) -> Mapping[Path, str]:
    """Those of images and videos, and of each frame that of its video and its number."""
    return _ByPath(stems, lambda path: f"{stems[path.parent]}-{path.name}")


def ids_with_frames(ids: Mapping[Path, int], alone: bool) -> Mapping[Path, int]:
    """Those of images, and of each frame its number, if it is of the only video there is."""
    return _ByPath(ids, lambda path: int(path.name)) if alone else ids
