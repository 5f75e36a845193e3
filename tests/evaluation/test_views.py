"""Several views of an image become one result, in the pixels of the image."""

from dataclasses import replace

import numpy as np
import pytest

from maskrcnn.config import ModelConfig
from maskrcnn.detections import Detections, Raw
from maskrcnn.errors import UserError
from maskrcnn.evaluation.views import Views, merge
from maskrcnn.predict import Predictor
from maskrcnn.spec import Preprocess, Spec

SIDE = 28


class Bright:
    """An engine that finds the bright rectangle of an image, its left half as mask; it notes its inputs."""

    spec = Spec(model=ModelConfig(classes=2), preprocess=Preprocess(short=40, long=80, pad_multiple=1))

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """The box of the pixels above 128 in each image."""
        self.sizes.append(image.shape[2:])
        boxes = np.zeros((len(image), 1, 4), np.float32)
        for row, planes in enumerate(image):
            down, across = np.nonzero(planes[0] > 128)
            boxes[row, 0] = across.min(), down.min(), across.max() + 1, down.max() + 1
        masks = np.zeros((len(image), 1, SIDE, SIDE), np.float32)
        masks[..., : SIDE // 2] = 1
        ones = np.ones((len(image), 1))
        return Raw(boxes, ones.astype(np.float32), ones.astype(np.int64), masks)


def picture() -> np.ndarray:
    """80 x 160 with a bright rectangle from column 20 to 60 and row 10 to 50."""
    image = np.zeros((80, 160, 3), np.uint8)
    image[10:50, 20:60] = 255
    return image


def test_views_run_at_every_size_mirrored_and_not() -> None:
    engine = Bright()
    Views(Predictor(engine), flip=True, scales=(40, 20))([picture()])
    assert engine.sizes == [(40, 80), (20, 40), (40, 80), (20, 40)]


def test_a_mirrored_view_is_mirrored_back() -> None:
    """The left half of the object as the model sees it is the right half in the mirror: all is one half."""
    (found,) = Views(Predictor(Bright()), flip=True)([picture()])
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes, [[20, 10, 60, 50]], atol=1)
    np.testing.assert_allclose(found.roi_masks, 0.5, atol=1e-6)


def test_several_images_stay_apart() -> None:
    images = [picture(), np.ascontiguousarray(picture()[:, ::-1])]
    first, second = Views(Predictor(Bright(), batch=2), flip=True)(images)
    np.testing.assert_allclose(first.boxes, [[20, 10, 60, 50]], atol=1)
    np.testing.assert_allclose(second.boxes, [[100, 10, 140, 50]], atol=1)


def test_a_side_below_one_pixel_is_refused() -> None:
    with pytest.raises(UserError, match="a scale of 0 pixels"):
        Views(Predictor(Bright()), flip=False, scales=(40, 0))


def detections(*rows: tuple[list[float], float, int], mask: float = 1.0) -> Detections:
    """Rows of box, score and label, with masks of one value."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        labels=np.array(labels, np.int64),
        roi_masks=np.full((len(rows), SIDE, SIDE), mask, np.float32),
        size=(100, 100),
    )


def test_boxes_of_one_object_are_averaged_by_score_and_scores_over_all_views() -> None:
    found = merge(
        [detections(([0, 0, 40, 40], 0.9, 1)), detections(([0, 0, 44, 40], 0.3, 1)), detections()], 0.5, 100
    )
    np.testing.assert_allclose(found.boxes, [[0, 0, 41, 40]], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [0.4], rtol=1e-6)
    assert found.labels.tolist() == [1]


def test_other_classes_and_other_places_stay_themselves() -> None:
    first = detections(([0, 0, 40, 40], 0.8, 1))
    second = detections(([0, 0, 40, 40], 0.6, 0), ([50, 50, 90, 90], 0.4, 1))
    found = merge([first, second], 0.5, 100)
    assert found.labels.tolist() == [1, 0, 1]
    np.testing.assert_allclose(found.scores, [0.4, 0.3, 0.2], rtol=1e-6)
    assert len(merge([first, second], 0.5, 2)) == 2


def test_a_second_detection_of_a_view_is_dropped_and_adds_nothing() -> None:
    first = detections(([0, 0, 40, 40], 0.8, 1), ([0, 0, 40, 36], 0.6, 1))
    found = merge([first, detections(([0, 0, 40, 40], 0.4, 1))], 0.5, 100)
    np.testing.assert_allclose(found.scores, [0.6], rtol=1e-6)


def test_masks_are_averaged_where_their_boxes_reach() -> None:
    """The left view has 1 in columns 0 to 30, the right one 0 in 10 to 40, both at the same score."""
    left = detections(([0, 0, 30, 40], 0.5, 1), mask=1)
    right = detections(([10, 0, 40, 40], 0.5, 1), mask=0)
    found = merge([left, right], 0.4, 100)
    np.testing.assert_allclose(found.boxes, [[5, 0, 35, 40]])
    # Each cell is 30 / 28 pixels wide: centres before 10, up to 30 and after it.
    columns = found.roi_masks[0].mean(axis=0)
    centres = 5 + (np.arange(SIDE) + 0.5) * 30 / SIDE
    np.testing.assert_allclose(columns, np.where(centres < 10, 1, np.where(centres <= 30, 0.5, 0)), atol=1e-6)


def test_the_same_result_twice_is_that_result() -> None:
    chance = np.random.default_rng(0)
    one = replace(
        detections(([3, 5, 40, 41], 0.9, 1), ([50, 50, 90, 93], 0.6, 0)),
        roi_masks=chance.random((2, SIDE, SIDE), np.float32),
    )
    both = merge([one, one], 0.5, 100)
    np.testing.assert_allclose(both.boxes, one.boxes, rtol=1e-6)
    np.testing.assert_allclose(both.scores, one.scores, rtol=1e-6)
    np.testing.assert_allclose(both.roi_masks, one.roi_masks, atol=1e-5)


def test_nothing_found_in_any_view_is_nothing() -> None:
    assert len(merge([detections(), detections()], 0.5, 100)) == 0
