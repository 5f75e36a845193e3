"""Predicts an image in several views, mirrored and in several sizes, and makes one result of them.

N detections, M side of a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.predict import Predictor, Prepared
from maskrcnn.preprocess import prepare

Array = np.ndarray
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class PreparedViews(Prepared):
    """The views of an image, the first one's planes and geometry again as those of the whole."""

    views: tuple[Prepared, ...]


class Views(Predictor):
    """A predictor of several views of each image, on any engine that takes images of any size.

    flip: also mirrored, left for right. scales: `short` of the model's preprocessing for each size, `long`
    in proportion; none for the model's own size. Time grows with the number of views and their pixels.
    """

    def __init__(self, predictor: Predictor, flip: bool, scales: Sequence[int] = ()) -> None:
        super().__init__(predictor.backend, predictor.batch)
        if any(scale < 1 for scale in scales):
            raise UserError(f"a scale of {min(scales)} pixels", hint="scales are sides in pixels, as 640,800")
        own = self.spec.preprocess
        self.sizes = [
            replace(own, short=scale, long=max(scale, round(own.long * scale / own.short)))
            for scale in scales or (own.short,)
        ]
        self.mirrored = (False, True) if flip else (False,)

    def prepare(self, image: Array) -> PreparedViews:
        """image uint8 (H, W, 3) RGB -> all its views; safe to call from several threads."""
        views = tuple(
            Prepared(*prepare(np.ascontiguousarray(image[:, ::-1]) if mirrored else image, size))
            for mirrored in self.mirrored
            for size in self.sizes
        )
        return PreparedViews(views[0].planes, views[0].geometry, views)

    def detect(self, prepared: Sequence[Prepared]) -> list[Detections]:
        """One run of the network for each view of some images -> one Detections for each image."""
        per_view: list[list[Detections]] = []
        for number in range(len(self.mirrored) * len(self.sizes)):
            view = [each.views[number] for each in prepared if isinstance(each, PreparedViews)]
            found = super().detect(view)
            is_mirrored = self.mirrored[number // len(self.sizes)]
            per_view.append([_mirror(each) for each in found] if is_mirrored else found)
        box_head = self.spec.model.box_head
        return [merge(views, box_head.nms_iou, box_head.detections) for views in zip(*per_view, strict=True)]


def merge(views: Sequence[Detections], iou: float, most: int) -> Detections:
    """What several views of an image found, in its pixels, as one result of at most `most` detections.

    By class, the best detection takes those of the other views that overlap it by more than iou, the best of
    each view, and drops the rest, as non-maximum suppression does. Their boxes and masks are averaged by
    score; the score is the mean over all views, of which those without a detection count as 0.
    """
    union = _union(views)
    order = np.argsort(-union.scores, kind="stable")
    view = np.repeat(np.arange(len(views)), [len(each) for each in views])[order]
    union = union[order]
    groups = _groups(union, view, iou)
    boxes = [np.average(union.boxes[rows], axis=0, weights=union.scores[rows]) for rows in groups]
    scores = np.array([union.scores[rows].sum() / len(views) for rows in groups], np.float32)
    best = np.argsort(-scores, kind="stable")[:most].tolist()
    side = union.roi_masks.shape[-1]
    return replace(
        union,
        boxes=np.array([boxes[group] for group in best], np.float32).reshape(-1, 4),
        scores=scores[best],
        labels=np.array([union.labels[groups[group][0]] for group in best], np.int64),
        roi_masks=np.array(
            [_average_mask(union[groups[group]], boxes[group]) for group in best], np.float32
        ).reshape(-1, side, side),
    )


def _mirror(detections: Detections) -> Detections:
    """Left for right."""
    x1, y1, x2, y2 = detections.boxes.T
    width = np.float32(detections.size[1])
    return replace(
        detections,
        boxes=np.stack([width - x2, y1, width - x1, y2], axis=1),
        roi_masks=np.ascontiguousarray(detections.roi_masks[:, :, ::-1]),
    )


def _union(views: Sequence[Detections]) -> Detections:
    return replace(
        views[0],
        boxes=np.concatenate([each.boxes for each in views]),
        scores=np.concatenate([each.scores for each in views]),
        labels=np.concatenate([each.labels for each in views]),
        roi_masks=np.concatenate([each.roi_masks for each in views]),
    )


def _groups(union: Detections, view: Array, iou: float) -> list[Array]:
    """Rows that show one object, best first, at most one of each view; union has the best score first."""
    close = (_overlaps(union.boxes) > iou) & (union.labels[:, None] == union.labels)
    free = np.ones(len(union), bool)
    groups = []
    for row in range(len(union)):
        if free[row]:
            rows = np.flatnonzero(close[row] & free)
            rows = np.append(row, rows[rows != row])
            free[rows] = False
            groups.append(rows[np.sort(np.unique(view[rows], return_index=True)[1])])
    return groups


def _overlaps(boxes: Array) -> Array:
    """boxes (N, 4) -> IoU (N, N)."""
    first, second = boxes[:, :2], boxes[:, 2:]
    sides = np.minimum(second[:, None], second) - np.maximum(first[:, None], first)
    shared = np.clip(sides, 0, None).prod(axis=2)
    areas = (second - first).prod(axis=1)
    return shared / np.maximum(areas[:, None] + areas - shared, TINY)


def _average_mask(group: Detections, box: Array) -> Array:
    """(M, M): the masks of a group where each has its box, resampled into one box, averaged by score."""
    side = group.roi_masks.shape[-1]
    total, weight = np.zeros((side, side)), np.zeros((side, side))
    for mask, own, score in zip(group.roi_masks, group.boxes, group.scores, strict=True):
        across, in_width = _resampling(own[0], own[2], box[0], box[2], side)
        down, in_height = _resampling(own[1], own[3], box[1], box[3], side)
        inside = score * np.outer(in_height, in_width)
        total += inside * (down @ mask @ across.T)
        weight += inside
    return total / np.maximum(weight, TINY)


def _resampling(low: float, high: float, new_low: float, new_high: float, side: int) -> tuple[Array, Array]:
    """Weights (M, M) of old cells in each new one along an axis, and whether a new one is inside (M,)."""
    centres = new_low + (np.arange(side) + 0.5) / side * (new_high - new_low)
    places = (centres - low) / max(float(high - low), TINY) * side - 0.5
    inside = (places >= -0.5) & (places <= side - 0.5)
    held = np.clip(places, 0, side - 1)
    return np.maximum(1 - np.abs(held[:, None] - np.arange(side)), 0), inside
