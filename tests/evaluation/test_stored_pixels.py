"""Boxes and masks of an upright picture are turned back into the pixels that its file stores."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from maskrcnn.detections import Detections
from maskrcnn.evaluation.stored_pixels import to_stored_pixels

EXIF_ORIENTATION = 0x0112


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_object_comes_back_to_where_the_file_has_it(orientation: int) -> None:
    """The reference is Pillow, which turns a stored picture of an L upright."""
    stored = np.zeros((60, 80), np.uint8)
    stored[10:40, 20:30] = 255
    stored[30:40, 20:60] = 255
    picture = Image.fromarray(stored)
    picture.getexif()[EXIF_ORIENTATION] = orientation
    upright = np.asarray(ImageOps.exif_transpose(picture))

    turned = to_stored_pixels(one_object(upright), orientation)

    assert turned.size == stored.shape
    np.testing.assert_array_equal(turned.boxes, [[20, 10, 60, 40]])
    np.testing.assert_array_equal(turned.masks()[0], stored > 0)


def one_object(picture: np.ndarray) -> Detections:
    """The white pixels of a picture (H, W) as one detection, with a mask cell for each pixel of 120 x 120."""
    rows, columns = np.nonzero(picture)
    x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    crop = (picture[y1:y2, x1:x2] > 0).astype(np.float32)
    return Detections(
        boxes=np.array([[x1, y1, x2, y2]], np.float32),
        scores=np.ones(1, np.float32),
        labels=np.zeros(1, np.int64),
        roi_masks=cv2.resize(crop, (120, 120), interpolation=cv2.INTER_NEAREST)[None],
        size=picture.shape,
    )
