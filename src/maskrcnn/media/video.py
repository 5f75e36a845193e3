"""Reads videos frame by frame: upright, at their own times, as far as they are whole."""

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.media.frames import Frame, frame_of
from maskrcnn.media.pyav import pyav, reason, refuse_offline
from maskrcnn.whole_file import shown

if TYPE_CHECKING:
    from av import VideoFrame

VIDEOS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv"),
    *(".flv", ".3gp", ".ogv", ".mxf", ".vob", ".asf", ".h264", ".hevc", ".y4m", ".mjpg", ".mjpeg", ".m3u8"),
)
# Seconds that a server may take to connect, and then to go on.
PATIENCE = (10.0, 30.0)
# Seconds; shorter than this, and a file does not end early: headers round.
SLACK = Fraction(1, 2)
TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


def is_video(path: str | Path) -> bool:
    """Whether a name ends as that of a video."""
    return str(path).lower().endswith(VIDEOS)


class Video:
    """An open video; use it in a `with`.

    source: what opens it, a path or an http address. stem: how the names of its frames begin.
    time_base: seconds of a tick; every frame is at a whole number of ticks. rate: frames a second, about.
    expected: how many frames it should have, 0 if it does not say. start: seconds at which it begins.
    Raises UserError for what is no video, or cannot be decoded.
    """

    def __init__(self, source: str, path: Path, stem: str, place: str) -> None:
        self.path, self.stem, self.place = path, stem, place
        self.source, self.options = opening(source, place)
        self._av = pyav(place)
        try:
            self._container = self._av.open(self.source, options=self.options, timeout=PATIENCE)
        except self._av.FFmpegError as error:
            words = reason(error)
            if isinstance(error, self._av.error.InvalidDataError):
                words = "is no video, or a damaged one"
            raise UserError(f"{place}: {words}", hint="check that a player shows it") from error
        try:
            self._stream = self._decodable()
        except UserError:
            self._container.close()
            raise
        self.time_base = Fraction(self._stream.time_base)
        self.rate = self._stream.average_rate or self._stream.guessed_rate
        self._in_order = self._container.format.name == "avi"
        began = self._container.start_time
        self.start = Fraction(began, self._av.time_base) if began is not None else Fraction(0)
        self.declared_end = self._declared_end()
        self.expected = self._stream.frames or round((self.declared_end or 0) * (self.rate or 0))

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def frames(self) -> Iterator[Frame]:
        """Every frame in the order of time; what is damaged is one that raises UserError when it is read."""
        index, last, start = 0, None, self.start
        for frame in self._decoded():
            if isinstance(frame, UserError):
                yield self._frame(index, last or Fraction(0), partial(_raise, frame))
                continue
            # An AVI counts packets as they are stored, and knows no times of frames.
            ticks = frame.dts if self._in_order else frame.pts
            if last is None and self._in_order:
                start = (ticks or 0) * self.time_base
            seconds = self._seconds(ticks, start, last)
            yield self._frame(index, seconds, partial(upright_rgb, frame, self.place))
            index, last = index + 1, seconds

    def _decodable(self) -> Any:
        stream = self._container.streams.best("video")
        if stream is None:
            raise UserError(f"{self.place}: has no pictures", hint="name a video")
        if getattr(stream, "codec_context", None) is None:
            raise UserError(
                f"{self.place}: its codec cannot be decoded", hint="convert it to H.264 with a video tool"
            )
        stream.thread_type = "AUTO"
        return stream

    def _declared_end(self) -> Fraction | None:
        """Seconds on the clock of the stream at which its header says that it ends."""
        if self._stream.duration:
            return (self._stream.start_time or 0) * self.time_base + self._stream.duration * self.time_base
        try:
            hours, minutes, seconds = self._stream.metadata["DURATION"].split(":")  # how Matroska has it
            return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
        except (KeyError, ValueError):
            return None

    def _decoded(self) -> Iterator["VideoFrame | UserError"]:
        reached = Fraction(0)
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                stamp = packet.dts if packet.pts is None else packet.pts
                if stamp is not None:
                    reached = max(reached, (stamp + (packet.duration or 0)) * self.time_base)
                frames = packet.decode()
            except self._av.FFmpegError as error:
                yield self._damaged(reached, reason(error))
                if not isinstance(error, self._av.error.InvalidDataError):
                    return  # a connection that is lost, a disk that fails
                continue
            yield from frames
        if self.declared_end is not None and reached + SLACK < self.declared_end:
            yield self._damaged(reached, f"it should end at {_clock(self.declared_end - self.start)}")

    def _damaged(self, reached: Fraction, why: str) -> UserError:
        return UserError(
            f"{self.place}: is damaged or incomplete at {_clock(reached - self.start)} ({why})",
            hint="copy or download it again",
        )

    def _seconds(self, ticks: int | None, start: Fraction, last: Fraction | None) -> Fraction:
        """Since the beginning; a frame without a time follows the last one."""
        if ticks is not None:
            seconds = (ticks - round(start / self.time_base)) * self.time_base
            if last is None or seconds > last:
                return seconds
        if last is None:
            return Fraction(0)
        step = 1 / Fraction(self.rate) if self.rate else Fraction(1, 25)
        return last + max(1, round(step / self.time_base)) * self.time_base

    def _frame(self, index: int, seconds: Fraction, load: Any) -> Frame:
        path, name = frame_of(self.path, self.stem, index)
        return Frame(path, name, load, index=index, seconds=seconds)


def video_file(path: str | Path) -> Video:
    """Open a video file. Raises UserError as Video."""
    return Video(str(path), Path(path), Path(path).stem, shown(path))


def opening(source: str, place: str) -> tuple[str, dict[str, str]]:
    """What av.open needs: no file may lead it to the network, no address to a file."""
    if "://" in source:
        refuse_offline(place)
        return source, {"protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto,data"}
    return f"file:{source}", {"protocol_whitelist": "file,crypto,data"}


def upright_rgb(frame: "VideoFrame", place: str) -> np.ndarray:
    """uint8 (H, W, 3) RGB, turned as the file wants it shown. Raises UserError."""
    try:
        image = frame.to_ndarray(format="rgb24")
    except (ValueError, MemoryError, pyav(place).FFmpegError) as error:
        raise UserError(
            f"{place}: a frame cannot be decoded ({reason(error)})", hint="copy or download it again"
        ) from error
    turn = frame.rotation % 360
    return cv2.rotate(image, TURNS[turn]) if turn in TURNS else image


def _raise(error: UserError) -> np.ndarray:
    raise error


def _clock(seconds: Fraction) -> str:
    """`7.1 s`, `12:05`, `1:00:00`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{float(max(Fraction(0), seconds)):.1f} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
