"""What an evaluation says: the COCO numbers, precision and recall, and which class was taken for which.

K classes.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

OPERATING = ("precision", "recall", "F1", "best_F1", "best_score")


def coco_names(max_detections: int) -> tuple[str, ...]:
    """The twelve numbers of COCO, in its order."""
    precision = tuple(f"AP{what}" for what in ("", "50", "75", "s", "m", "l"))
    return precision + tuple(f"AR{what}" for what in (1, 10, max_detections, "s", "m", "l"))


@dataclass(frozen=True)
class Operating:
    """How a detector does at one score, where a detection counts as right at an IoU of 0.5 or more.

    precision, recall, f1: of the detections at or above the score that was asked for.
    best_f1: the highest F1 of any score, and best_score that score. NaN where undefined.
    """

    precision: float
    recall: float
    f1: float
    best_f1: float
    best_score: float

    def numbers(self) -> dict[str, float]:
        """By the names that JSON gives them."""
        values = (self.precision, self.recall, self.f1, self.best_f1, self.best_score)
        return dict(zip(OPERATING, values, strict=True))


@dataclass(frozen=True)
class ClassMetrics:
    """One class. objects: how many are to be found, without crowds. ap, ap50: NaN where there are none."""

    category_id: int | str
    name: str
    objects: int
    ap: float
    ap50: float
    operating: Operating

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for NaN."""
        return {
            "category_id": self.category_id,
            "name": self.name,
            "objects": self.objects,
            **_plain({"AP": self.ap, "AP50": self.ap50, **self.operating.numbers()}),
        }


@dataclass(frozen=True, eq=False)
class KindMetrics:
    """All about boxes, or about masks.

    kind: `bbox` or `segm`. numbers: the 12 of COCO by name (AP, AP50, ..., ARl), NaN where undefined.
    operating: of all classes together. classes: K, in the order of the ground truth's labels.
    confusion (K + 1, K + 1) int64: objects of class i (rows) found as class j (columns); the last column
        counts objects that were missed, the last row detections where there is no object.
    """

    kind: str
    numbers: dict[str, float]
    operating: Operating
    classes: tuple[ClassMetrics, ...]
    confusion: np.ndarray


@dataclass(frozen=True, eq=False)
class Metrics:
    """An evaluation. kinds: of boxes, of masks, or both. images, objects, detections: how many were compared.

    max_detections: per image and class, best first. score: the one of precision, recall and confusion.
    notes: what the numbers do not say of themselves, in words.
    """

    kinds: tuple[KindMetrics, ...]
    images: int
    objects: int
    detections: int
    max_detections: int
    score: float
    notes: tuple[str, ...]

    def numbers(self) -> dict[str, float]:
        """Every overall number by name: `bbox/AP`, ..., `segm/ARl`, `segm/F1`, ...; NaN where undefined."""
        return {
            f"{each.kind}/{name}": value
            for each in self.kinds
            for name, value in (each.numbers | each.operating.numbers()).items()
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values of everything; None for what is undefined."""
        return {
            **_plain(self.numbers()),
            "images": self.images,
            "objects": self.objects,
            "detections": self.detections,
            "max_detections": self.max_detections,
            "score": self.score,
            "per_class": {each.kind: [row.to_json() for row in each.classes] for each in self.kinds},
            "confusion": {each.kind: each.confusion.tolist() for each in self.kinds},
            "notes": list(self.notes),
        }


def _plain(numbers: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}
