"""`maskrcnn quantize`: what it writes and says, its exit codes, and what it refuses."""

import errno
import json
import sys
from pathlib import Path

import pytest
from commands import Run

from maskrcnn.cli.quantize import lines, spread
from maskrcnn.export.check import Outcome
from maskrcnn.export.parts import export_parts
from maskrcnn.export.quantize import Kept, Made
from maskrcnn.images import ImageFile
from maskrcnn.spec import Check
from maskrcnn.stored_spec import stored_spec

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def parts(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model as parts for ONNX Runtime."""
    path = tmp_path_factory.mktemp("parts") / "tiny.parts"
    export_parts(model_file, path)
    return path


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "photographs")


def test_a_model_becomes_an_int8_one_that_says_so(
    run: Run, parts: Path, photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "int8.parts"
    ran = run("quantize", parts, out, "--calibrate", photographs, "--threads", 1, "--tolerance", 5)
    assert ran.code == 0, ran.err
    first, *kept, checked, last = ran.out.splitlines()
    assert first.startswith("26 of 30 layers in int8 for ONNX Runtime, calibrated on 3 images, 3.6 -> ")
    assert kept[0].startswith(
        "kept in f32: rpn.objectness, rpn.deltas, mask_head.logits (ONNX Runtime would "
    )
    assert checked.startswith("checked on 3 images and ")
    assert last == f"-> {out}"
    spec = stored_spec(out)
    assert spec.precision == "int8"
    assert spec.exported is not None and spec.exported.check is not None
    assert run("predict", out, photographs, "--out", tmp_path / "found", "--threads", 1).code == 0


def test_json_holds_layers_and_check(run: Run, parts: Path, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.parts"
    words = ("--calibrate", photographs, "--images-limit", 1, "--keep", "box_head.fc1", "--json")
    ran = run("quantize", parts, out, *words, "--threads", 1, "--tolerance", 5)
    told = json.loads(ran.out)
    assert (ran.code, told["file"], told["passed"], told["images"]) == (0, str(out), True, 1)
    assert "rpn.conv1" in told["layers"] and "box_head.fc1" not in told["layers"]
    assert {"layer": "box_head.fc1", "reason": "as you asked"} in told["kept"]


def test_a_model_that_finds_too_little_is_kept_under_another_name(
    run: Run, parts: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskrcnn.export.gate.check", lambda *_: Outcome(Check(), "misses 3 of 4 objects"))
    ran = run("quantize", parts, tmp_path / "int8.parts", "--calibrate", photographs, "--threads", 1)
    assert ran.code == 1
    assert "error: " in ran.err and "misses 3 of 4 objects; kept as " in ran.err
    assert files_in(tmp_path) == ["int8.parts.rejected"]


def test_a_full_disk_leaves_nothing(
    run: Run, parts: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("maskrcnn.export.quantize.Calibrated.write", refuse)
    ran = run("quantize", parts, tmp_path / "int8.parts", "--calibrate", photographs)
    assert ran.code == 2
    assert "int8.parts: cannot be written (No space left on device)" in ran.err
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["OUT.parts", "--calibrate", "nowhere"], "nowhere"),
        (["PARTS", "--calibrate", "PHOTOGRAPHS"], "is the model itself"),
        (["OUT.onnx", "--calibrate", "PHOTOGRAPHS"], "no .onnx can be made of it"),
        (["OUT.txt", "--calibrate", "PHOTOGRAPHS"], "a quantised model is written as .xml, .onnx, .parts"),
        (["OUT.parts", "--calibrate", "PHOTOGRAPHS", "--keep", "fc1"], "--keep fc1: there is no such layer"),
        (["OUT.parts", "--calibrate", "PHOTOGRAPHS", "--max-drop", "1"], "there is nothing to measure on"),
        (["OUT.parts", "--calibrate", "PHOTOGRAPHS", "--symmetric"], "OUT.parts is no .onnx"),
    ],
)
def test_what_the_user_must_change(
    run: Run, parts: Path, photographs: Path, tmp_path: Path, words: list[str], error: str
) -> None:
    known = {"PARTS": parts, "PHOTOGRAPHS": photographs, "nowhere": tmp_path / "nowhere"}
    given = [known.get(word, tmp_path / word if word.startswith("OUT") else word) for word in words]
    ran = run("quantize", parts, *given)
    assert ran.code == 2
    assert ran.err.count("error: ") == 1 and error in ran.err
    assert "hint: " in ran.err and "Traceback" not in ran.err
    assert files_in(tmp_path) == []


def test_a_damaged_image_is_named(run: Run, parts: Path, photographs: Path, tmp_path: Path) -> None:
    (photographs / "3.jpg").write_bytes(b"\xff\xd8\xff no more")
    ran = run("quantize", parts, tmp_path / "int8.parts", "--calibrate", photographs)
    assert ran.code == 2
    assert "3.jpg" in ran.err
    assert files_in(tmp_path) == []


def test_without_nncf_it_is_said_how_to_install_it(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "maskrcnn.export.quantize_openvino", raising=False)
    monkeypatch.setitem(sys.modules, "nncf", None)
    ran = run("quantize", model_file, tmp_path / "int8.xml", "--calibrate", photographs)
    assert ran.code == 2
    assert "this needs nncf, which is not installed" in ran.err
    assert 'pip install "maskrcnn[quantize]"' in ran.err


def test_layers_that_stay_float32_for_the_same_reason_are_told_together() -> None:
    kept = (Kept("a", "too bad"), Kept("b", "as you asked"), Kept("c", "too bad"))
    assert lines(Made("OpenVINO", ("d",), kept, 1, 1.0, 4.0)) == [
        "1 of 4 layers in int8 for OpenVINO, calibrated on 1 image, 4.0 -> 1.0 MB",
        "kept in f32: a, c (too bad)",
        "kept in f32: b (as you asked)",
    ]


def test_a_limit_takes_images_from_all_over_the_folder() -> None:
    files = [ImageFile(Path(str(number)), str(number)) for number in range(10)]
    assert [file.name for file in spread(files, 3)] == ["0", "3", "6"]
    assert spread(files, 20) == files
