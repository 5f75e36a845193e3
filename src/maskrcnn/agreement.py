"""Which detections of two models are the same objects, and how far apart they lie.

N, M boxes of models A and B, R pairs, K classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from pycocotools import mask as coco_mask

from maskrcnn.detections import Detections
from maskrcnn.spec import Spec

# As in average precision at IoU .5: less is another object.
SAME_OBJECT = 0.5


@dataclass(frozen=True)
class Tolerance:
    """What still counts as the same.

    relative: a stage may differ by this share of its largest value, a score (0..1) by this much.
    box: image pixels by which a side of a box, and the outline of a mask, may move.
    score: detections of at least this score need a partner; the partner may have any score.
    """

    relative: float = 1e-3
    box: float = 0.5
    score: float = 0.1


@dataclass(frozen=True)
class Pair:
    """An object that both found. box: image pixels that its farthest side moved. outline: image pixels that
    the outline of its mask moved on average: those that only one mask has, divided by the outline of A's box.
    """

    name: str
    score_a: float
    score_b: float
    box: float
    outline: float
    mask_iou: float

    @property
    def score(self) -> float:
        """How far the scores are apart."""
        return abs(self.score_a - self.score_b)

    def within(self, tolerance: Tolerance) -> bool:
        """Whether box, score and mask count as the same."""
        return max(self.box, self.outline) <= tolerance.box and self.score <= tolerance.relative


@dataclass(frozen=True)
class Single:
    """An object that one model found. box: x1, y1, x2, y2 in image pixels. other: the class that the other
    model has in this place, "" for none.
    """

    name: str
    score: float
    box: tuple[float, ...]
    other: str


@dataclass(frozen=True)
class Agreement:
    """The detections of one image by two models that matter for a Tolerance."""

    pairs: tuple[Pair, ...]
    only_a: tuple[Single, ...]
    only_b: tuple[Single, ...]

    def within(self, tolerance: Tolerance) -> bool:
        """Whether each object has a partner that counts as the same."""
        alone = bool(self.only_a or self.only_b)
        return not alone and all(pair.within(tolerance) for pair in self.pairs)


@dataclass(frozen=True)
class Spread:
    """One figure over all pairs, and the image with the worst."""

    median: float
    worst: float
    image: str


@dataclass(frozen=True)
class Totals:
    """Agreement over all images. relabelled: objects that both found and named differently, which are counted
    in only_a as well. box: image pixels. The figures are None without a pair.
    """

    images: int
    a: int
    b: int
    matched: int
    only_a: int
    only_b: int
    relabelled: int
    box: Spread | None
    score: Spread | None
    mask_iou: Spread | None


def labels_in(a: Spec, b: Spec) -> np.ndarray:
    """For each label of B the label of A that has its name, -1 for none: int64 (K of B,).

    Without names on both sides, and where the lists are equal, label numbers are compared.
    """
    names_a, names_b = a.classes.names, b.classes.names
    count_a, count_b = a.model.classes, b.model.classes
    if not any(names_a) or not any(names_b) or names_a == names_b:
        labels = np.arange(count_b)
        return np.where(labels < count_a, labels, -1)
    known = {name: label for label, name in enumerate(names_a) if name and names_a.count(name) == 1}
    labels = np.full(count_b, -1, np.int64)
    for label, name in enumerate(names_b[:count_b]):
        unnamed = not name and label < len(names_a) and not names_a[label]
        labels[label] = label if unnamed else known.get(name, -1)
    return labels


def match(
    boxes_a: np.ndarray,
    boxes_b: np.ndarray,
    labels_a: np.ndarray | None = None,
    labels_b: np.ndarray | None = None,
) -> np.ndarray:
    """Pairs of the same label, greatest IoU first, each box once: int64 (R, 2), rows of A and of B.

    boxes_a (N, 4), boxes_b (M, 4) in pixels; labels (N,) and (M,), None where all are the same.
    """
    overlap = box_iou(boxes_a, boxes_b)
    if labels_a is not None and labels_b is not None:
        overlap *= labels_a[:, None] == labels_b[None]
    rows_a, rows_b = np.nonzero(overlap >= SAME_OBJECT)
    order = np.argsort(-overlap[rows_a, rows_b], kind="stable")
    free_a, free_b = np.ones(len(boxes_a), bool), np.ones(len(boxes_b), bool)
    pairs = []
    for a, b in zip(rows_a[order].tolist(), rows_b[order].tolist(), strict=True):
        if free_a[a] and free_b[b]:
            free_a[a] = free_b[b] = False
            pairs.append((a, b))
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def box_iou(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """boxes_a (N, 4), boxes_b (M, 4) -> (N, M); 1 for equal boxes without area, 0 for what is not finite."""
    a, b = boxes_a[:, None].astype(np.float64), boxes_b[None].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
        shared = sides.clip(min=0).prod(-1)
        joint = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
        iou = np.where(joint > 0, shared / joint, (a == b).all(-1))
    finite = np.isfinite(a).all(-1) & np.isfinite(b).all(-1)
    return np.where(finite, iou, 0.0)


def compare_detections(a: Detections, b: Detections, labels: np.ndarray, tolerance: Tolerance) -> Agreement:
    """Pairs and singles of one image. labels: what `labels_in` says of the two models' classes."""
    labels_b = labels[b.labels]
    rows = match(a.boxes, b.boxes, a.labels, labels_b)
    alone_a = np.setdiff1d(np.arange(len(a)), rows[:, 0])
    alone_b = np.setdiff1d(np.arange(len(b)), rows[:, 1])
    matters = np.maximum(a.scores[rows[:, 0]], b.scores[rows[:, 1]]) >= tolerance.score
    rows = rows[matters]
    # Only what has no partner of its own name can be the same object under another.
    renamed = match(a.boxes[alone_a], b.boxes[alone_b])
    names_a, names_b = a.names(), b.names()
    other_a = {alone_a[i]: names_b[alone_b[j]] for i, j in renamed}
    other_b = {alone_b[j]: names_a[alone_a[i]] for i, j in renamed}
    return Agreement(
        pairs=_pairs(a[rows[:, 0]], b[rows[:, 1]]),
        only_a=tuple(_single(a, row, other_a.get(row, "")) for row in alone_a if _matters(a, row, tolerance)),
        only_b=tuple(_single(b, row, other_b.get(row, "")) for row in alone_b if _matters(b, row, tolerance)),
    )


