"""What is written in another format is read back with the same pixels."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn.data.content import Content, ContentBuilder
from maskrcnn.data.dataset import outline
from maskrcnn.data.read import read_annotations
from maskrcnn.data.sample import bitmap
from maskrcnn.data.shapes import pack
from maskrcnn.data.write import TARGETS, inside_name, relative_to, write_content
from maskrcnn.errors import UserError

SIZE = (40, 60)


@pytest.fixture
def content(tmp_path: Path) -> Content:
    """Two pictures, one in a folder; a polygon, two parts, a ring and a box, whose pixels do not overlap."""
    folder = tmp_path / "in"
    builder = ContentBuilder(folder, folder, "test", names=("fig", "pear"))
    for name in ("a.png", "deep/b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((*SIZE, 3), np.uint8))
    first, _ = (builder.picture(name, SIZE) for name in ("a.png", "deep/b.png"))
    builder.polygons(first, 1, [[1, 1, 11, 1, 11, 9, 1, 9]], "one")
    builder.polygons(first, 2, [[20, 2, 24, 2, 24, 6, 20, 6], [30, 10, 35, 10, 35, 16, 30, 16]], "two parts")
    ring = np.ones((9, 7), bool)
    ring[3:6, 2:5] = False
    builder.mask(first, 2, ring, 40, 20, "ring")
    builder.box(first, 1, (2, 30, 12, 36), "box")
    return builder.done()


def pixels(content: Content) -> list[tuple[str, bytes]]:
    """Class and pixels of every instance, in no order."""
    return sorted(
        (content.categories[one.category_id], bitmap(pack([outline(one)])[0], SIZE).tobytes())
        for one in content.instances
    )


@pytest.mark.parametrize("target", TARGETS)
def test_pixels_survive(content: Content, tmp_path: Path, target: str) -> None:
    out = tmp_path / ("out.json" if target == "coco" else "out")
    write_content(relative_to(content, tmp_path) if target == "coco" else content, out, target)
    found = read_annotations(out)
    assert found.format == target
    assert [Path(one.file_name).name for one in found.pictures] == ["a.png", "b.png"]
    assert [one.size for one in found.pictures] == [SIZE, SIZE]
    assert pixels(found) == pixels(content)
    assert all((found.folder / one.file_name).is_file() for one in found.pictures)


def test_a_folder_that_holds_something_is_not_written_into(content: Content, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("x")
    with pytest.raises(UserError, match="exists"):
        write_content(content, tmp_path / "out", "yolo")


@pytest.mark.parametrize(
    ("name", "inside"), [("a/b.png", "a/b.png"), ("../../a.png", "a.png"), ("/top/a.png", "top/a.png")]
)
def test_pictures_never_leave_the_folder_that_is_written(name: str, inside: str) -> None:
    assert inside_name(name) == inside
