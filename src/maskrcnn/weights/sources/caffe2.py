"""Names of Detectron's Mask R-CNN, which runs on Caffe2: FPN, and C4, whose last stage is called res5 too.

Container: `.pkl` of numpy arrays, {"blobs": ..., "cfg": ...} or the blobs alone.
Recognised: R50, R101, R152 and ResNeXt trunks; two-FC and 4conv1fc heads; AffineChannel, group norm;
    class-agnostic boxes and masks.
Conventions: as maskrcnn-benchmark; proposals may reach into the padding, and are at least a pixel wide.
Notes: the training config in the file is honoured. The norms are scale and bias alone: mean 0, variance 1 and
    eps 0 change nothing. Detectron refines boxes in image pixels, this network in those of its input.
"""

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from maskrcnn import presets
from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.spec import Spec
from maskrcnn.weights.detectron_lineage import TRAINING, ConfigKeys, floats, four, settings_of
from maskrcnn.weights.own_config import Settings, at, with_values
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.rewrite import (
    BACKGROUND_TO_LAST,
    DROP,
    DROP_BACKGROUND_BOX,
    DROP_BACKGROUND_MASK,
    REPEATED,
    Row,
    Table,
)
from maskrcnn.weights.source import Described, Source, default_classes, with_conventions, without_style

LONGEST_CONFIG = 1_000_000
"""Detectron's own has 10,000 characters, and YAML is read at 100,000 a second."""

# Blobs end in _w and _b, norms in _s (scale) and _b; branch1 is the shortcut.
_LAYER = "{layer:branch1|branch2a|branch2b|branch2c}"
_WB, _SB = "{parameter:w|b}", "{parameter:s|b}"

_TRUNK: Table = (
    # What the solver saves beside the weights.
    Row("{any}_momentum", "", DROP),
    Row("lr", "", DROP),
    # Left of the ImageNet trunk: its classifier, and biases that Detectron does not add.
    Row(f"fc1000_{_WB}", "", DROP),
    Row(f"pred_{_WB}", "", DROP),
    Row("conv1_b", "", DROP),
    Row(f"res{{s}}_{{b}}_{_LAYER}_b", "", DROP),
    Row("conv1_w", "backbone.stem.conv.weight"),
    Row(f"res_conv1_bn_{_SB}", "backbone.stem.conv.norm.{parameter}"),
    Row(f"conv1_gn_{_SB}", "backbone.stem.conv.norm.{parameter}"),
)

_STAGES: Table = (
    Row(f"res{{s}}_{{b}}_{_LAYER}_w", "backbone.res{s}.{b}.{layer}.weight"),
    Row(f"res{{s}}_{{b}}_{_LAYER}_bn_{_SB}", "backbone.res{s}.{b}.{layer}.norm.{parameter}"),
    Row(f"res{{s}}_{{b}}_{_LAYER}_gn_{_SB}", "backbone.res{s}.{b}.{layer}.norm.{parameter}"),
)

_PREDICTORS: Table = (
    Row(f"cls_score_{_WB}", "box_head.scores.{parameter}", BACKGROUND_TO_LAST),
    Row(f"bbox_pred_{_WB}", "box_head.deltas.{parameter}", DROP_BACKGROUND_BOX),
    Row(f"conv5_mask_{_WB}", "mask_head.upsample.{parameter}"),
    Row(f"mask_fcn_logits_{_WB}", "mask_head.logits.{parameter}", DROP_BACKGROUND_MASK),
)

TABLE: Table = (
    *_TRUNK,
    *_STAGES,
    # Named after the last block of each stage, which differs by depth.
    Row(f"fpn_inner_res5_{{b}}_sum_{_WB}", "fpn.lateral5.{parameter}"),
    Row(f"fpn_inner_res{{s}}_{{b}}_sum_lateral_{_WB}", "fpn.lateral{s}.{parameter}"),
    Row(f"fpn_res{{s}}_{{b}}_sum_{_WB}", "fpn.output{s}.{parameter}"),
    Row(f"fpn_inner_res5_{{b}}_sum_gn_{_SB}", "fpn.lateral5.norm.{parameter}"),
    Row(f"fpn_inner_res{{s}}_{{b}}_sum_lateral_gn_{_SB}", "fpn.lateral{s}.norm.{parameter}"),
    Row(f"fpn_res{{s}}_{{b}}_sum_gn_{_SB}", "fpn.output{s}.norm.{parameter}"),
    Row(f"conv_rpn_fpn2_{_WB}", "rpn.conv1.{parameter}"),
    Row(f"rpn_cls_logits_fpn2_{_WB}", "rpn.objectness.{parameter}"),
    Row(f"rpn_bbox_pred_fpn2_{_WB}", "rpn.deltas.{parameter}"),
    Row(f"head_conv{{i}}_{_WB}", "box_head.conv{i}.{parameter}"),
    Row(f"head_conv{{i}}_gn_{_SB}", "box_head.conv{i}.norm.{parameter}"),
    Row(f"fc6_{_WB}", "box_head.fc1.{parameter}"),
    Row(f"fc7_{_WB}", "box_head.fc2.{parameter}"),
    Row(f"_[mask]_fcn{{i}}_{_WB}", "mask_head.conv{i}.{parameter}"),
    Row(f"_mask_fcn{{i}}_{_WB}", "mask_head.conv{i}.{parameter}"),
    Row(f"_mask_fcn{{i}}_gn_{_SB}", "mask_head.conv{i}.norm.{parameter}"),
    *_PREDICTORS,
)

