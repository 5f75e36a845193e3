"""Arrays and rows of stages are compared, with numbers worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from maskrcnn.agreement import Agreement, Pair, Single, Tolerance
from maskrcnn.config import ModelConfig
from maskrcnn.preprocess import Geometry
from maskrcnn.spec import Classes, Spec
from maskrcnn.stages import (
    Axis,
    Difference,
    Ran,
    Rows,
    compare_arrays,
    compare_pasted,
    compare_rows,
    compare_runs,
    worst,
)

MAP = (Axis("channel"), Axis("y"), Axis("x"))


def rows(*boxes: tuple[float, ...], scores: list[float] | None = None) -> Rows:
    count = len(boxes)
    values = np.ones(count) if scores is None else np.array(scores)
    return Rows(np.array(boxes, np.float32).reshape(-1, 4), values, np.zeros(count, int), np.arange(count))


def square(x: float, y: float = 0) -> tuple[float, ...]:
    return x, y, x + 20, y + 20


def test_the_largest_difference_has_its_place_and_its_share_of_the_largest_value() -> None:
    a = np.zeros((3, 4, 5), np.float32)
    a[0, 0, 0] = -8
    b = a.copy()
    b[2, 1, 4] = 0.5
    found = compare_arrays(a, b, MAP, relative=0.05)
    assert (found.largest, found.of, found.relative) == (0.5, 8.0, 0.0625)
    assert found.where == "channel 2, y 1, x 4"
    assert found.beyond == pytest.approx(1 / 60)
    assert not found.within
    assert compare_arrays(a, b, MAP, relative=0.0625).within


def test_equal_arrays_have_no_place_and_tolerate_nothing() -> None:
    a = np.full((1, 2, 2), 3.0, np.float32)
    assert compare_arrays(a, a, MAP, relative=0) == Difference(0.0, 3.0, 0.0, True)


def test_any_difference_from_zeros_is_beyond() -> None:
    zeros = np.zeros((1, 1, 2), np.float32)
    found = compare_arrays(zeros, zeros + np.float32(1e-30), MAP, relative=0.5)
    assert (found.within, found.relative) == (False, math.inf)


def test_other_shapes_are_said_and_not_compared() -> None:
    found = compare_arrays(np.zeros((3, 96, 160)), np.zeros((3, 64, 128)), MAP, 1e-3)
    assert found.words == "A is 3 x 96 x 160, B 3 x 64 x 128"
    assert (found.within, found.fits, math.isnan(found.largest)) == (False, False, True)


@pytest.mark.parametrize(("in_a", "in_b", "owners"), [(0, 1, "B"), (1, 0, "A"), (1, 1, "A and B")])
def test_the_first_value_that_is_not_finite_is_named(in_a: int, in_b: int, owners: str) -> None:
    a, b = np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), np.float32)
    a[1, 0, 1], b[1, 0, 1] = (math.nan if bad else 0 for bad in (in_a, in_b))
    found = compare_arrays(a, b, MAP, 1e-3)
    assert (found.words, found.where) == (f"not finite in {owners}", "channel 1, y 0, x 1")
    assert (found.within, found.fits) == (False, True)


def test_some_turned_rows_are_tolerated_and_no_more() -> None:
    a = np.ones((100, 7), np.float32)
    b = a.copy()
    b[17] = 2
    axes = (Axis("proposal", [10 * row for row in range(100)]), Axis("class", list("abcdefg")))
    found = compare_arrays(a, b, axes, 1e-3, turned=0.01)
    assert (found.beyond, found.within, found.largest) == (0.01, True, 1.0)
    assert found.where == "proposal 170, class a"
    assert not compare_arrays(a, b, axes, 1e-3).within
    b[18] = 2
    assert not compare_arrays(a, b, axes, 1e-3, turned=0.01).within


def test_no_rows_are_no_difference() -> None:
    found = compare_arrays(np.zeros((0, 4)), np.zeros((0, 4)), (Axis("row"), Axis("class")), 1e-3)
    assert (found.within, found.words) == (True, "no rows")


def test_boxes_are_compared_as_sets() -> None:
    a = rows(square(0), square(40), square(80))
    b = rows(square(80.25), square(0), square(41))
    found = compare_rows(a, b, Tolerance(box=0.5))
    assert (found.largest, found.of, found.where) == (1.0, None, "row 1")
    assert found.beyond == pytest.approx(1 / 3)
    assert found.words == "3 matched"
    assert compare_rows(a, b, Tolerance(box=1)).within


def test_a_row_without_partner_counts_as_one_beyond() -> None:
    found = compare_rows(rows(square(0), square(40)), rows(square(0), square(0, 60)), Tolerance())
    assert found.words == "1 matched, 1 only in A, 1 only in B"
    assert found.beyond == pytest.approx(2 / 3)
    assert not found.within


def test_scores_are_compared_where_one_of_the_two_is_high_enough() -> None:
    a = rows(square(0), square(40), square(80), scores=[0.5, 0.11, 0.05])
    b = rows(square(0), square(40), scores=[0.5, 0.09])
    found = compare_rows(a, b, Tolerance(relative=0.01, score=0.1))
    assert (found.words, found.beyond) == ("2 matched, scores within 2.0e-02", 0.5)
    assert compare_rows(a, b, Tolerance(relative=0.03, score=0.1)).within


def test_boxes_that_are_not_finite_are_said() -> None:
    found = compare_rows(rows(square(0)), rows((math.nan, 0, 1, 1)), Tolerance())
    assert (found.words, found.within) == ("0 matched, 1 only in A, 1 only in B, not all finite", False)


def test_pasted_masks_are_measured_by_how_far_their_outline_moved() -> None:
    pairs = (Pair("cat", 0.9, 0.9, 0, 0.25, 0.8), Pair("dog", 0.5, 0.5, 0, 0.75, 0.9))
    found = compare_pasted(Agreement(pairs, (), ()), Tolerance(box=0.5))
    assert (found.largest, found.where, found.words) == (0.75, "dog 0.50", "mask IoU from 0.8000")
    assert (found.beyond, found.within) == (0.5, False)
    alone = Agreement((), (Single("cat", 0.9, (0, 0, 1, 1), ""),), ())
    assert not compare_pasted(alone, Tolerance()).within


def test_the_worst_is_beyond_before_it_is_large_and_unknown_only_where_something_is_wrong() -> None:
    near, far = Difference(1e-4, 1.0, 0, True), Difference(9.0, 1.0, 0, True)
    beyond, misfit = Difference(2e-3, 1.0, 1, False), Difference(math.nan, None, 1, False)
    no_rows = Difference(math.nan, None, 0, True, words="no rows")
    assert worst([near, far, beyond]) is beyond
    assert worst([beyond, misfit, near]) is misfit
    assert worst([no_rows, near]) is near


def ran(name: str = "A", **stages: np.ndarray) -> Ran:
    """100 proposals side by side, the first two of them detected, in an image half as large as the input."""
    boxes = np.array([[(40 * at, 20, 40 * at + 20, 60) for at in range(100)]], np.float32)
    found = {
        "proposals": boxes,
        "class_logits": np.ones((100, 3), np.float32),
        "detections.boxes": boxes[:, :3],
        "detections.scores": np.array([[0.75, 0.5, 0]], np.float32),
        "detections.labels": np.array([[0, 1, 0]]),
        "masks": np.ones((1, 2, 28, 28), np.float32),
    }
    described = Spec(ModelConfig(classes=2), classes=Classes(("cat", "dog")))
    geometry = Geometry(size=(100, 2000), size_net=(200, 4000))
    return Ran(
        name, described, geometry, np.zeros((1, 3, 200, 4000)), np.array([[200, 4000]]), found | stages
    )


def test_rows_are_in_pixels_of_the_image_and_empty_ones_are_left_out() -> None:
    found = ran().found()
    assert found.boxes.tolist() == [[0, 10, 10, 30], [20, 10, 30, 30]]
    assert (found.labels.tolist(), found.rows.tolist()) == ([0, 1], [0, 1])
    proposals = np.zeros((1, 3, 4), np.float32)
    proposals[0, 1] = 2, 4, 6, 8
    few = ran(proposals=proposals).proposals()
    assert (few.boxes.tolist(), few.rows.tolist()) == ([[1, 2, 3, 4]], [1])


def test_a_turned_proposal_is_tolerated_as_run_and_not_on_equal_inputs() -> None:
    logits = np.ones((100, 3), np.float32)
    logits[7, 2] = 5
    b = ran("B", class_logits=logits)
    agreement = Agreement((), (), ())
    as_run = compare_runs(ran(), b, np.arange(2), Tolerance(), agreement)["class_logits"]
    fed = compare_runs(ran(), b, np.arange(2), Tolerance())["class_logits"]
    assert (as_run.within, as_run.beyond, as_run.where) == (True, 0.01, "proposal 7, class background")
    assert (fed.within, fed.largest) == (False, 4.0)


def test_proposals_in_another_order_are_paired_as_run() -> None:
    order = np.arange(100)[::-1]
    logits = np.arange(300, dtype=np.float32).reshape(100, 3)
    b = ran("B", proposals=ran().stages["proposals"][:, order], class_logits=logits[order])
    found = compare_runs(ran(class_logits=logits), b, np.arange(2), Tolerance(), Agreement((), (), ()))
    assert found["proposals"].words == "100 matched"
    assert found["class_logits"].largest == 0


def test_words_name_the_models_whichever_of_them_was_fed() -> None:
    bad = np.full((100, 3), math.nan, np.float32)
    found = compare_runs(ran("B", class_logits=bad), ran("A"), np.arange(2), Tolerance())
    assert found["class_logits"].words == "not finite in B"
    stem = np.full((1, 2, 2, 2), math.nan, np.float32)
    found = compare_runs(ran("B", stem=stem), ran("A", stem=stem * 0), np.arange(2), Tolerance())
    assert found["stem"].words == "not finite in A and B"
    found = compare_runs(
        ran("B", stem=stem), ran("A", stem=np.zeros((1, 2, 2, 2))), np.arange(2), Tolerance()
    )
    assert found["stem"].words == "not finite in B"


def test_a_level_that_one_neck_lacks_is_told_and_a_stage_that_one_engine_does_not_tell_is_not() -> None:
    stem = np.zeros((1, 2, 2, 2), np.float32)
    a, b = ran("A"), ran("B", stem=stem)
    assert "stem" not in compare_runs(a, b, np.arange(2), Tolerance())
    c4 = replace(a, spec=replace(a.spec, model=replace(a.spec.model, neck="c4")))
    assert compare_runs(c4, b, np.arange(2), Tolerance())["stem"].words == "only in B"


def test_on_equal_inputs_the_comparison_ends_where_a_stage_does_not_fit() -> None:
    a, b = (ran(name, stem=np.zeros((1, 2, side, side))) for name, side in (("A", 2), ("B", 3)))
    fed = compare_runs(a, b, np.arange(2), Tolerance())
    assert list(fed) == ["stem"]
    as_run = compare_runs(a, b, np.arange(2), Tolerance(), Agreement((), (), ()))
    assert list(as_run) == ["stem", "proposals", "class_logits", "detections", "masks", "pasted"]
