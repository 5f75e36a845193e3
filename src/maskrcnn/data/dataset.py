"""Photographs and their instances as flat arrays, a few megabytes for most sets and shared by every thread.

I images, A annotations.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskrcnn.data.content import Content, Instance, Segmentation
from maskrcnn.data.shapes import Shapes, pack
from maskrcnn.errors import UserError
from maskrcnn.spec import Classes

Array = np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Annotations of image i are the rows first[i]:first[i + 1].

    files: path of every image. ids (I,) int64: original image ids. sizes (I, 2) int64: (height, width).
    boxes (A, 4) float32: x1, y1, x2, y2 in image pixels. labels (A,) int64 into classes. crowd (A,) bool.
    segmentations: an outline for each annotation.
    """

    files: tuple[Path, ...]
    ids: Array
    sizes: Array
    first: Array
    boxes: Array
    labels: Array
    crowd: Array
    segmentations: Shapes
    classes: Classes

    def __len__(self) -> int:
        return len(self.files)

    def rows(self, index: int) -> slice:
        """Annotations of one image."""
        return slice(int(self.first[index]), int(self.first[index + 1]))

    def take(self, indices: Array) -> "Dataset":
        """These images, in this order, with their annotations."""
        rows = [np.arange(self.first[index], self.first[index + 1]) for index in indices]
        kept = np.concatenate([np.zeros(0, np.int64), *rows])
        return Dataset(
            tuple(self.files[index] for index in indices),
            self.ids[indices],
            self.sizes[indices],
            np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64),
            self.boxes[kept],
            self.labels[kept],
            self.crowd[kept],
            self.segmentations.take(kept),
            self.classes,
        )

    def __add__(self, other: "Dataset") -> "Dataset":
        if self.classes != other.classes:
            raise UserError(
                f"{self.files[0].parent} and {other.files[0].parent} have different classes",
                hint="join data sets with the same categories only",
            )
        return Dataset(
            self.files + other.files,
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.sizes, other.sizes]),
            np.concatenate([self.first, self.first[-1] + other.first[1:]]),
            np.concatenate([self.boxes, other.boxes]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.crowd, other.crowd]),
            self.segmentations + other.segmentations,
            self.classes,
        )


def dataset_of(content: Content) -> Dataset:
    """What a model can learn from: boxes without area are left out, labels follow ascending category ids.

    An instance that has only a box has it as its outline. Raises UserError for a category or an image that
    does not exist.
    """
    label_of = {number: label for label, number in enumerate(content.classes.ids)}
    known = {picture.id for picture in content.pictures}
    of_image: dict[int, list[Instance]] = defaultdict(list)
    for one in content.instances:
        if one.category_id not in label_of:
            raise UserError(
                f"{one.place} has category_id {one.category_id}, which `categories` lacks",
                hint="`maskrcnn data check --fix FILE` writes a copy without such annotations",
            )
        if one.image_id not in known:
            raise UserError(
                f"{one.place} has image_id {one.image_id}, which `images` lacks",
                hint="`maskrcnn data check --fix FILE` writes a copy without such annotations",
            )
        if one.bbox[2] > 0 and one.bbox[3] > 0:
            of_image[one.image_id].append(one)
    kept = [one for picture in content.pictures for one in of_image[picture.id]]
    boxes = np.array([one.bbox for one in kept], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    counts = [len(of_image[picture.id]) for picture in content.pictures]
    return Dataset(
        files=tuple(content.folder / picture.file_name for picture in content.pictures),
        ids=np.array([picture.id for picture in content.pictures], np.int64),
        sizes=np.array([picture.size for picture in content.pictures], np.int64).reshape(-1, 2),
        first=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        boxes=boxes.astype(np.float32),
        labels=np.array([label_of[one.category_id] for one in kept], np.int64),
        crowd=np.array([one.crowd for one in kept], bool),
        segmentations=pack(outline(one) for one in kept),
        classes=content.classes,
    )


def outline(one: Instance) -> Segmentation:
    """Its segmentation, or the rectangle of its box."""
    if one.segmentation is not None:
        return one.segmentation
    return [rectangle(one.bbox)]


def rectangle(bbox: Sequence[float]) -> list[float]:
    """x, y, width, height -> the polygon of its corners."""
    x, y, width, height = bbox
    return [x, y, x + width, y, x + width, y + height, x, y + height]
