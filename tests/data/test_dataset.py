"""COCO files become arrays, or an error that names what is wrong with them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.data.dataset import Dataset, dataset_of
from maskrcnn.data.formats import coco
from maskrcnn.errors import UserError


def content() -> dict[str, Any]:
    return {
        "images": [
            {"id": 9, "file_name": "b.jpg", "height": 30, "width": 40},
            {"id": 4, "file_name": "a.jpg", "height": 50, "width": 60},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 4,
                "category_id": 2,
                "bbox": [1, 2, 3, 4],
                "segmentation": [[1, 2, 4, 2, 4, 6]],
            },
            {"id": 2, "image_id": 9, "category_id": 7, "bbox": [5, 6, 7, 8], "iscrowd": 1}
            | {"segmentation": {"size": [30, 40], "counts": [1200]}},
            {"id": 3, "image_id": 4, "category_id": 7, "bbox": [0, 0, 9, 9]},
        ],
    }


def read(folder: Path, values: object) -> Dataset:
    (folder / "instances.json").write_text(json.dumps(values))
    return dataset_of(coco.read(folder / "instances.json", folder))


def test_labels_follow_the_ids_and_annotations_their_image(tmp_path: Path) -> None:
    found = read(tmp_path, content())
    assert (found.classes.names, found.classes.ids) == (("cat", "dog"), (2, 7))
    assert [file.name for file in found.files] == ["b.jpg", "a.jpg"]
    assert (found.rows(0), found.rows(1)) == (slice(0, 1), slice(1, 3))
    assert found.labels.tolist() == [1, 0, 1]
    assert found.boxes.tolist() == [[5, 6, 12, 14], [1, 2, 4, 6], [0, 0, 9, 9]]
    assert found.crowd.tolist() == [True, False, False]
    assert found.sizes.tolist() == [[30, 40], [50, 60]]


def test_an_instance_without_a_mask_has_its_box_as_mask(tmp_path: Path) -> None:
    polygon = read(tmp_path, content()).segmentations[2][0]
    assert polygon.tolist() == [[0, 0], [9, 0], [9, 9], [0, 9]]


def test_two_data_sets_are_joined_row_by_row(tmp_path: Path) -> None:
    one = read(tmp_path, content())
    both = one + one
    assert len(both) == 4 and both.rows(3) == slice(4, 6)
    assert np.array_equal(both.boxes[both.rows(3)], one.boxes[one.rows(1)])


def test_chosen_images_keep_their_annotations(tmp_path: Path) -> None:
    one = read(tmp_path, content())
    chosen = one.take(np.array([1, 0, 1]))
    assert [file.name for file in chosen.files] == ["a.jpg", "b.jpg", "a.jpg"]
    assert chosen.labels.tolist() == [0, 1, 1, 0, 1]
    assert chosen.rows(2) == slice(3, 5)
    assert len(chosen.segmentations) == 5


def test_data_sets_of_different_classes_are_not_joined(tmp_path: Path) -> None:
    one = read(tmp_path, content())
    other = read(tmp_path, content() | {"categories": [{"id": 7, "name": "dog"}, {"id": 2, "name": "cow"}]})
    with pytest.raises(UserError, match="different classes"):
        _ = one + other


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "lacks the lists images, annotations, categories"),
        ({"images": [], "annotations": []}, "lacks the list categories"),
        (content() | {"categories": [{"id": 2, "name": "cat"}]}, "annotation 2 has category_id 7"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path: Path, values: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, values)


def test_text_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        dataset_of(coco.read(tmp_path / "instances.json", tmp_path))
