"""Precision, recall and F1 at a score, and the best F1."""

import math

import numpy as np
import pytest
from small_sets import hand_made

from maskrcnn.evaluation.coco_metrics import evaluate
from maskrcnn.evaluation.metrics import Operating
from maskrcnn.evaluation.operating import operate
from maskrcnn.evaluation.result_list import results_of


def at_score(rows: list[tuple[float, bool]], objects: int, score: float) -> Operating:
    """rows: score, and whether it found an object."""
    scores, right = zip(*rows, strict=True) if rows else ((), ())
    return operate(np.array(scores, float), np.array(right, bool), objects, score)


FOUR = [(0.6, True), (0.8, False), (0.9, True), (0.3, False)]


def test_precision_and_recall_count_detections_at_or_above_the_score() -> None:
    at = at_score(FOUR, objects=4, score=0.6)
    assert (at.precision, at.recall, at.f1) == pytest.approx((2 / 3, 2 / 4, 4 / 7))


def test_the_best_f1_is_at_the_score_after_which_it_falls() -> None:
    """F1 = 2 right / (detections + objects): 2/5, 2/6, 4/7, 4/8."""
    at = at_score(FOUR, objects=4, score=0.95)
    assert (at.best_f1, at.best_score) == pytest.approx((4 / 7, 0.6))
    assert math.isnan(at.precision)
    assert (at.recall, at.f1) == (0, 0)


def test_equal_scores_are_taken_together() -> None:
    at = at_score([(0.5, True), (0.5, False), (0.5, False)], objects=1, score=0.5)
    assert (at.precision, at.best_f1, at.best_score) == pytest.approx((1 / 3, 2 / 4, 0.5))


@pytest.mark.parametrize(("rows", "objects"), [([], 0), ([(0.9, False)], 0), ([], 2)])
def test_nothing_found_or_nothing_to_find_is_undefined_and_not_an_error(rows: list, objects: int) -> None:
    at = at_score(rows, objects, score=0.5)
    assert math.isnan(at.best_score)
    assert (at.best_f1 == 0) if objects else math.isnan(at.best_f1)


def test_nothing_right_has_no_best_score() -> None:
    at = at_score([(0.9, False)], objects=3, score=0.5)
    assert at.best_f1 == 0
    assert math.isnan(at.best_score)


def test_an_evaluation_matches_within_a_class_at_an_iou_of_one_half() -> None:
    cat, dog = (0, 0, 10, 10), (50, 50, 10, 10)
    found = [((0, 0, 10, 5), 1, 0.9), ((0, 0, 10, 4), 1, 0.8), (dog, 1, 0.7), (cat, 1, 0.2)]
    made = hand_made([(cat, 1), (dog, 2)], found)
    truth = made.truth()
    metrics = evaluate(truth, results_of(made.items, truth), score=0.5)
    for each in metrics.kinds:
        at = each.operating
        assert (at.precision, at.recall) == pytest.approx((1 / 3, 1 / 2))
        assert (at.best_f1, at.best_score) == pytest.approx((2 / 3, 0.9))
        assert [row.operating.recall for row in each.classes] == [1, 0]
