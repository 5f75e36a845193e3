"""Results never overwrite each other or their sources, and are whole or absent."""

import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.images import ImageFile, read_image
from maskrcnn.results import (
    GrowingList,
    Output,
    ids_from_annotations,
    ids_from_names,
    label_image,
    stems_of,
    write_picture,
    write_whole,
)
from maskrcnn.spec import Classes
from maskrcnn.stream import Found


def listed(*paths: str) -> list[ImageFile]:
    """Files by path; the name is what stands after `//`."""
    return [ImageFile(Path(path.replace("//", "/")), path.rsplit("//")[-1]) for path in paths]


def stems(*paths: str, taken: tuple[str, ...] = ()) -> list[str]:
    """The stems of `listed` files."""
    return list(stems_of(listed(*paths), taken).values())


def test_a_result_has_the_name_of_its_image() -> None:
    assert stems("/in//a.jpg", "/in//sub/b.c.png") == ["a", "sub/b.c"]


def test_the_same_name_in_two_folders_gets_the_folders_before_it() -> None:
    assert stems("/x/one//a.jpg", "/x/two//a.jpg", "/x/two//b.jpg") == ["one/a", "two/a", "b"]


def test_names_that_differ_in_suffix_or_capitals_only_are_told_apart() -> None:
    assert stems("/in//a.jpg", "/in//a.png") == ["a_jpg", "a_png"]
    assert stems("/in//a.jpg", "/in//A.jpg") == ["a_jpg", "A_jpg-2"]


def test_no_image_takes_the_name_of_the_list_or_of_another_image_s_masks() -> None:
    assert stems("/in//predictions.jpg", taken=("predictions",)) == ["predictions-2"]
    assert stems("/in//a.jpg", "/in//a.masks.jpg") == ["a", "a.masks-2"]


def test_no_image_takes_the_name_of_another_image_s_labelme_file() -> None:
    assert stems("/in//a.jpg", "/in//labelme/a.jpg") == ["a", "labelme/a-2"]


def test_image_ids_are_read_from_names_of_digits() -> None:
    files = listed(
        "/in//000000000139.jpg", "/in//COCO_val2014_000000000042.jpg", "/in//IMG_7.jpg", "/in//7b.jpg"
    )
    assert list(ids_from_names(files).values()) == [139, 42]


def test_two_images_never_get_one_id_from_their_names() -> None:
    assert ids_from_names(listed("/x//1.jpg", "/y//01.jpg", "/y//2.jpg")) == {}


def test_annotations_give_ids_by_name_and_by_bare_name_where_that_is_clear(tmp_path: Path) -> None:
    images = [
        {"id": 5, "file_name": "a.jpg"},
        {"id": 6, "file_name": "p/b.jpg"},
        {"id": 7, "file_name": "q/b.jpg"},
    ]
    (tmp_path / "instances.json").write_text(json.dumps({"images": images}))
    files = listed("/in/sub//a.jpg", "/in//q/b.jpg", "/in//b.jpg", "/in//c.jpg")
    found = ids_from_annotations(files, tmp_path / "instances.json")
    assert found == {Path("/in/sub/a.jpg"): 5, Path("/in/q/b.jpg"): 7}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"images": [{"id": 1}]}', '{"images": [{"id": "x", "file_name": 1}]}']
)
def test_a_file_that_is_no_annotation_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(UserError, match="has no list `images`"):
        ids_from_annotations([], tmp_path / "instances.json")


