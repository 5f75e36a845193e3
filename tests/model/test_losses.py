"""The arithmetic of the five losses, and the whole against torchvision's on the same weights and samples."""

import math

import torch
from torch import tensor

from maskrcnn.model.losses import (
    classes_loss,
    deltas_loss,
    mask_loss,
    mask_targets,
    objectness_loss,
    of_class,
)


def test_logits_of_zero_cost_log_2_whichever_the_answer() -> None:
    assert math.isclose(objectness_loss(torch.zeros(6), positives=2), math.log(2), rel_tol=1e-6)


def test_the_first_logits_are_the_objects() -> None:
    assert objectness_loss(tensor([20.0, -20.0]), positives=1) < 1e-6
    assert objectness_loss(tensor([-20.0, 20.0]), positives=1) > 19


def test_delta_errors_are_summed_and_divided_by_all_sampled_boxes() -> None:
    loss = deltas_loss(tensor([[1.0, 0, 0, 0], [0.0, 2, 0, 0]]), torch.zeros(2, 4), sampled=6, beta=0.0)
    assert math.isclose(loss, 3 / 6)


def test_a_delta_error_below_beta_costs_its_square() -> None:
    # 0.5 * 0.1^2 / 0.5 = 0.01; above beta 2 - 0.25 = 1.75
    assert math.isclose(
        deltas_loss(tensor([[0.1, 2, 0, 0]]), torch.zeros(1, 4), 1, beta=0.5), 1.76, rel_tol=1e-6
    )


def test_equal_class_logits_cost_the_logarithm_of_their_number() -> None:
    assert math.isclose(classes_loss(torch.zeros(3, 81), tensor([0, 79, 80])), math.log(81), rel_tol=1e-6)


def test_losses_over_nothing_are_zero_and_can_be_differentiated() -> None:
    logits, deltas, masks = (
        torch.zeros(shape, requires_grad=True) for shape in ((0, 81), (0, 4), (0, 28, 28))
    )
    none = torch.zeros(0, dtype=torch.int64)
    total = classes_loss(logits, none) + deltas_loss(deltas, torch.zeros(0, 4), 0, 0.0)
    total = total + mask_loss(masks, torch.zeros(0, 28, 28))
    total.backward()
    assert total == 0


def test_a_class_agnostic_head_has_one_row_for_every_label() -> None:
    assert of_class(tensor([[[7.0]], [[8.0]]]), tensor([3, 0])).tolist() == [[7.0], [8.0]]
    assert of_class(tensor([[[7.0], [9.0]]]), tensor([1])).tolist() == [[9.0]]


def test_a_mask_that_fills_the_left_half_of_the_box_is_one_left_and_zero_right() -> None:
    masks = torch.zeros((1, 8, 8), dtype=torch.uint8)
    masks[0, :, :4] = 1
    found = mask_targets(masks, tensor([0]), tensor([[0.0, 0, 8, 8]]), side=4, aligned=True)
    assert found[0].tolist() == [[1, 1, 0, 0]] * 4


def test_mask_targets_follow_their_row_when_rows_repeat_and_skip() -> None:
    masks = torch.stack([torch.full((4, 4), value, dtype=torch.uint8) for value in (0, 1, 0)])
    found = mask_targets(masks, tensor([1, 2, 1]), tensor([[0.0, 0, 4, 4]] * 3), side=2, aligned=True)
    assert found.mean((1, 2)).tolist() == [1, 0, 1]
