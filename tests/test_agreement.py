"""Detections of two models are matched and measured, with boxes worked out by hand."""

import numpy as np
import pytest

from maskrcnn.agreement import (
    Agreement,
    Pair,
    Single,
    Spread,
    Tolerance,
    box_iou,
    compare_detections,
    labels_in,
    match,
    totals,
)
from maskrcnn.config import ModelConfig
from maskrcnn.detections import Detections
from maskrcnn.spec import Classes, Spec

PETS = Classes(("cat", "dog", "cow"))
SAME = np.arange(3)


def detections(*rows: tuple[str, float, tuple[float, ...]], classes: Classes = PETS) -> Detections:
    """(name, score, box) each, with masks that fill their boxes, in an image of 100 x 100."""
    return Detections(
        boxes=np.array([box for _, _, box in rows], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in rows], np.float32),
        labels=np.array([classes.names.index(name) for name, _, _ in rows], np.int64),
        roi_masks=np.ones((len(rows), 28, 28), np.float32),
        size=(100, 100),
        classes=classes,
    )


def spec(*names: str, count: int | None = None) -> Spec:
    return Spec(ModelConfig(classes=len(names) if count is None else count), classes=Classes(names))


def test_a_box_moved_by_two_pixels_is_a_pair_with_the_figures_of_that_move() -> None:
    a = detections(("dog", 0.9, (10, 10, 30, 30)))
    b = detections(("dog", 0.8, (12, 10, 32, 30)))
    agreement = compare_detections(a, b, SAME, Tolerance())
    assert (agreement.only_a, agreement.only_b) == ((), ())
    (pair,) = agreement.pairs
    assert (pair.name, pair.box) == ("dog", 2.0)
    assert pair.score == pytest.approx(0.1, abs=1e-6)
    # 400 pixels each, 18 x 20 in common: 40 in each mask only, beside an outline of 80.
    assert pair.mask_iou == pytest.approx(360 / 440)
    assert pair.outline == pytest.approx(80 / 80)
    assert not agreement.within(Tolerance(relative=0.2, box=1.9))
    assert not agreement.within(Tolerance(relative=0.05, box=2))
    assert agreement.within(Tolerance(relative=0.2, box=2))


def test_equal_detections_differ_by_nothing() -> None:
    a = detections(("dog", 0.9, (10, 10, 30, 30)), ("cat", 0.4, (50, 50, 51, 99)))
    agreement = compare_detections(a, a, SAME, Tolerance())
    assert [(p.name, p.box, p.score, p.mask_iou, p.outline) for p in agreement.pairs] == [
        ("dog", 0, 0, 1, 0),
        ("cat", 0, 0, 1, 0),
    ]
    assert agreement.within(Tolerance(relative=0, box=0))


def test_the_greatest_overlap_is_matched_first_and_each_box_once() -> None:
    a = np.array([[0, 0, 10, 10], [2, 0, 12, 10]], np.float32)
    b = np.array([[2, 0, 12, 10], [40, 40, 50, 50]], np.float32)
    # Row 0 of a overlaps row 0 of b by 80 of 120, but row 1 of a is that box.
    assert match(a, b).tolist() == [[1, 0]]
    assert match(a, b[::-1]).tolist() == [[1, 1]]


def test_boxes_are_a_pair_from_an_overlap_of_one_half_on() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    assert match(a, np.array([[0, 0, 10, 5]], np.float32)).tolist() == [[0, 0]]
    assert match(a, np.array([[0, 0, 10, 4.9]], np.float32)).tolist() == []


