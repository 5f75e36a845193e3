"""Writes an H.264 video in a thread of its own: frames at given times, and the sound of another one."""

import io
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.media.pyav import pyav, reason
from maskrcnn.media.sound import Sound
from maskrcnn.whole_file import shown, temporary_path

if TYPE_CHECKING:
    from av import VideoFrame

# The first that PyAV has; all versions have the last.
CODECS = ("libx264", "libopenh264", "mpeg4")
# Visually lossless at a rate that two cores keep up with; other encoders take what they understand.
OPTIONS = {"crf": "20", "preset": "veryfast"}
# Frames that wait for the encoder.
WAITING = 3
# Ticks a second: the clock of an .mp4 has at least so many, and mpeg4 can have no more than so many.
LEAST_CLOCK, MPEG4_CLOCK = 90000, 65535


class VideoWriter:
    """An .mp4 or .mkv that grows under a temporary name; use it in a `with`.

    On leaving, also through an interruption, the video is ended after the last frame and takes its name;
    without a frame there is no file. time_base: seconds of a tick, to which times are rounded. rate: frames a
    second, about. sound: copied along. Raises UserError where the disk or the encoder refuses.
    """

    def __init__(
        self, path: Path, time_base: Fraction, rate: Fraction | None, sound: Sound | None = None
    ) -> None:
        self.path = path
        self._av = pyav(shown(path))
        self._time_base, self._rate, self._sound = time_base, rate or Fraction(25), sound
        self._temporary = temporary_path(path)
        self._output: Any = None
        self._stream: Any = None
        self._size = (0, 0)
        self._last_tick = -1
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def add(self, image: np.ndarray, seconds: Fraction, wait: bool = False) -> None:
        """Append uint8 (H, W, 3) RGB, shown from `seconds` on; later ones are resized to the first.

        wait: until it is encoded.
        """
        self._submit(lambda: self._encode(image, seconds), waiting=0 if wait else WAITING)

    def add_rest_of_sound(self) -> None:
        """After the last frame: sound that goes on after it."""
        self._submit(lambda: self._copy_sound(None))

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._submit(self._end, waiting=0)
        finally:
            self._pool.shutdown()
            if self._output is not None:
                self._output.close()
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def _submit(self, work: Callable[[], None], waiting: int = WAITING) -> None:
        """Queue some work for the thread, and wait until at most so much is left to do."""
        self._waiting.append(self._pool.submit(self._try, work))
        while len(self._waiting) > waiting:
            self._waiting.popleft().result()

    def _try(self, work: Callable[[], None]) -> None:
        if self._failed:
            return  # libav crashes where something follows an error
        try:
            work()
        except (OSError, ValueError, self._av.FFmpegError) as error:
            self._failed = True
            raise UserError(
                f"{shown(self.path)}: cannot be written ({reason(error)})",
                hint="check the folder and its free space",
            ) from error

    def _encode(self, image: np.ndarray, seconds: Fraction) -> None:
        height, width = image.shape[:2]
        if self._output is None:
            self._open(height, width)
        if (height, width) != self._size:
            image = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_AREA)
        frame = self._yuv(image)
        frame.pts = max(self._last_tick + 1, round(seconds / self._time_base))
        frame.time_base = self._time_base
        self._last_tick = frame.pts
        self._output.mux(self._stream.encode(frame))
        self._copy_sound(frame.pts * self._time_base)

    def _open(self, height: int, width: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kind = "matroska" if self.path.suffix == ".mkv" else "mp4"
        clock = {"movie_timescale": str(_clock(self._time_base))} if kind == "mp4" else {}
        self._output = self._av.open(str(self._temporary), "w", format=kind, options=clock)
        codec = next(name for name in CODECS if self._can_encode(name))
        if codec == "mpeg4" and self._time_base.denominator > MPEG4_CLOCK:
            self._time_base = Fraction(1, 60000)
        options = OPTIONS if codec == "libx264" else {}
        self._stream = self._output.add_stream(codec, rate=self._rate, options=options)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = self._time_base
        self._stream.time_base = self._time_base
        self._stream.codec_context.colorspace = 1  # BT.709, as players take what is not marked
        self._stream.codec_context.color_range = 1  # 16 to 235
        self._size = (height, width)
        if self._sound is not None:
            self._sound.add_to(self._output)

    def _can_encode(self, codec: str) -> bool:
        try:
            self._av.codec.Codec(codec, "w")
        except ValueError:
            return False
        return True

    def _yuv(self, image: np.ndarray) -> "VideoFrame":
        """4:2:0 needs even sides: an odd one gets its last row or column twice."""
        height, width = self._size
        if height % 2 or width % 2:
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")

    def _copy_sound(self, until: Fraction | None) -> None:
        if self._sound is not None and self._output is not None:
            self._sound.copy(self._output, until)

    def _end(self) -> None:
        if self._output is not None:
            self._output.mux(self._stream.encode())
            self._output.close()
            self._output = None
            self._temporary.replace(self.path)


def _clock(time_base: Fraction) -> int:
    """Ticks a second in which an .mp4 says when a track begins: as the frames have, and fine for sound."""
    ticks = time_base.denominator
    while ticks < LEAST_CLOCK:
        ticks *= 2
    return ticks


def suffix_for(sound: Sound, place: str) -> str | None:
    """`.mp4`, which every player shows, or `.mkv` for sound that has no place in it; None for neither."""
    for suffix, kind in ((".mp4", "mp4"), (".mkv", "matroska")):
        with pyav(place).open(io.BytesIO(), "w", format=kind) as output:
            if sound.codecs <= output.supported_codecs:
                return suffix
    return None
