"""COCO annotation files become columns, and what is wrong with one is said with its place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.errors import UserError
from maskrcnn.evaluation.ground_truth import GroundTruth, ground_truth_of, read_ground_truth
from maskrcnn.evaluation.rle import rle_area

SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]
IMAGES = [{"id": 7, "height": 40, "width": 60, "file_name": "b.jpg"}, {"id": 3, "height": 50, "width": 50}]
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]


def annotation(**more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 7, "category_id": 17, "bbox": [10, 10, 10, 10], "area": 100.0} | more


def of(*annotations: dict[str, Any]) -> GroundTruth:
    return ground_truth_of(IMAGES, annotations, CATEGORIES, "some.json")


def test_images_and_categories_ascend_by_id() -> None:
    truth = of(annotation(), annotation(image_id=3, category_id=18))
    assert (truth.image_ids, truth.file_names) == ((3, 7), ("", "b.jpg"))
    assert truth.sizes.tolist() == [[50, 50], [40, 60]]
    assert (truth.category_ids, truth.names) == ((17, 18), ("cat", "dog"))
    assert (truth.images.tolist(), truth.labels.tolist()) == ([1, 0], [0, 1])


def test_without_any_segmentation_there_are_no_masks() -> None:
    assert of(annotation(), annotation(segmentation=[])).masks is None


def test_an_annotation_without_a_mask_beside_others_has_its_box() -> None:
    truth = of(annotation(segmentation=SQUARE), annotation(bbox=[0, 0, 4, 5]))
    assert truth.masks is not None
    assert rle_area(truth.masks[1], (40, 60)) == 20
    assert "1 of 2 annotations have no mask: their box is taken" in truth.notes


def test_polygons_of_one_annotation_are_one_mask() -> None:
    truth = of(annotation(segmentation=[*SQUARE, [30, 10, 40, 10, 40, 20, 30, 20], [1, 1, 2, 2]]))
    assert truth.masks is not None
    assert rle_area(truth.masks[0], (40, 60)) == 200


def test_a_missing_area_is_that_of_the_mask_and_else_of_the_box() -> None:
    triangle = [[10, 10, 20, 10, 20, 20]]
    truth = of(annotation(area=None, segmentation=triangle))
    assert truth.masks is not None
    assert truth.areas[0] == rle_area(truth.masks[0], (40, 60)) < 70
    assert of(annotation(area=None, bbox=[0, 0, 4, 5])).areas[0] == 20
    assert of(annotation(area=99.5)).areas[0] == 99.5


def test_a_missing_box_is_that_of_the_mask() -> None:
    assert of(annotation(bbox=None, segmentation=SQUARE)).bboxes.tolist() == [[10, 10, 10, 10]]


def test_annotations_of_unlisted_images_and_categories_are_left_out_with_words() -> None:
    truth = of(annotation(), annotation(image_id=99), annotation(category_id=99))
    assert len(truth.images) == 1
    assert [note.split(" annotations")[0] for note in truth.notes] == ["1", "1"]


def test_no_annotations_and_no_images_are_an_empty_data_set() -> None:
    truth = ground_truth_of([], [], CATEGORIES)
    assert (truth.sizes.shape, truth.bboxes.shape, truth.masks) == ((0, 2), (0, 4), None)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"segmentation": {"size": [60, 40], "counts": "0d0"}}, r"annotation 1 .* size \[60, 40\]"),
        ({"segmentation": {"size": [40, 60], "counts": [0, 5]}}, "annotation 1 .* 5 pixels"),
        ({"segmentation": {"size": [40, 60]}}, "annotation 1 has no usable mask"),
        ({"segmentation": 5}, "annotation 1 has no usable mask"),
        ({"bbox": [1, 2, 3]}, r"annotation 1 has the bbox \[1, 2, 3\]"),
        ({"bbox": [1, 2, 3, float("nan")]}, "annotation 1 has the bbox .*not finite"),
        ({"bbox": None}, "annotation 1 .* neither bbox nor segmentation"),
        ({"area": "large"}, "annotation 1 has the area 'large'"),
    ],
)
def test_a_broken_annotation_is_named(broken: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=f"some.json: {words}"):
        of(annotation(**broken))


def test_two_images_with_one_id_are_refused() -> None:
    with pytest.raises(UserError, match="some.json: two entries have the image id 3"):
        ground_truth_of([*IMAGES, IMAGES[1]], [], CATEGORIES, "some.json")


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "lacks the lists images, annotations, categories"),
        ('{"images": [], "annotations": []}', "lacks the list categories"),
        ('{"images": [{}], "annotations": [], "categories": []}', "one of them lacks it"),
        ('{"images": [5], "annotations": [], "categories": []}', "one of them lacks it"),
    ],
)
def test_a_file_that_is_no_annotation_file_is_refused(tmp_path: Path, contents: str, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(contents)
    with pytest.raises(UserError, match=words):
        read_ground_truth(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_ground_truth(tmp_path / "missing.json")


def test_a_file_is_read_as_its_lists(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": IMAGES, "annotations": [annotation()], "categories": CATEGORIES}))
    truth = read_ground_truth(path)
    assert truth.place == str(path)
    np.testing.assert_array_equal(truth.bboxes, of(annotation()).bboxes)