def test_boxes_without_area_overlap_themselves_and_what_is_not_finite_overlaps_nothing() -> None:
    boxes = np.array([[5, 5, 5, 5], [6, 6, 6, 6], [np.nan, 0, 1, 1], [0, 0, np.inf, 1]], np.float32)
    assert box_iou(boxes, boxes).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_an_object_under_another_name_is_only_in_each_and_says_what_the_other_has() -> None:
    a = detections(("dog", 0.9, (10, 10, 30, 30)))
    b = detections(("cow", 0.7, (11, 10, 31, 30)))
    agreement = compare_detections(a, b, SAME, Tolerance())
    assert agreement.pairs == ()
    assert [(each.name, each.other) for each in agreement.only_a] == [("dog", "cow")]
    assert [(each.name, each.other, each.box) for each in agreement.only_b] == [
        ("cow", "dog", (11.0, 10.0, 31.0, 30.0))
    ]
    assert totals([("1.jpg", agreement)]).relabelled == 1


def test_a_partner_may_have_any_score_and_a_weak_one_needs_none() -> None:
    a = detections(("dog", 0.11, (10, 10, 30, 30)), ("cat", 0.09, (60, 60, 80, 80)))
    b = detections(("dog", 0.06, (10, 10, 30, 30)), ("cow", 0.09, (0, 60, 20, 80)))
    agreement = compare_detections(a, b, SAME, Tolerance(score=0.1))
    assert [pair.name for pair in agreement.pairs] == ["dog"]
    assert (agreement.only_a, agreement.only_b) == ((), ())
    assert len(compare_detections(a, b, SAME, Tolerance(score=0.09)).only_a) == 1


def test_classes_in_another_order_are_matched_by_name() -> None:
    other = Classes(("cow", "cat", "dog"))
    labels = labels_in(spec(*PETS.names), spec(*other.names))
    assert labels.tolist() == [2, 0, 1]
    a = detections(("dog", 0.9, (10, 10, 30, 30)), ("cow", 0.8, (10, 10, 30, 30)))
    b = detections(("cow", 0.8, (10, 10, 30, 30)), ("dog", 0.9, (10, 10, 30, 30)), classes=other)
    assert compare_detections(a, b, labels, Tolerance()).within(Tolerance())


@pytest.mark.parametrize(
    ("a", "b", "labels"),
    [
        (spec("cat", "dog"), spec("dog", "owl", "cat"), [1, -1, 0]),
        (spec("cat", ""), spec("dog", ""), [-1, 1]),
        (spec("cat", "cat"), spec("cat", "dog"), [-1, -1]),
        (spec("cat", "cat"), spec("cat", "cat"), [0, 1]),
        (spec(count=2), spec("dog", "owl", "cat"), [0, 1, -1]),
        (spec("cat", "dog"), spec(count=2), [0, 1]),
    ],
    ids=["some shared", "unnamed", "twice the same name", "equal lists", "no names in A", "no names in B"],
)
def test_each_label_of_b_has_one_of_a_or_none(a: Spec, b: Spec, labels: list[int]) -> None:
    assert labels_in(a, b).tolist() == labels


def test_totals_name_the_image_of_the_worst() -> None:
    def agreement(*figures: tuple[float, float, float]) -> Agreement:
        pairs = (Pair("dog", 0.5, 0.5 + score, box, 0, iou) for box, score, iou in figures)
        return Agreement(tuple(pairs), (Single("cat", 0.3, (0, 0, 1, 1), ""),), ())

    found = totals([("1.jpg", agreement((1, 0.25, 0.9), (2, 0, 0.5))), ("2.jpg", agreement((5, 0.125, 0.8)))])
    assert (found.images, found.a, found.b, found.matched, found.only_a, found.only_b) == (2, 5, 3, 3, 2, 0)
    assert found.box == Spread(2, 5, "2.jpg")
    assert found.score == Spread(0.125, 0.25, "1.jpg")
    assert found.mask_iou == Spread(0.8, 0.5, "1.jpg")


def test_nothing_found_leaves_no_figures() -> None:
    empty = detections()
    agreement = compare_detections(empty, empty, SAME, Tolerance())
    assert agreement == Agreement((), (), ())
    found = totals([("1.jpg", agreement)])
    assert (found.matched, found.box, found.score, found.mask_iou) == (0, None, None, None)
