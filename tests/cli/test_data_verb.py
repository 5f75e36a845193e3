"""`maskrcnn data` checks, mends, describes, divides, converts and draws annotations."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from commands import Run

from maskrcnn.images import read_image


def annotation(number: int, image: int, **changes: Any) -> dict[str, Any]:
    x = 5 + 10 * number
    polygon = [x, 10, x + 8, 10, x + 8, 30, x, 30]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [x, 10, 8, 20],
        "segmentation": [polygon],
    } | changes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four grey pictures of 60 x 90 with an object each; the third has a box without area."""
    folder = tmp_path / "fruit"
    (folder / "images").mkdir(parents=True)
    for number in range(1, 5):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), np.full((60, 90, 3), 90, np.uint8))
    values = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 60, "width": 90} for n in range(1, 5)],
        "annotations": [annotation(n, n) for n in (1, 2, 4)] + [annotation(3, 3, bbox=[1, 1, 0, 5])],
        "categories": [{"id": 1, "name": "pear"}],
    }
    (folder / "instances.json").write_text(json.dumps(values))
    return folder


def test_check_names_the_fault_and_fix_writes_a_copy_without_it(run: Run, data: Path, tmp_path: Path) -> None:
    ran = run("data", "check", data)
    assert ran.code == 1
    assert "error: degenerate box, 1 time\n" in ran.out
    assert "annotation 3 has the box 0 x 5 at 1, 1" in ran.out
    before = (data / "instances.json").read_bytes()
    fixed = run("data", "check", data, "--fix", tmp_path / "fixed.json")
    assert (fixed.code, (data / "instances.json").read_bytes()) == (0, before)
    assert "1  left out: degenerate box" in fixed.err
    again = run("data", "check", tmp_path / "fixed.json")
    assert again.code == 0 and "error" not in again.out


def test_check_prints_every_finding_as_json(run: Run, data: Path) -> None:
    found = json.loads(run("data", "check", data, "--json").out)
    assert [(one["severity"], one["kind"]) for one in found] == [("error", "degenerate box")]


def test_stats_count_what_can_be_learnt_from(run: Run, data: Path) -> None:
    told = json.loads(run("data", "stats", data, "--json").out)
    assert (told["pictures"], told["empty"], told["instances"]) == (4, 1, 3)
    assert told["classes"] == [{"name": "pear", "instances": 3, "pictures": 3}]
    assert "pear        3 objects in 3 images" in run("data", "stats", data).out


def test_split_writes_files_that_find_the_pictures(run: Run, data: Path, tmp_path: Path) -> None:
    ran = run("data", "split", data, tmp_path / "parts", "--val", "0.25")
    assert ran.code == 0 and "train: 3 images" in ran.out
    for name in ("train", "val"):
        checked = run("data", "check", tmp_path / "parts" / f"{name}.json")
        assert "missing file" not in checked.out


def test_convert_refuses_a_target_that_is_no_format(run: Run, data: Path, tmp_path: Path) -> None:
    ran = run("data", "convert", data, tmp_path / "out", "--to", "voc")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: --to voc: is no format")
    ran = run("data", "convert", data, tmp_path / "out")
    assert (ran.code, ran.err.splitlines()[0]) == (2, f"error: {tmp_path / 'out'}: coco is one file")


def test_view_draws_the_objects(run: Run, data: Path, tmp_path: Path) -> None:
    ran = run("data", "view", data, tmp_path / "seen", "--limit", "2")
    assert ran.code == 0 and len(ran.out.splitlines()) == 2
    image = read_image(tmp_path / "seen" / "1.png").astype(int)
    inside, outside = image[20, 19], image[50, 60]
    assert np.abs(inside - 90).max() > 20 and np.array_equal(outside, [90] * 3)


def test_a_folder_that_does_not_exist_is_one_sentence(run: Run, tmp_path: Path) -> None:
    ran = run("data", "check", tmp_path / "nothing")
    assert (ran.code, ran.err.splitlines()[0]) == (
        2,
        f"error: {tmp_path / 'nothing'}: no such file or folder",
    )
