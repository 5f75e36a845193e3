"""What a conversion writes, reports and refuses."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from frameworks import SMALL, SMALL_GN, Plan, detectron2_file, detectron2_shapes, filled, mmdetection_file
from typer.testing import CliRunner

from maskrcnn import presets
from maskrcnn.backends.pytorch import open_pytorch
from maskrcnn.cli.convert import convert as convert_command
from maskrcnn.errors import UserError
from maskrcnn.weights.convert import Report, convert
from maskrcnn.weights.model_file import read_model_file


@pytest.fixture
def converted(tmp_path: Path) -> Callable[..., Report]:
    """Convert in a temporary folder."""
    return lambda source, **arguments: convert(source, tmp_path / "out.safetensors", **arguments)


Converted = Callable[..., Report]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"depth": 18},
        {"neck": "c4"},
        {"neck": "dc5"},
        {"agnostic": True},
        {"groups": 2, "group_width": 4, "rpn_convs": 2, "classes": 1},
        SMALL_GN,
        {"norm": "bn", "head_norm": "bn", "fcs": 1, "box_convs": 4},
    ],
)
def test_a_converted_file_opens_runs_and_has_every_value(
    tmp_path: Path, converted: Converted, changes: dict[str, Any]
) -> None:
    source = detectron2_file(tmp_path / "x.pkl", **changes)
    report = converted(source, settings=["model.rpn.post_nms=20", "model.rpn.pre_nms=40"])
    _, ours = read_model_file(tmp_path / "out.safetensors")
    theirs = filled(detectron2_shapes(Plan(**{**SMALL, **changes})))
    assert report.tensors == len(theirs) == sum(row.tensors for row in report.rows)
    assert sum(float(array.sum()) for array in ours.values()) == pytest.approx(
        sum(float(array.sum()) for array in theirs.values()), rel=1e-4
    )
    raw = open_pytorch(tmp_path / "out.safetensors", device="cpu").run(
        np.zeros((1, 3, 64, 96), np.uint8), np.array([[64, 96]])
    )
    assert raw.boxes.shape == (1, 100, 4)


def test_settings_come_last(tmp_path: Path, converted: Converted) -> None:
    settings = ["model.rpn.post_nms=300", "preprocess.short=320", "model.std=[2,2,2]"]
    spec = converted(detectron2_file(tmp_path / "x.pkl"), settings=settings).spec
    assert (spec.model.rpn.post_nms, spec.preprocess.short, spec.model.std) == (300, 320, (2.0, 2.0, 2.0))


def test_class_names_come_from_lines_a_list_or_categories(tmp_path: Path, converted: Converted) -> None:
    source = detectron2_file(tmp_path / "x.pkl")
    names = ("a", "b", "c", "d", "e")
    (tmp_path / "names.txt").write_text("a\nb\r\nc\n\nd\ne\n", encoding="utf-8")
    (tmp_path / "names.json").write_text(json.dumps(names))
    categories = [{"id": 9 - number, "name": name} for number, name in enumerate(reversed(names))]
    (tmp_path / "coco.json").write_text(json.dumps({"images": [], "categories": categories}))
    for file in ("names.txt", "names.json"):
        assert converted(source, classes=tmp_path / file).spec.classes == presets.Classes(
            names, (1, 2, 3, 4, 5)
        )
    assert converted(source, classes=tmp_path / "coco.json").spec.classes == presets.Classes(
        names, (5, 6, 7, 8, 9)
    )
    report = converted(source)
    assert report.spec.classes.names == ("class 1", "class 2", "class 3", "class 4", "class 5")
    assert any("--classes" in note for note in report.notes)
    with pytest.raises(UserError, match="has 80 names where the model has 5 classes"):
        converted(source, classes="coco")


def edited(path: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> Path:
    """A small detectron2 checkpoint after `change` of its state dict."""
    state = filled(detectron2_shapes(Plan(**SMALL)))
    change(state)
    path.write_bytes(pickle.dumps({"model": state}))
    return path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda state: state.pop("backbone.bottom_up.res3.1.conv2.weight"),
            "backbone.bottom_up.res3.1.conv2.weight is missing from a R50-FPN",
        ),
        (
            lambda state: [state.pop(name) for name in list(state) if "fc2" in name or "fc1.bias" in name],
            "roi_heads.box_head.fc1.bias is missing",
        ),
        (
            lambda state: state.update({"roi_heads.keypoint_head.conv1.weight": np.ones(1)}),
            "roi_heads.keypoint_head.conv1.weight is not part of a Mask R-CNN",
        ),
        (
            lambda state: state.update({"roi_heads.box_head.fc1.weight": np.ones((24, 700), np.float32)}),
            "roi_heads.box_head.fc1.weight is 24 x 700 where a R50-FPN has 24 x 576",
        ),
        (
            lambda state: state.update(
                {
                    "proposal_generator.rpn_head.objectness_logits.weight": np.ones(
                        (9, 16, 1, 1), np.float32
                    ),
                    "proposal_generator.rpn_head.objectness_logits.bias": np.ones(9, np.float32),
                }
            ),
            "weight is 9 x 16 x 1 x 1 where a R50-FPN has 3 x 16 x 1 x 1, and 1 more differ",
        ),
        (
            lambda state: [state.pop(name) for name in list(state) if "mask_head" in name],
            "roi_heads.mask_head.deconv.weight is missing",
        ),
        (
            lambda state: [
                state.pop(name) for name in list(state) if name != "backbone.bottom_up.stem.conv1.weight"
            ],
            "are of no known Mask R-CNN",
        ),
    ],
)
def test_a_wrong_checkpoint_names_the_key_and_leaves_no_file(
    tmp_path: Path, converted: Converted, change: Callable[[dict[str, np.ndarray]], Any], sentence: str
) -> None:
    source = edited(tmp_path / "x.pkl", change)
    with pytest.raises(UserError, match=sentence) as caught:
        converted(source)
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["x.pkl"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["rpn.objectness.weight"], "is a maskrcnn model already"),
        (["bbox_head.fc_cls.weight"], "mmdetection 1.x"),
        (["roi_heads.box.predictor.cls_score.weight"], "maskrcnn-benchmark"),
        (["conv1_w"], "bare trunk of Detectron"),
        (["conv1_w", "cls_score_w"], "detector of Detectron of another kind"),
        (["layer1.0.conv1.weight"], "bare trunk"),
        (["something.weight"], "something.weight, .... are of no known Mask R-CNN"),
    ],
)
def test_other_known_files_are_called_what_they_are(
    tmp_path: Path, converted: Converted, names: list[str], sentence: str
) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({name: np.ones(1) for name in names}))
    with pytest.raises(UserError, match=sentence):
        converted(tmp_path / "x.pkl")


def test_a_source_named_by_hand_says_what_is_missing(tmp_path: Path, converted: Converted) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"rpn.head.cls_logits.weight": np.ones((3, 4, 1, 1))}))
    with pytest.raises(UserError, match=r"roi_heads.box_predictor.cls_score.weight, .* are missing"):
        converted(tmp_path / "x.pkl", origin="torchvision")


@pytest.mark.parametrize(
    ("out", "arguments", "sentence"),
    [
        ("x.onnx", {}, "a model file ends in .safetensors"),
        ("folder.safetensors", {}, "is a folder"),
        ("absent/x.safetensors", {}, "there is no folder"),
        ("x.safetensors", {"origin": "keras"}, "--from keras: is no known source"),
        ("x.safetensors", {"style": "tensorflow"}, "--style tensorflow: is no style"),
        ("x.safetensors", {"settings": ["model.rpn.post_mns=3"]}, "did you mean `post_nms`"),
        ("x.safetensors", {"settings": ["model.rpn.post_nms=many"]}, "post_nms"),
        ("x.safetensors", {"classes": "absent.txt"}, "cannot be read"),
        ("x.safetensors", {"source_config": "absent.yaml"}, "cannot be read as a config"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(
    tmp_path: Path, out: str, arguments: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    source = detectron2_file(tmp_path / "x.pkl")
    with pytest.raises(UserError, match=sentence) as caught:
        convert(source, tmp_path / out, **arguments)
    assert caught.value.hint
    assert not (tmp_path / "x.safetensors").exists()


def test_a_checkpoint_is_never_overwritten_by_its_own_model(tmp_path: Path) -> None:
    source = detectron2_file(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is the checkpoint itself"):
        convert(source, tmp_path / "x.safetensors")


def run(*arguments: str) -> Any:
    """The command alone, without the rest of the command line."""
    app = typer.Typer()
    app.command()(convert_command)
    return CliRunner().invoke(app, arguments)


def test_the_command_prints_source_rows_conventions_and_sha256(tmp_path: Path) -> None:
    source, out = detectron2_file(tmp_path / "x.pkl"), tmp_path / "out.safetensors"
    shown = run(str(source), str(out), "--set", "preprocess.short=320")
    assert shown.exit_code == 0
    assert (
        "detectron2 R50-FPN, 5 classes, BGR, pillow resize 320/1333 · 307 tensors, every one placed"
        in shown.output
    )
    assert "  208  " in shown.output
    assert "backbone.res{s}.{b}.{layer}.norm.{statistic}" in shown.output
    assert "conventions: plus_one False" in shown.output
    assert out.exists()


def test_the_command_prints_the_report_as_json(tmp_path: Path) -> None:
    source, out = mmdetection_file(tmp_path / "x.pth"), tmp_path / "out.safetensors"
    shown = json.loads(
        run(str(source), str(out), "--style", "caffe", "--from", "mmdetection", "--json").stdout
    )
    assert (shown["source"], shown["architecture"], shown["tensors"]) == ("mmdetection", "R50-FPN bn", 360)
    assert sum(row["tensors"] for row in shown["rows"]) == 360
    assert shown["conventions"]["clamp_shrinking"] is True
    assert len(shown["sha256"]) == 64
    assert shown["spec"]["preprocess"]["channels"] == "bgr"
    spec, _ = read_model_file(out)
    assert (spec.origin.source, spec.origin.file, spec.origin.sha256) == (
        "mmdetection",
        "x.pth",
        shown["sha256"],
    )