def test_a_list_is_whole_after_each_way_of_leaving(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    with GrowingList(path) as growing:
        growing.add([{"a": 1}, {"b": 2}])
        assert not path.exists()
        growing.add([])
        growing.add([{"c": 3}])
    assert json.loads(path.read_text()) == [{"a": 1}, {"b": 2}, {"c": 3}]
    with pytest.raises(KeyboardInterrupt), GrowingList(path) as growing:
        growing.add([{"a": 1}])
        growing._file.write(b',\n{"half of an it')  # what an interruption in the midst of an addition leaves
        raise KeyboardInterrupt
    assert json.loads(path.read_text()) == [{"a": 1}]
    assert os.listdir(tmp_path) == ["predictions.json"]


def test_images_without_detections_still_make_a_list_and_no_images_make_none(tmp_path: Path) -> None:
    with GrowingList(tmp_path / "a.json") as growing:
        growing.add([])
        growing.add([])
    assert json.loads((tmp_path / "a.json").read_text()) == []
    with GrowingList(tmp_path / "b.json"):
        pass
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_leaves_the_older_file_and_no_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_whole(tmp_path / "a.json", b"older")

    def refuse(self: Path, contents: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError, match=r"a.json: cannot be written \(No space left on device\)"):
        write_whole(path, b"newer")
    assert os.listdir(tmp_path) == ["a.json"]
    assert path.read_bytes() == b"older"


def test_a_full_disk_leaves_no_list(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    growing = GrowingList(tmp_path / "a.json")
    growing._file.close()
    growing._file = open("/dev/full", "wb")  # noqa: SIM115
    with pytest.raises(UserError, match="No space left on device"), growing:
        growing.add([{"a": 1}])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("suffix", "written"),
    [(".png", "a.png"), (".JPG", "a.JPG"), (".jpeg", "a.jpeg"), (".webp", "a.jpg"), ("", "a.jpg")],
)
def test_a_picture_has_the_kind_of_its_source(tmp_path: Path, suffix: str, written: str) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :, 0] = 200
    path = write_picture(tmp_path / "a", suffix, image)
    assert path.name == written
    assert np.abs(read_image(path).astype(int) - image).max() <= 3


def overlapping() -> Detections:
    """Two full boxes; the better one lies over columns 0..3, the other over 2..5."""
    return Detections(
        boxes=np.array([[0, 0, 4, 2], [2, 0, 6, 2]], np.float32),
        scores=np.array([0.9, 0.3], np.float32),
        labels=np.array([1, 0], np.int64),
        roi_masks=np.ones((2, 28, 28), np.float32),
        size=(3, 8),
        classes=Classes(("cat", "dog"), (17, 18)),
    )


def test_in_a_label_image_the_better_detection_is_on_top() -> None:
    labels = label_image(overlapping())
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[1, 1, 1, 1, 2, 2, 0, 0], [1, 1, 1, 1, 2, 2, 0, 0], [0] * 8]


def output(
    folder: Path, *kinds: str, score: float = 0.5, coco_score: float = 0.0
) -> tuple[Output, ImageFile]:
    """An Output for one file, in/street.jpg, of image id 7."""
    file = ImageFile(folder / "in" / "street.jpg", "street.jpg")
    return Output(folder / "out", kinds, score, coco_score, {file.path: "street"}, {file.path: 7}), file


def test_the_score_holds_for_pictures_and_the_coco_list_keeps_the_rest(tmp_path: Path) -> None:
    writer, file = output(tmp_path, "json", "masks", "coco")
    written = writer.write(Found(file, None, overlapping(), 1.0))
    assert [path.name for path in written.paths] == ["street.json", "street.masks.png", "street.masks.json"]
    described = json.loads((tmp_path / "out/street.json").read_text())
    assert described["file_name"] == "street.jpg"
    assert [item["name"] for item in described["detections"]] == ["dog"]
    names = json.loads((tmp_path / "out/street.masks.json").read_text())
    assert names["instances"] == [{"id": 1, "name": "dog", "category_id": 18, "score": 0.9}]
    assert cv2.imread(str(tmp_path / "out/street.masks.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert [item["category_id"] for item in written.coco] == [18, 17]
    assert written.coco[0]["image_id"] == 7
    assert written.coco[0]["bbox"] == [0, 0, 4, 2]


def test_results_never_take_the_place_of_their_source(tmp_path: Path) -> None:
    file = ImageFile(tmp_path / "street.jpg", "street.jpg")
    file.path.touch()
    writer = Output(tmp_path, ("image",), 0.5, 0.0, {file.path: "street"}, {})
    with pytest.raises(UserError, match="would take the place of"):
        writer.check_folder([file])


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writer = Output(tmp_path / "file" / "out", ("image",), 0.5, 0.0, {}, {})
    with pytest.raises(UserError, match="file/out: cannot be written"):
        writer.check_folder([])
