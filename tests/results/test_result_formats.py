"""What labelling tools and programs read is the masks to the pixel, holes and parts with them."""

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from pictured import SIZE, block, drawn, empty, everything, ring, speckle, two, write
from PIL import Image
from pycocotools import mask as coco_mask
from skimage.draw import polygon

from maskrcnn.detections import Detections
from maskrcnn.spec import Classes


def filled(points: Any) -> np.ndarray:
    """The pixels whose centres a ring of x, y encloses."""
    corners = np.array(points, np.float64)
    mask = np.zeros(SIZE, bool)
    mask[polygon(corners[:, 1] - 0.5, corners[:, 0] - 0.5, SIZE)] = True
    return mask


def twice_area(points: Any) -> float:
    x, y = np.array(points, np.float64).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def labelme_masks(shapes: list[dict[str, Any]]) -> list[tuple[str, np.ndarray]]:
    """Kind and mask of each object, its shapes joined by group_id."""
    objects: list[tuple[str, np.ndarray, int | None]] = []
    for shape in shapes:
        mask = np.zeros(SIZE, bool)
        if shape["shape_type"] == "mask":
            (x1, y1), (x2, y2) = shape["points"]
            picture = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
            mask[y1 : y2 + 1, x1 : x2 + 1] = np.asarray(picture).astype(bool)
        elif shape["shape_type"] == "polygon":
            mask = filled(shape["points"])
        group = shape["group_id"]
        if group is not None and objects and objects[-1][2] == group:
            mask |= objects.pop()[1]
        objects.append((shape["shape_type"], mask, group))
    return [(kind, mask) for kind, mask, _ in objects]


def test_labelme_has_polygons_and_what_they_cannot_say_as_masks():
    found = everything().to_labelme("../street.jpg")
    assert json.loads(json.dumps(found)) == found
    assert (found["imagePath"], found["imageData"]) == ("../street.jpg", None)
    assert (found["imageHeight"], found["imageWidth"]) == SIZE
    kinds, masks = zip(*labelme_masks(found["shapes"]), strict=True)
    assert kinds == ("polygon", "mask", "polygon", "rectangle", "mask", "mask")
    assert np.array_equal(masks, everything().masks())
    assert [shape["group_id"] for shape in found["shapes"]] == [None, None, 3, 3, None, None, None]
    assert [shape["label"] for shape in found["shapes"][:2]] == ["cat", "class 12"]
    assert found["shapes"][0]["score"] == 0.9
    assert found["shapes"][4]["points"] == [[18, 23], [46, 51]]


def test_geojson_has_closed_rings_by_the_right_hand_rule_whose_area_is_the_mask_s():
    found = everything().to_geojson("street.jpg")
    assert json.loads(json.dumps(found)) == found
    assert found["type"] == "FeatureCollection"
    assert found["image"] == {
        "file_name": "street.jpg", "height": 64, "width": 96, "axes": "x right, y down, in pixels"
    }  # fmt: skip
    kinds = [feature["geometry"] and feature["geometry"]["type"] for feature in found["features"]]
    assert kinds == ["Polygon", "Polygon", "MultiPolygon", None, "MultiPolygon", "MultiPolygon"]
    for feature, mask in zip(found["features"], everything().masks(), strict=True):
        geometry = feature["geometry"] or {"type": "MultiPolygon", "coordinates": []}
        several = geometry["type"] == "MultiPolygon"
        parts = geometry["coordinates"] if several else [geometry["coordinates"]]
        covered = np.zeros(SIZE, int)
        for outer, *holes in parts:
            assert twice_area(outer[:-1]) > 0
            assert all(twice_area(hole[:-1]) < 0 for hole in holes)
            for points in (outer, *holes):
                assert points[0] == points[-1]
                covered += np.int64(np.sign(twice_area(points[:-1]))) * filled(points[:-1])
        assert np.array_equal(covered, mask)
        assert sum(twice_area(points[:-1]) for part in parts for points in part) == 2 * mask.sum()
    assert found["features"][1]["properties"] == {
        "name": "class 12", "category_id": 12, "score": pytest.approx(0.84)
    }  # fmt: skip
    assert found["features"][0]["bbox"] == [3, 2, 31, 30]


