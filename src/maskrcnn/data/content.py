"""Annotations as they were written, faults included: what every format is read into and written from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.masks import encode
from maskrcnn.spec import Classes

Array = np.ndarray
Segmentation = list[list[float]] | dict[str, Any]
"""Polygons [x1, y1, x2, y2, ...] in image pixels, or COCO RLE {"size": [H, W], "counts": ...}."""


@dataclass(frozen=True)
class Picture:
    """One image. file_name: relative to the folder of the pictures; size: (height, width) as annotated."""

    id: int
    file_name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Instance:
    """One object. bbox: x, y, width, height in image pixels. place: file and item that it was read from."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    segmentation: Segmentation | None
    crowd: bool = False
    place: str = ""


@dataclass(frozen=True)
class Content:
    """A data set. path: the file or folder it was read from; pictures lie below folder.

    categories: id -> name. skipped: what the format held that is no instance, a sentence each.
    """

    path: Path
    folder: Path
    format: str
    pictures: tuple[Picture, ...]
    instances: tuple[Instance, ...]
    categories: dict[int, str]
    skipped: tuple[str, ...] = ()

    @property
    def classes(self) -> Classes:
        """Names in the order of ascending ids, which is the order of labels."""
        ids = sorted(self.categories)
        return Classes(tuple(self.categories[number] for number in ids), tuple(ids))


@dataclass
class ContentBuilder:
    """Numbers pictures, instances and categories while a format is read.

    names: categories in a given order, with ids from first_id on; others follow as they are met.
    """

    path: Path
    folder: Path
    format: str
    first_id: int = 1
    names: Sequence[str] = ()
    pictures: list[Picture] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    _ids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.names:
            self.category(name)

    def category(self, name: str) -> int:
        """The id of a category by its name."""
        return self._ids.setdefault(name, self.first_id + len(self._ids))

    def picture(self, file_name: str, size: tuple[int, int]) -> Picture:
        """One more picture."""
        found = Picture(len(self.pictures) + 1, file_name, size)
        self.pictures.append(found)
        return found

    def polygons(self, picture: Picture, category: int, parts: list[list[float]], place: str) -> None:
        """An instance of one or more polygons [x1, y1, ...] in image pixels."""
        self._add(picture, category, bounds(parts), parts, place)

    def box(self, picture: Picture, category: int, xyxy: Sequence[float], place: str) -> None:
        """An instance of which only the box x1, y1, x2, y2 is known."""
        x1, y1, x2, y2 = (float(value) for value in xyxy)
        self._add(picture, category, (x1, y1, x2 - x1, y2 - y1), None, place)

    def mask(self, picture: Picture, category: int, crop: Array, x: int, y: int, place: str) -> None:
        """An instance that is the bitmap `crop` (h, w) with its top left pixel at column x and row y."""
        rows, columns = np.flatnonzero(crop.any(1)), np.flatnonzero(crop.any(0))
        if len(rows) == 0:
            self.skipped.append(f"{place}: an empty mask")
            return
        height, width = picture.size
        tight = crop[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        x, y = x + int(columns[0]), y + int(rows[0])
        if x < 0 or y < 0 or x + tight.shape[1] > width or y + tight.shape[0] > height:
            raise UserError(
                f"{place}: a mask reaches beyond the {width} x {height} pixels of {picture.file_name}",
                hint="restore the photograph that it was drawn on",
            )
        bbox = (float(x), float(y), float(tight.shape[1]), float(tight.shape[0]))
        self._add(picture, category, bbox, encode(tight.astype(bool), x, y, picture.size), place)

    def done(self) -> Content:
        """What was gathered."""
        categories = {number: name for name, number in self._ids.items()}
        return Content(
            self.path,
            self.folder,
            self.format,
            tuple(self.pictures),
            tuple(self.instances),
            categories,
            tuple(self.skipped),
        )

    def _add(
        self,
        picture: Picture,
        category: int,
        bbox: tuple[float, float, float, float],
        segmentation: Segmentation | None,
        place: str,
    ) -> None:
        number = len(self.instances) + 1
        self.instances.append(Instance(number, picture.id, category, bbox, segmentation, place=place))


def bounds(parts: list[list[float]]) -> tuple[float, float, float, float]:
    """Polygons -> x, y, width, height of all points; zeros for none."""
    points = np.array([value for part in parts for value in part[: len(part) // 2 * 2]], float).reshape(-1, 2)
    if len(points) == 0:
        return 0.0, 0.0, 0.0, 0.0
    (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    return x1, y1, x2 - x1, y2 - y1


def read_json(path: Path, what: str) -> Any:
    """A JSON file. Raises UserError in words; `what` says what it should have been."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", hint=f"name {what}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error})", hint=f"name {what}") from error
