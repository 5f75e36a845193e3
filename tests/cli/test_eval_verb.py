"""`maskrcnn eval` scores a model or a results list, as words, as JSON and as an exit code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Run

from maskrcnn import read_image

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def square(x: int, y: int, side: int) -> list[list[int]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def write(path: Path, contents: Any) -> Path:
    path.write_text(json.dumps(contents))
    return path


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """One image with two cats of 20 x 20 and 40 x 40 and no dog."""
    boxes = [(0, 0, 20), (50, 50, 40)]
    return write(
        tmp_path / "instances.json",
        {
            "images": [{"id": 1, "file_name": "1.jpg", "height": 100, "width": 100}],
            "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
            "annotations": [
                {
                    "id": number,
                    "image_id": 1,
                    "category_id": 17,
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                    "segmentation": square(x, y, side),
                }
                for number, (x, y, side) in enumerate(boxes, start=1)
            ],
        },
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The larger cat, found exactly, and nothing else."""
    item = {"image_id": 1, "category_id": 17, "bbox": [50, 50, 40, 40], "score": 0.75}
    return write(tmp_path / "results.json", [{**item, "segmentation": square(50, 50, 40)}])


def test_json_has_all_numbers_by_their_keys_and_null_for_undefined_ones(
    run: Run, annotations: Path, results: Path
) -> None:
    ran = run("eval", "--detections", results, "--annotations", annotations, "--json")
    found = json.loads(ran.out)
    assert ran.code == 0
    for kind in ("bbox", "segm"):
        assert {f"{kind}/{name}" for name in NAMES} <= set(found)
        # Recall .5 reaches 51 of the 101 levels; the small cat is missed, the medium one found.
        assert found[f"{kind}/AP"] == pytest.approx(51 / 101)
        assert (found[f"{kind}/APs"], found[f"{kind}/ARm"]) == (0, 1)
        assert found[f"{kind}/APl"] is None
        assert (found[f"{kind}/precision"], found[f"{kind}/recall"]) == (1, 0.5)
        assert found["confusion"][kind] == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
        assert [row["name"] for row in found["per_class"][kind]] == ["cat", "dog"]
        assert found["per_class"][kind][1]["AP"] is None
    assert (found["images"], found["objects"], found["detections"]) == (1, 2, 1)
    assert "no object is large" in ran.err


def test_for_a_person_there_are_tables_of_classes_confusion_and_numbers(
    run: Run, annotations: Path, results: Path
) -> None:
    ran = run("eval", "--detections", results, "--annotations", annotations)
    assert ran.code == 0
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["AP", "0.5050", "0.5050"] in rows
    assert ["APl", "n/a", "n/a"] in rows
    assert ["cat", "1", "0", "1"] in rows
    assert rows.count(["dog", "0", "n/a", "n/a", "n/a", "n/a", "n/a", "n/a", "n/a"]) == 2


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        (["segm/AP=0.5", "bbox/AP=0.5"], 0, ""),
        (["segm/AP=0.6", "bbox/AP=0.5"], 1, "below: segm/AP is 0.504950, less than 0.6"),
        (["bbox/APl=0.1"], 1, "below: bbox/APl is n/a, less than 0.1"),
        (["segm/best_F1=0.6666"], 0, ""),
        (["bbox/ARm=1"], 0, ""),
    ],
)
def test_a_number_below_its_limit_is_exit_code_one(
    run: Run, annotations: Path, results: Path, limits: list[str], code: int, words: str
) -> None:
    options = [word for limit in limits for word in ("--at-least", limit)]
    ran = run("eval", "--detections", results, "--annotations", annotations, *options)
    assert ran.code == code
    assert [line for line in ran.err.splitlines() if line.startswith("below")] == ([words] if words else [])
    assert "AP50" in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--at-least", "segm/AP"], "--at-least segm/AP: is no KEY=VALUE"),
        (["--at-least", "segm/AP=nan"], "is no KEY=VALUE"),
        (["--at-least", "segm/mAP=0.3"], "there is no `segm/mAP`"),
        (["--save", "list.json"], "--images and --save need a model"),
        (["--images", "."], "--images and --save need a model"),
        (["example"], "both example and --detections are given"),
    ],
)
def test_options_that_cannot_work_are_refused(
    run: Run, annotations: Path, results: Path, arguments: list[str], words: str
) -> None:
    ran = run("eval", "--detections", results, "--annotations", annotations, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert words in ran.err


def test_what_is_missing_is_named(run: Run, annotations: Path, results: Path) -> None:
    assert "--annotations is missing" in run("eval", "--detections", results).err
    assert "there is nothing to measure" in run("eval", "--annotations", annotations).err
    ran = run("eval", "example", "--annotations", annotations)
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: --images is missing")


def test_no_common_category_is_an_error_in_words(run: Run, annotations: Path, tmp_path: Path) -> None:
    item = {"image_id": 1, "category_id": 0, "bbox": [50, 50, 40, 40], "score": 0.75}
    ran = run("eval", "--detections", write(tmp_path / "r.json", [item]), "--annotations", annotations)
    assert ran.code == 2
    assert "0 of 1 category ids overlap" in ran.err


def test_the_largest_confusions_are_listed_where_a_matrix_would_not_fit(run: Run, tmp_path: Path) -> None:
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0}
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": number, "name": f"kind {number}"} for number in range(1, 31)],
        "annotations": [annotation],
    }
    item = {"image_id": 1, "category_id": 4, "bbox": [0, 0, 20, 20], "score": 0.9}
    ran = run(
        "eval",
        "--detections",
        write(tmp_path / "r.json", [item]),
        "--annotations",
        write(tmp_path / "t", truth),
    )
    assert ran.code == 0
    assert "1 found as another class, 0 missed, 0 detections without an object" in ran.out
    assert "1  kind 3 found as kind 4" in ran.out
    assert "masks, by class" not in ran.out