def yolo_rings(text: str) -> list[tuple[int, np.ndarray]]:
    """Label and corners in pixels of each line."""
    rows = [line.split() for line in text.splitlines()]
    return [(int(label), np.array(numbers, float).reshape(-1, 2) * SIZE[::-1]) for label, *numbers in rows]


def test_yolo_lines_enclose_the_masks_and_leave_out_those_without_a_pixel_with_a_note(tmp_path: Path):
    _, written = write(tmp_path, "yolo")
    lines = yolo_rings((tmp_path / "out/labels/street.txt").read_text())
    assert [label for label, _ in lines] == [0, 1, 2, 1, 2]
    masks = [mask for mask in everything().masks() if mask.any()]
    for (_, points), mask in zip(lines, masks, strict=True):
        assert np.abs(points - points.round()).max() < 1e-4
        assert np.array_equal(filled(points.round()), mask)
    assert written.notes == (
        f"{tmp_path}/out/labels/street.txt: 1 of 6 objects are left out, their masks are empty",
    )


def test_a_trainer_that_paints_the_corners_too_gets_a_pixel_more_to_the_right_and_below():
    # OpenCV fills every pixel that the rounded polygon touches; YOLO trainers make their masks so.
    (points,) = (np.array(part.outer) for part in drawn(block()).polygons()[0])
    painted = cv2.fillPoly(np.zeros(SIZE, np.uint8), [points], 1).astype(bool)
    mask = drawn(block()).masks()[0]
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((2, 2), np.uint8), anchor=(1, 1)).astype(bool)
    assert np.array_equal(painted, grown)


def test_data_yaml_names_every_label_also_those_that_the_data_set_never_used(tmp_path: Path):
    write(tmp_path, "yolo")
    described = yaml.safe_load((tmp_path / "out/data.yaml").read_text("utf-8"))
    assert described["names"] == {0: "cat", 1: "class 12", 2: "a<b & 'c', \"d\"; é\n"}
    assert (described["path"], described["train"]) == (".", "images")


def test_data_yaml_of_a_model_without_names_grows_with_the_labels(tmp_path: Path):
    nameless = drawn(block(), two(), classes=Classes(), labels=(0, 2))
    output, _ = write(tmp_path, "yolo", detections=nameless[[0]])
    path = tmp_path / "out/data.yaml"
    assert yaml.safe_load(path.read_text())["names"] == {0: "class 1"}
    output._shared.name_classes(nameless)
    assert yaml.safe_load(path.read_text())["names"] == {0: "class 1", 1: "class 2", 2: "class 3"}
    before = path.stat().st_ino
    output._shared.name_classes(nameless[[]])
    assert path.stat().st_ino == before


def cvat_mask(shape: ElementTree.Element) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    if shape.tag == "polygon":
        mask = filled([pair.split(",") for pair in shape.attrib["points"].split(";")])
    if shape.tag == "mask":
        left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
        pixels = [
            value % 2 for value, run in enumerate(shape.attrib["rle"].split(",")) for _ in range(int(run))
        ]
        assert len(pixels) == width * height  # along the rows, background first
        mask[top : top + height, left : left + width] = np.reshape(pixels, (height, width))
    return mask


def test_cvat_has_polygons_and_what_they_cannot_say_as_masks(tmp_path: Path):
    write(tmp_path, "cvat", name="a <b> & \"c\",\n'é'.jpg")
    root = ElementTree.parse(tmp_path / "out/annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [name.text for name in root.iterfind("meta/task/labels/label/name")] == [
        "cat", "class 12", "a<b & 'c', \"d\"; é\n"
    ]  # fmt: skip
    (image,) = root.findall("image")
    assert image.attrib == {"id": "0", "name": "a <b> & \"c\",\n'é'.jpg", "width": "96", "height": "64"}
    assert [shape.tag for shape in image] == ["polygon", "mask", "mask", "box", "mask", "mask"]
    assert np.array_equal([cvat_mask(shape) for shape in image], everything().masks())
    assert [shape.attrib["label"] for shape in image][:3] == ["cat", "class 12", "a<b & 'c', \"d\"; é\n"]
    assert [shape.attrib["z_order"] for shape in image] == ["5", "4", "3", "2", "1", "0"]
    assert image[0].findtext("attribute[@name='score']") == "0.9"


