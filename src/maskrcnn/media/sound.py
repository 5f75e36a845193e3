"""The sound of a video, copied packet by packet into another one."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from maskrcnn.media.pyav import pyav
from maskrcnn.media.video import PATIENCE, Video


class Sound:
    """All sound tracks of a video, read a second time beside its frames; use it in a `with`."""

    def __init__(self, video: Video) -> None:
        av = pyav(video.place)
        self._errors = av.FFmpegError
        self._container = av.open(video.source, options=video.options, timeout=PATIENCE)
        self._tracks = [track for track in self._container.streams.audio if track.codec_context is not None]
        self._start = video.start
        self._copies: dict[int, Any] = {}
        self._packets: Iterator[Any] = self._container.demux(self._tracks) if self._tracks else iter(())
        self._next: Any = None

    @property
    def codecs(self) -> set[str]:
        """Of its tracks; empty for a silent video."""
        return {track.codec_context.name for track in self._tracks}

    def add_to(self, output: Any) -> None:
        """Give an output container a track for each of them."""
        for track in self._tracks:
            self._copies[track.index] = output.add_stream_from_template(track)

    def copy(self, output: Any, until: Fraction | None) -> None:
        """The packets that begin before `until` seconds, None for all; damaged sound ends where it is."""
        while self._advance() and (until is None or self._seconds(self._next) < until):
            packet, self._next = self._next, None
            offset = round(self._start / packet.time_base)
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            packet.stream = self._copies[packet.stream.index]
            output.mux(packet)

    def __enter__(self) -> "Sound":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def _advance(self) -> bool:
        """Whether there is a next packet."""
        try:
            while self._next is None or self._next.dts is None or self._next.pts is None:
                self._next = next(self._packets)
        except (StopIteration, self._errors):
            self._next, self._packets = None, iter(())
            return False
        return True

    def _seconds(self, packet: Any) -> Fraction:
        return packet.dts * Fraction(packet.time_base) - self._start
