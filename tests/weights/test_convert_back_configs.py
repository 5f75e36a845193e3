"""The configs that a written checkpoint comes with say what the model file says."""

import ast
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from frameworks import SMALL_GN, detectron2_file, mmdetection_file
from lineage import maskrcnn_benchmark_file

from maskrcnn.config import AnchorConfig, SoftNMSConfig
from maskrcnn.spec import Classes, Spec
from maskrcnn.weights.convert import convert
from maskrcnn.weights.convert_back import BackReport, convert_back
from maskrcnn.weights.model_file import read_model_file, write_model_file
from maskrcnn.weights.own_config import literals
from maskrcnn.weights.readers import read_checkpoint

TRAINING = ("training", "batch", "foreground", "background", "positive", "beta")


def leaves(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted path: value, without what only training reads."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{path}{key}.")
        elif not any(word in key for word in TRAINING):
            found[f"{path}{key}"] = value
    return found


def settings(spec: Spec) -> dict[str, Any]:
    return leaves({"model": asdict(spec.model), "preprocess": asdict(spec.preprocess)})


def edited(path: Path, *, soft: bool = False, **conventions: Any) -> Spec:
    """The model file with other thresholds, anchors, normalisation, sizes and class names."""
    spec, tensors = read_model_file(path)
    model = spec.model
    box = replace(
        model.box_head, score_over=0.2, nms_iou=0.4, detections=30, delta_weights=(8.0, 8.0, 4.0, 4.0)
    )
    if soft:
        box = replace(box, soft_nms=SoftNMSConfig("gaussian", sigma=0.25, min_score=0.01))
    scale = 0.5 if len(model.anchors.sizes) == 1 else 1.5
    model = replace(
        model,
        mean=(1.5, 2.0, 3.0),
        std=(4.0, 5.0, 6.5),
        backbone=replace(model.backbone, stride_in_1x1=not model.backbone.stride_in_1x1),
        anchors=AnchorConfig(
            tuple(tuple(size * scale for size in level) for level in model.anchors.sizes), (0.4, 1.0, 2.5)
        ),
        rpn=replace(model.rpn, pre_nms=500, post_nms=200, nms_iou=0.6),
        box_head=box,
        conventions=replace(model.conventions, roi_samples=3, **conventions),
    )
    preprocess = replace(spec.preprocess, short=320, long=600)
    spec = replace(spec, model=model, preprocess=preprocess, classes=Classes(tuple("abcde"), (1, 2, 3, 4, 5)))
    write_model_file(path, spec, tensors)
    return spec


@pytest.mark.parametrize("neck", ["fpn", "c4", "dc5"])
def test_detectron2_is_told_everything_in_its_yaml(tmp_path: Path, neck: str) -> None:
    convert(detectron2_file(tmp_path / "x.pkl", neck=neck), tmp_path / "x.safetensors")
    spec = edited(tmp_path / "x.safetensors", roi_aligned=False)
    report = convert_back(tmp_path / "x.safetensors", tmp_path / "y.pkl", "detectron2")
    (tmp_path / "y.yaml").write_text(report.config)
    again = convert(tmp_path / "y.pkl", tmp_path / "y.safetensors", source_config=tmp_path / "y.yaml").spec
    assert settings(again) == settings(spec)
    values = yaml.safe_load(report.config)
    assert values["_BASE_"] == f"Base-RCNN-{'DilatedC5' if neck == 'dc5' else neck.upper()}.yaml"
    assert values["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 5
    for head in ("ROI_BOX_HEAD", "ROI_MASK_HEAD"):
        assert values["MODEL"][head]["POOLER_TYPE"] == "ROIAlign"
        assert values["MODEL"][head]["POOLER_SAMPLING_RATIO"] == 3


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"depth": 101, "width": 64, "group_width": 64}, {"RESNETS": {"DEPTH": 101}}),
        ({"groups": 2, "group_width": 4}, {"RESNETS": {"NUM_GROUPS": 2, "WIDTH_PER_GROUP": 4}}),
        (
            {"norm": "bn", "head_norm": "bn", "box_convs": 4, "fcs": 1, "rpn_convs": 2},
            {
                "RESNETS": {"NORM": "BN"},
                "BACKBONE": {"FREEZE_AT": 0},
                "FPN": {"NORM": "BN"},
                "RPN": {"CONV_DIMS": [-1, -1]},
                "ROI_BOX_HEAD": {"NUM_CONV": 4, "NUM_FC": 1, "NORM": "BN", "CONV_DIM": 16, "FC_DIM": 24},
            },
        ),
        # The base config has its stride in the 1x1.
        (SMALL_GN, {"RESNETS": {"NORM": "GN", "STRIDE_IN_1X1": False}, "ROI_MASK_HEAD": {"NORM": "GN"}}),
    ],
)
def test_detectron2_is_told_what_to_build(
    tmp_path: Path, changes: dict[str, Any], lines: dict[str, dict[str, Any]]
) -> None:
    convert(detectron2_file(tmp_path / "x.pkl", **changes), tmp_path / "x.safetensors")
    report = convert_back(tmp_path / "x.safetensors", tmp_path / "y.pth", "detectron2")
    found = yaml.safe_load(report.config)["MODEL"]
    for section, keys in lines.items():
        assert keys.items() <= found[section].items()


