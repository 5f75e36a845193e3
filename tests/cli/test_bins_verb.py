"""`maskrcnn bins`: what its verbs print, write and refuse; and the options of export that belong to it."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from commands import Run

from maskrcnn.backends.contracts.ascend import mmdetection_spec


@pytest.fixture
def truth(photographs: Path) -> Path:
    """One cat in each of the three photographs."""
    sizes = {"1.jpg": (60, 90), "2.png": (90, 60), "sub/10.jpg": (40, 40)}
    images = [
        {"id": number, "file_name": name, "height": height, "width": width}
        for number, (name, (height, width)) in enumerate(sizes.items())
    ]
    objects = [
        {
            "id": number + 1,
            "image_id": number,
            "category_id": 17,
            "bbox": [5, 5, 20, 20],
            "area": 400,
            "iscrowd": 0,
            "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]],
        }
        for number in range(3)
    ]
    categories = [{"id": number, "name": name} for number, name in ((17, "cat"), (18, "dog"), (21, "cow"))]
    path = photographs.parent / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return path


def test_images_go_through_files_as_they_go_through_eval(
    run: Run, model_file: Path, photographs: Path, truth: Path, tmp_path: Path
) -> None:
    """The same network input, and so the same numbers: 160 x 160 is padded as `--size` pads."""
    bins, out = tmp_path / "bins", tmp_path / "out"
    ran = run("bins", "write", photographs, bins, "--model", model_file, "--size", "160x160")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"3 written, 3 x 160 x 160 float32   -> {bins}\n"
    assert sorted(path.name for path in bins.iterdir()) == ["1.bin", "2.bin", "sub_10.bin"]
    again = run("bins", "write", photographs, bins, "--model", model_file, "--size", "160x160")
    assert again.out == f"0 written, 3 were there, 3 x 160 x 160 float32   -> {bins}\n"
    ran = run("bins", "run", model_file, bins, out, "--output-dirname", "one", "--compact", "--loop", 2)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "-----------------Performance Summary------------------"
    assert lines[-1] == f"-> {out / 'one'}"
    ran = run("bins", "eval", out, "--annotations", truth, "--json", "--save", tmp_path / "list.json")
    assert ran.code == 0
    found = json.loads(ran.out)
    listed = run("eval", "--detections", tmp_path / "list.json", "--annotations", truth, "--json")
    # Notes name the folder.
    assert found["bbox/AP"] == json.loads(listed.out)["bbox/AP"]
    assert found["detections"] > 100


def test_pure_inference_needs_no_files(run: Run, model_file: Path) -> None:
    ran = run("bins", "run", model_file, "--size", "96x160", "--loop", 2, "--batch", 2)
    assert (ran.code, ran.err) == (0, "")
    (line,) = [line for line in ran.out.splitlines() if line.startswith("throughput (1000*batchsize/")]
    assert float(line.rpartition(": ")[2]) > 0


def test_some_bad_images_end_with_1_and_all_bad_with_2(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path
) -> None:
    (photographs / "1.jpg").write_bytes(b"")
    words = ["--model", model_file, "--size", "96x160"]
    ran = run("bins", "write", photographs, tmp_path / "bins", *words)
    assert ran.code == 1
    assert ran.out.startswith("2 written")
    assert ran.err.splitlines() == [
        f"error: {photographs / '1.jpg'}: is empty (0 bytes)",
        "hint: 1 of 3 images were left out",
    ]
    ran = run("bins", "write", photographs / "1.jpg", tmp_path / "other", *words)
    assert ran.code == 2
    assert "is empty" in ran.err


def test_paths_with_spaces_are_told(run: Run, photographs: Path, tmp_path: Path) -> None:
    photographs.rename(tmp_path / "my photographs")
    ran = run("bins", "write", tmp_path / "my photographs" / "1.jpg", tmp_path / "bins")
    assert ran.code == 0
    assert f"note: 1 paths in {tmp_path / 'bins'}.info have spaces" in ran.err
    assert np.fromfile(tmp_path / "bins" / "1.bin", np.float32).shape == (3 * 1216 * 1216,)


def test_a_number_below_its_limit_ends_with_1(
    run: Run, model_file: Path, photographs: Path, truth: Path, tmp_path: Path
) -> None:
    run("bins", "write", photographs, tmp_path / "bins", "--model", model_file, "--size", "96x160", "--uint8")
    run("bins", "run", model_file, tmp_path / "bins", tmp_path / "out", "--compact")
    ran = run("bins", "eval", tmp_path / "out", "--annotations", truth, "--at-least", "segm/AP=0.9")
    assert ran.code == 1
    assert "below: segm/AP is " in ran.err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("write {photographs} {tmp}/bins --model {model}", "takes images of any size"),
        ("write {photographs} {tmp}/bins --size 1216", "--size 1216: is no HEIGHTxWIDTH"),
        ("write {photographs} {tmp}/bins --model {model} --size 100x160", "100 is no multiple of 32"),
        ("write {photographs}/2.png {tmp}/bins --exact", "--exact: there is no .jpg or .jpeg"),
        ("write {tmp}/none {tmp}/bins", "none: no such file or folder"),
        ("run {model} {tmp}/none {tmp}/out", "none: cannot be read"),
        ("run {model}", "nothing says which the bins have"),
        ("eval {tmp}/none --annotations {tmp}/truth.json", "none: cannot be read"),
        ("eval {photographs} --annotations {tmp}/truth.json", "holds no results"),
        ("eval {photographs} --annotations {tmp}/truth.json --draw", "--draw: there is no folder"),
    ],
)
def test_what_cannot_work_is_told_and_leaves_nothing(
    run: Run, model_file: Path, photographs: Path, tmp_path: Path, words: str, error: str
) -> None:
    before = sorted(tmp_path.iterdir())
    filled = words.format(photographs=photographs, tmp=tmp_path, model=model_file)
    ran = run("bins", *filled.split())
    assert ran.code == 2
    assert error in ran.err
    assert "hint: " in ran.err
    assert "Traceback" not in ran.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("resize", ["opencv", "torch"])
def test_export_prints_the_lines_of_ascends_compiler(
    run: Run, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resize: Any
) -> None:
    """Bytes are no choice where images are resized to fractions of them."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")

    def write_checked(model: str, out: Path, *_: object) -> SimpleNamespace:
        out.write_bytes(bytes(1_000_000))
        return SimpleNamespace(path=out)

    spec = mmdetection_spec()
    spec = replace(spec, preprocess=replace(spec.preprocess, filter=resize))
    monkeypatch.setattr("maskrcnn.stored_spec.stored_spec", lambda _: spec)
    monkeypatch.setattr("maskrcnn.cli.gate.write_checked", write_checked)
    monkeypatch.chdir(tmp_path)
    words = ["--contract", "ascend", "--size", "1216x1216", "--chip", "310P3"]
    ran = run("export", model_file, "m.onnx", *words)
    assert (ran.code, ran.err) == (0, "")
    shape = "--input_format=NCHW --input_shape=input:1,3,1216,1216 --log=info --soc_version=Ascend310P3"
    lines = ["-> m.onnx (1.0 MB)", f"atc --model=m.onnx --framework=5 --output=m {shape}"]
    if resize == "opencv":
        floats = lines[1].replace("--output=m ", "--output=m-bytes ")
        lines.append(f"{floats} --insert_op_conf=m.aipp.cfg")
        assert "    min_chn_0: 123.675\n" in (tmp_path / "m.aipp.cfg").read_text()
    assert ran.out.splitlines() == lines
    assert (tmp_path / "m.aipp.cfg").exists() == (resize == "opencv")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("m.onnx --chip 310P3", "--chip 310P3: is for --contract ascend"),
        ("m.onnx --flavour ascend", "--flavour ascend: is for --contract ascend"),
        ("m.xml --contract ascend --flavour ascend --size 96x160", "m.xml: ascend graphs are .onnx files"),
        ("m.onnx --contract ascend --flavour ascend", "--size is missing"),
        ("m.onnx --contract ascend --plain --size 96x160", "--plain: ascend says already"),
    ],
)
def test_options_of_this_contract_are_refused_elsewhere(
    run: Run, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, error: str
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    ran = run("export", model_file, *words.split())
    assert ran.code == 2
    assert error in ran.err
    assert list(tmp_path.iterdir()) == []


def test_their_operators_are_compared_with_the_model_before_they_are_written(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    ran = run(
        "export",
        model_file,
        tmp_path / "m.onnx",
        "--contract",
        "ascend",
        "--flavour",
        "ascend",
        "--size",
        "96x160",
    )
    assert ran.code == 0, ran.err
    assert "its operators, in torch, on 6 drawn images: " in ran.err
    assert (tmp_path / "m.onnx").exists()


def test_operators_that_find_other_things_leave_no_file_and_end_with_1(
    run: Run, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    from maskrcnn.export.check import Outcome
    from maskrcnn.spec import Check

    monkeypatch.setattr("maskrcnn.export.check.check", lambda *_: Outcome(Check(), "in 3 of 5 detections"))
    words = ["--contract", "ascend", "--flavour", "ascend", "--size", "96x160"]
    ran = run("export", model_file, tmp_path / "m.onnx", *words)
    assert ran.code == 1
    assert "differs from" in ran.err
    assert "in 3 of 5 detections" in ran.err
    assert list(tmp_path.iterdir()) == []
