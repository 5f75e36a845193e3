"""Lines and files of MindSpore's RCNN that its users' scripts search are as it writes them."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn.compat.mindspore_log import LoggedRun, RcnnLog, coco_table
from maskrcnn.compat.mindspore_results import files_of_processes, lone_file, write_results
from maskrcnn.evaluation.ground_truth import read_ground_truth
from maskrcnn.evaluation.metrics import coco_names
from maskrcnn.training.progress import Line, Silent

LOSSES: Line = {
    "rpn_objectness": 0.25,
    "rpn_deltas": 0.125,
    "box_classes": 0.5,
    "box_deltas": 0.0625,
    "mask": 0.75,
    "total": 1.6875,
    "images_per_second": 8.0,
    "learning_rate": 0.02,
}


def watched(folder: Path, exact: bool = False) -> tuple[LoggedRun, list[str]]:
    """A run of 4 passes of 30 batches of 2 images, and what it tells."""
    told: list[str] = []
    run = LoggedRun(Silent(), RcnnLog.begun(folder, told.append), epochs=4.0, batch=2, exact=exact)
    run.begins(0, 120)
    return run, told


def test_a_line_on_losses_has_their_words_sums_and_milliseconds_a_step(tmp_path: Path) -> None:
    run, told = watched(tmp_path)
    run.line({"step": 50} | LOSSES, 120)
    # 0.25 + 0.125 of the proposals, 0.5 + 0.0625 + 0.75 of boxes and masks; 2 images at 8 a second
    assert told[-1].partition(" [INFO] ")[2] == (
        "Epoch 2/4, step 20/30, loss: 1.6875, loss_rpn: 0.3750, loss_rcnn: 1.3125, cost 250.00 ms"
    )


def test_the_last_step_of_a_pass_is_its_own_number_and_with_exact_theirs(tmp_path: Path) -> None:
    for exact, expected in ((False, "Epoch 2/4, step 30/30,"), (True, "Epoch 2/4, step 0/30,")):
        run, told = watched(tmp_path, exact)
        run.line({"step": 60} | LOSSES, 120)
        assert expected in told[-1]


def test_the_file_has_the_lines_with_time_and_level_and_their_name(tmp_path: Path) -> None:
    _, told = watched(tmp_path)
    (path,) = (tmp_path / "logs").iterdir()
    assert re.fullmatch(r"RCNN_\d{4}-\d\d-\d\d_time_\d\d_\d\d_\d\d_rank_0\.log", path.name)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[INFO\] Start Training\n", path.read_text(encoding="utf-8")
    )
    assert path.read_text(encoding="utf-8") == f"{told[0]}\n"


def test_a_run_without_a_speed_has_an_endless_cost(tmp_path: Path) -> None:
    run, told = watched(tmp_path)
    run.line({"step": 1} | LOSSES | {"images_per_second": 0.0}, 120)
    assert told[-1].endswith("cost inf ms")


TRUTH: dict[str, Any] = {
    "images": [
        {"id": number, "file_name": f"{number}.png", "width": 90, "height": 90} for number in (4, 7, 9)
    ],
    "categories": [{"id": 30, "name": "dark"}, {"id": 5, "name": "bright"}],
    "annotations": [
        {"id": 1, "image_id": 4, "category_id": 30, "bbox": [0, 0, 40, 40], "area": 1600, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
    ],
}
FOUND = [
    {"image_id": 4, "category_id": 30, "bbox": [0, 0, 40, 30], "score": 0.9},
    {"image_id": 7, "category_id": 5, "bbox": [0, 0, 10, 10], "score": 0.8},
    {"image_id": 9, "category_id": 5, "bbox": [0, 0, 10, 10], "score": 0.7},
    {"image_id": 4, "category_id": 5, "bbox": [0, 0, 10, 10], "score": 0.6},
]


def test_the_table_is_pycocotools_own(tmp_path: Path) -> None:
    """No object is large: COCO has -1 there, and ours nothing."""
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    printed = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "truth.json"))
        measured = COCOeval(truth, truth.loadRes([dict(each) for each in FOUND]), "bbox")
        measured.evaluate()
        measured.accumulate()
    with contextlib.redirect_stdout(printed):
        measured.summarize()
    numbers: dict[str, float | None] = {
        f"bbox/{name}": None if value < 0 else float(value)
        for name, value in zip(coco_names(100), measured.stats, strict=True)
    }
    assert numbers["bbox/APl"] is None and numbers["bbox/AP50"] == pytest.approx(1)
    headline = "\n=============coco eval bbox result=========\n"
    assert coco_table("bbox", numbers) == headline + printed.getvalue()


def test_an_evaluation_in_a_run_is_two_tables(tmp_path: Path) -> None:
    run, told = watched(tmp_path)
    run.line({"step": 60, "bbox/AP": 0.378, "segm/AP": 0.34}, 0)
    assert "coco eval bbox" in told[-2] and "maxDets=100 ] = 0.378\n" in told[-2]
    assert "coco eval segm" in told[-1] and "maxDets=100 ] = 0.340\n" in told[-1]


def test_each_process_has_the_results_of_every_nth_image(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "found.json").write_text("[\n" + ",\n".join(map(json.dumps, FOUND)) + "\n]\n")
    paths = files_of_processes(tmp_path, Path("x_epoch12_rank0.ckpt"), 2, alone=True)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        f"eval_parallel/eval_epoch0-step0/epoch0-step0-rank{rank}.json" for rank in (0, 1)
    ]
    write_results(tmp_path / "found.json", paths, read_ground_truth(tmp_path / "truth.json"))
    first, second = (json.loads(path.read_text()) for path in paths)
    assert [item["image_id"] for item in first] == [4, 9, 4]
    # the label is the place of the category's number among all
    assert second == [FOUND[1] | {"label_id": 0}]
    assert [item["label_id"] for item in first] == [1, 0, 0]


def test_a_process_that_finds_nothing_has_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "found.json").write_text("[]\n")
    paths = files_of_processes(tmp_path, Path("x.ckpt"), 2, alone=True)
    write_results(tmp_path / "found.json", paths, read_ground_truth(tmp_path / "truth.json"))
    assert [json.loads(path.read_text()) for path in paths] == [[], []]


@pytest.mark.parametrize(("name", "folder"), [("M_epoch12_rank0.ckpt", "eval_epoch12-step0")])
def test_results_of_several_checkpoints_lie_apart(name: str, folder: str) -> None:
    (path,) = files_of_processes(Path("out"), Path(name), 1, alone=False)
    assert path.parent.name == folder


def test_results_of_one_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first = lone_file(tmp_path)
    first.parent.mkdir()
    first.touch()
    second = lone_file(tmp_path)
    assert second != first and re.fullmatch(r"predict(_\d\d\d?\d?){6}\.json", second.name)
