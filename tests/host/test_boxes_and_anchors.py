"""The host's boxes, anchors and normalisation: hand-made numbers, and agreement with the network's own."""

import numpy as np
import pytest
import torch

from maskrcnn.config import AnchorConfig, Conventions, ModelConfig
from maskrcnn.host.anchors import anchors_of_cells
from maskrcnn.host.boxes import clip, decode, large_enough, pyramid_level
from maskrcnn.host.normalise import normalised
from maskrcnn.model import boxes as network
from maskrcnn.model.anchors import Anchors
from maskrcnn.model.mask_rcnn import MaskRCNN

UNIT = (1.0, 1.0, 1.0, 1.0)


def some_boxes(count: int = 500) -> np.ndarray:
    """float32 boxes of 600 x 800 pixels; some empty, some turned inside out by less than a pixel."""
    rng = np.random.default_rng(0)
    corners, sides = rng.random((count, 2)) * (800, 600), rng.random((count, 2)) ** 3 * 500 - 0.5
    return np.concatenate([corners, corners + sides], 1).astype(np.float32)


def test_a_delta_moves_by_the_sides_and_grows_by_the_exponential():
    box = np.array([[10, 20, 30, 60]], np.float32)
    moved = decode(np.array([[0.5, -0.25, np.log(2), 0]], np.float32), box, UNIT, False, False, 4.0)
    # The centre (20, 40) moves by half of 20 and a quarter of 40; the width 20 doubles.
    np.testing.assert_allclose(moved, [[10, 10, 50, 50]], atol=1e-4)


def test_a_limit_of_thousands_overflows_without_a_warning():
    box = np.array([[0, 0, 16, 16]], np.float32)
    assert np.isinf(decode(np.full((1, 4), 500, np.float32), box, UNIT, False, False, 1000.0)[0, 2])


@pytest.mark.parametrize("plus_one", [True, False])
@pytest.mark.parametrize("clamp_shrinking", [True, False])
def test_boxes_are_decoded_clipped_and_ranked_as_in_the_network(plus_one: bool, clamp_shrinking: bool):
    boxes = some_boxes()
    deltas = np.random.default_rng(1).normal(0, 3, boxes.shape).astype(np.float32)
    size = np.array([600, 790])
    weights = (10.0, 10.0, 5.0, 5.0)
    mine = decode(deltas, boxes, weights, plus_one, clamp_shrinking, 2.0)
    arrays = (torch.from_numpy(deltas), torch.from_numpy(boxes))
    theirs = network.decode(*arrays, weights, plus_one, clamp_shrinking, 2.0)
    # exp() of numpy and torch may differ in the last bit of sides of up to 4000 pixels.
    np.testing.assert_allclose(mine, theirs, atol=2e-3)
    clipped = network.clip(theirs[None], torch.from_numpy(size)[None], plus_one)[0]
    np.testing.assert_array_equal(clip(theirs.numpy(), size, plus_one), clipped)
    for least in (0.0, 1e-2, 16.0):
        usable = network.large_enough(clipped, least, plus_one)
        np.testing.assert_array_equal(large_enough(clipped.numpy(), least, plus_one), usable)


@pytest.mark.parametrize(("inside", "outside"), [(0.0, 1e-6), (1e-8, 0.0), (1.01e-4 / 4, 0.0)])
@pytest.mark.parametrize("plus_one", [True, False])
def test_a_box_belongs_to_the_level_that_the_network_gives_it(inside: float, outside: float, plus_one: bool):
    sides = np.float32([0, 1, 111.99, 112, 223, 223.99997, 224, 447, 448, 2000])
    zero = np.zeros_like(sides)
    boxes = np.concatenate([np.stack([zero, zero, sides, sides], 1), some_boxes()])
    mine = pyramid_level(boxes, 4, inside, outside, plus_one)
    theirs = network.pyramid_level(torch.from_numpy(boxes), 4, inside, outside, plus_one)
    np.testing.assert_array_equal(mine, theirs)


def test_a_box_of_the_canonical_side_belongs_to_the_third_level():
    boxes = np.array([[0, 0, 224, 224], [0, 0, 0, 0], [0, 0, 9999, 9999]], np.float32)
    assert pyramid_level(boxes, 4, 1e-8, 0.0, False).tolist() == [2, 0, 3]
    assert pyramid_level(boxes, 1, 1e-8, 0.0, False).tolist() == [0, 0, 0]


@pytest.mark.parametrize("cell", ["exact", "rounded", "legacy"])
@pytest.mark.parametrize("order", ["size_first", "ratio_first"])
def test_anchors_of_a_cell_are_those_of_the_network(cell: str, order: str):
    config = AnchorConfig(sizes=((32.0, 64.0, 128.0, 256.0, 512.0),), ratios=(0.5, 1.0, 2.0, 3.0))
    habits = Conventions(anchor_cell=cell, anchor_order=order)  # type: ignore[arg-type]
    theirs = Anchors(config, (16,), habits).cell0
    np.testing.assert_array_equal(anchors_of_cells(config, (16,), habits)[0], theirs)


def test_anchors_that_a_source_has_as_numbers_are_taken_as_they_are():
    config = AnchorConfig(sizes=((32.0,),), ratios=(1.0,), cells=(((-15.0, -14.0, 16.0, 17.0),),))
    assert anchors_of_cells(config, (4,), Conventions())[0].tolist() == [[-15, -14, 16, 17]]


@pytest.mark.parametrize("padding", ["mean", "black"])
def test_planes_are_normalised_as_in_the_network(padding: str):
    config = ModelConfig(conventions=Conventions(padding=padding))  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 64), dtype=np.uint8)
    size = np.array([[32, 64], [20, 41]])
    with torch.device("meta"):
        network = MaskRCNN(config)
    network.mean, network.std = (torch.tensor(row)[:, None, None] for row in (config.mean, config.std))
    theirs = network.normalised(torch.from_numpy(image), torch.from_numpy(size))
    before = image.copy()
    np.testing.assert_array_equal(normalised(image, size, config), theirs)
    np.testing.assert_array_equal(image, before)
