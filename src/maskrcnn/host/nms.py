"""NMS of one image, hard and soft.

N boxes, R rows kept.
"""

import numpy as np

from maskrcnn.host.native.library import library
from maskrcnn.host.native.regions import greedy

# Boxes that are compared with all others at a time: enough to be worth an array, few enough to stay in cache.
BLOCK = 128


def nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    iou: float,
    score_over: float,
    keep: int,
    plus_one: bool,
    inclusive: bool,
) -> np.ndarray:
    """Greedy NMS inside each group; only boxes scoring above score_over take part.

    boxes (N, 4) float32, scores (N,), groups (N,) -> rows int64 (R,) of at most `keep`, best first, of equal
    scores the earlier first. plus_one: widths are x2 - x1 + 1; inclusive: a box is suppressed at IoU == iou
    too.
    """
    candidates = np.flatnonzero(scores > np.float32(score_over))
    ranked = candidates[np.argsort(-scores[candidates], kind="stable")]
    corners, threshold = widened(boxes[ranked], plus_one), _threshold(iou, inclusive)
    owner = groups[ranked]
    if library() is not None:
        return ranked[greedy(corners, owner, float(threshold), keep)]
    kept = np.zeros(len(ranked), bool)
    for group in np.unique(owner):
        rows = np.flatnonzero(owner == group)
        kept[rows[_greedy(corners[rows], threshold, keep)]] = True
    return ranked[kept][:keep]


def _greedy(boxes: np.ndarray, threshold: np.float32, keep: int) -> np.ndarray:
    """boxes (N, 4), best first -> rows of those that no better kept one overlaps, at most `keep`."""
    alive, kept = np.arange(len(boxes)), np.empty(0, np.int64)
    while len(alive) and len(kept) < keep:
        block, rest = alive[:BLOCK], alive[BLOCK:]
        overlaps = overlap(boxes[block], boxes[alive]) > threshold
        best: list[int] = []
        removed = np.zeros(len(block), bool)
        for row in range(len(block)):
            if not removed[row]:
                best.append(row)
                removed |= overlaps[row, : len(block)]
        kept = np.concatenate([kept, block[best]])
        alive = rest[~overlaps[best, len(block) :].any(0)]
    return kept[:keep]


def soft_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    iou: float,
    score_over: float,
    keep: int,
    linear: bool,
    sigma: float,
    min_score: float,
    plus_one: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Soft-NMS (Bodla et al. 2017) inside each group, on boxes scoring above score_over.

    Each kept box multiplies the scores of the remaining ones of its group by 1 - IoU where IoU > iou
    (linear) or by exp(-IoU^2 / sigma) (gaussian); boxes that fall to min_score or below are dropped.
    boxes (N, 4) float32, scores (N,), groups (N,) -> rows int64 (R,) of at most `keep`, best first, and their
    decayed scores (R,).
    """
    candidates = np.flatnonzero(scores > np.float32(score_over))
    corners, owner = widened(boxes[candidates], plus_one), groups[candidates]
    left = scores[candidates].astype(np.float32)
    rows: list[int] = []
    decayed: list[np.float32] = []
    while len(rows) < min(keep, len(candidates)):
        best = int(left.argmax())
        if left[best] <= np.float32(min_score):
            break
        rows.append(best)
        decayed.append(left[best])
        near = overlap(corners[best : best + 1], corners)[0] * (owner == owner[best])
        left *= np.where(near > np.float32(iou), 1 - near, 1) if linear else np.exp(-near * near / sigma)
        left[best] = -1
    return candidates[rows], np.array(decayed, np.float32)


def widened(boxes: np.ndarray, plus_one: bool) -> np.ndarray:
    """Pixels x1..x2 cover x1 to x2 + 1, and ordinary areas of that are the +1 areas. boxes (N, 4)."""
    return boxes + np.array([0, 0, 1, 1], np.float32) if plus_one else boxes


def overlap(some: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """some (M, 4), boxes (N, 4) float32 -> IoU (M, N); 0 where neither box has an area."""
    left, top, right, bottom = np.ascontiguousarray(boxes.T)
    both = np.minimum(some[:, 2:3], right)
    both -= np.maximum(some[:, 0:1], left)
    np.maximum(both, 0, out=both)
    height = np.minimum(some[:, 3:4], bottom)
    height -= np.maximum(some[:, 1:2], top)
    both *= np.maximum(height, 0, out=height)
    either = _area(some)[:, None] + _area(boxes)
    either -= both
    both /= np.maximum(either, 1e-12, out=either)
    return both


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _threshold(iou: float, inclusive: bool) -> np.float32:
    """The largest float32 IoU that does not suppress; torchvision compares with the double `iou`."""
    nearest = np.float32(iou)
    below = inclusive or float(nearest) > iou
    return np.nextafter(nearest, np.float32(-1)) if below else nearest
