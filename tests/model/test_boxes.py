"""Boxes and deltas with numbers worked out by hand."""

import math

import pytest
import torch
from torch import tensor

from maskrcnn.model.boxes import clip, decode, encode, large_enough, pyramid_level

ONES = (1.0, 1.0, 1.0, 1.0)


def test_deltas_shift_by_the_side_and_scale_by_the_exponential():
    boxes = decode(tensor([[0.5, -0.25, math.log(2), 0.0]]), tensor([[10.0, 20, 30, 60]]), ONES)
    assert boxes[0].tolist() == pytest.approx(
        [10, 10, 50, 50]
    )  # centre (20, 40) -> (30, 30), 20 x 40 -> 40 x 40


def test_plus_one_boxes_keep_their_corners_at_zero_deltas():
    boxes = decode(torch.zeros(1, 4), tensor([[0.0, 0, 9, 9]]), ONES, plus_one=True)
    assert boxes[0].tolist() == [0, 0, 9, 9]


def test_growing_is_limited_to_1000_over_16_and_shrinking_only_when_asked():
    delta, box = tensor([[0.0, 0, 9, -9]]), tensor([[0.0, 0, 16, 16]])
    free = decode(delta, box, ONES)[0]
    both = decode(delta, box, ONES, clamp_shrinking=True)[0]
    assert (free[2] - free[0]).item() == pytest.approx(1000, rel=1e-5)
    assert (free[3] - free[1]).item() == pytest.approx(16 * math.exp(-9), abs=1e-5)
    assert (both[3] - both[1]).item() == pytest.approx(16 * 16 / 1000, abs=1e-5)


@pytest.mark.parametrize("plus_one", [False, True])
def test_encode_is_the_inverse_of_decode(plus_one: bool):
    boxes, targets = tensor([[3.0, 4, 50, 70]]), tensor([[10.0, -5, 90, 33]])
    weights = (10.0, 10.0, 5.0, 5.0)
    back = decode(encode(targets, boxes, weights, plus_one), boxes, weights, plus_one)
    assert back[0].tolist() == pytest.approx(targets[0].tolist(), abs=1e-4)


def test_boxes_are_clipped_to_width_or_to_width_minus_one():
    boxes, size = tensor([[[-3.0, -4, 500, 600]]]), tensor([[100, 200]])
    assert clip(boxes, size).tolist() == [[[0, 0, 200, 100]]]
    assert clip(boxes, size, plus_one=True).tolist() == [[[0, 0, 199, 99]]]


def test_an_empty_box_is_never_large_enough():
    boxes = tensor([[0.0, 0, 0, 5], [0, 0, 0.001, 5], [0, 0, 0.02, 5]])
    assert large_enough(boxes, 0.0).tolist() == [False, True, True]
    assert large_enough(boxes, 0.01).tolist() == [False, False, True]


def test_a_box_of_224_belongs_to_p4_and_its_half_to_p3():
    boxes = tensor([[0.0, 0, 224, 224], [0, 0, 112, 112], [0, 0, 4, 4], [0, 0, 9999, 9999], [0, 0, 0, 0]])
    assert pyramid_level(boxes, 4, inside=1e-8, outside=0.0).tolist() == [2, 1, 0, 3, 0]


def test_the_last_bits_of_a_level_border_are_decided_by_where_epsilon_stands():
    side = 112 * (1 - 2e-7)  # a rounding error below P3
    box = tensor([[0.0, 0, side, side]])
    assert box[0, 2] < 112
    assert pyramid_level(box, 4, inside=0.0, outside=1e-6).item() == 1
    assert pyramid_level(box, 4, inside=1e-8, outside=0.0).item() == 0
    assert pyramid_level(box, 4, inside=1e-6, outside=0.0).item() == 1


def test_a_box_whose_last_pixel_counts_reaches_the_next_level_one_pixel_earlier():
    box = tensor([[0.0, 0, 223, 223]])
    assert [pyramid_level(box, 4, 1e-6, 0.0, plus_one).item() for plus_one in (True, False)] == [2, 1]
