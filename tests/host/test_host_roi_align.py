"""The host's RoIAlign: hand-made numbers, and agreement with torchvision."""

import numpy as np
import pytest
import torch
import torchvision

from maskrcnn.host.roi_align import pool_levels
from maskrcnn.ops import pool_levels as network


def boxes_of_all_kinds(count: int = 200) -> np.ndarray:
    """Boxes on 2 images of 320 x 240 pixels, (2, R, 4): inside, across the border, empty, thin, far out."""
    rng = np.random.default_rng(0)
    corner = rng.random((count, 2)) * (360, 280) - 20
    boxes = np.concatenate([corner, corner + rng.random((count, 2)) ** 2 * 250], 1)
    special = [
        (0, 0, 0, 0),
        (-500, -500, -400, -450),
        (10, 10, 10.5, 200),
        (318, 238, 340, 260),
        (-3, -3, 330, 250),
        (50, 60, 40, 50),
        (319.9, 239.9, 320, 240),
    ]
    boxes[: len(special)] = special
    return boxes.astype(np.float32).reshape(2, -1, 4)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [0, 1, 2, 3])
@pytest.mark.parametrize(("scale", "side"), [(1 / 4, 7), (1 / 16, 14)])
def test_a_level_is_pooled_as_by_torchvision(scale: float, side: int, samples: int, aligned: bool):
    level = torch.randn(2, 5, int(240 * scale), int(320 * scale), generator=torch.Generator().manual_seed(1))
    boxes = boxes_of_all_kinds()
    owner = np.zeros(boxes.shape[:2], np.int64)
    mine = pool_levels([level.numpy()], boxes, owner, [scale], side, samples, aligned)
    rois = [torch.from_numpy(each) for each in boxes]
    theirs = torchvision.ops.roi_align(level, rois, side, scale, samples, aligned)
    # float32 sums of up to a few hundred products in another order
    np.testing.assert_allclose(mine, theirs, atol=5e-6)


def test_the_mean_of_a_ramp_is_the_coordinate_of_the_bin_centre():
    ramp = np.tile(np.arange(8, dtype=np.float32), (8, 1))[None, None]
    boxes, owner = np.float32([[[2, 2, 6, 6]]]), np.zeros((1, 1), np.int64)
    pooled = pool_levels([ramp], boxes, owner, [1.0], 2, 0, True)
    # Bins are 2..4 and 4..6; their centres 3 and 5 lie half a cell past the cell centres.
    assert pooled[0, 0].tolist() == [[2.5, 4.5], [2.5, 4.5]]


@pytest.mark.parametrize("channels_last", [True, False])
def test_each_box_is_pooled_from_its_own_level_of_its_own_image(channels_last: bool):
    rng = np.random.default_rng(0)
    levels = [rng.standard_normal((2, 6, side, side)).astype(np.float32) for side in (64, 32, 16)]
    if channels_last:
        levels = [np.ascontiguousarray(each.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for each in levels]
    boxes = boxes_of_all_kinds(60)
    owner = rng.integers(0, 3, boxes.shape[:2])
    scales = [1 / 4, 1 / 8, 1 / 16]
    mine = pool_levels(levels, boxes, owner, scales, 7, 2, True)
    arrays = [torch.from_numpy(each) for each in levels]
    theirs = network.pool_levels(arrays, torch.from_numpy(boxes), torch.from_numpy(owner), scales, 7, 2, True)
    assert mine.shape == (60, 6, 7, 7)
    np.testing.assert_allclose(mine, theirs, atol=5e-6)


def test_no_boxes_pool_nothing():
    level = np.zeros((1, 3, 8, 8), np.float32)
    pooled = pool_levels([level], np.zeros((1, 0, 4), np.float32), np.zeros((1, 0), int), [1.0], 7, 2, True)
    assert pooled.shape == (0, 3, 7, 7)
