"""Every format of annotations is read into the same instances."""

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from maskrcnn.data.content import Content
from maskrcnn.data.formats.outlines import circle, ellipse
from maskrcnn.data.read import read_annotations
from maskrcnn.data.sample import bitmap
from maskrcnn.data.shapes import pack
from maskrcnn.errors import UserError

SQUARE = [2.0, 3.0, 8.0, 3.0, 8.0, 9.0, 2.0, 9.0]
SIZE = (20, 30)


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))
    return path


def pixels(content: Content, row: int = 0) -> np.ndarray:
    segmentation = content.instances[row].segmentation
    assert segmentation is not None
    return bitmap(pack([segmentation])[0], content.pictures[0].size)


def is_the_square(content: Content, row: int = 0) -> None:
    """The six by six pixels from column 2 and row 3 on, in the only picture."""
    wanted = np.zeros(SIZE, np.uint8)
    wanted[3:9, 2:8] = 1
    assert content.pictures[0].size == SIZE
    assert content.instances[row].bbox == (2, 3, 6, 6)
    assert np.array_equal(pixels(content, row), wanted)


def test_labelme_shapes_of_one_group_are_one_instance(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    points = [[2, 3], [8, 3], [8, 9], [2, 9]]
    shapes = [
        {"label": "pear", "points": points, "shape_type": "polygon", "group_id": None},
        {"label": "fig", "points": [[0, 0], [4, 0], [4, 4]], "shape_type": "polygon", "group_id": 7},
        {"label": "fig", "points": [[20, 10], [24, 16]], "shape_type": "rectangle", "group_id": 7},
        {"label": "dot", "points": [[1, 1]], "shape_type": "point", "group_id": None},
    ]
    values = {"shapes": shapes, "imagePath": "a.png", "imageHeight": 20, "imageWidth": 30}
    (tmp_path / "a.json").write_text(json.dumps(values))
    content = read_annotations(tmp_path)
    assert (content.format, content.categories) == ("labelme", {1: "pear", 2: "fig"})
    is_the_square(content)
    assert content.instances[1].bbox == (0, 0, 24, 16)
    assert len(content.instances[1].segmentation or ()) == 2
    assert content.skipped == (f"{tmp_path / 'a.json'}: shape 4 is a point, which outlines nothing",)


def test_a_mask_of_labelme_keeps_its_hole(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    ring = np.full((6, 6), 255, np.uint8)
    ring[2:4, 2:4] = 0
    mask = base64.b64encode(cv2.imencode(".png", ring)[1].tobytes()).decode()
    shape = {"label": "ring", "points": [[2, 3], [7, 8]], "shape_type": "mask", "mask": mask}
    values = {"shapes": [shape], "imagePath": "a.png", "imageHeight": 20, "imageWidth": 30}
    (tmp_path / "a.json").write_text(json.dumps(values))
    found = pixels(read_annotations(tmp_path))
    assert np.array_equal(found[3:9, 2:8] * 255, ring) and found.sum() == 32


@pytest.mark.parametrize("version", [1, 2])
def test_regions_of_via_are_named_by_their_first_attribute(tmp_path: Path, version: int) -> None:
    picture(tmp_path / "a.png")
    polygon = {"name": "polygon", "all_points_x": [2, 8, 8, 2], "all_points_y": [3, 3, 9, 9]}
    regions = [
        {"shape_attributes": polygon, "region_attributes": {"kind": "pear"}},
        {
            "shape_attributes": {"name": "rect", "x": 2, "y": 3, "width": 6, "height": 6},
            "region_attributes": {"kind": {"fig": True}},
        },
    ]
    listed = dict(enumerate(regions)) if version == 1 else regions
    entries = {"a.png123": {"filename": "a.png", "size": 123, "regions": listed, "file_attributes": {}}}
    values = entries if version == 1 else {"_via_settings": {}, "_via_img_metadata": entries}
    (tmp_path / "via.json").write_text(json.dumps(values))
    content = read_annotations(tmp_path / "via.json")
    assert (content.format, list(content.categories.values())) == ("via", ["pear", "fig"])
    is_the_square(content, 0)
    is_the_square(content, 1)


def test_yolo_numbers_are_parts_of_width_and_height(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "train" / "a.png")
    picture(tmp_path / "images" / "train" / "b.png")
    parts = " ".join(str(value / (30 if index % 2 == 0 else 20)) for index, value in enumerate(SQUARE))
    label = tmp_path / "labels" / "train" / "a.txt"
    label.parent.mkdir(parents=True)
    label.write_text(f"1 {parts}\n0 {5 / 30} {6 / 20} {6 / 30} {6 / 20}\n")
    values = {"path": ".", "train": "images/train", "val": "images/train", "names": {0: "fig", 1: "pear"}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(values))
    content = read_annotations(tmp_path)
    assert (content.format, content.categories) == ("yolo", {0: "fig", 1: "pear"})
    assert [one.file_name for one in content.pictures] == ["images/train/a.png", "images/train/b.png"]
    is_the_square(content)
    box = content.instances[1]
    assert box.segmentation is None and box.bbox == pytest.approx((2, 3, 6, 6))


def test_voc_objects_take_the_class_of_most_of_their_pixels(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages" / "a.jpg")
    objects, classes = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    objects[3:9, 2:8], classes[3:9, 2:8] = 1, 15
    classes[3, 2:4] = 8
    objects[0, 0] = classes[0, 0] = 255
    for name, values in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        (tmp_path / name).mkdir()
        paletted = Image.frombytes("P", SIZE[::-1], values.tobytes())
        paletted.putpalette(list(range(256)) * 3)
        paletted.save(tmp_path / name / "a.png")
    content = read_annotations(tmp_path)
    is_the_square(content)
    assert content.categories[content.instances[0].category_id] == "person"
    assert len(content.instances) == 1


def test_voc_boxes_count_pixels_from_one_and_include_both_ends(tmp_path: Path) -> None:
    picture(tmp_path / "JPEGImages" / "a.jpg")
    (tmp_path / "Annotations").mkdir()
    box = "<xmin>3</xmin><ymin>4</ymin><xmax>8</xmax><ymax>9</ymax>"
    text = f"<annotation><object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    assert read_annotations(tmp_path).instances[0].bbox == (2, 3, 6, 6)


def test_cvat_polygons_boxes_and_brush_masks(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    # rows of a 6 x 6 crop: first row empty, then all full
    text = """<annotations><meta><task><labels><label><name>pear</name></label></labels></task></meta>
    <image id="0" name="a.png" width="30" height="20">
      <polygon label="pear" points="2,3;8,3;8,9;2,9" />
      <box label="fig" xtl="2" ytl="3" xbr="8" ybr="9" />
      <mask label="fig" rle="6, 30" left="2" top="3" width="6" height="6" />
      <points label="fig" points="1,1" />
    </image></annotations>"""
    (tmp_path / "annotations.xml").write_text(text)
    content = read_annotations(tmp_path)
    assert (content.format, content.categories) == ("cvat", {1: "pear", 2: "fig"})
    is_the_square(content)
    assert content.instances[1].bbox == (2, 3, 6, 6)
    assert content.instances[2].bbox == (2, 4, 6, 5) and pixels(content, 2).sum() == 30
    assert "is a points" in content.skipped[0]


def test_each_number_of_a_label_image_is_an_object(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    labels = np.zeros(SIZE, np.uint16)
    labels[3:9, 2:8], labels[10:12, 20:25] = 300, 7
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), labels)
    content = read_annotations(tmp_path)
    assert [one.bbox for one in content.instances] == [(20, 10, 5, 2), (2, 3, 6, 6)]
    is_the_square(content, 1)


def test_a_circle_has_its_radius_and_a_turned_ellipse_its_axes() -> None:
    points = np.array(circle(10, 20, 5)).reshape(-1, 2)
    assert np.allclose(np.hypot(*(points - (10, 20)).T), 5)
    turned = np.array(ellipse(0, 0, 4, 1, np.pi / 2)).reshape(-1, 2)
    assert np.allclose(np.abs(turned).max(0), (1, 4))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", '{"a": 1}', "annotations of no known format"),
        ("a.xml", "<a>", "is not XML"),
        ("a.xml", "<a/>", "not of `CVAT for images`"),
        ("data.yaml", "names: [a]\ntrain: nowhere", "no such folder or list"),
        ("data.yaml", "train: [", "cannot be read as YAML"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_annotations(tmp_path / name)


@pytest.mark.parametrize("name", ["images/a.png", "../set/images/a.png", "a.png"])
def test_names_may_begin_at_the_file_or_at_the_folder_of_the_pictures(tmp_path: Path, name: str) -> None:
    """`data split` writes names that begin at its file, and `images` beside that is no reason to doubt it."""
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(folder / "images" / "a.png")
    entry = {"id": 1, "file_name": name, "width": 6, "height": 4}
    values = {"images": [entry], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (folder / "val.json").write_text(json.dumps(values))
    for images in (None, folder / "images", folder):
        content = read_annotations(folder / "val.json", images)
        assert (content.folder / content.pictures[0].file_name).is_file()


def test_a_name_that_two_pictures_end_with_is_not_guessed(tmp_path: Path) -> None:
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        Image.new("RGB", (6, 4)).save(tmp_path / part / "a.png")
    entry = {"id": 1, "file_name": "elsewhere/a.png", "width": 6, "height": 4}
    values = {"images": [entry], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "val.json").write_text(json.dumps(values))
    assert read_annotations(tmp_path / "val.json", tmp_path).pictures[0].file_name == "elsewhere/a.png"


def test_an_empty_folder_is_told_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no known format") as told:
        read_annotations(tmp_path)
    assert "COCO" in (told.value.hint or "")


def test_a_label_of_a_class_that_does_not_exist_is_an_error_with_its_line(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.1 0.1 0.2 0.2\n3 0.1 0.1 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("names: [a]\ntrain: images")
    with pytest.raises(UserError, match=r"line 2 has class 3 of 1"):
        read_annotations(tmp_path)