C4_TABLE: Table = (
    *_TRUNK,
    Row(f"res5_{{b}}_{_LAYER}_w", "res5.{b}.{layer}.weight"),
    Row(f"res5_{{b}}_{_LAYER}_bn_{_SB}", "res5.{b}.{layer}.norm.{parameter}"),
    Row(f"res5_{{b}}_{_LAYER}_gn_{_SB}", "res5.{b}.{layer}.norm.{parameter}"),
    # A mask head may have its own copy, which this network has not.
    Row(f"_[mask]_res5_{{b}}_{_LAYER}_w", "res5.{b}.{layer}.weight", REPEATED),
    Row(f"_[mask]_res5_{{b}}_{_LAYER}_bn_{_SB}", "res5.{b}.{layer}.norm.{parameter}", REPEATED),
    *_STAGES,
    Row(f"conv_rpn_{_WB}", "rpn.conv1.{parameter}"),
    Row(f"rpn_cls_logits_{_WB}", "rpn.objectness.{parameter}"),
    Row(f"rpn_bbox_pred_{_WB}", "rpn.deltas.{parameter}"),
    *_PREDICTORS,
)


def _decoded(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Detectron's YAML has tuples as text: `(800, )`."""
    return lambda value: read(ast.literal_eval(value) if isinstance(value, str) else value)


_KEYS: ConfigKeys = (
    ("TEST.SCALES", "preprocess.short", _decoded(lambda sides: int(sides[0]))),
    ("TEST.SCALE", "preprocess.short", int),
    ("TEST.MAX_SIZE", "preprocess.long", int),
    ("RESNETS.STRIDE_1X1", "model.backbone.stride_in_1x1", bool),
    ("TEST.RPN_PRE_NMS_TOP_N", "model.rpn.pre_nms", int),
    ("TEST.RPN_POST_NMS_TOP_N", "model.rpn.post_nms", int),
    ("TEST.RPN_NMS_THRESH", "model.rpn.nms_iou", float),
    ("FAST_RCNN.ROI_XFORM_SAMPLING_RATIO", "model.conventions.roi_samples", int),
    ("MODEL.BBOX_REG_WEIGHTS", "model.box_head.delta_weights", _decoded(four)),
    ("TEST.SCORE_THRESH", "model.box_head.score_over", float),
    ("TEST.NMS", "model.box_head.nms_iou", float),
    ("TEST.DETECTIONS_PER_IM", "model.box_head.detections", int),
    ("MRCNN.ROI_XFORM_RESOLUTION", "model.mask_head.pool_side", int),
)
_SOFT_NMS: ConfigKeys = (
    (
        "TEST.SOFT_NMS.METHOD",
        "model.box_head.soft_nms.method",
        lambda method: {"hard": "none", "linear": "linear", "gaussian": "gaussian"}[method],
    ),
    ("TEST.SOFT_NMS.SIGMA", "model.box_head.soft_nms.sigma", float),
    # Its test code says 0.0001 and has no key for it.
    ("TEST.SOFT_NMS.ENABLED", "model.box_head.soft_nms.min_score", lambda enabled: 1e-4),
)
_PYRAMID_ANCHORS: ConfigKeys = (
    ("FPN.RPN_ASPECT_RATIOS", "model.anchors.ratios", _decoded(floats)),
    (
        "FPN.RPN_ANCHOR_START_SIZE",
        "model.anchors.sizes",
        lambda finest: tuple((float(finest) * 2**level,) for level in range(5)),
    ),
)
_C4_ANCHORS: ConfigKeys = (
    ("RPN.ASPECT_RATIOS", "model.anchors.ratios", _decoded(floats)),
    ("RPN.SIZES", "model.anchors.sizes", _decoded(lambda sizes: (floats(sizes),))),
)


def _caffe2(model: ModelConfig, checkpoint: Checkpoint, style: str | None, config: str | None) -> Described:
    fpn = model.neck == "fpn"
    own, notes = _own_settings(checkpoint, config, fpn)
    own = without_style(own, style)
    if not any(name.endswith("_gn_s") for name in checkpoint.tensors):
        # Detectron folds batch norm into scale and bias before it trains.
        model = replace(model, backbone=replace(model.backbone, norm="frozen_bn", norm_eps=0.0))
    trunk = model.backbone
    caffe = trunk.groups == 1 and trunk.norm != "gn" if style is None else style == "caffe"
    settings: Settings = TRAINING | {
        "mean": presets.MEAN_CAFFE2,
        "std": presets.NO_STD,
        "backbone.stride_in_1x1": caffe,
        "conventions": presets.CAFFE2 if fpn else presets.CAFFE2_C4,
    }
    if not fpn:
        settings["rpn"] = presets.ONE_LEVEL_RPN
    spec = Spec(
        with_conventions(model, settings),
        presets.CAFFE2_INPUT if fpn else presets.CAFFE2_C4_INPUT,
        default_classes(model.classes),
    )
    return Described(with_values(spec, own), notes)


def _own_settings(checkpoint: Checkpoint, config: str | None, fpn: bool) -> tuple[Settings, tuple[str, ...]]:
    """Of the config given by hand, else of the one that Detectron saved with the weights."""
    place = config or str(checkpoint.path)
    text = _text(config) if config else checkpoint.meta.get("cfg")
    if not isinstance(text, str):
        return {}, ()
    values = _values(text, place)
    _refuse_other_models(values, place)
    settings = settings_of(values, _KEYS + (_PYRAMID_ANCHORS if fpn else _C4_ANCHORS), place)
    if at(values, "TEST.SOFT_NMS.ENABLED") is True:
        settings |= {"model.box_head.soft_nms.method": "linear"} | settings_of(values, _SOFT_NMS, place)
    notes = ["thresholds and input are those of the config in the file"] if not config else []
    if not config and at(values, "MODEL.BBOX_REG_WEIGHTS") is None:
        settings["model.box_head.delta_weights"] = (1.0, 1.0, 1.0, 1.0)
        notes.append("its config has no MODEL.BBOX_REG_WEIGHTS, for which Detectron takes 1, 1, 1, 1")
    if at(values, "TEST.BBOX_AUG.ENABLED") is True:
        notes.append("its test-time augmentation is left out: one pass at one size")
    return settings, tuple(notes)


def _text(config: str) -> str:
    try:
        return Path(config).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{config}: cannot be read as a config ({error})", hint="give Detectron's YAML"
        ) from error


