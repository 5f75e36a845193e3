"""Pictures on disk as the data tools see them: where they are, how large, and which way up."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from maskrcnn.images import EXIF_ORIENTATION, SUFFIXES

LYING = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""


@dataclass(frozen=True)
class Measured:
    """stored: (height, width) in the file; orientation: 1 to 8 as EXIF has it."""

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) after the EXIF rotation, as every reader here sees the picture."""
        return self.stored[::-1] if self.orientation in LYING else self.stored


def measure(path: Path) -> Measured | None:
    """The sizes in a picture's header; None for what is no readable picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's of many pixels and odd metadata
            with Image.open(path) as picture:
                width, height = picture.size
                orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return Measured((height, width), orientation if orientation in range(1, 9) else 1)


def pictures_below(folder: Path) -> dict[str, Path]:
    """Every picture in a folder and the folders in it: POSIX name relative to the folder -> path."""
    found = {}
    for where, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(where, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def by_last_part(names: Iterable[str]) -> dict[str, str]:
    """POSIX names by their last part, of those whose last part no other name has."""
    found: dict[str, str] = {}
    twice = set()
    for name in names:
        last = PurePosixPath(name).name
        twice.update([last] if last in found else [])
        found[last] = name
    return {last: name for last, name in found.items() if last not in twice}
