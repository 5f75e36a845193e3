"""RoIAlign (He et al. 2017) over the levels of a pyramid.

B images, L levels, R boxes per image (or of all images, once they carry its number), C channels, H, W cells
of a level, S bins per side, k cells of a window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn.host.native import regions
from maskrcnn.host.native.library import Threads, library

# Boxes whose weights are made together. Sorted by size, the windows of a block are nearly equal.
BLOCK = 64


def pool_levels(
    levels: Sequence[np.ndarray],
    boxes: np.ndarray,
    level_of: np.ndarray,
    scales: Sequence[float],
    side: int,
    samples: int,
    aligned: bool,
) -> np.ndarray:
    """RoIAlign of each box on its own level.

    levels L x (B, C, H, W) float32, fastest as views of channels-last memory, boxes (B, R, 4) in network
    pixels, level_of int64 (B, R), scales cells per pixel of each level -> (B * R, C, S, S), a view of
    channels-last memory. samples: points per bin and side, 0 for ceil(box side in cells / S). aligned: the
    half pixel is subtracted; otherwise boxes are at least one cell wide.
    """
    image = np.repeat(np.arange(boxes.shape[0]), boxes.shape[1])
    corners, owner = boxes.reshape(-1, 4), level_of.reshape(-1)
    if library() is not None:
        maps = [np.ascontiguousarray(level.transpose(0, 2, 3, 1)) for level in levels]
        rule = (scales, side, samples, aligned, Threads(1))
        return regions.pool_levels(maps, corners, image, owner, *rule).transpose(0, 3, 1, 2)
    pooled = np.zeros((len(corners), side, side, levels[0].shape[1]), np.float32)
    for number, (level, scale) in enumerate(zip(levels, scales, strict=True)):
        here = np.flatnonzero(owner == number)
        if len(here):
            cells = np.ascontiguousarray(level.transpose(0, 2, 3, 1))
            _roi_align(cells, corners[here], image[here], scale, samples, aligned, pooled, here)
    return pooled.transpose(0, 3, 1, 2)


def _roi_align(
    cells: np.ndarray,
    boxes: np.ndarray,
    image: np.ndarray,
    scale: float,
    samples: int,
    aligned: bool,
    pooled: np.ndarray,
    rows: np.ndarray,
) -> None:
    """cells (B, H, W, C), boxes (R, 4), image (R,) -> pooled[rows], (R, S, S, C).

    Bilinear sampling and the mean over a bin are linear along each axis by itself, so that a box is two
    matrix products with its window of the level.
    """
    side = pooled.shape[1]
    corners = boxes * np.float32(scale) - np.float32(0.5 if aligned else 0.0)
    sides = corners[:, 2:] - corners[:, :2]
    sides = sides if aligned else np.maximum(sides, 1)
    points = (
        np.full(sides.shape, samples) if samples > 0 else np.maximum(np.ceil(sides / side), 0).astype(int)
    )
    order = np.argsort(sides.max(1))
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        x = _weights(corners[block, 0], sides[block, 0], side, points[block, 0], cells.shape[2])
        y = _weights(corners[block, 1], sides[block, 1], side, points[block, 1], cells.shape[1])
        for i, box in enumerate(block):
            window = cells[image[box], y.first[i] : y.end[i], x.first[i] : x.end[i]]
            lines = x.shares[i, :, : window.shape[1]] @ window
            out = pooled[rows[box]].reshape(side, -1)
            np.matmul(y.shares[i, :, : window.shape[0]], lines.reshape(len(window), -1), out=out)


@dataclass(frozen=True)
class _Weights:
    """Windows first (R,) to end (R,) in cells along one axis, and each cell's share of each bin (R, S, k)."""

    first: np.ndarray
    end: np.ndarray
    shares: np.ndarray


def _weights(start: np.ndarray, length: np.ndarray, side: int, points: np.ndarray, limit: int) -> _Weights:
    """start, length (R,) in cells, points (R,) samples per bin, of an axis of `limit` cells.

    Samples further than a cell outside count zero.
    """
    most = max(int(points.max(initial=0)), 1)
    number = np.arange(most, dtype=np.float32)
    count = np.maximum(points, 1).astype(np.float32)[:, None, None]
    step = (length / np.float32(side))[:, None, None]
    at = start[:, None, None] + np.arange(side, dtype=np.float32)[:, None] * step
    at = at + np.minimum(number + np.float32(0.5), count) * step / count
    share = ((at >= -1) & (at <= limit) & (number < count)) / count
    share[points == 0] = 0
    at = np.clip(at, 0, limit - 1)
    low = np.floor(at)
    beyond = (at - low) * share
    low = low.astype(np.int64)
    first, end = low.min((1, 2)), np.minimum(low.max((1, 2)) + 2, limit)
    low -= first[:, None, None]
    shares = np.zeros((len(start), side, int(low.max()) + 2), np.float32)
    box, bins = np.arange(len(start))[:, None], np.arange(side)
    for sample in range(most):
        shares[box, bins, low[:, :, sample]] += (share - beyond)[:, :, sample]
        shares[box, bins, low[:, :, sample] + 1] += beyond[:, :, sample]
    return _Weights(first, end, shares)
