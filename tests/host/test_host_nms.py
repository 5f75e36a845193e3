"""The host's NMS: hand-made numbers, and agreement with the network's operations."""

import math

import numpy as np
import pytest
import torch

from maskrcnn.host.nms import nms, soft_nms
from maskrcnn.ops import nms as network

ALL = float("-inf")
HALF = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)  # overlap 50, union 100


def kept(boxes: np.ndarray, scores: list[float], groups: list[int], iou: float = 0.5, **habits: bool):
    rules = {"plus_one": False, "inclusive": False} | habits
    return nms(boxes, np.float32(scores), np.array(groups), iou, ALL, 10, **rules).tolist()


def crowd(count: int, groups: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes around a few centres, so that many overlap; some are empty."""
    rng = np.random.default_rng(seed)
    centres = rng.random((40, 2)) * 600
    corners = centres[rng.integers(0, 40, count)] + rng.normal(0, 12, (count, 2))
    boxes = np.concatenate([corners, corners + rng.random((count, 2)) * 150], 1)
    boxes[:5, 2:] = boxes[:5, :2]
    return boxes.astype(np.float32), rng.random(count).astype(np.float32), rng.integers(0, groups, count)


def test_a_box_overlapping_a_better_one_by_exactly_the_threshold_is_kept_unless_inclusive():
    assert kept(HALF, [0.9, 0.8], [0, 0]) == [0, 1]
    assert kept(HALF, [0.9, 0.8], [0, 0], inclusive=True) == [0]


# 1 / 10 as float32 is above 0.1, 7 / 10 below 0.7.
@pytest.mark.parametrize(("iou", "suppressed"), [(0.1, True), (0.7, False)])
def test_an_overlap_is_compared_with_the_threshold_as_a_double(iou: float, suppressed: bool):
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10 * round(iou, 1)]], np.float32)
    theirs = network.nms(
        torch.from_numpy(boxes)[None], torch.tensor([[0.9, 0.8]]), torch.zeros(1, 2), iou, ALL, 2
    )
    assert (theirs[0, 1] == -1) == suppressed
    assert kept(boxes, [0.9, 0.8], [0, 0], iou=iou) == ([0] if suppressed else [0, 1])


def test_plus_one_counts_the_last_pixel():
    # Pixels 0..9 x 0..9 and 0..9 x 0..4: 50 of 100; without the +1 it is 36 of 81.
    boxes = HALF - np.float32([0, 0, 1, 1])
    assert kept(boxes, [0.9, 0.8], [0, 0], iou=0.49, plus_one=True) == [0]
    assert kept(boxes, [0.9, 0.8], [0, 0], iou=0.49) == [0, 1]


def test_groups_are_apart_and_the_best_comes_first():
    boxes = np.tile(np.float32([0, 0, 10, 10]), (3, 1))
    assert kept(boxes, [0.7, 0.9, 0.8], [0, 1, 1]) == [1, 0]


def test_of_equal_scores_the_earlier_row_wins():
    boxes = np.tile(np.float32([0, 0, 10, 10]), (4, 1))
    assert kept(boxes, [0.5, 0.5, 0.5, 0.5], [1, 1, 0, 0]) == [0, 2]


def test_no_boxes_leave_no_rows():
    assert kept(np.zeros((0, 4), np.float32), [], []) == []


def test_a_score_at_the_limit_is_left_out():
    rows = nms(HALF, np.float32([0.05, 0.06]), np.zeros(2, int), 0.5, 0.05, 10, False, False)
    assert rows.tolist() == [1]


@pytest.mark.parametrize("plus_one", [True, False])
@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize(("count", "groups", "keep"), [(1500, 5, 1000), (1500, 5, 60), (1200, 80, 100)])
def test_the_same_rows_are_kept_as_by_the_network(
    plus_one: bool, inclusive: bool, count: int, groups: int, keep: int
):
    boxes, scores, group = crowd(count, groups)
    mine = nms(boxes, scores, group, 0.6, 0.05, keep, plus_one, inclusive)
    arrays = (torch.from_numpy(each)[None] for each in (boxes, scores, group))
    theirs = network.nms(*arrays, 0.6, 0.05, keep, plus_one, inclusive)[0]
    np.testing.assert_array_equal(mine, theirs[theirs >= 0])


def test_linear_soft_nms_multiplies_by_one_minus_iou_above_the_threshold():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 5]], np.float32)  # IoU 0.6 and 0.5
    arguments = (np.zeros(3, int), 0.5, 0.05, 3, True, 0.5, 0.001, False)
    rows, scores = soft_nms(boxes, np.float32([0.9, 0.8, 0.1]), *arguments)
    # The second, at 0.32, overlaps the third by 5 / 6.
    assert rows.tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores, [0.9, 0.8 * 0.4, 0.1 * (1 - 5 / 6)], rtol=1e-5)


def test_gaussian_soft_nms_spares_other_groups():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 6]], np.float32)
    arguments = (np.array([0, 0, 1]), 0.5, 0.05, 3, False, 0.5, 0.001, False)
    rows, scores = soft_nms(boxes, np.float32([0.9, 0.8, 0.7]), *arguments)
    assert rows.tolist() == [0, 2, 1]
    np.testing.assert_allclose(scores, [0.9, 0.7, 0.8 * math.exp(-0.36 / 0.5)], rtol=1e-5)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("plus_one", [True, False])
def test_soft_nms_gives_the_rows_and_scores_of_the_network(linear: bool, plus_one: bool):
    boxes, scores, group = crowd(300, 4)
    rows, decayed = soft_nms(boxes, scores, group, 0.5, 0.05, 80, linear, 0.5, 0.1, plus_one)
    arrays = (torch.from_numpy(each)[None] for each in (boxes, scores, group))
    theirs, theirs_decayed = network.soft_nms(*arrays, 0.5, 0.05, 80, linear, 0.5, 0.1, plus_one)
    real = theirs[0] >= 0
    np.testing.assert_array_equal(rows, theirs[0, real])
    np.testing.assert_allclose(decayed, theirs_decayed[0, real], rtol=1e-5)
