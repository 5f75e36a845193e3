"""`maskrcnn compare`: tables, JSON, exit codes, and what it refuses."""

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import Run

from maskrcnn.agreement import Agreement, Single, Tolerance
from maskrcnn.cli.compare import lines
from maskrcnn.compare import Compared, Report, Setting
from maskrcnn.predict import Predictor, open_model
from maskrcnn.spec import Classes
from maskrcnn.weights.model_file import read_model_file, write_model_file


@pytest.fixture
def changed(model_file: Path, tmp_path: Path) -> Path:
    """The model with one weight of res4 changed."""
    spec, state = read_model_file(model_file)
    state["backbone.res4.1.conv1.weight"][3, 5] += 1
    path = tmp_path / "changed.safetensors"
    write_model_file(path, spec, state)
    return path


def test_a_model_is_the_same_as_itself(run: Run, model_file: Path, photographs: Path) -> None:
    ran = run("compare", model_file, model_file, photographs, "--tolerance", "0", "--box-tolerance", "0")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1].startswith("same: ")
    assert "in 3 images, boxes within 0 px" in ran.out


def test_the_first_stage_that_differs_is_marked_and_the_exit_code_is_1(
    run: Run, model_file: Path, changed: Path, photographs: Path
) -> None:
    ran = run("compare", model_file, changed, photographs, "--stages")
    assert (ran.code, ran.err) == (1, "")
    table = ran.out.split("\n\n")[1].splitlines()
    marks = {line[1:].split()[0]: line[0] for line in table}
    assert (marks["res3"], marks["res4"], marks["res5"]) == (" ", ">", "!")
    assert ran.out.splitlines()[-1].startswith("same up to res3; res4 differs: ")
    assert ran.out.splitlines()[-1].endswith("given the same inputs no other stage differs")