def test_what_xml_cannot_hold_is_escaped(tmp_path: Path):
    write(tmp_path, "cvat", name="a\x00\x1b\udcff\ufffe.jpg")
    (image,) = ElementTree.parse(tmp_path / "out/annotations.xml").getroot().findall("image")
    assert image.attrib["name"] == r"a\x00\x1b\udcff\ufffe.jpg"


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "out/predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_the_table_has_a_row_for_each_object_whose_rle_is_the_mask(tmp_path: Path):
    write(tmp_path, "csv", name='a, "b"\r\né.jpg')
    rows = table(tmp_path)
    masks = everything().masks()
    assert list(rows[0]) == [
        *("file_name", "image_id", "label", "category_id", "score"),
        *("x1", "y1", "x2", "y2", "area", "rle", "track_id"),
    ]
    for row, mask in zip(rows, masks, strict=True):
        assert (row["file_name"], row["image_id"]) == ('a, "b"\r\né.jpg', "7")
        assert np.array_equal(coco_mask.decode(json.loads(row["rle"])), mask)
        assert int(row["area"]) == mask.sum()
    assert [row["label"] for row in rows[:3]] == ["cat", "class 12", "a<b & 'c', \"d\"; é\n"]
    assert [rows[0][key] for key in ("category_id", "score", "x1", "y2")] == ["17", "0.9", "3.0", "30.0"]


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@a", "\tb", "\r=1", "＝1"])
def test_text_that_a_spreadsheet_would_run_is_marked_as_text(tmp_path: Path, text: str):
    write(tmp_path, "csv", detections=drawn(block(), classes=Classes((text,), (1,))), name=f"{text}.jpg")
    (row,) = table(tmp_path)
    assert (row["file_name"], row["label"]) == (f"'{text}.jpg", f"'{text}")
    assert not row["rle"].startswith(tuple("=+-@\t\r\n"))


def test_an_image_without_objects_makes_valid_files_in_every_format(tmp_path: Path):
    write(tmp_path, "labelme", "geojson", "yolo", "cvat", "csv", detections=drawn(classes=Classes()))
    out = tmp_path / "out"
    assert json.loads((out / "labelme/street.json").read_text())["shapes"] == []
    assert json.loads((out / "street.geojson").read_text())["features"] == []
    assert (out / "labels/street.txt").read_text() == ""
    assert yaml.safe_load((out / "data.yaml").read_text())["names"] == {}
    (image,) = ElementTree.parse(out / "annotations.xml").getroot().findall("image")
    assert len(image) == 0
    assert table(tmp_path) == []


def test_a_png_of_instance_numbers_has_sixteen_bits_and_the_better_one_on_top():
    found = drawn(block(), ring())
    numbers = cv2.imdecode(np.frombuffer(found.to_png(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert numbers.dtype == np.uint16
    first, second = found.masks()
    assert np.array_equal(numbers, np.where(first, 1, np.where(second, 2, 0)))


def test_supervision_gets_the_boxes_masks_scores_and_names():
    supervision = pytest.importorskip("supervision")
    mine = everything()
    theirs = mine.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert np.array_equal(theirs.xyxy, mine.boxes)
    assert np.array_equal(theirs.mask, mine.masks())
    assert np.array_equal(theirs.confidence, mine.scores)
    assert np.array_equal(theirs.class_id, mine.labels)
    assert theirs.data["class_name"].tolist() == mine.names()
    assert theirs[theirs.class_id == 1].data["class_name"].tolist() == ["class 12", "class 12"]


def test_supervision_gets_empty_detections_too():
    pytest.importorskip("supervision")
    nothing: Detections = drawn(speckle(0), empty())[[]]
    assert nothing.to_supervision().is_empty()
