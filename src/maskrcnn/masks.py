"""Masks from the network's M x M crops to image pixels and COCO RLE, without an array of the whole image.

N instances, M side of a mask, H, W size of the image, h, w size of a mask's window inside the image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import cv2
import numpy as np
from pycocotools import mask as coco_mask

PasteRule = Literal["pixel_centres", "expanded"]
Place = tuple[slice, slice]

LARGE = 1 << 18  # pixels of a window from which on looking for the mask's edge first pays


def paste_crop(
    roi_mask: np.ndarray, box: np.ndarray, size: tuple[int, int], rule: PasteRule
) -> tuple[np.ndarray, int, int]:
    """roi_mask (M, M), box (4,) in image pixels -> mask bool (h, w) of the window from column x and row y on.

    rule: `pixel_centres` as detectron2 and mmdetection, `expanded` as torchvision and maskrcnn-benchmark.
    """
    window = _window(roi_mask, box, size, rule)
    columns = np.zeros(window.shape, bool)
    over = np.greater_equal if rule == "pixel_centres" else np.greater
    for place in window.inside:
        columns[place] = True
    for place in window.undecided:
        part = columns[place]
        for rows, probability in _products(window.across[place[0]], window.lines[:, place[1]]):
            over(probability, np.float32(0.5), out=part[rows])
    return columns.T, window.x, window.y


def paste(roi_masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], rule: PasteRule) -> np.ndarray:
    """roi_masks (N, M, M), boxes (N, 4) in image pixels -> masks bool (N, H, W)."""
    masks = np.zeros((len(boxes), *size), bool)
    for mask, roi_mask, box in zip(masks, roi_masks, boxes, strict=True):
        crop, x, y = paste_crop(roi_mask, box, size, rule)
        # NumPy would turn the columns into rows a pixel at a time.
        rows = cv2.transpose(crop.T.view(np.uint8)).view(bool) if crop.size else crop
        mask[y : y + crop.shape[0], x : x + crop.shape[1]] = rows
    return masks


def encode(crop: np.ndarray, x: int, y: int, size: tuple[int, int]) -> dict[str, Any]:
    """COCO compressed RLE {"size": [H, W], "counts": str} of a mask that is `crop` (h, w) at x, y."""
    height, width = int(size[0]), int(size[1])
    lengths = _run_lengths(crop, x, y, (height, width))
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": lengths}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def tight(crop: np.ndarray, x: int, y: int) -> tuple[np.ndarray, int, int]:
    """A mask, bool (h, w) at column x and row y -> the same in the smallest window."""
    rows, columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
    if not len(rows):
        return crop[:0, :0], x, y
    top, left = int(rows[0]), int(columns[0])
    return crop[top : rows[-1] + 1, left : columns[-1] + 1], x + left, y + top


@dataclass(frozen=True)
class _Window:
    """The pixels of an image that a mask can reach, column-major as RLE is: their transpose costs nothing.

    x, y: its first column and row. across: (w, M), the weights of the mask's columns in each pixel column.
    lines: (M, h), the mask's columns at the height of each pixel row. inside: rectangles, slices of columns
    and of rows, in which every pixel is in the mask. undecided: those where the probability must be computed.
    """

    x: int
    y: int
    across: np.ndarray
    lines: np.ndarray
    inside: list[Place]
    undecided: list[Place]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.across), self.lines.shape[1]


def _window(roi_mask: np.ndarray, box: np.ndarray, size: tuple[int, int], rule: PasteRule) -> _Window:
    axis = _pixel_centres if rule == "pixel_centres" else _expanded
    side = len(roi_mask)
    x1, y1, x2, y2 = np.asarray(box, np.float32)
    x, across = axis(x1, x2, size[1], side)
    y, down = axis(y1, y2, size[0], side)
    lines = np.empty((len(down), side), np.float32)
    for rows, product in _products(_hat(down, side), np.asarray(roi_mask, np.float32)):
        lines[rows] = product
    everything = (slice(None), slice(None))
    large = len(across) * len(down) >= LARGE
    inside, undecided = _decided(roi_mask, across, down) if large else ([], [everything])
    return _Window(x, y, _hat(across, side), lines.T, inside, undecided)


def _decided(roi_mask: np.ndarray, across: np.ndarray, down: np.ndarray) -> tuple[list[Place], list[Place]]:
    """Rectangles of pixels that are inside for certain, and those that may be inside or not.

    What lies between four cells is between their least and largest value. across, down: places of the pixels
    in cells.
    """
    side = len(roi_mask)
    columns = np.pad(roi_mask, 1).T  # cells of zeros around
    corners = np.stack([columns[i : side + 1 + i, j : side + 1 + j] for i in (0, 1) for j in (0, 1)])
    # A thousandth is far more than what rounding does.
    kinds = np.where(corners.max(0) < 0.499, 0, np.where(corners.min(0) > 0.501, 1, 2))
    lefts, tops = (
        [0, *np.searchsorted(each, np.arange(side)).tolist(), len(each)] for each in (across, down)
    )
    found: tuple[list[Place], ...] = ([], [], [])
    for column in range(side + 1):
        here = slice(lefts[column], lefts[column + 1])
        changes = (np.flatnonzero(np.diff(kinds[column])) + 1).tolist()
        for first, last in pairwise([0, *changes, side + 1]):
            found[kinds[column, first]].append((here, slice(tops[first], tops[last])))
    return found[1], found[2]


def _products(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    # Above 2**18 multiplications OpenBLAS wakes its threads and on a busy machine waits ten times the work.
    rows = max(1, 2**18 // max(right.size, 1))
    for start in range(0, len(left), rows):
        block = slice(start, start + rows)
        yield block, left[block] @ right


def _hat(places: np.ndarray, side: int) -> np.ndarray:
    """places (n,) in cells -> weights (n, M) of linear interpolation between cells, zero beyond them."""
    return np.maximum(1 - np.abs(places[:, None] - np.arange(side, dtype=np.float32)), 0)


def _pixel_centres(low: np.float32, high: np.float32, count: int, side: int) -> tuple[int, np.ndarray]:
    """First pixel of the window along one axis and where in the mask each pixel's centre lies, in cells."""
    if high <= low:
        return 0, np.zeros(0, np.float32)
    # Beyond the box the probability falls below one half.
    first, last = max(int(np.floor(low)), 0), min(int(np.ceil(high)), count)
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    # Through -1..1, as grid_sample has it: the same roundings, so the same pixels.
    grid = (centres - low) / (high - low) * 2 - 1
    return min(first, count), (grid + 1) * np.float32(side / 2) - np.float32(0.5)