def _matters(detections: Detections, row: int, tolerance: Tolerance) -> bool:
    return bool(detections.scores[row] >= tolerance.score)


def _single(detections: Detections, row: int, other: str) -> Single:
    box = tuple(round(side, 3) for side in detections.boxes[row].tolist())
    return Single(detections[row].names()[0], float(detections.scores[row]), box, other)


def _pairs(a: Detections, b: Detections) -> tuple[Pair, ...]:
    """Row i of a and row i of b are one object."""
    moved = np.abs(a.boxes - b.boxes).max(axis=1, initial=0)
    sides = a.boxes[:, 2:] - a.boxes[:, :2]
    pairs = []
    for row, masks in enumerate(zip(a.rles(), b.rles(), strict=True)):
        shared = int(coco_mask.area(coco_mask.merge(list(masks), intersect=True)))
        joint = int(coco_mask.area(coco_mask.merge(list(masks))))
        length = max(float(2 * sides[row].sum()), 1.0)
        pairs.append(
            Pair(
                name=a[row].names()[0],
                score_a=float(a.scores[row]),
                score_b=float(b.scores[row]),
                box=float(moved[row]),
                outline=(joint - shared) / length,
                mask_iou=shared / joint if joint else 1.0,
            )
        )
    return tuple(pairs)


def totals(agreements: Iterable[tuple[str, Agreement]]) -> Totals:
    """(image name, Agreement) of each image -> figures over all."""
    by_image = list(agreements)
    pairs = [(pair, name) for name, each in by_image for pair in each.pairs]
    only_a = [single for _, each in by_image for single in each.only_a]
    only_b = [single for _, each in by_image for single in each.only_b]
    return Totals(
        images=len(by_image),
        a=len(pairs) + len(only_a),
        b=len(pairs) + len(only_b),
        matched=len(pairs),
        only_a=len(only_a),
        only_b=len(only_b),
        relabelled=sum(bool(single.other) for single in only_a),
        box=_spread([(pair.box, name) for pair, name in pairs]),
        score=_spread([(pair.score, name) for pair, name in pairs]),
        mask_iou=_spread([(pair.mask_iou, name) for pair, name in pairs], least=True),
    )


def _spread(figures: Sequence[tuple[float, str]], least: bool = False) -> Spread | None:
    if not figures:
        return None
    worst, image = (min if least else max)(figures, key=lambda figure: figure[0])
    return Spread(median(value for value, _ in figures), worst, image)
