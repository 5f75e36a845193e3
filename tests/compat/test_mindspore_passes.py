"""With --exact a pass has the steps that MindSpore's loop takes, and milestones come early as there."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_mindspore import write_configs

from maskrcnn.compat.mindspore_config import read_config
from maskrcnn.compat.mindspore_keys import Asked
from maskrcnn.compat.mindspore_passes import Pass, pass_of
from maskrcnn.compat.mindspore_recipe import translate
from maskrcnn.training.run_file import read_run


def image(number: int, side: int = 64) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.png", "width": side, "height": 64}


def box(number: int, **other: Any) -> dict[str, Any]:
    return {"image_id": number, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0, **other}


def written(folder: Path, images: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": []}))
    return path


def test_a_pass_is_rounded_up_even_where_it_fits(tmp_path: Path) -> None:
    """250 images in batches of 2: 125 steps; 125 // 100 + 1 = 2, and 125 // 25 + 1 = 6."""
    path = written(tmp_path, [image(n) for n in range(250)], [box(n) for n in range(250)])
    assert pass_of(path, 2, 1, 100) == Pass(125, 200)
    assert pass_of(path, 2, 1, 25) == Pass(125, 150)
    # of 4 processes each has 63 images, 31 batches
    assert pass_of(path, 2, 4, 10) == Pass(31, 40)


@pytest.mark.parametrize(
    "left_out",
    [{"iscrowd": 1}, {"area": 0}, {"bbox": [1, 1, 0.4, 9]}, {"bbox": []}, {"ignore": 1}],
    ids=str,
)
def test_images_without_an_object_that_counts_are_no_part_of_a_pass(
    tmp_path: Path, left_out: dict[str, Any]
) -> None:
    path = written(tmp_path, [image(1), image(2), image(3, side=31)], [box(1, **left_out), box(2), box(3)])
    assert pass_of(path, 1, 1, 10) == Pass(1, 10)


def test_annotations_of_another_kind_have_passes_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    assert pass_of(tmp_path / "list.json", 1, 1, 10) is None
    assert pass_of(tmp_path / "data.yaml", 1, 1, 10) is None
    assert pass_of(tmp_path / "gone.json", 1, 1, 10) is None
    assert pass_of(written(tmp_path, [image(1)], [box(1)]), 2, 1, 10) is None


@pytest.mark.parametrize(("exact", "steps"), [(True, 12 * 200), (False, 0)])
def test_only_exact_makes_the_run_longer_and_keeps_its_milestones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: bool, steps: int
) -> None:
    monkeypatch.chdir(tmp_path)
    config = read_config(write_configs(tmp_path / "config"), exact)
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    path = written(tmp_path, [image(n) for n in range(250)], [box(n) for n in range(250)])
    path.rename(tmp_path / "coco" / "annotations" / "instances_train.json")
    found = translate(Asked(config, exact=exact))
    run = read_run(None, found.given | {"out": "run"}, found.settings)
    assert run.training.steps == steps
    marks = [mark * 12 for mark in run.training.milestones]
    # 8 and 11 passes of 125 steps, in passes of 200
    assert marks == pytest.approx([5, 6.875] if exact else [8, 11])
    told = "(each of 200 steps: 125 rounded up by log_interval)" in "\n".join(found.told())
    assert told is exact
