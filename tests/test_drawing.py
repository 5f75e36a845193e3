"""Pictures keep what is outside the objects, and their colours, lines and labels stay readable."""

from dataclasses import replace

import numpy as np
import pytest

from maskrcnn.detections import Detections
from maskrcnn.drawing import (
    INK,
    Label,
    class_colour,
    draw,
    instance_colours,
    line_width,
    place_labels,
    text_height,
)
from maskrcnn.spec import Classes

CLASSES = Classes(("person", "potted plant"), (1, 64))


def detections(
    boxes: list[list[float]],
    size: tuple[int, int],
    labels: list[int] | None = None,
    masks: np.ndarray | None = None,
) -> Detections:
    """Detections whose masks fill their boxes unless others are given."""
    count = len(boxes)
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(count, 4),
        scores=np.linspace(0.99, 0.5, count, dtype=np.float32),
        labels=np.array(labels or [0] * count, np.int64),
        roi_masks=np.ones((count, 28, 28), np.float32) if masks is None else masks,
        size=size,
        classes=CLASSES,
    )


def disc(side: int = 28) -> np.ndarray:
    """The probability of a round object that touches the sides of its box (1, M, M)."""
    centres = np.arange(side) + 0.5 - side / 2
    distance = side / 2 - np.hypot(centres[:, None], centres)
    return np.clip(distance + 0.5, 0, 1).astype(np.float32)[None]


