"""Cameras and streams: always the newest picture, dropped ones counted, lost connections taken up again."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.media.frames import Frame, frame_of
from maskrcnn.media.pyav import pyav, reason, refuse_offline
from maskrcnn.media.video import upright_rgb

if TYPE_CHECKING:
    from av import Packet, VideoFrame

# What gives one picture, when it is wanted: a picture that is dropped is not converted.
Load = Callable[[], np.ndarray]
# One connection: pictures as they arrive, until it ends or raises UserError.
Connect = Callable[[], Iterator[Load]]

# Seconds to connect, and then for a picture to arrive, before a stream counts as lost.
PATIENCE = (10.0, 10.0)
# What an address may lead to: no file.
PROTOCOLS = "rtsp,rtsps,rtp,rtmp,rtmps,srt,udp,tcp,tls,http,https,httpproxy,crypto,data"
# Seconds between attempts to connect again: the first, and the most after doubling.
PAUSES = (1.0, 30.0)
# Seconds, to which the times of pictures that arrive are rounded.
TICK = Fraction(1, 90000)
# Seconds in which a wait notices that the user interrupts, on systems that would not.
GLANCE = 0.2
CHECK_NETWORK = "check the address and the network"


@dataclass(frozen=True)
class _Picture:
    load: Load
    seconds: float
    dropped: int


class Live:
    """The newest pictures of a camera, taken by a thread of its own; use it in a `with`.

    place: how it is named in words. connect: opens it. say: is given a sentence when it is lost, and when it
    is back. What fails before its first picture raises UserError; later it is opened again and again.
    """

    def __init__(
        self,
        path: Path,
        stem: str,
        place: str,
        connect: Connect,
        say: Callable[[str], None],
    ) -> None:
        self.path, self.stem, self.place = path, stem, place
        self._connect, self._say = connect, say
        self._fresh = threading.Condition()
        self._left = threading.Event()
        self._newest: _Picture | None = None
        self._dropped = 0
        self._began: float | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._capture, name="capture", daemon=True)

    def frames(self, seconds: float | None = None) -> Iterator[Frame]:
        """The newest picture whenever one is asked for, each once; ends after `seconds`, else never."""
        index, gone = 0, 0
        while (picture := self._next(seconds)) is not None:
            path, name = frame_of(self.path, self.stem, index)
            at = round(picture.seconds / TICK) * TICK
            yield Frame(path, name, picture.load, index=index, seconds=at, dropped=picture.dropped - gone)
            index, gone = index + 1, picture.dropped

    def __enter__(self) -> "Live":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join(GLANCE)  # where it waits for a picture it dies with the program

    def _next(self, limit: float | None) -> _Picture | None:
        with self._fresh:
            while self._newest is None:
                if self._error is not None:
                    raise self._error
                if limit is not None and self._began is not None and _now() - self._began >= limit:
                    return None
                self._fresh.wait(GLANCE)
            picture, self._newest = self._newest, None
        return picture if limit is None or picture.seconds < limit else None

    def _capture(self) -> None:
        try:
            self._connect_again_and_again()
        except BaseException as error:
            with self._fresh:
                self._error = error
                self._fresh.notify()

    def _connect_again_and_again(self) -> None:
        pause, most = PAUSES
        lost = False
        while not self._left.is_set():
            why = "it ended"
            try:
                for load in self._connect():
                    if lost:
                        self._say(f"{self.place}: is back")
                    lost, pause = False, PAUSES[0]
                    self._offer(load)
                    if self._left.is_set():
                        return
            except UserError as error:
                if self._began is None:
                    raise
                why = error.message.removeprefix(f"{self.place}: ")
            if self._began is None:
                raise UserError(
                    f"{self.place}: gives no picture", hint="check the camera with another program"
                )
            if not lost:
                self._say(f"{self.place}: is lost ({why}); connecting again until it is back")
            lost = True
            self._left.wait(pause)
            pause = min(2 * pause, most)

    def _offer(self, load: Load) -> None:
        with self._fresh:
            if self._began is None:
                self._began = _now()
            if self._newest is not None:
                self._dropped += 1
            self._newest = _Picture(load, _now() - self._began, self._dropped)
            self._fresh.notify()


def camera(number: int) -> Connect:
    """A camera of this machine, by OpenCV: it knows the cameras of every system by number."""

    def pictures() -> Iterator[Load]:
        device = cv2.VideoCapture(number)
        try:
            if not device.isOpened():
                raise UserError(f"camera:{number}: cannot be opened", hint=_cameras_here())
            device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            while True:
                good, image = device.read()
                if not good:
                    raise UserError(f"camera:{number}: gives no picture", hint="check its cable")
                yield partial(cv2.cvtColor, image, cv2.COLOR_BGR2RGB)
        finally:
            device.release()

    return pictures


def network_stream(url: str, place: str) -> Connect:
    """rtsp:// and other addresses that libav reads; place: the address without its password."""
    av = pyav(place)
    options = {"rtsp_transport": "tcp", "protocol_whitelist": PROTOCOLS}

    def pictures() -> Iterator[Load]:
        refuse_offline(place)
        try:
            with av.open(url, options=options, timeout=PATIENCE) as container:
                stream = container.streams.best("video")
                if stream is None:
                    raise UserError(f"{place}: has no pictures", hint="name a camera")
                for packet in container.demux(stream):
                    for frame in _decoded(packet, av):
                        yield partial(upright_rgb, frame, place)
        except av.error.ExitError as error:
            why = f"nothing arrived for {PATIENCE[1]:g} s"
            raise UserError(f"{place}: {why}", hint=CHECK_NETWORK) from error
        except av.FFmpegError as error:
            raise UserError(f"{place}: {reason(error)}", hint=CHECK_NETWORK) from error

    return pictures


def _decoded(packet: "Packet", av: ModuleType) -> "list[VideoFrame]":
    try:
        return packet.decode()
    except av.error.InvalidDataError:
        return []  # before the first key frame, and where the network lost a part


def _cameras_here() -> str:
    devices = sorted(Path("/dev").glob("video[0-9]*")) if sys.platform == "linux" else []
    if devices:
        return f"this machine has {', '.join(map(str, devices))}; another program may be using it"
    return "connect a camera, or check that this program may use it"


def _now() -> float:
    return time.monotonic()
