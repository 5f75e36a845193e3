"""Precision, recall and F1 at a score, and the score at which F1 is best.

N detections.
"""

import math

import numpy as np

from maskrcnn.evaluation.metrics import Operating

Array = np.ndarray


def operate(scores: Array, right: Array, objects: int, score: float) -> Operating:
    """Precision, recall and F1 of the detections at or above the score, and the best F1 of any score.

    scores (N,) float64. right (N,) bool: the detection found an object. objects: how many are to be found.
    A match by falling score never depends on what comes below it, so one matching serves every score.
    """
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(right[order])
    at = int((scores >= score).sum())
    precision, recall, f1 = _rates(int(right[at - 1]) if at else 0, at, objects)
    best_f1, best_score = _best(scores, right, objects)
    return Operating(precision, recall, f1, best_f1, best_score)


def _rates(right: int, detections: int, objects: int) -> tuple[float, float, float]:
    """Precision, recall and F1 = 2 right / (detections + objects)."""
    return (
        right / detections if detections else math.nan,
        right / objects if objects else math.nan,
        2 * right / (detections + objects) if objects else math.nan,
    )


def _best(scores: Array, right: Array, objects: int) -> tuple[float, float]:
    """The best F1 and the highest score that gives it; a score takes all its equals with it."""
    if not objects or not len(scores):
        return (0.0 if objects else math.nan), math.nan
    last_of_equals = np.append(scores[1:] != scores[:-1], True)
    f1 = np.where(last_of_equals, 2 * right / (np.arange(len(scores)) + 1 + objects), -1)
    best = int(f1.argmax())
    return float(f1[best]), float(scores[best]) if f1[best] > 0 else math.nan