@pytest.mark.parametrize("neck", ["fpn", "c4"])
@pytest.mark.parametrize("soft", [False, True])
def test_mmdetection_has_its_config_and_class_names_in_the_checkpoint(
    tmp_path: Path, neck: str, soft: bool
) -> None:
    source = mmdetection_file(tmp_path / "x.pth", neck=neck)
    convert(source, tmp_path / "x.safetensors", style="pytorch")
    spec = edited(tmp_path / "x.safetensors", soft=soft, roi_aligned=False)
    report = convert_back(
        tmp_path / "x.safetensors", tmp_path / "y.pth", "mmdetection", allow_differences=neck == "c4"
    )
    assert len(report.differences) == (neck == "c4")
    again = convert(tmp_path / "y.pth", tmp_path / "y.safetensors").spec
    assert settings(again) == settings(spec)
    assert again.classes == spec.classes
    meta = read_checkpoint(tmp_path / "y.pth").meta["meta"]
    assert meta["cfg"] == report.config
    assert meta["CLASSES"] == meta["dataset_meta"]["classes"] == ("a", "b", "c", "d", "e")
    ast.parse(report.config)
    model = literals(report.config)["model"]
    assert model["backbone"]["style"] == "caffe"
    assert model["roi_head"]["bbox_head"]["num_classes"] == 5
    if neck == "c4":
        assert model["roi_head"]["shared_head"]["style"] == "caffe"


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_maskrcnn_benchmark_is_told_everything_in_its_yaml(tmp_path: Path, neck: str) -> None:
    convert(maskrcnn_benchmark_file(tmp_path / "x.pth", neck=neck), tmp_path / "x.safetensors")
    spec = edited(tmp_path / "x.safetensors")
    report = convert_back(tmp_path / "x.safetensors", tmp_path / "y.pth", "maskrcnn-benchmark")
    (tmp_path / "y.yaml").write_text(report.config)
    again = convert(tmp_path / "y.pth", tmp_path / "y.safetensors", source_config=tmp_path / "y.yaml").spec
    assert different(again, spec) <= {"model.anchors.sizes", "model.anchors.ratios", "model.anchors.cells"}
    assert yaml.safe_load(report.config)["MODEL"]["ROI_BOX_HEAD"]["NUM_CLASSES"] == 6


def different(first: Spec, second: Spec) -> set[str]:
    ours, theirs = settings(first), settings(second)
    return {path for path in ours if ours[path] != theirs[path]}


def test_mindspore_is_told_in_its_yaml(tmp_path: Path) -> None:
    convert(detectron2_file(tmp_path / "x.pkl"), tmp_path / "x.safetensors")
    convert_back(tmp_path / "x.safetensors", tmp_path / "y.ckpt", "mindspore", allow_differences=True)
    convert(tmp_path / "y.ckpt", tmp_path / "y.safetensors")
    edited(tmp_path / "y.safetensors")
    report = convert_back(
        tmp_path / "y.safetensors", tmp_path / "z.ckpt", "mindspore", allow_differences=True
    )
    values = yaml.safe_load(report.config)
    assert values["data"]["nc"] == 5
    # Its eval.py reads the proposals of training.
    assert values["rpn_head"]["train_proposal"] == values["rpn_head"]["test_proposal"]
    assert values["rpn_head"]["train_proposal"] == {
        "nms_thresh": 0.6,
        "post_nms_top_n": 200,
        "pre_nms_top_n": 500,
    }
    resize, normalise = values["data"]["eval_transforms"]["item_transforms"][:2]
    assert resize["Resize"]["target_size"] == [320, 600]
    assert [255 * value for value in normalise["NormalizeImage"]["std"]] == pytest.approx([4, 5, 6.5])
    assert {difference.split()[0] for difference in report.differences} == {
        "backbone.width:",
        "backbone.stride_in_1x1",
        "box_head.delta_weights",
        "conventions.roi_samples",
    }


def test_tensorrtx_is_told_in_constants_of_its_program(tmp_path: Path) -> None:
    convert(detectron2_file(tmp_path / "x.pkl", neck="c4"), tmp_path / "x.safetensors")
    edited(tmp_path / "x.safetensors")
    report = convert_back(tmp_path / "x.safetensors", tmp_path / "y.wts", "wts", allow_differences=True)
    lines = report.config.splitlines()
    assert lines[:3] == [
        "#define BACKBONE_RESNETTYPE R50",
        "static constexpr int NUM_CLASSES = 5;",
        "static constexpr float SCORE_THRESH = 0.2;",
    ]
    assert "static const std::vector<float> ANCHOR_SIZES = { 16.0, 32.0, 64.0, 128.0, 256.0 };" in lines
    assert "static constexpr int POST_NMS_TOPK = 200;" in lines
    assert "static int NMS_METHOD = 0;" in lines
    assert [difference.split()[0] for difference in report.differences] == [
        "backbone:",
        "backbone.stride_in_1x1",
        "conventions.delta_limit",
    ]


def test_tensorrtx_has_no_program_for_a_pyramid(tmp_path: Path) -> None:
    convert(detectron2_file(tmp_path / "x.pkl"), tmp_path / "x.safetensors")
    report: BackReport = convert_back(
        tmp_path / "x.safetensors", tmp_path / "y.wts", "wts", allow_differences=True
    )
    assert report.differences == ("neck: its program runs C4 models, not FPN",)
    assert report.config == ""