def _expanded(low: np.float32, high: np.float32, count: int, side: int) -> tuple[int, np.ndarray]:
    """The same for a mask padded by a cell in a box expanded as much, truncated to inclusive whole pixels."""
    half = (high - low) * np.float32(0.5) * np.float32((side + 2) / side)
    centre = (high + low) * np.float32(0.5)
    start, end = int(centre - half), int(centre + half)
    step = np.float32(side + 2) / np.float32(max(end - start + 1, 1))
    first, last = max(start, 0), min(end + 1, count)
    pixels = np.arange(first - start, last - start, dtype=np.float32)
    return min(first, count), step * (pixels + np.float32(0.5)) - np.float32(0.5) - 1


def _run_lengths(crop: np.ndarray, x: int, y: int, size: tuple[int, int]) -> np.ndarray:
    """Lengths of the runs 0, 1, 0, ... down the columns of the image; the first may be 0."""
    height, width = size
    rows, columns = crop.shape
    # Unless a crop is as high as the image, every run ends with its column: a zero below the crop says so.
    stride = rows if rows == height else rows + 1
    flat = np.zeros(1 + columns * stride + 1, bool)
    flat[1:-1].reshape(columns, stride)[:, :rows] = crop.T
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    places = x * height + y + changes + changes // max(stride, 1) * (height - stride)
    lengths = np.diff(places, prepend=0, append=height * width)
    return lengths[:-1] if len(lengths) > 1 and lengths[-1] == 0 else lengths
