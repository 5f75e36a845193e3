"""COCO instance annotations as flat arrays, a few megabytes for any data set and shared by every thread.

I images, A annotations.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.spec import Classes

Array = np.ndarray
Segmentation = tuple[Array, ...] | Mapping[str, Any]


@dataclass(frozen=True)
class Dataset:
    """Photographs and their instances; annotations of image i are the rows first[i]:first[i + 1].

    files: path of every image. ids (I,) int64: original image ids. sizes (I, 2) int64: (height, width).
    boxes (A, 4) float32: x1, y1, x2, y2 in image pixels. labels (A,) int64 into classes. crowd (A,) bool.
    segmentations: by annotation, polygons (each (P, 2) float64 in image pixels), or COCO RLE.
    """

    files: tuple[Path, ...]
    ids: Array
    sizes: Array
    first: Array
    boxes: Array
    labels: Array
    crowd: Array
    segmentations: tuple[Segmentation, ...]
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
            tuple(self.segmentations[row] for row in kept),
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


def read_coco(annotations: Path, images: Path) -> Dataset:
    """Read a COCO JSON file; file names are relative to `images`, labels follow ascending category ids."""
    content = _parse(annotations)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    of_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in content["annotations"]:
        if row["category_id"] not in label_of:
            raise UserError(
                f"{annotations}: annotation {row.get('id')} has category_id {row['category_id']}, "
                "which `categories` lacks",
                hint="add the category or correct the annotation",
            )
        if row["bbox"][2] > 0 and row["bbox"][3] > 0:
            of_image[row["image_id"]].append(row)
    kept = [row for image in content["images"] for row in of_image[image["id"]]]
    boxes = np.array([row["bbox"] for row in kept], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    counts = [len(of_image[image["id"]]) for image in content["images"]]
    return Dataset(
        files=tuple(images / image["file_name"] for image in content["images"]),
        ids=np.array([image["id"] for image in content["images"]], np.int64),
        sizes=np.array([(image["height"], image["width"]) for image in content["images"]], np.int64).reshape(
            -1, 2
        ),
        first=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
        boxes=boxes,
        labels=np.array([label_of[row["category_id"]] for row in kept], np.int64),
        crowd=np.array([bool(row.get("iscrowd", 0)) for row in kept], bool),
        segmentations=tuple(_segmentation(row) for row in kept),
        classes=Classes(tuple(c["name"] for c in categories), tuple(c["id"] for c in categories)),
    )


def _parse(annotations: Path) -> dict[str, Any]:
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{annotations}: cannot be read ({error.strerror})", hint="name a COCO JSON file"
        ) from error
    except ValueError as error:
        raise UserError(f"{annotations}: is not JSON ({error})", hint="name a COCO JSON file") from error
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise UserError(
            f"{annotations}: lacks the list{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            hint="a COCO file has images, annotations and categories",
        )
    return content


def _segmentation(row: dict[str, Any]) -> Segmentation:
    segmentation = row.get("segmentation") or _rectangle(row["bbox"])
    if isinstance(segmentation, dict):
        return segmentation
    return tuple(
        np.array(polygon, np.float64).reshape(-1, 2) for polygon in segmentation if len(polygon) >= 6
    )


def _rectangle(bbox: list[float]) -> list[list[float]]:
    """The polygon of an instance that has only a box."""
    x, y, width, height = bbox
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]
