"""Masks of COCO files become the bitmaps that pycocotools makes of them."""

import warnings

import numpy as np
import pytest
from pycocotools import mask as rle

from maskrcnn.data.sample import bitmap, run_lengths
from maskrcnn.errors import UserError


def test_a_square_polygon_covers_its_pixels() -> None:
    square = np.array([[1, 1], [3, 1], [3, 4], [1, 4]], np.float32)
    assert bitmap((square,), (5, 4)).tolist() == [
        [0, 0, 0, 0],
        [0, 1, 1, 0],
        [0, 1, 1, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
    ]


def test_two_polygons_are_one_instance() -> None:
    left, right = (np.array([[x, 0], [x + 1, 0], [x + 1, 2], [x, 2]], np.float32) for x in (0, 3))
    assert bitmap((left, right), (2, 4)).tolist() == [[1, 0, 0, 1]] * 2


def test_uncompressed_runs_go_down_the_columns_and_begin_outside() -> None:
    assert bitmap({"size": [2, 3], "counts": [1, 2, 3]}, (2, 3)).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_compressed_masks_equal_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.asfortranarray(rng.random((300, 257)) < rng.choice([0.001, 0.1, 0.5]), dtype=np.uint8)
    mask[40:200, 30:200] |= 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools 2.0.11 under numpy 2
        encoded = rle.encode(mask)
    assert np.array_equal(bitmap(encoded, (300, 257)), mask)
    assert run_lengths(encoded["counts"]).sum() == mask.size


def test_no_polygon_is_an_empty_mask() -> None:
    assert bitmap((), (2, 2)).sum() == 0


def test_a_mask_of_another_image_size_is_an_error() -> None:
    with pytest.raises(UserError, match="an RLE mask covers 6 pixels, its image has 4 x 2"):
        bitmap({"size": [2, 3], "counts": [1, 2, 3]}, (2, 4))
