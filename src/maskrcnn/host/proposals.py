"""From the RPN's maps to the boxes that the heads look at (Ren et al. 2015).

L levels, A anchors per cell, h, w cells of a level, N candidates, P proposals of one image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn.config import ModelConfig
from maskrcnn.host.anchors import anchors_of_cells
from maskrcnn.host.boxes import clip, decode, large_enough
from maskrcnn.host.nms import nms

UNIT_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class _Candidates:
    """Clipped boxes (N, 4), scores (N,) and level numbers (N,)."""

    boxes: np.ndarray
    scores: np.ndarray
    levels: np.ndarray


class Proposer:
    """Scores and refines the anchors, and keeps the best that do not overlap."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config.rpn
        self.habits = config.conventions
        self.strides = (4, 8, 16, 32, 64) if config.neck == "fpn" else (16,)
        self.cells = anchors_of_cells(config.anchors, self.strides, self.habits)
        self.plus_one = self.habits.plus_one and self.habits.plus_one_overlaps

    def __call__(
        self,
        objectness: Sequence[np.ndarray],
        deltas: Sequence[np.ndarray],
        size: np.ndarray,
        padded: tuple[int, int],
    ) -> np.ndarray:
        """objectness L x (A, h, w), deltas L x (4 A, h, w), size (2,), padded (H, W) of one image
        -> boxes (P, 4) float32 in network pixels, best first, as many as there are.
        """
        candidates = self._best_per_level(objectness, deltas, self._limit(size, padded), padded)
        return candidates.boxes[self._without_overlaps(candidates)]

    def _limit(self, size: np.ndarray, padded: tuple[int, int]) -> np.ndarray:
        """(height, width) that boxes are clipped to."""
        if self.habits.rpn_clip == "image":
            return size
        return np.array(padded) - (1 if self.habits.rpn_clip == "last_pixel" else 0)

    def _best_per_level(
        self,
        objectness: Sequence[np.ndarray],
        deltas: Sequence[np.ndarray],
        size: np.ndarray,
        padded: tuple[int, int],
    ) -> _Candidates:
        """The best of each level, decoded and clipped, without those that are too small."""
        habits, parts = self.habits, []
        for number, (logits, moves) in enumerate(zip(objectness, deltas, strict=True)):
            scores, (anchor, y, x) = _best(logits, self.config.pre_nms, habits.rpn_scores == "sigmoid")
            step = self._step(number, logits.shape[1:], padded)
            corner = np.stack([x * step[1], y * step[0]], 1).astype(np.float32)
            boxes = decode(
                moves[4 * anchor[:, None] + np.arange(4), y[:, None], x[:, None]],
                np.tile(corner, 2) + self.cells[number][anchor],
                UNIT_WEIGHTS,
                habits.plus_one,
                habits.clamp_shrinking,
                habits.delta_limit,
            )
            boxes = clip(boxes, size, self.plus_one)
            usable = large_enough(boxes, habits.rpn_min_size, self.plus_one)
            parts.append((boxes[usable], scores[usable], np.full(int(usable.sum()), number)))
        return _Candidates(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _step(self, number: int, cells: tuple[int, ...], padded: tuple[int, int]) -> tuple[int, int]:
        """Network pixels from one cell to the next, down and across."""
        if self.habits.anchor_stride == "from_size":
            return padded[0] // cells[0], padded[1] // cells[1]
        return self.strides[number], self.strides[number]

    def _without_overlaps(self, candidates: _Candidates) -> np.ndarray:
        """Rows (P,) of the candidates, best first."""
        iou, count, inclusive = self.config.nms_iou, self.config.post_nms, self.habits.nms_inclusive
        limits = (iou, float("-inf"), count, self.plus_one, inclusive)
        rows = nms(candidates.boxes, candidates.scores, candidates.levels, *limits)
        if not self.habits.rpn_nms_again:
            return rows
        return rows[nms(candidates.boxes[rows], candidates.scores[rows], np.zeros_like(rows), *limits)]


def _best(logits: np.ndarray, count: int, as_sigmoid: bool) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """logits (A, h, w) -> the `count` highest scores, best first, and their places a, y, x.

    Of equal scores the earlier in the order y, x, a comes first.
    """
    flat = logits.reshape(-1)
    if len(flat) > count:
        least = np.partition(flat, len(flat) - count)[len(flat) - count]
        chosen = np.flatnonzero(flat >= least)
    else:
        chosen = np.arange(len(flat))
    scores = flat[chosen].astype(np.float32)
    if as_sigmoid:
        scores = sigmoid(scores)
    places = np.unravel_index(chosen, logits.shape)
    order = np.lexsort((places[0], places[2], places[1], -scores))[:count]
    return scores[order], tuple(place[order] for place in places)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) of float32, without overflow."""
    return (1 / (1 + np.exp(-np.clip(x, -88, 88)))).astype(np.float32)
