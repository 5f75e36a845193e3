"""From raw rows to detections in image pixels, and to the formats that users read."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskrcnn.config import Conventions, ModelConfig
from maskrcnn.detections import Detections, Raw
from maskrcnn.errors import UserError
from maskrcnn.preprocess import Geometry
from maskrcnn.spec import Classes, Spec

CLASSES = Classes(names=("person", "", "car"), ids=(1, 12, 3))


def three() -> Detections:
    """A person, a car and something of the class without a name, in an image of 20 x 30."""
    return Detections(
        boxes=np.float32([[2, 3, 8, 9], [10, 0, 30, 20], [0.25, 0, 1, 1]]),
        scores=np.float32([0.9, 0.5, 0.25]),
        labels=np.int64([0, 2, 1]),
        roi_masks=np.ones((3, 28, 28), np.float32),
        size=(20, 30),
        classes=CLASSES,
    )


def raw(boxes: list[list[float]], scores: list[float]) -> Raw:
    """A batch of one image with 4 x 4 masks."""
    count = len(boxes)
    return Raw(
        boxes=np.float32([boxes]),
        scores=np.float32([scores]),
        labels=np.arange(count)[None],
        masks=np.full((1, count, 4, 4), 0.75, np.float32),
    )


def spec(**conventions: object) -> Spec:
    """A spec with those conventions."""
    return Spec(model=ModelConfig(conventions=Conventions(**conventions)), classes=CLASSES)


def test_raw_rows_become_boxes_in_image_pixels_without_the_empty_rows():
    rows = raw([[20, 40, 40, 80], [0, 0, 60, 80], [0, 0, 0, 0]], [0.9, 0.1, 0])
    found = Detections.from_raw(
        rows, 0, Geometry(size=(40, 30), size_net=(80, 60)), spec(mask_paste="expanded")
    )
    assert found.boxes.tolist() == [[10, 20, 20, 40], [0, 0, 30, 40]]
    assert found.scores.tolist() == np.float32([0.9, 0.1]).tolist()
    assert found.labels.tolist() == [0, 1]
    assert found.roi_masks.shape == (2, 4, 4)
    assert (found.size, found.classes, found.mask_paste) == ((40, 30), CLASSES, "expanded")


def test_the_row_of_a_batch_is_that_images():
    one, two = raw([[0, 0, 4, 4]], [0.5]), raw([[0, 0, 8, 8]], [0.6])
    both = Raw(*(np.concatenate(pair) for pair in zip(one, two, strict=True)))
    geometry = Geometry((8, 8), (8, 8))
    assert Detections.from_raw(both, 1, geometry, spec()).boxes.tolist() == [[0, 0, 8, 8]]


def test_clipping_to_the_image_drops_boxes_that_become_empty():
    rows = raw([[-4, -4, 12, 6], [10, 2, 14, 4], [2, 2, 4, 4]], [0.9, 0.8, 0.7])
    geometry = Geometry((10, 10), (10, 10))
    clipped = Detections.from_raw(rows, 0, geometry, spec(clip_to_image=True))
    assert clipped.boxes.tolist() == [[0, 0, 10, 6], [2, 2, 4, 4]]
    assert clipped.labels.tolist() == [0, 2]
    assert Detections.from_raw(rows, 0, geometry, spec()).boxes[0].tolist() == [-4, -4, 12, 6]


def test_an_image_without_objects_gives_empty_detections():
    found = Detections.from_raw(
        raw([[0, 0, 0, 0]], [0]), 0, Geometry((10, 10), (10, 10)), spec(clip_to_image=True)
    )
    assert len(found) == 0
    assert found.masks().shape == (0, 10, 10)
    assert (found.rles(), found.to_coco(), found.to_json()["detections"]) == ([], [], [])


@pytest.mark.parametrize(
    ("rows", "scores"),
    [
        (0, [0.9]),
        (-1, [0.25]),
        (np.int64(1), [0.5]),
        (slice(1, None), [0.5, 0.25]),
        ([2, 0], [0.25, 0.9]),
        ([], []),
        (np.array([2, 1]), [0.25, 0.5]),
        (np.array([True, False, True]), [0.9, 0.25]),
    ],
    ids=str,
)
def test_every_kind_of_index_gives_detections(rows, scores):
    chosen = three()[rows]
    assert isinstance(chosen, Detections)
    assert chosen.scores.tolist() == pytest.approx(scores)
    assert len(chosen) == len(chosen.boxes) == len(chosen.labels) == len(chosen.roi_masks)


def test_an_index_past_the_end_is_an_index_error():
    with pytest.raises(IndexError):
        three()[3]


def test_iteration_gives_one_detection_at_a_time():
    assert [one.names() for one in three()] == [["person"], ["car"], ["class 12"]]


def test_the_text_of_detections_counts_the_classes():
    assert repr(three()[[0, 0, 1]]) == "Detections(2 person, 1 car in 20 x 30)"
    assert repr(three()[[]]) == "Detections(nothing in 20 x 30)"


def test_above_keeps_the_score_itself():
    assert len(three().above(0.5)) == 2
    assert len(replace(three(), scores=np.float32([0.9, 0.3, 0.1])).above(0.9)) == 1


def test_what_a_model_has_no_name_for_is_called_by_its_id():
    assert three().names() == ["person", "car", "class 12"]
    nameless = replace(three(), classes=Classes())
    assert nameless.names() == ["class 1", "class 3", "class 2"]
    assert nameless.category_ids() == [1, 3, 2]


def test_masks_lie_at_their_boxes():
    masks = three().masks()
    assert (masks.shape, masks.dtype) == ((3, 20, 30), bool)
    assert masks[0, 3:9, 2:8].all()
    assert masks.sum(axis=(1, 2)).tolist() == [36, 400, 1]


@pytest.mark.parametrize("rule", ["pixel_centres", "expanded"])
def test_rles_are_the_masks(rule):
    found = replace(three(), mask_paste=rule)
    encoded = coco_mask.encode(np.asfortranarray(found.masks().transpose(1, 2, 0).astype(np.uint8)))
    assert [rle["counts"].encode() for rle in found.rles()] == [rle["counts"] for rle in encoded]


def test_coco_items_have_original_ids_and_widths():
    items = three().to_coco(image_id=139, file_name="street.jpg")
    assert [item["category_id"] for item in items] == [1, 3, 12]
    assert items[1]["bbox"] == [10, 0, 20, 20]
    assert items[2]["bbox"] == [0.25, 0, 0.75, 1]
    assert items[0]["score"] == pytest.approx(0.9)
    assert {item["image_id"] for item in items} == {139}
    assert {item["file_name"] for item in items} == {"street.jpg"}
    assert items[0]["segmentation"] == three().rles()[0]
    assert json.loads(json.dumps(items)) == items


def test_coco_items_have_only_the_places_that_are_known():
    assert "image_id" not in three().to_coco(file_name="street.jpg")[0]
    assert "file_name" not in three().to_coco(image_id=0)[0]
    assert three().to_coco(image_id=0)[0]["image_id"] == 0


def test_json_names_what_it_lists():
    text = json.loads(json.dumps(three().to_json()))
    assert text["size"] == [20, 30]
    assert text["detections"][1] == {
        "name": "car",
        "category_id": 3,
        "score": 0.5,
        "box": [10, 0, 30, 20],
        "mask": three().rles()[1],
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("boxes", np.zeros((3, 4), np.float64)),
        ("boxes", np.zeros((3, 5), np.float32)),
        ("scores", np.zeros(2, np.float32)),
        ("labels", np.zeros(3, np.int32)),
        ("roi_masks", np.zeros((3, 28, 14), np.float32)),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value.dtype}"):
        replace(three(), **{field: value})


def test_crops_are_the_masks_at_their_places():
    for (crop, x, y), mask in zip(three().crops(), three().masks(), strict=True):
        pasted = np.zeros((20, 30), bool)
        pasted[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        assert np.array_equal(pasted, mask)


def test_polygons_are_the_outlines_of_the_masks():
    first, second, third = three().polygons()
    assert [part.outer.tolist() for part in first] == [[[2, 3], [8, 3], [8, 9], [2, 9]]]
    assert [part.outer.tolist() for part in second] == [[[10, 0], [30, 0], [30, 20], [10, 20]]]
    assert [part.outer.tolist() for part in third] == [[[0, 0], [1, 0], [1, 1], [0, 1]]]


def test_without_supervision_it_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="supervision is not installed") as refused:
        three().to_supervision()
    assert "pip install supervision" in refused.value.hint


def test_a_supervision_that_does_not_load_is_not_called_missing(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr("maskrcnn.detections.import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="scipy"):
        three().to_supervision()
