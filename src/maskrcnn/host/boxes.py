"""Boxes, the deltas that refine them (Girshick et al. 2014), and the pyramid level a box belongs to."""

from collections.abc import Sequence

import numpy as np

# Lin et al. 2017: a box of 224 x 224, the side of ImageNet crops, belongs to P4; the pyramid begins with P2.
CANONICAL_SIDE = 224
CANONICAL_LEVEL = 4
FIRST_LEVEL = 2


def decode(
    deltas: np.ndarray,
    boxes: np.ndarray,
    weights: Sequence[float],
    plus_one: bool,
    clamp_shrinking: bool,
    limit: float,
) -> np.ndarray:
    """Move boxes by deltas. deltas (..., 4), boxes (..., 4) float32, broadcast -> (..., 4) float32.

    plus_one: widths are x2 - x1 + 1; limit: of the size deltas, with clamp_shrinking from below as well.
    """
    one = np.float32(plus_one)
    sides = boxes[..., 2:] - boxes[..., :2] + one
    moved = deltas / np.asarray(weights, np.float32)
    lowest = -limit if clamp_shrinking else None
    centres = moved[..., :2] * sides + (boxes[..., :2] + 0.5 * sides)
    with np.errstate(over="ignore"):
        half = 0.5 * (np.exp(np.clip(moved[..., 2:], lowest, limit)) * sides)
    return np.concatenate([centres - half, centres + half - one], -1)


def clip(boxes: np.ndarray, size: np.ndarray, plus_one: bool) -> np.ndarray:
    """boxes (..., 4) into one image of size (2,); plus_one: its last pixel is width - 1."""
    limit = np.tile(size[::-1].astype(np.float32), 2) - np.float32(plus_one)
    return np.minimum(np.maximum(boxes, 0), limit)


def large_enough(boxes: np.ndarray, min_size: float, plus_one: bool) -> np.ndarray:
    """Both sides at least min_size, or above 0 where min_size is 0. boxes (..., 4) -> bool (...)."""
    sides = boxes[..., 2:] - boxes[..., :2] + np.float32(plus_one)
    return ((sides >= np.float32(min_size)) & (sides > 0)).all(-1)


def pyramid_level(boxes: np.ndarray, count: int, inside: float, outside: float, plus_one: bool) -> np.ndarray:
    """floor(4 + log2(sqrt(area) / 224 + inside) + outside) as an index into `count` levels from P2 on.

    boxes (..., 4) in network pixels -> int64 (...). inside, outside: what keeps a rounded 224 on its level.
    """
    sides = boxes[..., 2:] - boxes[..., :2] + np.float32(plus_one)
    relative = np.sqrt(np.maximum(sides[..., 0] * sides[..., 1], 0)) / CANONICAL_SIDE + np.float32(inside)
    with np.errstate(divide="ignore"):
        level = np.floor(CANONICAL_LEVEL + np.log2(relative) + np.float32(outside))
    return np.clip(level - FIRST_LEVEL, 0, count - 1).astype(np.int64)
