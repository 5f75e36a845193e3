"""COCO results lists become columns, and what is wrong with one is said with its place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sets import hand_made

from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.evaluation.ground_truth import GroundTruth, ground_truth_of
from maskrcnn.evaluation.result_list import ResultList, read_results, results_of
from maskrcnn.evaluation.rle import rle_area
from maskrcnn.spec import Classes

BOX = (10, 20, 30, 40)


@pytest.fixture
def truth() -> GroundTruth:
    """Two images, 5 and 9, of 100 x 100; cats are 17 and dogs 18."""
    images = [{"id": number, "height": 100, "width": 100, "file_name": f"{number}.jpg"} for number in (9, 5)]
    categories = [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
    square = [[0, 0, 9, 0, 9, 9]]
    annotation = {"id": 1, "image_id": 5, "category_id": 17, "bbox": [0, 0, 9, 9], "segmentation": square}
    return ground_truth_of(images, [annotation], categories, "truth.json")


def item(**more: Any) -> dict[str, Any]:
    return {"image_id": 9, "category_id": 18, "bbox": list(BOX), "score": 0.5} | more


def test_a_detection_has_the_rows_of_its_image_and_category(truth: GroundTruth) -> None:
    results = results_of([item(), item(image_id=5, category_id=17, score=1)], truth)
    assert (results.images.tolist(), results.labels.tolist()) == ([1, 0], [1, 0])
    assert results.bboxes.tolist() == [list(BOX)] * 2
    assert (results.scores.tolist(), results.areas.tolist()) == ([0.5, 1], [1200, 1200])
    assert results.masks is None


def test_numbers_and_their_text_are_the_same_id(truth: GroundTruth) -> None:
    results = results_of([item(image_id="9", category_id="17"), item(image_id=9.0)], truth)
    assert (results.images.tolist(), results.labels.tolist()) == ([1, 1], [0, 1])


def test_a_detection_without_an_image_id_is_placed_by_its_file_name(truth: GroundTruth) -> None:
    placed = item(file_name="val/9.jpg")
    del placed["image_id"]
    assert results_of([placed], truth).images.tolist() == [1]


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [100, 100], "counts": "Q14"},
        {"size": [100, 100], "counts": b"Q14"},
        {"size": [100, 100], "counts": [33, 4, 9963]},
        [[0, 33, 1, 33, 1, 37, 0, 37]],
    ],
)
def test_masks_may_be_rle_as_text_bytes_or_numbers_and_polygons(
    truth: GroundTruth, segmentation: Any
) -> None:
    results = results_of([item(segmentation=segmentation)], truth)
    assert results.masks is not None
    assert rle_area(results.masks[0], (100, 100)) == 4


def test_a_detection_without_a_box_has_that_of_its_mask(truth: GroundTruth) -> None:
    results = results_of([item(bbox=None, segmentation=[[0, 33, 2, 33, 2, 37, 0, 37]])], truth)
    assert results.bboxes.tolist() == [[0, 33, 2, 4]]
    assert results.areas.tolist() == [8]


def test_detections_on_unknown_images_and_of_unknown_categories_are_left_out_with_words(
    truth: GroundTruth,
) -> None:
    results = results_of(
        [item(), item(image_id=1), item(image_id=1), item(category_id=3)], truth, "some.json"
    )
    assert len(results) == 1
    assert results.notes == (
        "2 detections of some.json are on images that truth.json lacks (ids 1), and are left out",
        "1 detections of some.json are on categories that truth.json lacks (ids 3), and are left out",
    )


def test_no_overlap_of_ids_is_an_error_that_shows_both(truth: GroundTruth) -> None:
    with pytest.raises(UserError, match=r"some.json: 0 of 2 category ids overlap: .* 0, 1, .* have 17, 18"):
        results_of([item(category_id=0), item(category_id=1)], truth, "some.json")
    with pytest.raises(UserError, match=r"0 of 6 image ids overlap: .* 100, 101, 102, 103, 104, \.\.\."):
        results_of([item(image_id=100 + number) for number in range(6)], truth)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"score": "high"}, "could not convert"),
        ({"score": float("nan")}, "score nan"),
        ({"bbox": [1, 2, 3]}, "unpack"),
        ({"bbox": [1, 2, float("inf"), 4]}, "inf"),
        ({"bbox": [1, 2, "3", 4]}, "cannot be used"),
        ({"bbox": None}, "lacks 'bbox'"),
        (
            {"segmentation": {"size": [10, 10], "counts": "0d0"}},
            r"size \[10, 10\] in an image of \[100, 100\]",
        ),
        ({"image_id": [9]}, "unhashable"),
    ],
)
def test_a_broken_detection_is_named(truth: GroundTruth, broken: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=rf"some.json: detection 1 \(counted from 0\) .*{words}"):
        results_of([item(), item(**broken)], truth, "some.json")


@pytest.mark.parametrize("key", ["image_id", "category_id", "score"])
def test_a_missing_key_is_named(truth: GroundTruth, key: str) -> None:
    broken = item()
    del broken[key]
    with pytest.raises(UserError, match=f"detection 0 .* lacks '{key}'"):
        results_of([broken], truth)


def test_a_detection_without_a_mask_beside_others_has_an_empty_one(truth: GroundTruth) -> None:
    results = results_of([item(), item(segmentation=[]), item(segmentation=[[0, 33, 2, 33, 2, 37]])], truth)
    assert results.masks is not None
    assert [rle_area(mask, (100, 100)) > 0 for mask in results.masks] == [False, False, True]
    assert results.notes == ("2 of 3 detections of the results have no mask and count as empty",)


def test_masks_are_not_read_where_the_truth_has_none() -> None:
    bare = ground_truth_of([{"id": 9}], [], [{"id": 18, "name": "dog"}])
    assert results_of([item(segmentation={"size": [5, 5], "counts": "0d0"})], bare).masks is None


@pytest.mark.parametrize("contents", ["[]", " [ ] ", "[\n{}\n]"])
def test_a_list_may_be_empty_and_written_with_any_spaces(
    tmp_path: Path, truth: GroundTruth, contents: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text(contents.replace("{}", json.dumps(item())))
    assert len(read_results(path, truth)) == contents.count("{}")


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ("", "is not a JSON list"),
        ('{"annotations": []}', "is not a JSON list"),
        ('[{"image_id": 9', "is not JSON"),
        ("[1]", "holds '1' where a detection should be"),
        ("[" * 100_000, "is not JSON"),
        ("[{} {}", "detection 0"),
    ],
)
def test_a_file_that_is_no_results_list_is_refused(
    tmp_path: Path, truth: GroundTruth, contents: str, words: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text(contents)
    with pytest.raises(UserError, match=words):
        read_results(path, truth)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, truth: GroundTruth) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_results(tmp_path / "missing.json", truth)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="is not text"):
        read_results(tmp_path / "photo.jpg", truth)


def test_a_file_gives_the_columns_of_its_items(tmp_path: Path) -> None:
    made = hand_made([], [((0, 0, 10, 10), 1, 0.9), ((5, 5, 20, 10), 2, 0.3)])
    truth = hand_made([((0, 0, 10, 10), 1)], []).truth()
    path = tmp_path / "results.json"
    path.write_text(json.dumps(made.items))
    same_columns(read_results(path, truth), results_of(made.items, truth))


def test_detections_of_this_package_are_items(truth: GroundTruth) -> None:
    detections = Detections(
        boxes=np.array([[10, 20, 40, 60]], np.float32),
        scores=np.array([0.5], np.float32),
        labels=np.array([1]),
        roi_masks=np.ones((1, 28, 28), np.float32),
        size=(100, 100),
        classes=Classes(("cat", "dog"), (17, 18)),
    )
    results = results_of(detections.to_coco(image_id=9), truth)
    assert (results.images.tolist(), results.labels.tolist()) == ([1], [1])
    assert results.bboxes.tolist() == [list(BOX)]
    assert results.masks is not None
    assert rle_area(results.masks[0], (100, 100)) == 1200


def same_columns(ours: ResultList, theirs: ResultList) -> None:
    for name in ("images", "labels", "bboxes", "scores", "areas"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.masks == theirs.masks
