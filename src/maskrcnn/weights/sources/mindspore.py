"""Names of MindSpore's two Mask R-CNNs, `mindspore` and `mindspore-zoo`, both ResNet with FPN.

Container: `.ckpt`, protobuf; the optimiser's state in it is left out.
Recognised: `mindspore` is class MaskRCNN of mindspore-lab/models official/cv/RCNN: R18 to R152 and ResNeXt,
    background last. `mindspore-zoo` is class Mask_Rcnn_Resnet50 of mindspore-ai/models official/cv/MaskRCNN:
    background first, weights of fully connected layers as [in, out].
Conventions: input of 768 x 1280 with black padding, stem pooling padded on the right and below only, bilinear
    pyramid, RoIAlign without the half pixel. `mindspore`: proposals through NMS twice, deltas up to 4.
    `mindspore-zoo`: Detectron's +1 in deltas and levels but not in overlaps, rounded anchors.
Notes: `mindspore` predicts masks on proposals and rounds them down before it pastes them; here they are
    predicted on the final boxes and pasted as they are. `mindspore-zoo` predicts the mask on the box of the
    likeliest class, and resizes a portrait twice; here once.
"""

from math import sqrt

from maskrcnn import presets
from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.spec import Preprocess, Spec
from maskrcnn.weights.own_config import Settings
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.rewrite import (
    BACKGROUND_TO_LAST,
    DROP_BACKGROUND_BOX,
    DROP_BACKGROUND_MASK,
    TRANSPOSED,
    Row,
    Table,
    then,
)
from maskrcnn.weights.source import Described, Source, default_classes, with_conventions

_NORM = "{statistic:gamma|beta|moving_mean|moving_variance}"

TABLE: Table = (
    Row("backbone.bottom_up.conv1.weight", "backbone.stem.conv.weight"),
    Row(f"backbone.bottom_up.bn1.{_NORM}", "backbone.stem.conv.norm.{statistic}"),
    Row("backbone.bottom_up.layer{s}.{b}.conv{i}.weight", "backbone.res{s+1}.{b}.conv{i}.weight"),
    Row(
        f"backbone.bottom_up.layer{{s}}.{{b}}.bn{{i}}.{_NORM}",
        "backbone.res{s+1}.{b}.conv{i}.norm.{statistic}",
    ),
    Row("backbone.bottom_up.layer{s}.{b}.down_sample.0.weight", "backbone.res{s+1}.{b}.shortcut.weight"),
    Row(
        f"backbone.bottom_up.layer{{s}}.{{b}}.down_sample.1.{_NORM}",
        "backbone.res{s+1}.{b}.shortcut.norm.{statistic}",
    ),
    Row("backbone.lateral_convs.{l}.conv.0.{parameter}", "fpn.lateral{l+2}.{parameter}"),
    Row(f"backbone.lateral_convs.{{l}}.conv.1.{_NORM}", "fpn.lateral{l+2}.norm.{statistic}"),
    Row("backbone.fpn_convs.{l}.conv.0.{parameter}", "fpn.output{l+2}.{parameter}"),
    Row(f"backbone.fpn_convs.{{l}}.conv.1.{_NORM}", "fpn.output{l+2}.norm.{statistic}"),
    Row("rpn_head.rpn_feat.rpn_conv.{parameter}", "rpn.conv1.{parameter}"),
    Row("rpn_head.rpn_feat.rpn_rois_score.{parameter}", "rpn.objectness.{parameter}"),
    Row("rpn_head.rpn_feat.rpn_rois_delta.{parameter}", "rpn.deltas.{parameter}"),
    Row("bbox_head.head.fc6.{parameter}", "box_head.fc1.{parameter}"),
    Row("bbox_head.head.fc7.{parameter}", "box_head.fc2.{parameter}"),
    Row("bbox_head.bbox_cls.{parameter}", "box_head.scores.{parameter}"),
    Row("bbox_head.bbox_delta.{parameter}", "box_head.deltas.{parameter}"),
    # Positions in a sequence of a convolution and a ReLU, four times, and the transposed convolution.
    Row("mask_head.head.upsample.0.{parameter}", "mask_head.conv1.{parameter}"),
    Row("mask_head.head.upsample.2.{parameter}", "mask_head.conv2.{parameter}"),
    Row("mask_head.head.upsample.4.{parameter}", "mask_head.conv3.{parameter}"),
    Row("mask_head.head.upsample.6.{parameter}", "mask_head.conv4.{parameter}"),
    Row("mask_head.head.upsample.8.{parameter}", "mask_head.upsample.{parameter}"),
    Row("mask_head.mask_fcn_logits.{parameter}", "mask_head.logits.{parameter}"),
)

