"""Views of a training image keep image, boxes and masks together."""

import numpy as np
import pytest

from maskrcnn.data.augment import Augment, augment, cut_out, jitter, mirror, tight_boxes
from maskrcnn.data.sample import Sample


def two_instances() -> Sample:
    """An image of 8 x 6: one instance of 2 x 3 pixels at the left, one of 4 x 4 at the right."""
    masks = np.zeros((2, 6, 8), np.uint8)
    masks[0, 1:4, 0:2] = 1
    masks[1, 2:6, 4:8] = 1
    image = np.zeros((6, 8, 3), np.uint8)
    image[masks[0] > 0] = 100
    image[masks[1] > 0] = 200
    boxes = np.array([[0, 1, 2, 4], [4, 2, 8, 6]], np.float32)
    return Sample(image, boxes, np.array([3, 5]), np.array([False, False]), masks)


def test_a_mirror_image_moves_the_left_instance_to_the_right() -> None:
    view = mirror(two_instances())
    assert view.boxes.tolist() == [[6, 1, 8, 4], [0, 2, 4, 6]]
    assert np.array_equal(tight_boxes(view.masks), view.boxes)
    assert (view.image[view.masks[0] > 0] == 100).all()


def test_an_instance_outside_the_cut_goes_and_one_inside_keeps_its_box() -> None:
    view = cut_out(two_instances(), 3, 0, 8, 6, visible=0.25)
    assert (view.boxes.tolist(), view.labels.tolist(), view.crowd.tolist()) == ([[1, 2, 5, 6]], [5], [False])
    assert view.image.shape == (6, 5, 3)


def test_an_instance_cut_in_half_has_the_box_of_what_is_left() -> None:
    view = cut_out(two_instances(), 0, 0, 6, 6, visible=0.25)
    assert view.boxes.tolist() == [[0, 1, 2, 4], [4, 2, 6, 6]]
    assert view.crowd.tolist() == [False, False]


def test_an_instance_of_which_a_sliver_is_left_becomes_a_crowd_region() -> None:
    view = cut_out(two_instances(), 0, 0, 5, 3, visible=0.25)
    assert view.boxes.tolist() == [[0, 1, 2, 3], [4, 2, 5, 3]]
    assert view.crowd.tolist() == [False, True]


def test_jitter_factors_of_one_change_nothing_and_saturation_zero_is_grey() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert np.array_equal(jitter(image, 1, 1, 1), image)
    grey = jitter(image, 1, 1, 0)
    assert (grey == grey[..., :1]).all()
    assert jitter(image, 3, 1, 1).max() == 255


@pytest.mark.parametrize("seed", range(20))
def test_any_view_has_boxes_around_its_masks_and_colours_inside_them(seed: int) -> None:
    view = augment(two_instances(), Augment(crop=1.0, crop_area=0.2), np.random.default_rng(seed))
    assert np.array_equal(tight_boxes(view.masks), view.boxes)
    for mask, label in zip(view.masks, view.labels, strict=True):
        assert (view.image[mask > 0] == {3: 100, 5: 200}[int(label)]).all()
    assert view.masks.shape[1:] == view.image.shape[:2]


def test_a_photograph_without_instances_can_be_cut_and_mirrored() -> None:
    nothing = Sample(
        np.zeros((6, 8, 3), np.uint8),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int64),
        np.zeros(0, bool),
        np.zeros((0, 6, 8), np.uint8),
    )
    view = augment(nothing, Augment(flip=1.0, crop=1.0), np.random.default_rng(0))
    assert view.boxes.shape == (0, 4) and view.masks.shape == (0, *view.image.shape[:2])
