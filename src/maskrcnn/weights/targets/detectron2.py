"""To detectron2: its names, its config.yaml, and a pickle of numpy arrays or a file of torch."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from maskrcnn.config import ModelConfig
from maskrcnn.presets import NO_STD
from maskrcnn.spec import Spec
from maskrcnn.weights.rewrite import Table
from maskrcnn.weights.sources.detectron2 import TABLE
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
from maskrcnn.weights.writers import write_numpy_pickle, write_torch

NORMS = {"frozen_bn": "FrozenBN", "bn": "BN", "gn": "GN", "none": ""}
BASES = {"fpn": "Base-RCNN-FPN.yaml", "c4": "Base-RCNN-C4.yaml", "dc5": "Base-RCNN-DilatedC5.yaml"}


def _rows(model: ModelConfig) -> Table:
    """Only with a pyramid the trunk stands under bottom_up; only one RPN convolution has no number."""
    convs = "proposal_generator.rpn_head.conv.{parameter}"
    return tuple(
        row
        for row in TABLE
        if (model.neck == "fpn" or not row.theirs.startswith("backbone.bottom_up."))
        and (model.rpn.convs == 1 or row.theirs != convs)
    )


def _refuse(model: ModelConfig) -> None:
    if model.backbone.norm == "none":
        raise refused("detectron2", "biases in the trunk, where the model has its norms folded")


def _misfits(model: ModelConfig) -> tuple[str, ...]:
    depth, width = model.backbone.depth, model.backbone.width
    if depth >= 50:
        return ()
    found = []
    if model.neck == "dc5":
        found.append(f"model.neck: its ResNet-{depth} is never dilated")
    if width != 64:
        found.append(f"model.backbone.width: its ResNet-{depth} has 64 channels, not {width}")
    return tuple(found)


def _say(spec: Spec, differing: Set[str]) -> Said:
    settings = _architecture(spec.model)
    values: dict[str, Settings] = {
        "model.mean": {"MODEL.PIXEL_MEAN": spec.model.mean},
        "model.std": {"MODEL.PIXEL_STD": spec.model.std},
        "model.backbone.stride_in_1x1": {"MODEL.RESNETS.STRIDE_IN_1X1": spec.model.backbone.stride_in_1x1},
        "model.anchors.sizes": {"MODEL.ANCHOR_GENERATOR.SIZES": spelled(spec.model.anchors.sizes)},
        "model.anchors.ratios": {"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [spec.model.anchors.ratios]},
        "preprocess.channels": {"INPUT.FORMAT": spec.preprocess.channels.upper()},
        "preprocess.short": {"INPUT.MIN_SIZE_TEST": spec.preprocess.short},
        "preprocess.long": {"INPUT.MAX_SIZE_TEST": spec.preprocess.long},
        **_thresholds(spec.model),
    }
    said = differing & values.keys()
    for path in [path for path in values if path in said | _published(spec.model)]:
        settings |= values[path]
    text = yaml_text({"_BASE_": BASES[spec.model.neck], **nested(settings)})
    return Said(text, f"beside configs/{BASES[spec.model.neck]} of detectron2", frozenset(said))


def _published(model: ModelConfig) -> frozenset[str]:
    """What the published configs of ResNeXt and group norm say, because the base config says otherwise."""
    found = {"model.std"} if model.std != NO_STD else set()
    if model.backbone.depth >= 50 and not model.backbone.stride_in_1x1:
        found.add("model.backbone.stride_in_1x1")
    return frozenset(found)


def _thresholds(model: ModelConfig) -> dict[str, Settings]:
    samples, aligned = model.conventions.roi_samples, model.conventions.roi_aligned
    pooler = "ROIAlignV2" if aligned else "ROIAlign"
    return {
        "model.rpn.pre_nms": {"MODEL.RPN.PRE_NMS_TOPK_TEST": model.rpn.pre_nms},
        "model.rpn.post_nms": {"MODEL.RPN.POST_NMS_TOPK_TEST": model.rpn.post_nms},
        "model.rpn.nms_iou": {"MODEL.RPN.NMS_THRESH": model.rpn.nms_iou},
        "model.box_head.score_over": {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": model.box_head.score_over},
        "model.box_head.nms_iou": {"MODEL.ROI_HEADS.NMS_THRESH_TEST": model.box_head.nms_iou},
        "model.box_head.detections": {"TEST.DETECTIONS_PER_IMAGE": model.box_head.detections},
        "model.box_head.delta_weights": {"MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": model.box_head.delta_weights},
        "model.mask_head.pool_side": {"MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": model.mask_head.pool_side},
        "model.conventions.roi_samples": _of_both("POOLER_SAMPLING_RATIO", samples),
        "model.conventions.roi_aligned": _of_both("POOLER_TYPE", pooler),
    }


def _of_both(key: str, value: Any) -> Settings:
    return {f"MODEL.ROI_BOX_HEAD.{key}": value, f"MODEL.ROI_MASK_HEAD.{key}": value}


def _architecture(model: ModelConfig) -> Settings:
    """Every key whose value in the base config is another one, and the depth."""
    trunk, box, mask = model.backbone, model.box_head, model.mask_head
    usual: tuple[tuple[str, Any, Any], ...] = (
        ("MODEL.RESNETS.NORM", NORMS[trunk.norm], "FrozenBN"),
        ("MODEL.RESNETS.NUM_GROUPS", trunk.groups, 1),
        ("MODEL.RESNETS.WIDTH_PER_GROUP", trunk.group_width, 64),
        ("MODEL.RESNETS.STEM_OUT_CHANNELS", trunk.width, 64),
        ("MODEL.RESNETS.RES2_OUT_CHANNELS", stage_channels(model)[0], 256),
        ("MODEL.RPN.CONV_DIMS", [-1] * model.rpn.convs, [-1]),
        ("MODEL.ROI_HEADS.NUM_CLASSES", model.classes, 80),
        ("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", box.class_agnostic, False),
        ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", box.pool_side, 14 if model.neck == "c4" else 7),
        ("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", mask.class_agnostic, False),
        ("MODEL.ROI_MASK_HEAD.CONV_DIM", mask.channels, 256),
    )
    if model.neck == "fpn":
        usual += (
            ("MODEL.FPN.OUT_CHANNELS", model.fpn.channels, 256),
            ("MODEL.FPN.NORM", NORMS[model.fpn.norm], ""),
        )
    if model.neck != "c4":
        usual += (
            ("MODEL.ROI_BOX_HEAD.NUM_CONV", box.convs, 0),
            ("MODEL.ROI_BOX_HEAD.CONV_DIM", box.channels if box.convs else 256, 256),
            ("MODEL.ROI_BOX_HEAD.NORM", NORMS[box.norm], ""),
            ("MODEL.ROI_BOX_HEAD.NUM_FC", box.fcs, 2),
            ("MODEL.ROI_BOX_HEAD.FC_DIM", box.fc_channels, 1024),
            ("MODEL.ROI_MASK_HEAD.NUM_CONV", mask.convs, 4),
            ("MODEL.ROI_MASK_HEAD.NORM", NORMS[mask.norm], ""),
        )
    always: Settings = {"MODEL.MASK_ON": True, "MODEL.RESNETS.DEPTH": trunk.depth}
    if trunk.norm == "bn":  # frozen stages become FrozenBN, which has no counters to load
        always["MODEL.BACKBONE.FREEZE_AT"] = 0
    return always | {key: value for key, value, default in usual if value != default}


def _write(path: Path, tensors: Mapping[str, NDArray[Any]], spec: Spec, config: str) -> None:
    # With an author detectron2 takes the names as its own; without one it matches Caffe2's by their ends.
    content = {"model": tensors, "__author__": "maskrcnn"}
    (write_numpy_pickle if path.suffix == ".pkl" else write_torch)(path, content)


TARGET = Target(
    name="detectron2",
    source=lambda model: "detectron2",
    suffixes=(".pkl", ".pth"),
    rows=_rows,
    refuse=_refuse,
    misfits=_misfits,
    say=_say,
    write=_write,
    order=("fpn.", "backbone.", "rpn.", "res5.", "box_head.", "mask_head."),
    anchor_order="size_first",
)