ZOO_TABLE: Table = (
    Row("backbone.conv1.weight", "backbone.stem.conv.weight"),
    Row(f"backbone.bn1.{_NORM}", "backbone.stem.conv.norm.{statistic}"),
    Row("backbone.layer{s}.{b}.conv{i}.weight", "backbone.res{s+1}.{b}.conv{i}.weight"),
    Row(f"backbone.layer{{s}}.{{b}}.bn{{i}}.{_NORM}", "backbone.res{s+1}.{b}.conv{i}.norm.{statistic}"),
    Row("backbone.layer{s}.{b}.conv_down_sample.weight", "backbone.res{s+1}.{b}.shortcut.weight"),
    Row(
        f"backbone.layer{{s}}.{{b}}.bn_down_sample.{_NORM}",
        "backbone.res{s+1}.{b}.shortcut.norm.{statistic}",
    ),
    # Their attribute of the neck is spelt so.
    Row("fpn_ncek.lateral_convs_list.{l}.{parameter}", "fpn.lateral{l+2}.{parameter}"),
    Row("fpn_ncek.fpn_convs_list.{l}.{parameter}", "fpn.output{l+2}.{parameter}"),
    # The five levels share the parameters of the first.
    Row("rpn_with_loss.rpn_convs_list.0.rpn_conv.{parameter}", "rpn.conv1.{parameter}"),
    Row("rpn_with_loss.rpn_convs_list.0.rpn_cls.{parameter}", "rpn.objectness.{parameter}"),
    Row("rpn_with_loss.rpn_convs_list.0.rpn_reg.{parameter}", "rpn.deltas.{parameter}"),
    Row("rcnn_cls.fpn_cls.shared_fc_{i}.{parameter}", "box_head.fc{i+1}.{parameter}", TRANSPOSED),
    Row(
        "rcnn_cls.fpn_cls.cls_scores.{parameter}",
        "box_head.scores.{parameter}",
        then(TRANSPOSED, BACKGROUND_TO_LAST),
    ),
    Row(
        "rcnn_cls.fpn_cls.reg_scores.{parameter}",
        "box_head.deltas.{parameter}",
        then(TRANSPOSED, DROP_BACKGROUND_BOX),
    ),
    Row("rcnn_mask.fpn_mask.mask_deconv5.{parameter}", "mask_head.upsample.{parameter}"),
    Row("rcnn_mask.fpn_mask.mask_conv6.{parameter}", "mask_head.logits.{parameter}", DROP_BACKGROUND_MASK),
    Row("rcnn_mask.fpn_mask.mask_conv{i}.{parameter}", "mask_head.conv{i}.{parameter}"),
)


def _mindspore(
    model: ModelConfig, checkpoint: Checkpoint, style: str | None, config: str | None
) -> Described:
    settings: Settings = {
        "conventions": presets.MINDSPORE,
        "fpn.upsample": "bilinear",
        "fpn.norm_eps": 1e-4,
        "rpn.pre_nms": 2000,
        "rpn.smooth_l1_beta": 1.0,
        "box_head.smooth_l1_beta": 1.0,
    }
    notes = (
        "its eval.py feeds R, G, B, which is taken; its train.py B, G, R: --set preprocess.channels=bgr "
        "--set model.mean=[103.53,116.28,123.675] --set model.std=[57.375,57.12,58.395]",
        "masks are predicted on the final boxes and at most 100 detections are kept; its eval.py predicts "
        "masks on proposals, rounds their probabilities down and keeps every detection",
    )
    return _described(model, settings, presets.MINDSPORE_INPUT, notes, style or config)


def _mindspore_zoo(
    model: ModelConfig, checkpoint: Checkpoint, style: str | None, config: str | None
) -> Described:
    settings: Settings = {
        "conventions": presets.MINDSPORE_ZOO,
        "fpn.upsample": "bilinear_corners",
        "anchors.cells": tuple(_zoo_cell(stride) for stride in (4, 8, 16, 32, 64)),
        "rpn.post_nms_training": 2000,
        "rpn.smooth_l1_beta": 1 / 9,
        "box_head.smooth_l1_beta": 1.0,
        "box_head.detections": 128,
    }
    notes = (
        "a detection's mask is that of its own box; its eval.py takes the box of the likeliest class, and "
        "resizes portraits twice",
    )
    return _described(model, settings, presets.MINDSPORE_ZOO_INPUT, notes, style or config)


def _zoo_cell(stride: int) -> tuple[tuple[float, float, float, float], ...]:
    """Anchors of 8 strides for height / width .5, 1, 2; their inclusive corners are rounded half to even."""
    centre, side = 0.5 * (stride - 1), 8 * stride
    halves = [(0.5 * (side / sqrt(r) - 1), 0.5 * (side * sqrt(r) - 1)) for r in (0.5, 1.0, 2.0)]
    corners = [(centre - x, centre - y, centre + x, centre + y) for x, y in halves]
    return tuple((*map(float, map(round, each)),) for each in corners)  # type: ignore[misc]


def _described(
    model: ModelConfig, settings: Settings, preprocess: Preprocess, notes: tuple[str, ...], given: str | None
) -> Described:
    if given is not None:
        raise UserError(
            "MindSpore models have one style and one config", hint="leave out --style and --source-config"
        )
    model = with_conventions(model, settings | {"backbone.stem_pool": "same"})
    return Described(Spec(model, preprocess, default_classes(model.classes)), notes)


SOURCE = Source("mindspore", frozenset(("rpn_head.rpn_feat.rpn_rois_score.weight",)), TABLE, _mindspore)
ZOO_SOURCE = Source(
    "mindspore-zoo",
    frozenset(("rpn_with_loss.rpn_convs_list.0.rpn_cls.weight",)),
    ZOO_TABLE,
    _mindspore_zoo,
)
