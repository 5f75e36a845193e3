"""Numbers of the objects of a video, in the place that each format has for them."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from pictured import block, drawn, empty, ring, two, write

from maskrcnn.detections import Detections


def followed() -> Detections:
    """A solid L, a ring, two parts and an empty mask; the third belongs to no object of the video."""
    return replace(drawn(block(), ring(), two(), empty()), tracks=np.array([7, 2, -1, 3]))


def test_all_shapes_of_an_object_have_its_number_for_labelme_s_group() -> None:
    shapes = followed().to_labelme("frame.png")["shapes"]
    assert [shape["shape_type"] for shape in shapes] == ["polygon", "mask", "polygon", "polygon", "rectangle"]
    # Parts of an object without a number are a group that no number of this frame is.
    assert [shape["group_id"] for shape in shapes] == [7, 2, 10, 10, 3]


def test_geojson_has_a_property_and_mask_lists_an_entry(tmp_path: Path) -> None:
    features = followed().to_geojson()["features"]
    assert [feature["properties"]["track_id"] for feature in features] == [7, 2, None, 3]
    write(tmp_path, "masks", detections=followed())
    instances = json.loads((tmp_path / "out/street.masks.json").read_text())["instances"]
    assert [instance["track_id"] for instance in instances] == [7, 2, None, 3]


def test_cvat_has_a_text_attribute_of_each_label_and_shape(tmp_path: Path) -> None:
    write(tmp_path, "cvat", detections=followed())
    root = ElementTree.parse(tmp_path / "out/annotations.xml").getroot()
    for label in root.iterfind("meta/task/labels/label"):
        assert [name.text for name in label.iterfind("attributes/attribute/name")] == ["score", "track_id"]
    shapes = root.find("image")
    assert shapes is not None
    assert [shape.findtext("attribute[@name='track_id']") for shape in shapes] == ["7", "2", None, "3"]


@pytest.mark.parametrize("kind", ["labelme", "geojson", "cvat", "masks"])
def test_images_have_no_such_numbers(tmp_path: Path, kind: str) -> None:
    write(tmp_path, kind)
    texts = [path.read_text() for path in (tmp_path / "out").rglob("*.*") if path.suffix != ".png"]
    assert len(texts) == 1 and "track_id" not in texts[0]


def test_datumaro_reads_the_numbers_of_cvat_s_file(tmp_path: Path) -> None:
    pytest.importorskip("datumaro", reason="needs datumaro")
    from datumaro import Dataset

    write(tmp_path, "cvat", detections=followed())
    (tmp_path / "out/images").mkdir()
    cv2.imwrite(str(tmp_path / "out/images/street.jpg"), np.zeros((64, 96, 3), np.uint8))
    (item,) = Dataset.import_from(str(tmp_path / "out"), "cvat")
    numbers = [annotation.attributes.get("track_id") for annotation in item.annotations]
    assert [None if number is None else int(number) for number in numbers] == [7, 2, None, 3]