def test_a_wider_tolerance_lets_a_difference_pass(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    spec, state = read_model_file(model_file)
    # A logit that grows by 0.02 changes a score of 0.25 by 0.25 * 0.75 * 0.02 = 0.004.
    state["box_head.scores.bias"][0] += 0.02
    write_model_file(tmp_path / "other.safetensors", spec, state)
    arguments = ("compare", model_file, tmp_path / "other.safetensors", photographs / "1.jpg")
    ran = run(*arguments, "--json")
    assert ran.code == 1
    found = json.loads(ran.out)["detections"]
    assert found["matched"] > 20
    assert found["score"]["worst"] == pytest.approx(0.004, abs=0.001)
    assert run(*arguments, "--tolerance", "0.01").code == 0


def test_json_holds_the_whole_report_on_stdout(
    run: Run, model_file: Path, changed: Path, photographs: Path
) -> None:
    ran = run("compare", model_file, changed, photographs, "--stages", "--json")
    told = json.loads(ran.out)
    assert (ran.code, ran.err) == (1, "")
    assert (told["same"], told["a"], told["unreadable"]) == (False, str(model_file), [])
    assert [image["image"] for image in told["images"]] == ["1.jpg", "2.png", "sub/10.jpg"]
    stages = {stage["name"]: stage for stage in told["stages"]}
    assert stages["res3"]["as_run"]["largest"] == 0
    assert stages["res4"]["by_itself"]["largest"] == stages["res4"]["as_run"]["largest"] > 0
    assert told["tolerance"] == {"relative": 1e-3, "box": 0.5, "score": 0.1}


def test_settings_that_differ_are_printed(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    spec, state = read_model_file(model_file)
    other = replace(spec, preprocess=replace(spec.preprocess, filter="pillow"))
    write_model_file(tmp_path / "other.safetensors", other, state)
    ran = run("compare", model_file, tmp_path / "other.safetensors", photographs / "1.jpg")
    assert "  preprocess.filter   opencv -> pillow" in ran.out.splitlines()


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_compared(
    run: Run, model_file: Path, photographs: Path
) -> None:
    (photographs / "3.jpg").write_text("not a photograph")
    ran = run("compare", model_file, model_file, photographs, "--json")
    assert ran.code == 1
    assert "3.jpg" in ran.err
    assert "hint: 1 of 4 images were left out" in ran.err
    told = json.loads(ran.out)
    assert (told["same"], len(told["images"]), len(told["unreadable"])) == (True, 3, 1)


def test_without_a_readable_image_nothing_is_printed_on_stdout(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.jpg").write_text("not a photograph")
    ran = run("compare", model_file, model_file, tmp_path / "notes.jpg")
    assert (ran.code, ran.out) == (2, "")
    assert [line.split(":")[0] for line in ran.err.splitlines()] == ["error", "hint"]


def test_what_is_no_model_or_no_image_is_told(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.safetensors").write_text("not a model at all")
    for arguments, word in (
        ((tmp_path / "text.safetensors", model_file, photographs), "text.safetensors"),
        ((model_file, tmp_path / "missing.safetensors", photographs), "missing.safetensors"),
        ((model_file, model_file, tmp_path / "missing.jpg"), "missing.jpg"),
        ((model_file, model_file, photographs, "--tolerance", "inf"), "--tolerance inf"),
    ):
        ran = run("compare", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert [line.split(":")[0] for line in ran.err.splitlines()] == ["error", "hint"]
        assert word in ran.err


def test_images_of_an_archive_are_compared_and_a_video_is_refused(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "photographs.zip", "w") as archive:
        archive.write(photographs / "1.jpg", "1.jpg")
    told = json.loads(run("compare", model_file, model_file, tmp_path / "photographs.zip", "--json").out)
    assert [image["image"] for image in told["images"]] == ["1.jpg"]
    (tmp_path / "street.mp4").touch()
    ran = run("compare", model_file, model_file, photographs, tmp_path / "street.mp4")
    assert (ran.code, ran.out) == (2, "")
    assert "street.mp4: is no image but a video" in ran.err


def test_nothing_found_by_both_is_no_agreement(run: Run, model_file: Path, photographs: Path) -> None:
    ran = run("compare", model_file, model_file, photographs, "--score", "1")
    assert ran.code == 1
    assert "neither model finds anything in 3 images: nothing was compared" in ran.out
    assert run("compare", model_file, model_file, photographs, "--score", "1", "--stages").code == 0


def test_objects_that_only_one_finds_are_listed_with_what_the_other_has_there(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    spec, state = read_model_file(model_file)
    other = replace(spec, classes=Classes(("dog", "cat", "cow")))
    write_model_file(tmp_path / "renamed.safetensors", other, state)
    ran = run("compare", model_file, tmp_path / "renamed.safetensors", photographs / "1.jpg")
    assert ran.code == 1
    printed = ran.out.splitlines()
    assert any(
        re.fullmatch(r"  only in A cat 0\.\d\d at [0-9, ]+ \(1.jpg\), B has dog there", line)
        for line in printed
    )
    assert any(
        re.fullmatch(r"  only in B cat 0\.\d\d at [0-9, ]+ \(1.jpg\), A has dog there", line)
        for line in printed
    )


def test_a_long_list_of_single_objects_is_cut() -> None:
    singles = tuple(Single("cat", 0.5, (0.0, 0.0, 9.4, 9.6), "") for _ in range(12))
    images = (Compared("1.jpg", (), Agreement((), singles, ())),)
    printed = lines(Report("a", "b", Tolerance(), (Setting("classes.ids", (1, 2, 3, 4, 5), (1, 2)),), images))
    assert "  classes.ids         5: 1, 2, 3, ... -> (1, 2)" in printed
    assert printed.count("  only in A cat 0.50 at 0, 0, 9, 10 (1.jpg)") == 10
    assert "  and 2 more" in printed


def test_an_engine_that_tells_no_stages_is_named_and_what_is_found_is_compared(
    run: Run, model_file: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_whole(path: str, device: str, *_: object) -> Predictor:
        backend = open_model(path, device).backend
        return Predictor(SimpleNamespace(spec=backend.spec, run=backend.run))  # type: ignore[arg-type]

    monkeypatch.setattr("maskrcnn.predict.open_model", open_whole)
    ran = run("compare", model_file, model_file, photographs, "--stages")
    assert ran.code == 0
    assert f"note: {model_file} tells only its final result, so that is what is compared" in ran.err
    assert "res4" not in ran.out
    assert ran.out.splitlines()[-1].startswith("same: ")
