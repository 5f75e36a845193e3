"""What a number does not say of itself is said in words."""

from dataclasses import replace

import numpy as np
from small_sets import SmallSet, hand_made

from maskrcnn.evaluation.coco_metrics import evaluate
from maskrcnn.evaluation.result_list import results_of

LEFT, RIGHT = (10, 10, 20, 20), (60, 60, 20, 20)


def notes(made: SmallSet) -> str:
    truth = made.truth()
    return "; ".join(evaluate(truth, results_of(made.items, truth)).notes)


def test_a_good_result_of_all_classes_and_sizes_says_what_was_absent_only() -> None:
    said = notes(hand_made([(LEFT, 1), (RIGHT, 2)], [(LEFT, 1, 0.9), (RIGHT, 2, 0.9)]))
    assert said == (
        "no object is medium, so APm and ARm are undefined (n/a); "
        "no object is large (96 x 96 pixels and more), so APl and ARl are undefined (n/a)"
    )


def test_classes_without_objects_and_classes_without_detections_are_named() -> None:
    assert "1 of 2 classes have no objects" in notes(hand_made([(LEFT, 1)], [(LEFT, 1, 0.9)]))
    said = notes(hand_made([(LEFT, 1), (RIGHT, 2)], [(LEFT, 1, 0.9)]))
    assert "1 of 2 classes have objects and no detection: dog" in said


def test_classes_that_are_counted_differently_are_suspected() -> None:
    said = notes(hand_made([(LEFT, 1), (RIGHT, 2)], [(LEFT, 2, 0.9), (RIGHT, 1, 0.9)]))
    assert "2 detections lie on objects of another class and 0 on one of their own" in said


def with_boxes(boxes: list[list[float]]) -> SmallSet:
    made = hand_made([(LEFT, 1), (RIGHT, 1)], [(LEFT, 1, 0.9), (RIGHT, 1, 0.9)])
    items = [{**item, "bbox": box} for item, box in zip(made.items, boxes, strict=True)]
    return replace(made, items=items)


def test_boxes_in_parts_of_the_image_are_suspected() -> None:
    assert "in pixels, not in parts of the image" in notes(
        with_boxes([[0.1, 0.1, 0.2, 0.2], [0.6, 0.6, 0.2, 0.2]])
    )


def test_boxes_of_two_corners_are_suspected() -> None:
    said = notes(with_boxes([[10, 10, 30, 30], [60, 60, 80, 80]]))
    assert "the bboxes look like two corners" in said


def test_boxes_somewhere_else_are_suspected() -> None:
    assert "are the boxes those of these images" in notes(with_boxes([[40, 0, 5, 5], [0, 80, 5, 5]]))


def test_detections_that_do_not_count_any_more_are_counted() -> None:
    places = np.arange(130)
    many = [((int(place % 10), int(place // 10), 5, 5), 1, 0.9) for place in places]
    said = notes(hand_made([(LEFT, 1)], many))
    assert "1 times an image has more than 100 detections of a class (up to 130)" in said
