"""Frames of videos and cameras: what one is, and how they are had ahead of their use."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import TypeVar

from maskrcnn.images import ImageFile
from maskrcnn.stream import in_order

Made = TypeVar("Made")


@dataclass(frozen=True)
class Frame(ImageFile):
    """One picture of a video or camera; its path and name end in its index.

    index: counts from 0. seconds: since the beginning, exact. dropped: by the camera before this one.
    """

    index: int = 0
    seconds: Fraction = Fraction(0)
    dropped: int = 0


def frame_of(path: Path, stem: str, index: int) -> tuple[Path, str]:
    """Path and name of a frame: `clip.mp4/000012` and `clip-000012`."""
    number = f"{index:06d}"
    return path / number, f"{stem}-{number}"


def ahead(items: Iterable[Made], most: int) -> Iterator[Made]:
    """The items in order; a thread of its own makes up to `most` of them before they are asked for."""
    iterator = iter(items)
    end = object()

    def decode(_: int) -> Made | object:
        return next(iterator, end)

    for item in in_order(decode, count(), workers=1, window=most):
        if item is end:
            return
        yield item  # type: ignore[misc]


def limited(frames: Iterable[Frame], most: int | None, seconds: float | None) -> Iterator[Frame]:
    """The first `most` frames, and of these the ones before `seconds`; None sets no limit."""
    if most == 0:
        return
    for frame in frames:
        if seconds is not None and float(frame.seconds) >= seconds:
            return
        yield frame
        if most is not None and frame.index + 1 >= most:
            return
