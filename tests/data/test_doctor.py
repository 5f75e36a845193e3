"""The doctor names every fault with its place, and a mended copy has none left."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.content import Content
from maskrcnn.data.doctor import Finding, examine
from maskrcnn.data.formats import coco
from maskrcnn.data.mend import mend, turn_points
from maskrcnn.data.sample import bitmap
from maskrcnn.data.shapes import pack
from maskrcnn.images import read_image

TRIANGLE = [[10, 10, 20, 10, 20, 20]]


def annotation(number: int, **changes: Any) -> dict[str, Any]:
    """A sound one on picture 1, each with an outline of its own."""
    shift = number % 10
    box = [10 + shift, 10, 10, 10]
    polygon = [[10 + shift, 10, 20 + shift, 10, 20 + shift, 20]]
    return {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "segmentation": polygon} | changes


def content(folder: Path, annotations: list[dict[str, Any]], **changes: Any) -> Content:
    """A picture of 40 x 50 with these annotations."""
    cv2.imwrite(str(folder / "a.png"), np.zeros((40, 50, 3), np.uint8))
    images = [{"id": 1, "file_name": "a.png", "height": 40, "width": 50}]
    values = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "pear"}]}
    (folder / "instances.json").write_text(json.dumps(values | changes))
    return coco.read(folder / "instances.json")


def kinds(findings: list[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


def test_a_sound_set_has_nothing_wrong(tmp_path: Path) -> None:
    sound = content(tmp_path, [annotation(1), annotation(2)])
    assert examine(sound) == []
    assert mend(sound) == (sound, {})


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"bbox": [10, 10, 0, 5]}, "degenerate box"),
    ({"bbox": [10, 10, float("nan"), 5]}, "degenerate box"),
    ({"bbox": [60, 10, 5, 5]}, "outside the image"),
    ({"category_id": 9}, "unknown category"),
    ({"image_id": 9}, "unknown image"),
    ({"segmentation": {"size": [40, 49], "counts": [1960]}}, "mask of another size"),
    ({"segmentation": {"size": [40, 50], "counts": [1960]}}, "mask of another size"),
    ({"segmentation": {"size": [40, 50], "counts": [2000]}}, "empty mask"),
    ({"segmentation": [[10, 10, 20, 20]]}, "empty mask"),
    ({"bbox": [30, 10, 40, 5], "segmentation": None}, "box beyond the image"),
    ({"bbox": [11, 10, 39, 10]}, "box off its outline"),
    ({"segmentation": [*TRIANGLE, [1, 1, 2, 2]], "bbox": [10, 10, 10, 10]}, "short polygon"),
    ({"segmentation": None}, "no segmentation"),
    ({"bbox": None, "segmentation": None}, "unusable entry"),
    ({"bbox": [10, 10, 0.5, 5], "segmentation": None}, "tiny instance"),
]


@pytest.mark.parametrize(("changes", "kind"), FAULTS)
def test_a_fault_is_found_with_the_id_of_its_annotation(
    tmp_path: Path, changes: dict[str, Any], kind: str
) -> None:
    found = [
        one
        for one in examine(content(tmp_path, [annotation(1), annotation(7, **changes)]))
        if one.kind == kind
    ]
    assert len(found) == 1
    assert "annotation 7" in f"{found[0].place} {found[0].message}"


@pytest.mark.parametrize(("changes", "kind"), FAULTS)
def test_a_mended_copy_has_no_error_and_keeps_what_was_sound(
    tmp_path: Path, changes: dict[str, Any], kind: str
) -> None:
    mended, _ = mend(content(tmp_path, [annotation(1), annotation(7, **changes)]))
    assert [one for one in examine(mended) if one.severity == "error"] == []
    assert mended.instances[0].id == 1


def test_ids_that_are_taken_are_renumbered(tmp_path: Path) -> None:
    twice = content(tmp_path, [annotation(4), annotation(5, id=4)])
    assert kinds(examine(twice)) == ["duplicate annotation id"] * 2
    mended, done = mend(twice)
    assert [one.id for one in mended.instances] == [4, 5]
    assert done == {"renumbered: annotation with the id of another": 1}


def test_an_instance_annotated_twice_stays_once(tmp_path: Path) -> None:
    twice = content(tmp_path, [annotation(4), annotation(4) | {"id": 5}])
    assert kinds(examine(twice)) == ["duplicate instance"]
    assert [one.id for one in mend(twice)[0].instances] == [4]


def test_missing_and_resized_pictures_are_named_and_left_out(tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": "a.png", "height": 40, "width": 50},
        {"id": 2, "file_name": "gone.png", "height": 40, "width": 50},
        {"id": 3, "file_name": "text.png", "height": 40, "width": 50},
        {"id": 4, "file_name": "b.png", "height": 80, "width": 100},
    ]
    (tmp_path / "text.png").write_text("no picture")
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((40, 50, 3), np.uint8))
    rows = [annotation(number, image_id=number) for number in (1, 2, 3, 4)]
    found = content(tmp_path, rows, images=images)
    assert kinds(examine(found)) == ["missing file", "unreadable file", "size mismatch"]
    mended, _ = mend(found)
    assert [one.id for one in mended.pictures] == [1]
    assert [one.id for one in mended.instances] == [1]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_outlines_on_a_picture_that_exif_rotates_are_turned_with_it(tmp_path: Path, orientation: int) -> None:
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[10:16, 20:32] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "r.png", exif=exif)
    box = [20, 10, 12, 6]
    images = [{"id": 1, "file_name": "r.png", "height": 40, "width": 50}]
    polygon = [[20, 10, 32, 10, 32, 16, 20, 16]]
    counts = [20 * 40 + 10, *([6, 34] * 11), 6, 2000 - 20 * 40 - 10 - 12 * 6 - 11 * 34]
    rle = {"size": [40, 50], "counts": counts}
    rows = [annotation(1, bbox=box, segmentation=polygon), annotation(2, bbox=box, segmentation=rle)]
    mended, _ = mend(content(tmp_path, rows, images=images))
    upright = read_image(tmp_path / "r.png")[..., 0] > 0
    if orientation > 4:  # height and width change places, so the doctor can tell
        assert mended.pictures[0].size == upright.shape == (50, 40)
        for one in mended.instances:
            assert one.segmentation is not None
            assert np.array_equal(bitmap(pack([one.segmentation])[0], (50, 40)) > 0, upright)
            rows_, columns = np.nonzero(upright)
            assert one.bbox[:2] == (columns.min(), rows_.min())
    points = turn_points(np.array([[20.5, 10.5]]), (40, 50), orientation)[0]
    assert upright[int(points[1]), int(points[0])]


def test_brushed_crowds_are_told_and_become_instances_on_request(tmp_path: Path) -> None:
    brush = {"segmentation": {"size": [40, 50], "counts": [10, 5, 1985]}, "iscrowd": 1, "bbox": [0, 10, 1, 5]}
    brushed = content(tmp_path, [annotation(1), annotation(2, **brush)])
    assert kinds(examine(brushed)) == ["brushed crowds"]
    assert mend(brushed)[0].instances[1].crowd
    assert not mend(brushed, crowds="instance")[0].instances[1].crowd


def test_categories_without_instances_and_pictures_without_entry_are_told(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((4, 5, 3), np.uint8))
    categories = [{"id": 1, "name": "pear"}, {"id": 2, "name": "pear"}]
    found = examine(content(tmp_path, [annotation(1)], categories=categories))
    assert sorted(kinds(found)) == [
        "duplicate category name",
        "duplicate category name",
        "picture without entry",
        "unused category",
    ]
