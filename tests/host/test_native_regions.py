"""The compiled RoIAlign, NMS, pooling and class masks: hand-made numbers, agreement with torch and numpy."""

import numpy as np
import pytest
import torch
import torchvision

from maskrcnn.host import roi_align
from maskrcnn.host.native.library import Threads, library
from maskrcnn.host.native.packing import to_float, to_half
from maskrcnn.host.native.regions import Finish, greedy, max_pool, mean, own_class, pool_levels
from maskrcnn.host.nms import nms

pytestmark = pytest.mark.skipif(library() is None, reason="the compiled loops were not built: no C compiler")
ONE = Threads(1)
SPECIAL = [
    (0, 0, 0, 0),
    (-500, -500, -400, -450),
    (10, 10, 10.5, 200),
    (318, 238, 340, 260),
    (-3, -3, 330, 250),
    (50, 60, 40, 50),
    (319.9, 239.9, 320, 240),
    (0, 0, 5000, 4000),
]


def boxes_of_all_kinds(count: int) -> np.ndarray:
    """Boxes on an image of 320 x 240 pixels, (R, 4): inside, across the edge, empty, thin, far out, huge."""
    rng = np.random.default_rng(0)
    corner = rng.random((count, 2)) * (360, 280) - 20
    boxes = np.concatenate([corner, corner + rng.random((count, 2)) ** 2 * 250], 1)
    boxes[: len(SPECIAL)] = SPECIAL
    return boxes.astype(np.float32)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [0, 1, 2, 3])
@pytest.mark.parametrize(("scale", "side"), [(1 / 4, 7), (1 / 16, 14)])
def test_a_level_is_pooled_as_by_torchvision(scale: float, side: int, samples: int, aligned: bool):
    level = torch.randn(2, 20, int(240 * scale), int(320 * scale), generator=torch.Generator().manual_seed(1))
    boxes, image_of = boxes_of_all_kinds(100), np.arange(100) % 2
    cells = np.ascontiguousarray(level.permute(0, 2, 3, 1).numpy())
    level_of = np.zeros(100, np.int64)
    mine = pool_levels([cells], boxes, image_of, level_of, [scale], side, samples, aligned, ONE)
    rois = torch.from_numpy(np.concatenate([image_of[:, None], boxes], 1).astype(np.float32))
    theirs = torchvision.ops.roi_align(level, rois, side, scale, samples, aligned)
    # float32 sums of up to a few hundred products in another order
    np.testing.assert_allclose(mine, theirs.permute(0, 2, 3, 1), atol=5e-6)


def test_each_box_is_pooled_from_its_own_level_of_its_own_image_by_any_number_of_threads():
    rng = np.random.default_rng(0)
    levels = [rng.standard_normal((2, side, side, 32)).astype(np.float32) for side in (64, 32)]
    boxes, image_of, level_of = boxes_of_all_kinds(60), np.arange(60) % 2, np.arange(60) % 3 // 2
    rule = ([1 / 4, 1 / 8], 7, 2, False)
    together = pool_levels(levels, boxes, image_of, level_of, *rule, Threads(3))
    for row in range(60):
        level, image = level_of[row], image_of[row : row + 1] * 0
        alone = levels[level][image_of[row]][None]
        one = (boxes[row : row + 1], image, image)
        mine = pool_levels([alone], *one, [rule[0][level]], *rule[1:], ONE)
        assert np.array_equal(together[row], mine[0])


def test_the_mean_of_a_ramp_is_the_coordinate_of_the_bin_centre():
    ramp = np.tile(np.arange(8, dtype=np.float32)[None, :, None], (8, 1, 16))[None]
    row = np.zeros(1, np.int64)
    pooled = pool_levels([ramp], np.float32([[2, 2, 6, 6]]), row, row, [1.0], 2, 0, True, ONE)
    # Bins are 2..4 and 4..6; their centres 3 and 5 lie half a cell past the cell centres.
    assert pooled[0, :, :, 0].tolist() == [[2.5, 4.5], [2.5, 4.5]]


@pytest.mark.parametrize("half", [False, True])
def test_every_second_bin_with_bias_and_relu_is_what_is_left_of_all_bins(half: bool):
    rng = np.random.default_rng(0)
    level = rng.standard_normal((2, 30, 40, 80)).astype(np.float32)
    bias = rng.standard_normal(80).astype(np.float32)
    boxes, image_of, level_of = boxes_of_all_kinds(20) / 4, np.arange(20) % 2, np.zeros(20, np.int64)
    rule = ([to_half(level) if half else level], boxes, image_of, level_of, [1.0], 7, 2, True, ONE)
    every, some = pool_levels(*rule), pool_levels(*rule, Finish(2, bias, relu=True))
    every, some = (to_float(each) if half else each for each in (every, some))
    expected = np.maximum(every[:, ::2, ::2] + bias, 0)
    assert some.shape == (20, 4, 4, 80)
    # Half a unit in bfloat16's eighth bit of the sum before the bias, which may be near its negative.
    np.testing.assert_allclose(some, expected, rtol=2**-8 if half else 0, atol=2**-7 if half else 1e-7)


