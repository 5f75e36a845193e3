"""Facts about hard and soft NMS with fixed rows."""

import math

import pytest
import torch
from torch import tensor, zeros

from maskrcnn.ops.nms import nms, soft_nms

ALL = float("-inf")


def test_a_box_overlapping_a_better_one_by_exactly_the_threshold_is_kept():
    boxes = tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5]]])  # overlap 50, union 100
    rows = nms(boxes, tensor([[0.9, 0.8]]), zeros(1, 2), iou=0.5, score_over=ALL, keep=2)
    assert rows.tolist() == [[0, 1]]


def test_inclusive_nms_drops_a_box_overlapping_by_exactly_the_threshold():
    boxes = tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5]]])
    rows = nms(boxes, tensor([[0.9, 0.8]]), zeros(1, 2), iou=0.5, score_over=ALL, keep=2, inclusive=True)
    assert rows.tolist() == [[0, -1]]


def test_plus_one_counts_the_last_pixel():
    # Pixels 0..9 x 0..9 and 0..9 x 0..4: 50 of 100 as above; without the +1 it is 36 of 81.
    boxes = tensor([[[0.0, 0, 9, 9], [0, 0, 9, 4]]])
    kept = [
        nms(boxes, tensor([[0.9, 0.8]]), zeros(1, 2), 0.49, ALL, 2, plus_one=plus_one).tolist()
        for plus_one in (True, False)
    ]
    assert kept == [[[0, -1]], [[0, 1]]]


def test_boxes_of_different_groups_do_not_suppress_each_other():
    boxes = tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]]])
    rows = nms(boxes, tensor([[0.7, 0.9, 0.8]]), tensor([[0, 1, 1]]), 0.5, ALL, 4)
    assert rows.tolist() == [[1, 0, -1, -1]]


def test_a_box_at_the_score_limit_is_left_out_and_images_are_apart():
    boxes = tensor([[[0.0, 0, 10, 10]], [[0.0, 0, 10, 10]]])
    rows = nms(boxes, tensor([[0.05], [0.06]]), zeros(2, 1), 0.5, 0.05, 1)
    assert rows.tolist() == [[-1], [0]]


def test_linear_soft_nms_multiplies_by_one_minus_iou():
    boxes = tensor([[[0.0, 0, 10, 10], [0, 0, 10, 6]]])  # IoU 0.6
    rows, scores = soft_nms(boxes, tensor([[0.9, 0.8]]), zeros(1, 2), 0.5, 0.05, 3, True, 0.5, 0.001)
    assert rows.tolist() == [[0, 1, -1]]
    assert scores[0].tolist() == pytest.approx([0.9, 0.8 * 0.4, 0], abs=1e-6)


def test_linear_soft_nms_leaves_an_overlap_at_the_threshold_alone():
    boxes = tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5]]])
    _, scores = soft_nms(boxes, tensor([[0.9, 0.8]]), zeros(1, 2), 0.5, 0.05, 2, True, 0.5, 0.001)
    assert scores[0].tolist() == pytest.approx([0.9, 0.8])


def test_gaussian_soft_nms_multiplies_by_exp_of_iou_squared_over_sigma():
    boxes = tensor([[[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 6]]])
    groups = tensor([[0, 0, 1]])
    rows, scores = soft_nms(boxes, tensor([[0.9, 0.8, 0.7]]), groups, 0.5, 0.05, 3, False, 0.5, 0.001)
    assert rows.tolist() == [[0, 2, 1]]
    assert scores[0].tolist() == pytest.approx([0.9, 0.7, 0.8 * math.exp(-0.36 / 0.5)], abs=1e-6)


def test_soft_nms_drops_what_falls_to_the_least_score():
    boxes = tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10]]])
    rows, scores = soft_nms(boxes, tensor([[0.9, 0.8]]), zeros(1, 2), 0.5, 0.05, 2, True, 0.5, 0.001)
    assert (rows.tolist(), scores[0, 1].item()) == ([[0, -1]], 0)


def test_both_pass_torchs_checks_of_a_custom_operation():
    boxes = torch.rand(2, 6, 4).cumsum(2)
    scores, groups = torch.rand(2, 6), zeros(2, 6)
    torch.library.opcheck(nms, (boxes, scores, groups, 0.5, 0.05, 4))
    torch.library.opcheck(soft_nms, (boxes, scores, groups, 0.5, 0.05, 4, True, 0.5, 0.001))