@pytest.fixture
def data_set(photographs: Path, tmp_path: Path) -> Path:
    """Annotations of the three photographs, of which two have no object."""
    images = []
    for number, name in enumerate(("1.jpg", "2.png", "sub/10.jpg"), start=1):
        height, width = read_image(photographs / name).shape[:2]
        images.append({"id": number, "file_name": name, "height": height, "width": width})
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [5, 5, 30, 30], "area": 900, "iscrowd": 0}
    return write(
        tmp_path / "instances.json",
        {
            "images": images,
            "categories": [{"id": 3, "name": "Cat"}, {"id": 4, "name": "car"}],
            "annotations": [{**annotation, "segmentation": square(5, 5, 30)}],
        },
    )


def test_a_model_is_run_on_all_images_and_scored(
    run: Run, model_file: Path, photographs: Path, data_set: Path, tmp_path: Path
) -> None:
    """Scoring the saved list again gives the same numbers."""
    saved = tmp_path / "out" / "list.json"
    model = ("eval", model_file, "--images", photographs, "--annotations", data_set, "--json")
    ran = run(*model, "--save", saved, "--batch", "2", "--threads", "1")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    items = json.loads(saved.read_text())
    assert found["images"] == 3
    assert found["detections"] == len(items) > 0
    assert {item["image_id"] for item in items} == {1, 2, 3}
    assert {item["category_id"] for item in items} == {3}
    assert "1 classes have another id" in ran.err
    assert "2 classes of the model are not in" in ran.err
    assert "the model does not know 1 of 2 classes: car" in ran.err
    again = json.loads(run("eval", "--detections", saved, "--annotations", data_set, "--json").out)
    numbers = {key: value for key, value in found.items() if "/" in key}
    assert numbers == {key: value for key, value in again.items() if "/" in key}


def test_an_image_that_cannot_be_read_leaves_no_list(
    run: Run, model_file: Path, photographs: Path, data_set: Path, tmp_path: Path
) -> None:
    (photographs / "2.png").write_bytes(b"no image")
    saved = tmp_path / "list.json"
    ran = run("eval", model_file, "--images", photographs, "--annotations", data_set, "--save", saved)
    assert ran.code == 2
    assert "2.png: is not an image" in ran.err
    assert [path.name for path in tmp_path.iterdir() if "list" in path.name or "part" in path.name] == []


def test_missing_images_are_an_error_before_the_model_is_opened(
    run: Run, photographs: Path, data_set: Path
) -> None:
    (photographs / "2.png").unlink()
    ran = run("eval", "no-model.safetensors", "--images", photographs, "--annotations", data_set)
    assert ran.code == 2
    assert "1 of 3 images of" in ran.err
    assert "the first is 2.png" in ran.err


def test_more_detections_may_count_than_coco_counts(run: Run, annotations: Path, tmp_path: Path) -> None:
    shifts = np.linspace(0, 30, 150)
    items = [
        {"image_id": 1, "category_id": 17, "bbox": [shift, 0, 20, 20], "score": 1 - shift / 100}
        for shift in shifts.tolist()
    ]
    both = ("eval", "--detections", write(tmp_path / "r.json", items), "--annotations", annotations)
    assert "--max-detections lifts that" in run(*both).err
    ran = run(*both, "--max-detections", "200", "--json")
    assert "lifts" not in ran.err
    assert "bbox/AR200" in json.loads(ran.out)


def test_scoring_a_results_list_needs_no_torch(annotations: Path, results: Path) -> None:
    words = ["maskrcnn", "eval", "--detections", str(results), "--annotations", str(annotations)]
    code = (
        f"import sys; from maskrcnn.cli.main import main; sys.argv = {words!r}; "
        "import atexit; atexit.register(lambda: print('torch' in sys.modules)); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "False")


def test_views_are_merged_and_their_sides_are_numbers(
    run: Run, model_file: Path, photographs: Path, data_set: Path
) -> None:
    model = ("eval", model_file, "--images", photographs, "--annotations", data_set, "--json")
    single, several = (json.loads(run(*model, *more).out) for more in ((), ("--flip", "--scales", "64,96")))
    assert 0 < several["detections"] != single["detections"]
    ran = run(*model, "--scales", "small")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: --scales small: is no list of pixels")
