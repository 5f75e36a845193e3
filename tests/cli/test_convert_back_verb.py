"""`maskrcnn convert --to`: what it prints, writes and refuses."""

import json
from pathlib import Path

import pytest
from commands import Run

from maskrcnn.weights.readers import read_checkpoint

TARGETS = "torchvision, detectron2, mmdetection, maskrcnn-benchmark, wts, mindspore"


def test_the_report_is_one_line_then_rows_differences_notes_and_config(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.pkl"
    ran = run("convert", model_file, out, "--to", "detectron2", "--allow-differences")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith("detectron2 R18-FPN, 3 classes · ")
    tensors = read_checkpoint(out).tensors
    assert f" · {len(tensors)} tensors · " in lines[0]
    rows = [line.split() for line in lines if line.startswith("  ") and line.split()[0].isdigit()]
    assert sum(int(row[0]) for row in rows) == len(tensors)
    assert ["2", "rpn.conv1.{parameter}", "proposal_generator.rpn_head.conv.{parameter}"] in rows
    differences = [line for line in lines if line.startswith("difference: ")]
    assert f" · {len(differences)} differences · " in lines[0]
    assert "difference: preprocess.filter opencv, pillow there" in differences
    assert "note: the background is the last output, output 0 is cat" in lines
    assert "    _BASE_: Base-RCNN-FPN.yaml" in lines
    assert lines[-1] == f"-> {out}"


def test_the_whole_report_as_json(run: Run, model_file: Path, tmp_path: Path) -> None:
    arguments = ("convert", model_file, tmp_path / "x.pth", "--to", "mmdetection", "--allow-differences")
    report = json.loads(run(*arguments, "--json").out)
    assert report["target"] == "mmdetection"
    assert report["architecture"] == "R18-FPN"
    assert report["config"].startswith("_base_ = 'mask-rcnn_r50_fpn_1x_coco.py'")
    assert len(report["sha256"]) == 64
    assert report["spec"]["classes"]["names"] == ["cat", "dog", "cow"]
    assert "preprocess.size_rule detectron2, mmdetection there" in report["differences"]


def test_differences_need_a_yes(run: Run, model_file: Path, tmp_path: Path) -> None:
    ran = run("convert", model_file, tmp_path / "x.pkl", "--to", "detectron2")
    assert (ran.code, ran.out) == (2, "")
    assert "settings have no place in detectron2: " in ran.err
    assert "hint: --allow-differences " in ran.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (("x.pth", "--to", "keras"), "--to keras: is no known target", f"choose {TARGETS}"),
        (("x.onnx", "--to", "detectron2"), "ends in .pkl or .pth", "x.pkl"),
        (("x.pkl", "--to", "torchvision"), "ends in .pth", "x.pth"),
        (("x", "--to", "wts"), "a wts checkpoint ends in .wts", "x.wts"),
        (("x.pth", "--to", "mindspore"), "ends in .ckpt", "x.ckpt"),
        (("no/x.pth", "--to", "torchvision"), "there is no folder", "make it first"),
        (
            ("x.pth", "--to", "torchvision", "--from", "detectron2"),
            "--from does not go with --to",
            "model file",
        ),
        (
            ("x.pth", "--to", "torchvision", "--style", "caffe", "--set", "a=b", "--ema"),
            "--style, --ema, --set do not go with --to torchvision",
            "convert its checkpoint again",
        ),
        (("x.pth", "--to", "torchvision", "--classes", "coco"), "--classes does not go", "model file"),
        (
            ("x.pth", "--to", "torchvision", "--source-config", "x.yaml"),
            "--source-config does not",
            "model file",
        ),
        (("x.safetensors", "--allow-differences"), "--allow-differences goes with --to", "--to"),
    ],
)
def test_mistakes_are_told(
    run: Run, model_file: Path, tmp_path: Path, arguments: tuple[str, ...], error: str, hint: str
) -> None:
    out, *rest = arguments
    ran = run("convert", model_file, tmp_path / out, *rest)
    assert (ran.code, ran.out) == (2, "")
    told = dict(line.split(": ", 1) for line in ran.err.splitlines())
    assert error in told["error"]
    assert hint in told["hint"]
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_tool_is_no_model_file(run: Run, model_file: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "x.pkl"
    run("convert", model_file, checkpoint, "--to", "detectron2", "--allow-differences")
    ran = run("convert", checkpoint, tmp_path / "y.pth", "--to", "torchvision")
    assert ran.code == 2
    assert "is a checkpoint of another tool" in ran.err
    assert f"maskrcnn convert {checkpoint}" in ran.err


def test_a_model_file_is_not_written_over(run: Run, model_file: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(model_file.read_bytes())
    (tmp_path / "x.pth").symlink_to(model)
    ran = run("convert", model, tmp_path / "x.pth", "--to", "torchvision")
    assert ran.code == 2
    assert "is the model file itself" in ran.err
    assert model.read_bytes() == model_file.read_bytes()


def test_help_names_both_ways(run: Run) -> None:
    text = " ".join(run("convert", "--help").out.split())
    assert (
        "Make a model file of another tool's checkpoint, or with --to such a checkpoint of a model file."
        in text
    )
    for target in TARGETS.split(", "):
        assert target in text