def contrast(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    """The contrast ratio of WCAG 2.1, from 1 to 21."""

    def luminance(colour: tuple[int, ...]) -> float:
        share = np.array(colour) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted([luminance(first), luminance(second)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_the_contrast_that_wcag_asks_of_small_text_on_every_colour() -> None:
    colours = [class_colour(number, turn) for number in range(1, 100) for turn in range(10)]
    assert min(contrast(INK, colour) for colour in colours) > 4.5


def test_a_class_has_one_colour_in_every_picture_and_its_neighbours_differ() -> None:
    one = detections([[0, 0, 9, 9]], (20, 20), labels=[1])
    three = detections([[0, 0, 9, 9]] * 3, (20, 20), labels=[0, 1, 1])
    assert instance_colours(one)[0] == instance_colours(three)[1]
    assert len(set(instance_colours(three))) == 3


def test_the_first_colours_of_any_two_coco_neighbours_are_far_apart() -> None:
    for number in range(1, 90):
        difference = np.subtract(class_colour(number), class_colour(number + 1))
        assert np.abs(difference).max() > 50


def test_only_pixels_of_boxes_and_labels_change_and_the_image_given_stays() -> None:
    image = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
    kept = image.copy()
    found = detections([[40, 60, 120, 160]], (240, 320))
    picture = draw(image, found)
    assert np.array_equal(image, kept)
    margin = 4
    allowed = np.zeros((240, 320), bool)
    allowed[60 - margin : 160 + margin, 40 - margin : 120 + margin] = True
    for label in place_labels(found):
        allowed[label.y : label.y + label.height, label.x : label.x + label.width] = True
    assert np.array_equal(picture[~allowed], image[~allowed])
    assert (picture[65:155, 45:115] != image[65:155, 45:115]).any(2).mean() > 0.9


def test_the_inside_of_a_mask_is_mixed_with_its_colour_at_four_tenths() -> None:
    image = np.full((100, 100, 3), (200, 100, 0), np.uint8)
    found = detections([[10, 10, 90, 90]], (100, 100))
    expected = 0.6 * np.array([200, 100, 0]) + 0.4 * np.array(instance_colours(found)[0])
    assert np.abs(draw(image, found)[50, 20] - expected).max() <= 1


def test_the_outline_of_a_round_object_is_round() -> None:
    """A disc of radius 200 from a mask of 28 x 28: the tinted area is that of the circle, within 1 %."""
    image = np.zeros((500, 500, 3), np.uint8)
    picture = draw(image, detections([[50, 50, 450, 450]], (500, 500), masks=disc()))
    painted = picture[:, :, 2] > 40
    painted[:50] = False  # the label
    area = np.pi * 200**2
    assert painted[50:].sum() == pytest.approx(area, rel=0.02)
    angles = np.linspace(0.2, 2.9, 60)
    radii = [
        max(r for r in range(150, 230) if painted[int(250 + r * np.sin(a)), int(250 + r * np.cos(a))])
        for a in angles
    ]
    assert np.ptp(radii) <= 5


def test_the_edge_of_a_mask_is_smooth() -> None:
    """Across a slanting edge more than ten levels occur, where a hard edge would have two and the line."""
    picture = draw(
        np.zeros((500, 500, 3), np.uint8), detections([[50, 50, 450, 450]], (500, 500), masks=disc())
    )
    ring = picture[100:240, 100:240, 1]
    assert len(np.unique(ring)) > 10


def test_a_mask_smaller_than_its_28_cells_is_drawn_as_the_share_that_it_covers() -> None:
    masks = np.zeros((1, 28, 28), np.float32)
    masks[:, :, :14] = 1
    picture = draw(np.zeros((60, 60, 3), np.uint8), detections([[30, 30, 38, 38]], (60, 60), masks=masks))
    assert picture[31:37, 30:33].min(axis=(0, 1)).max() > 60
    assert picture[31:37, 36:38].max() < 60


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (240, 320), (3000, 4000)])
def test_labels_lie_inside_the_image_or_are_left_out(size: tuple[int, int]) -> None:
    height, width = size
    far = [[-9.0, -9.0, 3.0, 3.0], [width - 2.0, height - 2.0, width + 30.0, height + 30.0]]
    found = detections([*far, [0, 0, width, height], [width / 3, 0, width / 2, height / 2]], size)
    for label in place_labels(found):
        assert 0 <= label.x <= label.x + label.width <= width
        assert 0 <= label.y <= label.y + label.height <= height
    assert draw(np.zeros((*size, 3), np.uint8), found).shape == (*size, 3)
    assert bool(place_labels(found)) == (height > 20)


def test_labels_of_a_crowd_do_not_hide_each_other() -> None:
    boxes = [[100.0 + 7 * i, 100.0 + 5 * (i % 3), 160.0 + 7 * i, 300.0] for i in range(12)]
    labels = place_labels(detections(boxes, (480, 640)))
    assert len(labels) >= 6
    for index, label in enumerate(labels):
        for other in labels[:index]:
            assert shared(label, other) <= 0.1 * label.width * label.height


def shared(label: Label, other: Label) -> int:
    """Pixels that two labels have in common."""
    across = min(label.x + label.width, other.x + other.width) - max(label.x, other.x)
    down = min(label.y + label.height, other.y + other.height) - max(label.y, other.y)
    return max(0, across) * max(0, down)


def test_lines_and_letters_grow_with_the_image() -> None:
    assert line_width((480, 640)) == pytest.approx(1.2)
    assert line_width((3000, 4000)) == pytest.approx(4.5, abs=0.01)
    assert [text_height(size) for size in ((240, 320), (1080, 1920), (3000, 4000))] == [10, 24, 58]


def test_nothing_found_leaves_the_image_as_it_is() -> None:
    image = np.random.default_rng(2).integers(0, 256, (10, 12, 3), np.uint8)
    assert np.array_equal(draw(image, detections([], (10, 12))), image)


def test_boxes_are_drawn_only_when_asked() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    found = replace(detections([[50, 60, 150, 160]], (200, 200)), roi_masks=np.zeros((1, 28, 28), np.float32))
    assert not draw(image, found)[100, 145:155].any()
    assert draw(image, found, boxes=True)[100, 145:155].any()


def test_a_box_without_extent_and_one_far_outside_are_no_trouble() -> None:
    found = detections([[5, 5, 5, 5], [-500, -500, -400, -400], [1e6, 0, 1e6 + 5, 5]], (40, 50))
    assert draw(np.zeros((40, 50, 3), np.uint8), found).shape == (40, 50, 3)
