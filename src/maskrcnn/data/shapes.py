"""Outlines of many instances in a few flat arrays, which threads and processes share without copies.

A annotations, Q polygons, T points.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle

Array = np.ndarray
Segmentation = tuple[Array, ...] | Mapping[str, Any]
"""Polygons, each (P, 2) float64 in image pixels, or COCO RLE with compressed counts."""


@dataclass(frozen=True)
class Shapes:
    """A sequence of Segmentation.

    points (T, 2) float64; polygon q has the points first_point[q]:first_point[q + 1], annotation a the
    polygons first_polygon[a]:first_polygon[a + 1]. Of an RLE the text of its counts is
    runs[first_run[a]:first_run[a + 1]] and sizes[a] its (height, width), which is zero for polygons.
    """

    points: Array
    first_point: Array
    first_polygon: Array
    runs: Array
    first_run: Array
    sizes: Array

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, row: int) -> Segmentation:
        if self.sizes[row].any():
            counts = self.runs[self.first_run[row] : self.first_run[row + 1]].tobytes()
            return {"size": self.sizes[row].tolist(), "counts": counts}
        polygons = range(self.first_polygon[row], self.first_polygon[row + 1])
        return tuple(self.points[self.first_point[q] : self.first_point[q + 1]] for q in polygons)

    def take(self, rows: Array) -> "Shapes":
        """These annotations, in this order."""
        polygons = _ranges(self.first_polygon, rows)
        points = _ranges(self.first_point, polygons)
        runs = _ranges(self.first_run, rows)
        return Shapes(
            self.points[points],
            _starts(np.diff(self.first_point)[polygons]),
            _starts(np.diff(self.first_polygon)[rows]),
            self.runs[runs],
            _starts(np.diff(self.first_run)[rows]),
            self.sizes[rows],
        )

    def __add__(self, other: "Shapes") -> "Shapes":
        return Shapes(
            np.concatenate([self.points, other.points]),
            _joined(self.first_point, other.first_point),
            _joined(self.first_polygon, other.first_polygon),
            np.concatenate([self.runs, other.runs]),
            _joined(self.first_run, other.first_run),
            np.concatenate([self.sizes, other.sizes]),
        )


def pack(segmentations: Iterable[Segmentation | list[list[float]]]) -> Shapes:
    """Segmentations as COCO files have them; polygons of fewer than three points are left out."""
    points: list[Array] = []
    lengths, polygons, texts, sizes = [], [], [], []
    for segmentation in segmentations:
        text, size, parts = b"", (0, 0), 0
        if isinstance(segmentation, Mapping):
            text, size = _compressed(segmentation), tuple(segmentation["size"])
        else:
            for polygon in segmentation:
                found = np.asarray(polygon, np.float64)
                found = found.ravel()[: found.size // 2 * 2].reshape(-1, 2)
                if len(found) >= 3:
                    points.append(found)
                    lengths.append(len(found))
                    parts += 1
        polygons.append(parts)
        texts.append(text)
        sizes.append(size)
    return Shapes(
        np.concatenate([np.zeros((0, 2)), *points]),
        _starts(lengths),
        _starts(polygons),
        np.frombuffer(b"".join(texts), np.uint8),
        _starts([len(text) for text in texts]),
        np.array(sizes, np.int64).reshape(-1, 2),
    )


def _compressed(segmentation: Mapping[str, Any]) -> bytes:
    counts = segmentation["counts"]
    if isinstance(counts, str):
        return counts.encode("ascii", "replace")
    if isinstance(counts, bytes):
        return counts
    height, width = segmentation["size"]
    packed = rle.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
    found: bytes = packed["counts"]
    return found


def _starts(lengths: Any) -> Array:
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))]).astype(np.int64)


def _ranges(first: Array, rows: Array) -> Array:
    """first[r]:first[r + 1] of every row, one after the other."""
    lengths = np.diff(first)[rows]
    starts = np.repeat(first[:-1][rows] - (np.cumsum(lengths) - lengths), lengths)
    found: Array = starts + np.arange(lengths.sum())
    return found


def _joined(first: Array, second: Array) -> Array:
    return np.concatenate([first, first[-1] + second[1:]])
