"""The files of a data set are found, checked against their sizes, and every one of them is predicted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrcnn.config import BoxHeadConfig, ModelConfig
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.evaluation.class_mapping import ClassMapping
from maskrcnn.evaluation.ground_truth import GroundTruth, ground_truth_of
from maskrcnn.evaluation.photographs import limits_in_words, locate, predict_items
from maskrcnn.predict import Predictor
from maskrcnn.spec import Preprocess, Spec

EXIF_ORIENTATION = 0x0112


def save(path: Path, width: int = 60, height: int = 40, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.new("RGB", (width, height)).save(path, exif=exif)


def listing(*images: tuple[str, int, int]) -> GroundTruth:
    """Images (file name, width, height)."""
    rows = [
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, (name, width, height) in enumerate(images, start=1)
    ]
    return ground_truth_of(rows, [], [{"id": 1, "name": "cat"}], "truth.json")


def test_file_names_start_from_the_folder_and_else_their_last_part_is_looked_for(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/1.jpg", "deep/down/2.jpg", "not listed.jpg"):
        save(tmp_path / name)
    found = locate(listing(("b/1.jpg", 60, 40), ("val/2.jpg", 60, 40)), tmp_path)
    assert [each.file.path for each in found] == [tmp_path / "b/1.jpg", tmp_path / "deep/down/2.jpg"]
    assert [each.row for each in found] == [0, 1]


def test_missing_images_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    for name in ("1.jpg", "a/2.jpg", "b/2.jpg"):
        save(tmp_path / name)
    with pytest.raises(UserError, match=r"2 of 3 images of truth.json are missing, the first is 2.jpg"):
        locate(listing(("1.jpg", 60, 40), ("2.jpg", 60, 40), ("3.jpg", 60, 40)), tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        locate(listing(), tmp_path / "nowhere")


def test_two_images_with_one_file_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg")
    with pytest.raises(UserError, match="two images have the file"):
        locate(listing(("1.jpg", 60, 40), ("1.jpg", 60, 40)), tmp_path)


def test_another_size_than_the_annotations_have_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", 60, 40)
    with pytest.raises(UserError, match=r"1.jpg: is 60 x 40 pixels, truth.json has it as 120 x 80"):
        locate(listing(("1.jpg", 120, 80)), tmp_path)


def test_annotations_without_sizes_are_not_compared(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", 60, 40)
    assert len(locate(listing(("1.jpg", 0, 0)), tmp_path)) == 1


def orientations(found: list[Any]) -> list[int]:
    return [each.turned for each in found]


def test_annotations_of_the_upright_picture_need_no_turning(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", 60, 40, orientation=6)
    assert orientations(locate(listing(("1.jpg", 40, 60)), tmp_path)) == [1]


def test_annotations_of_the_stored_pixels_are_seen_by_their_size(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", 60, 40, orientation=6)
    assert orientations(locate(listing(("1.jpg", 60, 40)), tmp_path)) == [6]


def test_where_the_size_leaves_it_open_an_image_goes_with_the_others(tmp_path: Path) -> None:
    save(tmp_path / "turned.jpg", 60, 40, orientation=3)
    save(tmp_path / "square.jpg", 50, 50, orientation=8)
    save(tmp_path / "lying.jpg", 60, 40, orientation=6)
    open_ones = [("turned.jpg", 60, 40), ("square.jpg", 50, 50)]
    assert orientations(locate(listing(*open_ones), tmp_path)) == [1, 1]
    assert orientations(locate(listing(*open_ones, ("lying.jpg", 60, 40)), tmp_path)) == [3, 8, 6]
    assert orientations(locate(listing(*open_ones, ("lying.jpg", 40, 60)), tmp_path)) == [1, 1, 1]


class Corner:
    """An engine that finds an object of label 1 and one of label 0 in the left upper quarter of any image."""

    spec = Spec(
        model=ModelConfig(classes=2, box_head=BoxHeadConfig(detections=100)),
        preprocess=Preprocess(resize="stretch", short=40, long=40, pad_multiple=1),
    )

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """Boxes of 20 x 20 of the 40 x 40 network pixels."""
        count = len(image)
        boxes = np.tile(np.array([[[0, 0, 20, 20]]], np.float32), (count, 2, 1))
        scores = np.tile(np.array([[0.9, 0.8]], np.float32), (count, 1))
        labels = np.tile(np.array([[1, 0]]), (count, 1))
        return Raw(boxes, scores, labels, np.ones((count, 2, 28, 28), np.float32))


def test_every_image_is_predicted_with_the_ids_and_in_the_pixels_of_its_annotations(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", 60, 40)
    save(tmp_path / "2.jpg", 60, 40, orientation=3)
    save(tmp_path / "3.jpg", 60, 40, orientation=6)
    truth = listing(("1.jpg", 60, 40), ("2.jpg", 60, 40), ("3.jpg", 60, 40))
    groups = list(
        predict_items(Predictor(Corner()), truth, locate(truth, tmp_path), ClassMapping((None, 17), ()))
    )
    assert [[item["image_id"] for item in group] for group in groups] == [[1], [2], [3]]
    assert [group[0]["category_id"] for group in groups] == [17] * 3
    assert [group[0]["score"] for group in groups] == pytest.approx([0.9] * 3)
    assert [group[0]["bbox"] for group in groups] == [[0, 0, 30, 20], [30, 20, 30, 20], [0, 20, 30, 20]]
    assert [group[0]["segmentation"]["size"] for group in groups] == [[40, 60]] * 3


def test_a_file_that_is_no_image_stops_the_measurement(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").write_text("no image")
    truth = listing(("1.jpg", 60, 40), ("2.jpg", 60, 40))
    with pytest.raises(UserError, match=r"2.jpg: is not an image"):
        list(predict_items(Predictor(Corner()), truth, locate(truth, tmp_path), ClassMapping((1, 2), ())))


def test_what_keeps_a_model_from_finding_everything_is_said() -> None:
    truth = listing(("1.jpg", 60, 40))
    predictor = Predictor(Corner())
    assert list(limits_in_words(predictor, truth, [], 100)) == []
    assert list(limits_in_words(predictor, truth, [], 300)) == [
        "the model finds at most 100 objects an image: more than that cannot count"
    ]
    crowded = SimpleNamespace(images=np.zeros(101, np.int64))
    assert list(limits_in_words(predictor, crowded, [], 100)) == [  # type: ignore[arg-type]
        "1 images have more than 100 objects, which is the most that the model finds in one"
    ]
