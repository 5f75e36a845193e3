"""To MindSpore's MaskRCNN of mindspore-lab/models (official/cv/RCNN): its names, its config and a `.ckpt`."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from maskrcnn.config import ModelConfig
from maskrcnn.spec import Spec
from maskrcnn.weights.mindspore_ckpt import write_mindspore
from maskrcnn.weights.rewrite import Table
from maskrcnn.weights.sources.mindspore import TABLE
from maskrcnn.weights.target import (
    Said,
    Settings,
    Target,
    nested,
    refused,
    spelled,
    stage_channels,
    yaml_text,
)

BASE = "mask_rcnn_resnet50_fpn_1x.yml"
GROUPED = {(50, 32, 4), (101, 32, 4), (101, 64, 4), (152, 64, 4)}
"""Depth, groups and group width of its ResNeXts."""

MASK_CONVS = 4


def _rows(model: ModelConfig) -> Table:
    return TABLE


def _refuse(model: ModelConfig) -> None:
    box, mask, name = model.box_head, model.mask_head, "mindspore"
    if model.neck != "fpn":
        raise refused(name, f"Mask R-CNN on {model.neck.upper()}, only on FPN")
    for part, norms in (("backbone", ("bn", "frozen_bn")), ("fpn", ("none", "bn", "frozen_bn"))):
        if getattr(model, part).norm not in norms:
            raise refused(name, f"names for a {part} of norm {getattr(model, part).norm}")
    if mask.norm != "none" or mask.convs != MASK_CONVS:
        raise refused(name, f"names for a mask head of {mask.convs} convolutions of norm {mask.norm}")
    if (box.convs, box.fcs) != (0, 2):
        raise refused(name, f"names for a box head of {box.convs} convolutions and {box.fcs} linear layers")
    if model.rpn.convs != 1:
        raise refused(name, f"name for rpn.conv2, of which the model has {model.rpn.convs} in a row")
    if box.class_agnostic or mask.class_agnostic:
        raise refused(name, "class-agnostic heads")


def _misfits(model: ModelConfig) -> tuple[str, ...]:
    trunk = model.backbone
    if trunk.width != 64:
        return (f"model.backbone.width: its trunks begin with 64 channels, not {trunk.width}",)
    plain = (trunk.groups, trunk.group_width) == (1, 64)
    if not plain and (trunk.depth, trunk.groups, trunk.group_width) not in GROUPED:
        return (f"model.backbone.groups: it has no {trunk.groups}x{trunk.group_width}d trunk",)
    return ()


def _say(spec: Spec, differing: Set[str]) -> Said:
    values = _values(spec)
    settings = _architecture(spec.model)
    for path in sorted(differing & values.keys()):
        settings |= values[path]
    text = yaml_text({"__BASE__": [f"./{BASE}"], **nested(settings)})
    return Said(
        text, f"beside config/maskrcnn/{BASE} of official/cv/RCNN", frozenset(differing & values.keys())
    )


def _values(spec: Spec) -> dict[str, Settings]:
    """Keys for each of our settings; its eval.py takes the proposals of training."""
    model, preprocess = spec.model, spec.preprocess
    anchors = "rpn_head.anchor_generator"
    found: dict[str, Settings] = {
        "model.anchors.sizes": {f"{anchors}.anchor_sizes": spelled(model.anchors.sizes)},
        "model.anchors.ratios": {f"{anchors}.aspect_ratios": model.anchors.ratios},
        "model.rpn.pre_nms": _proposals("pre_nms_top_n", model.rpn.pre_nms),
        "model.rpn.post_nms": _proposals("post_nms_top_n", model.rpn.post_nms),
        "model.rpn.nms_iou": _proposals("nms_thresh", model.rpn.nms_iou),
        "model.conventions.rpn_min_size": _proposals("min_size", model.conventions.rpn_min_size),
        "model.box_head.score_over": {"infer.conf_threshold": model.box_head.score_over},
        "model.box_head.nms_iou": {"infer.nms_threshold": model.box_head.nms_iou},
        "model.box_head.detections": {"infer.max_box_num": model.box_head.detections},
        "model.mask_head.pool_side": {
            "mask_head.resolution": model.mask_head.pool_side,
            "mask_head.mask_shape": [2 * model.mask_head.pool_side] * 2,
        },
    }
    if model.fpn.upsample in ("bilinear", "nearest"):
        found["model.fpn.upsample"] = {"backbone.fpn.upsample_mode": model.fpn.upsample}
    paths = ["model.mean", "model.std"]
    if preprocess.resize == "fit_window":
        paths += ["preprocess.short", "preprocess.long"]
        size = [preprocess.short, preprocess.long]
        found |= dict.fromkeys(paths, {"data.eval_transforms.item_transforms": _transforms(model, size)})
    return found


def _proposals(key: str, value: Any) -> Settings:
    return {f"rpn_head.{part}_proposal.{key}": value for part in ("train", "test")}


def _transforms(model: ModelConfig, size: list[int]) -> list[dict[str, Any]]:
    normalised = {
        "is_scale": True,
        "norm_type": "mean_std",
        "mean": [value / 255 for value in model.mean],
        "std": [value / 255 for value in model.std],
    }
    return [
        {"Resize": {"target_size": size, "keep_ratio": True}},
        {"NormalizeImage": normalised},
        {"TransposeImage": {"hwc2chw": True}},
        {"LabelsPadding": {"padding_size": 160, "padding_value": -1}},
    ]


def _architecture(model: ModelConfig) -> Settings:
    """Every key whose value in the base config is another one."""
    trunk, channels, box = model.backbone, model.fpn.channels, model.box_head
    grouped = f"det_resnext{trunk.depth}_{trunk.groups}x{trunk.group_width}d"
    usual: tuple[tuple[str, Any, Any], ...] = (
        ("data.nc", model.classes, 80),
        ("backbone.name", grouped if trunk.groups > 1 else f"det_resnet{trunk.depth}", "det_resnet50"),
        ("backbone.in_channels", stage_channels(model), (256, 512, 1024, 2048)),
        ("backbone.out_channels", channels, 256),
        ("backbone.fpn.norm", "none" if model.fpn.norm == "none" else "bn", "none"),
        ("rpn_head.feat_channel", channels, 256),
        ("bbox_head.resolution", box.pool_side, 7),
        ("bbox_head.head.in_channel", channels, 256),
        ("bbox_head.head.out_channel", box.fc_channels, 1024),
        ("mask_head.head.in_channel", channels, 256),
        ("mask_head.head.out_channel", model.mask_head.channels, 256),
    )
    return {key: value for key, value, default in usual if value != default}


def _write(path: Path, tensors: Mapping[str, NDArray[Any]], spec: Spec, config: str) -> None:
    write_mindspore(path, tensors)


TARGET = Target(
    name="mindspore",
    source=lambda model: "mindspore",
    suffixes=(".ckpt",),
    rows=_rows,
    refuse=_refuse,
    misfits=_misfits,
    say=_say,
    write=_write,
    order=("backbone.", "fpn.lateral", "fpn.output", "rpn.", "box_head.", "mask_head."),
    anchor_order="size_first",
    shortcut_last=True,
    counters="dropped",
)
