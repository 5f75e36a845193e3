"""`maskrcnn predict` writes what was asked for, in order, and goes on after a bad image."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from PIL import Image

from maskrcnn import open_model, read_image


def test_each_image_has_a_line_and_a_picture_in_the_order_of_names(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = run("predict", model_file, photographs, "--out", out, "--score", "0.2", "--batch", "2")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    assert [line[0] for line in lines] == ["1.jpg", "2.png", "sub/10.jpg"]
    assert [line[-1] for line in lines] == [f"{out}/1.jpg", f"{out}/2.png", f"{out}/sub/10.jpg"]
    assert all(line[-3] == "ms" and line[-2] == "->" for line in lines)
    assert read_image(out / "2.png").shape == (90, 60, 3)
    assert not np.array_equal(read_image(out / "2.png"), read_image(photographs / "2.png"))


def test_the_coco_list_holds_what_the_library_finds(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    ran = run("predict", model_file, photographs, "--out", tmp_path / "out", "--save", "coco", "--batch", "3")
    assert ran.code == 0
    assert os.listdir(tmp_path / "out") == ["predictions.json"]
    items = json.loads((tmp_path / "out/predictions.json").read_text())
    assert {(item["file_name"], item["image_id"]) for item in items} == {
        ("1.jpg", 1), ("2.png", 2), ("sub/10.jpg", 10)
    }  # fmt: skip
    images = [read_image(photographs / name) for name in ("1.jpg", "2.png", "sub/10.jpg")]
    found = open_model(model_file, batch=3)(images)
    expected = [item for each in found for item in each.to_coco()]
    assert len(items) == len(expected) > 100
    assert [item["segmentation"] for item in items] == [item["segmentation"] for item in expected]
    assert {item["category_id"] for item in items} <= {17, 18, 21}


def test_a_score_that_is_given_holds_for_the_coco_list_too(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    run("predict", model_file, photographs / "1.jpg", "--out", tmp_path, "--save", "coco,json")
    everything = json.loads((tmp_path / "predictions.json").read_text())
    assert json.loads((tmp_path / "1.json").read_text())["detections"] == []
    scores = sorted(item["score"] for item in everything)
    middle = scores[len(scores) // 2]
    run("predict", model_file, photographs / "1.jpg", "--out", tmp_path, "--save", "coco", "--score", middle)
    kept = json.loads((tmp_path / "predictions.json").read_text())
    assert len(kept) == sum(score >= middle for score in scores) < len(scores)


def test_annotations_give_the_image_ids_and_missing_ones_are_told(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    images = [{"id": 77, "file_name": "1.jpg"}, {"id": 78, "file_name": "10.jpg"}]
    (tmp_path / "instances.json").write_text(json.dumps({"images": images}))
    options = ("--save", "coco", "--annotations", tmp_path / "instances.json")
    ran = run("predict", model_file, photographs, "--out", tmp_path / "out", *options)
    items = json.loads((tmp_path / "out/predictions.json").read_text())
    ids = {item["file_name"]: item.get("image_id") for item in items}
    assert ids == {"1.jpg": 77, "2.png": None, "sub/10.jpg": 78}
    assert ran.err.startswith("note: 1 of 3 images are not in")


def test_a_folder_with_one_bad_image_predicts_the_others_names_it_and_exits_with_1(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    (photographs / "3.jpg").write_text("this is no photograph")
    ran = run("predict", model_file, photographs, "--out", tmp_path / "out")
    assert ran.code == 1
    assert [line.split()[0] for line in ran.out.splitlines()] == ["1.jpg", "2.png", "sub/10.jpg"]
    assert ran.err == (
        f"error: {photographs}/3.jpg: is not an image (it starts with b'this is no p')\n"
        "hint: 1 of 4 images were left out\n"
    )
    assert sorted(os.listdir(tmp_path / "out")) == ["1.jpg", "2.png", "sub"]


def test_images_of_one_name_from_two_folders_do_not_overwrite_each_other(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    other = photographs / "other"
    other.mkdir()
    os.link(photographs / "1.jpg", other / "1.jpg")
    out = tmp_path / "out"
    run("predict", model_file, photographs / "1.jpg", other / "1.jpg", "--out", out, "--save", "image,json")
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == {"1.jpg", "1.json", "other/1.jpg", "other/1.json"}


def test_a_picture_never_takes_the_place_of_its_source(run: Run, model_file: Path, photographs: Path) -> None:
    before = (photographs / "1.jpg").read_bytes()
    ran = run("predict", model_file, photographs / "1.jpg", "--out", photographs)
    assert ran.code == 2
    assert "would take the place of" in ran.err
    assert (photographs / "1.jpg").read_bytes() == before


def test_a_picture_of_12000_by_9000_pixels_works(run: Run, model_file: Path, tmp_path: Path) -> None:
    Image.new("RGB", (12000, 9000), (90, 120, 60)).save(tmp_path / "aerial.jpg")
    ran = run("predict", model_file, tmp_path / "aerial.jpg", "--out", tmp_path / "out", "--score", "0.255")
    assert (ran.code, ran.err) == (0, "")
    with Image.open(tmp_path / "out/aerial.jpg") as picture:
        width, height = picture.size
    assert (width, height) == (12000, 9000)


def test_nothing_but_lines_is_printed_on_a_pipe(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    ran = run("predict", model_file, photographs, "--out", tmp_path / "out")
    assert ran.err == ""
    assert "\x1b" not in ran.out
    assert len(ran.out.splitlines()) == 3


def test_a_terminal_shows_speed_and_time_left_and_stdout_keeps_to_the_lines(
    model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    pty = pytest.importorskip("pty")
    terminal, end = pty.openpty()
    arguments = ["maskrcnn", "predict", str(model_file), str(photographs), "--out", str(tmp_path / "out")]
    code = f"import sys; sys.argv = {arguments!r}; from maskrcnn.cli.main import main; main()"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=end,
        env=environment,
        text=True,
        check=True,
    )
    os.close(end)
    shown = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert "images/s" in shown
    assert "0:00:0" in shown
    assert "3/3" in shown
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["1.jpg", "2.png", "sub/10.jpg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--save", "image,movie"), "--save image,movie: there is no `movie`"),
        (("--annotations", "missing.json"), "missing.json: cannot be read"),
        (("--device", "warp9"), "--device warp9"),
    ],
)
def test_an_option_that_cannot_work_is_told_before_anything_is_written(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path, options: tuple[str, str], message: str
) -> None:
    ran = run("predict", model_file, photographs, "--out", tmp_path / "out", *options)
    assert ran.code == 2
    assert message in ran.err
    assert ran.err.count("error:") == 1
    assert ran.out == ""


def test_names_with_spaces_signs_and_line_breaks_work(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    for name in ("two words.jpg", "東京 ü.jpg", "two\nlines.jpg", "[bold]#1%20.jpg"):
        os.link(photographs / "1.jpg", photographs / name)
    ran = run("predict", model_file, photographs, "--out", tmp_path / "out")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 7
    assert (tmp_path / "out/two\nlines.jpg").exists()