def _values(text: str, place: str) -> dict[str, Any]:
    """YAML with the notes of Python objects that Detectron's dump has, as plain containers."""

    class Plain(yaml.SafeLoader):
        """Builds containers only."""

    def contents(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            values = loader.construct_mapping(node, deep=True)
            return values.get("dictitems", values)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None

    Plain.add_multi_constructor("tag:yaml.org,2002:python/", contents)
    if len(text) > LONGEST_CONFIG:
        raise UserError(f"{place}: its config is {len(text)} characters long", hint="give --source-config")
    try:
        values = yaml.load(text, Plain)  # noqa: S506
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{place}: its config is not YAML", hint="give --source-config") from error
    return values if isinstance(values, dict) else {}


def _refuse_other_models(values: dict[str, Any], place: str) -> None:
    for key, supported in (
        ("FAST_RCNN.ROI_XFORM_METHOD", "RoIAlign"),
        ("MRCNN.ROI_XFORM_METHOD", "RoIAlign"),
        ("MRCNN.DILATION", 1),
        ("MRCNN.UPSAMPLE_RATIO", 1),
        ("RESNETS.RES5_DILATION", 1),
    ):
        found = at(values, key)
        if found not in (None, supported):
            raise UserError(f"{place}: its {key} is {found}", hint=f"only {supported} is supported")


SOURCE = Source("caffe2", frozenset(("cls_score_w", "rpn_cls_logits_fpn2_w")), TABLE, _caffe2)
C4_SOURCE = Source("caffe2-c4", frozenset(("cls_score_w", "rpn_cls_logits_w")), C4_TABLE, _caffe2)