def test_bfloat16_levels_are_pooled_to_bfloat16():
    level = np.random.default_rng(0).standard_normal((1, 30, 40, 16)).astype(np.float32)
    row, boxes = np.zeros(20, np.int64), boxes_of_all_kinds(20) / 4
    rule = ([1.0], 7, 2, True, ONE)
    mine = to_float(pool_levels([to_half(level)], boxes, row, row, *rule))
    rounded = to_float(to_half(level))
    np.testing.assert_allclose(mine, pool_levels([rounded], boxes, row, row, *rule), rtol=2**-8)


def test_a_box_overlapping_a_better_one_by_exactly_the_threshold_is_kept():
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 6]])
    assert greedy(boxes, np.zeros(3, np.int64), 0.5, 3).tolist() == [True, True, False]


def test_groups_are_apart_and_no_more_are_kept_than_asked_for():
    boxes = np.tile(np.float32([0, 0, 10, 10]), (4, 1))
    assert greedy(boxes, np.array([0, 1, 1, 2]), 0.5, 4).tolist() == [True, True, False, True]
    assert greedy(boxes, np.array([0, 1, 1, 2]), 0.5, 2).tolist() == [True, True, False, False]


@pytest.mark.parametrize("iou", [0.1, 0.5, 0.7])
def test_crowds_are_thinned_as_by_torchvision(iou: float):
    rng = np.random.default_rng(0)
    corner = rng.random((3000, 2)) * 300
    boxes = np.concatenate([corner, corner + rng.random((3000, 2)) * 80], 1).astype(np.float32)
    scores = -np.sort(-rng.random(3000)).astype(np.float32)
    theirs = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)
    mine = nms(boxes, scores, np.zeros(3000, np.int64), iou, -1.0, 3000, False, False)
    assert mine.tolist() == theirs.tolist()


@pytest.mark.parametrize("channels", [7, 64])
@pytest.mark.parametrize("first", [-1, 0])
def test_the_largest_of_nine_is_pooled_with_either_padding(channels: int, first: int):
    cells = np.abs(np.random.default_rng(0).standard_normal((2, 9, 12, channels))).astype(np.float32)
    planes = torch.from_numpy(cells).permute(0, 3, 1, 2)
    padded = torch.nn.functional.pad(planes, (1, 1, 1, 1) if first else (0, 1, 0, 1 + 9 % 2))
    theirs = torch.nn.functional.max_pool2d(padded, 3, 2).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(max_pool(cells, first, ONE), theirs)


def test_each_row_has_the_logits_of_its_own_class():
    rng = np.random.default_rng(0)
    cells, weight = rng.standard_normal((5, 9, 24)).astype(np.float32), rng.standard_normal((3, 24))
    bias, labels = np.float32([10, 20, 30]), np.array([2, 0, 1, 2, 2])
    mine = own_class(cells, weight.astype(np.float32), bias, labels)
    expected = np.einsum("rnc,rc->rn", cells, weight[labels]) + bias[labels][:, None]
    np.testing.assert_allclose(mine, expected, rtol=1e-5)


def test_without_the_compiled_loops_numpy_finds_the_same(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    corner = rng.random((500, 2)) * 200
    boxes = np.concatenate([corner, corner + rng.random((500, 2)) * 80], 1).astype(np.float32)
    scores, groups = rng.random(500).astype(np.float32), rng.integers(0, 3, 500)
    level = rng.standard_normal((1, 32, 60, 80)).astype(np.float32)
    pooling = ([level], boxes[None], np.zeros((1, 500), np.int64), [0.25], 7, 0, True)
    compiled = nms(boxes, scores, groups, 0.5, 0.1, 100, True, True), roi_align.pool_levels(*pooling)
    for module in ("nms", "roi_align"):
        monkeypatch.setattr(f"maskrcnn.host.{module}.library", lambda: None)
    assert nms(boxes, scores, groups, 0.5, 0.1, 100, True, True).tolist() == compiled[0].tolist()
    np.testing.assert_allclose(roi_align.pool_levels(*pooling), compiled[1], atol=5e-6)


@pytest.mark.parametrize("channels", [7, 32])
def test_the_mean_of_a_boxs_bins_is_taken_in_either_kind_of_value(channels: int):
    cells = np.random.default_rng(0).standard_normal((3, 7, 7, channels)).astype(np.float32)
    exact = cells.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(mean(cells), exact, atol=1e-6)
    # Half a unit in bfloat16's eighth bit, of the values and of the mean.
    np.testing.assert_allclose(to_float(mean(to_half(cells))), exact, atol=2e-3)
