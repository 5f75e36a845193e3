"""The ONNX translations of our operations, computed node by node with ONNX Runtime, against their kernels."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskrcnn.export import onnx_ops
from maskrcnn.export.graph import leading_rows
from maskrcnn.ops.nms import nms, soft_nms
from maskrcnn.ops.pool_levels import pool_levels

pytestmark = pytest.mark.filterwarnings("default")


def values(*results: Any) -> list[np.ndarray]:
    """What onnxscript computes outside a graph, as arrays."""
    return [np.asarray(getattr(result, "value", result)) for result in results]


def candidates(count: int, rows: int, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """boxes (B, N, 4) on 100 x 100 pixels, scores (B, N) in steps of 0.02 so that some tie, groups (B, N)."""
    generator = torch.Generator().manual_seed(rows)
    corner = torch.rand(count, rows, 2, generator=generator) * 60
    sides = torch.rand(count, rows, 2, generator=generator) * 40
    scores = torch.randint(1, 50, (count, rows), generator=generator) / 50
    groups = torch.randint(0, classes, (count, rows), generator=generator)
    return torch.cat([corner, corner + sides], 2), scores, groups


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param((0.5, 0.05, 20), id="detections"),
        pytest.param((0.7, float("-inf"), 30), id="proposals"),
        pytest.param((0.3, 0.3, 90, True, True), id="legacy, more rows than boxes"),
        pytest.param((0.5, 0.999, 5), id="nothing over the score"),
    ],
)
def test_nms_keeps_what_the_kernel_keeps_in_its_order(settings: tuple) -> None:
    boxes = candidates(2, 60)
    expected = nms(*boxes, *settings)
    (found,) = values(onnx_ops.nms(*(each.numpy() for each in boxes), *settings))
    np.testing.assert_array_equal(found, expected)


def test_a_score_of_minus_infinity_is_no_candidate() -> None:
    boxes = np.array([[[0, 0, 4, 4], [10, 10, 14, 14]]], np.float32)
    scores = np.array([[-np.inf, -3.0]], np.float32)
    (found,) = values(onnx_ops.nms(boxes, scores, np.zeros((1, 2), np.int64), 0.5, -np.inf, 2))
    assert found.tolist() == [[1, -1]]


@pytest.mark.parametrize(("inclusive", "kept"), [(False, [[0, 1]]), (True, [[0, -1]])])
@pytest.mark.parametrize("side", [5.0, 7.0, 3.0], ids=["0.5", "0.7", "0.3"])
def test_a_box_overlapping_by_exactly_the_threshold(inclusive: bool, kept: list, side: float) -> None:
    """Overlaps of side / 10; the float32 next to 0.3 is above it, and torch therefore suppresses it."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, side]]])
    scores, groups = torch.tensor([[0.9, 0.8]]), torch.zeros((1, 2), dtype=torch.int64)
    settings = (side / 10, 0.05, 2, False, inclusive)
    expected = nms(boxes, scores, groups, *settings)
    if side != 3:
        assert expected.tolist() == kept
    (found,) = values(onnx_ops.nms(boxes.numpy(), scores.numpy(), groups.numpy(), *settings))
    assert found.tolist() == expected.tolist()


def test_an_inverted_box_overlaps_nothing() -> None:
    boxes = np.array([[[0, 0, 1, 1], [1, 1, 0.2, 0.2]]], np.float32)
    scores = np.array([[0.9, 0.8]], np.float32)
    (found,) = values(onnx_ops.nms(boxes, scores, np.zeros((1, 2), np.int64), 0.5, 0.05, 2))
    assert found.tolist() == [[0, 1]]


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("plus_one", [True, False])
def test_soft_nms_lowers_the_scores_that_the_kernel_lowers(linear: bool, plus_one: bool) -> None:
    boxes, scores, groups = candidates(2, 30)
    scores[1, 4:] = 0  # the second image runs out of boxes before the first
    settings = (0.5, 0.05, 12, linear, 0.5, 0.001, plus_one)
    rows, decayed = soft_nms(boxes, scores, groups, *settings)
    found = values(*onnx_ops.soft_nms(*(each.numpy() for each in (boxes, scores, groups)), *settings))
    np.testing.assert_array_equal(found[0], rows)
    np.testing.assert_allclose(found[1], decayed, atol=1e-6)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [0, 2])
def test_each_box_is_pooled_from_its_level_of_its_image(aligned: bool, samples: int) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = [torch.rand(2, 3, side, side + 4, generator=generator) for side in (16, 8, 4)]
    boxes = torch.cat([candidates(2, 20)[0], torch.tensor([[[0.0, 0, 0, 0], [5, 5, 5.2, 5.1]]] * 2)], 1)
    level_of = torch.randint(0, 2, boxes.shape[:2], generator=generator)  # the third level has none
    settings = ([1 / 4, 1 / 8, 1 / 16], 7, samples, aligned)
    expected = pool_levels(levels, boxes, level_of, *settings)
    arrays = [level.numpy() for level in levels], boxes.numpy(), level_of.numpy()
    (found,) = values(onnx_ops.pool_levels(*arrays, *settings))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_level_needs_no_order() -> None:
    level, boxes = torch.rand(2, 3, 8, 8), candidates(2, 5)[0]
    level_of = torch.zeros((2, 5), dtype=torch.int64)
    expected = pool_levels([level], boxes, level_of, [1 / 16], 7, 0, True)
    arrays = [level.numpy()], boxes.numpy(), level_of.numpy()
    (found,) = values(onnx_ops.pool_levels(*arrays, [1 / 16], 7, 0, True))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("real", "count"), [([[1, 1, 0], [1, 0, 0]], 2), ([[0, 0, 0], [0, 0, 0]], 1)])
def test_leading_rows_are_those_of_the_fullest_image(real: list, count: int) -> None:
    boxes, labels = torch.rand(2, 3, 4), torch.arange(6).reshape(2, 3)
    scores = torch.tensor(real) * 0.5
    expected = leading_rows(boxes, labels, scores)
    assert expected[0].shape == (2, count, 4)
    found = values(*onnx_ops.leading_rows(boxes.numpy(), labels.numpy(), scores.numpy()))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
