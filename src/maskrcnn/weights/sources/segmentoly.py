"""Names of segmentoly's Mask R-CNN, of OpenVINO training extensions: FPN, and C4 with a stage for both heads.

Container: `.pth`, {"model": ...}: its conversions of Detectron and maskrcnn-benchmark, and its own trainings.
Recognised: R50, R101, R152 and ResNeXt trunks; FC heads, also as convolutions; batch norm; as
    `segmentoly-norms` group norm everywhere and the light instance-segmentation-security-0050.
Conventions: as maskrcnn-benchmark, with batch norm of eps 1e-5 and anchors of its own, up to two pixels
    larger than Detectron's but for two of them.
Notes: anchors are those that the checkpoint saved, else segmentoly's.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from maskrcnn import presets
from maskrcnn.config import AnchorConfig, ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.spec import Preprocess, Spec
from maskrcnn.weights.detectron_lineage import TRAINING, explicit_anchors, saved_cells, three
from maskrcnn.weights.own_config import Settings
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.rewrite import (
    BACKGROUND_TO_LAST,
    DROP,
    DROP_BACKGROUND_BOX,
    DROP_BACKGROUND_MASK,
    Op,
    Row,
    Table,
    then,
)
from maskrcnn.weights.source import Described, Source, default_classes, with_conventions


def _flat(array: NDArray) -> NDArray:
    return array.reshape(len(array), -1) if array.ndim > 2 else array


# Fully connected layers may be saved as convolutions over all that they see.
FLAT = Op("flat", _flat, _flat)

TRUNK: Table = (
    Row("backbone.stages.stage_0.conv1.weight", "backbone.stem.conv.weight"),
    Row("backbone.stages.stage_0.bn1.{statistic}", "backbone.stem.conv.norm.{statistic}"),
    Row("backbone.stages.stage_{s}.{b}.conv{i}.weight", "backbone.res{s+1}.{b}.conv{i}.weight"),
    Row("backbone.stages.stage_{s}.{b}.bn{i}.{statistic}", "backbone.res{s+1}.{b}.conv{i}.norm.{statistic}"),
    Row("backbone.stages.stage_{s}.{b}.downsample.0.weight", "backbone.res{s+1}.{b}.shortcut.weight"),
    Row(
        "backbone.stages.stage_{s}.{b}.downsample.1.{statistic}",
        "backbone.res{s+1}.{b}.shortcut.norm.{statistic}",
    ),
    Row("common_detection_mask_head.{b}.conv{i}.weight", "res5.{b}.conv{i}.weight"),
    Row("common_detection_mask_head.{b}.bn{i}.{statistic}", "res5.{b}.conv{i}.norm.{statistic}"),
    Row("common_detection_mask_head.{b}.downsample.0.weight", "res5.{b}.shortcut.weight"),
    Row("common_detection_mask_head.{b}.downsample.1.{statistic}", "res5.{b}.shortcut.norm.{statistic}"),
)
# Its pyramid is counted from the top.
PYRAMID: Table = (
    Row("fpn.conv_top.{parameter}", "fpn.lateral5.{parameter}"),
    Row("fpn.topdown_lateral.0.conv_lateral.{parameter}", "fpn.lateral4.{parameter}"),
    Row("fpn.topdown_lateral.1.conv_lateral.{parameter}", "fpn.lateral3.{parameter}"),
    Row("fpn.topdown_lateral.2.conv_lateral.{parameter}", "fpn.lateral2.{parameter}"),
    Row("fpn.posthoc.0.{parameter}", "fpn.output5.{parameter}"),
    Row("fpn.posthoc.1.{parameter}", "fpn.output4.{parameter}"),
    Row("fpn.posthoc.2.{parameter}", "fpn.output3.{parameter}"),
    Row("fpn.posthoc.3.{parameter}", "fpn.output2.{parameter}"),
)
HEADS: Table = (
    Row("rpn.conv.{parameter}", "rpn.conv1.{parameter}"),
    Row("rpn.cls_score.{parameter}", "rpn.objectness.{parameter}"),
    Row("rpn.bbox_deltas.{parameter}", "rpn.deltas.{parameter}"),
    Row("detection_head.fc{i}.{parameter}", "box_head.fc{i}.{parameter}", FLAT),
    Row(
        "detection_head.cls_score.{parameter}",
        "box_head.scores.{parameter}",
        then(FLAT, BACKGROUND_TO_LAST),
    ),
    Row(
        "detection_head.bbox_pred.{parameter}",
        "box_head.deltas.{parameter}",
        then(FLAT, DROP_BACKGROUND_BOX),
    ),
    Row("mask_head.upconv.{parameter}", "mask_head.upsample.{parameter}"),
    Row("mask_head.upconv5.{parameter}", "mask_head.upsample.{parameter}"),
    Row("mask_head.segm.{parameter}", "mask_head.logits.{parameter}", DROP_BACKGROUND_MASK),
    # `describe` reads anchors and mean from them.
    Row("prior_boxes.prior_boxes", "", DROP),
    Row("prior_boxes.{l}.prior_boxes", "", DROP),
    Row("data_normalizer.{statistic}", "", DROP),
)
TABLE: Table = (
    *TRUNK,
    *PYRAMID,
    # Positions in a Sequential of convolutions and ReLUs.
    Row("mask_head.conv_fcn.0.{parameter}", "mask_head.conv1.{parameter}"),
    Row("mask_head.conv_fcn.2.{parameter}", "mask_head.conv2.{parameter}"),
    Row("mask_head.conv_fcn.4.{parameter}", "mask_head.conv3.{parameter}"),
    Row("mask_head.conv_fcn.6.{parameter}", "mask_head.conv4.{parameter}"),
    *HEADS,
)
# The same behind norms: convolutions, norms and ReLUs, three to a step.
_STEPS: Table = tuple(
    row
    for number in range(6)
    for row in (
        Row(f"mask_head.conv_fcn.{3 * number}.{{parameter}}", f"mask_head.conv{number + 1}.{{parameter}}"),
        Row(
            f"mask_head.conv_fcn.{3 * number + 1}.{{statistic}}",
            f"mask_head.conv{number + 1}.norm.{{statistic}}",
        ),
        Row(f"detection_head.convs.{3 * number}.weight", f"box_head.conv{number + 1}.weight"),
        Row(
            f"detection_head.convs.{3 * number + 1}.{{parameter}}",
            f"box_head.conv{number + 1}.norm.{{parameter}}",
        ),
    )
)
NORMED_TABLE: Table = (
    *TRUNK,
    *PYRAMID,
    *(
        Row(f"{theirs}.{place}.{{parameter}}", f"{ours}{norm}.{{parameter}}")
        for theirs, ours in (
            ("fpn.conv_top", "fpn.lateral5"),
            *((f"fpn.topdown_lateral.{n}.conv_lateral", f"fpn.lateral{4 - n}") for n in range(3)),
            *((f"fpn.posthoc.{n}", f"fpn.output{5 - n}") for n in range(4)),
        )
        for place, norm in ((0, ""), (1, ".norm"))
    ),
    Row("bupa.conv1.{n}.0.weight", "fpn.shrink{n+3}.weight"),
    Row("bupa.conv1.{n}.1.{statistic}", "fpn.shrink{n+3}.norm.{statistic}"),
    Row("bupa.conv2.{n}.0.weight", "fpn.joined{n+3}.weight"),
    Row("bupa.conv2.{n}.1.{statistic}", "fpn.joined{n+3}.norm.{statistic}"),
    *_STEPS,
    *HEADS,
)

# Sides of the anchors of each level as segmentoly's model zoo has them: with FPN Detectron's and one pixel,
# but for the heights 89 and 147, which Detectron has as 96 and 176.
_WIDTHS = ((49, 33, 25), (89, 65, 49), (185, 129, 89), (361, 257, 185), (729, 513, 361))
_HEIGHTS = ((25, 33, 49), (49, 65, 89), (97, 129, 147), (177, 257, 369), (369, 513, 721))
_C4_WIDTHS = (46, 92, 184, 368, 736, 32, 64, 128, 256, 512, 22, 44, 88, 176, 352)
_C4_HEIGHTS = (24, 48, 96, 192, 384, 32, 64, 128, 256, 512, 44, 88, 176, 352, 704)


# How many proposals 0050 and the models for demonstrations take.
_LIGHT_ROIS = 100
# Of the anchors of the others, those of the light head for masks.
_LIGHT_SHARE = 0.4


def describe(model: ModelConfig, checkpoint: Checkpoint, style: str | None, config: str | None) -> Described:
    """What segmentoly means by an architecture. checkpoint: for its anchors and mean. style: of the strides.

    Raises UserError for a config, which it has none of, and for a file that lost its norms.
    """
    if config is not None:
        raise UserError("segmentoly models have no config of their own", hint="leave out --source-config")
    fpn, trunk = model.neck == "fpn", model.backbone
    light = model.fpn.bottom_up == "bn"  # 0050; the path of its PANet has group norm
    # Its PANet alone leaves a ResNeXt as its ResNets are.
    in_1x1 = trunk.groups == 1 or model.roi_levels == "all"
    if trunk.norm == "gn" and model.fpn.norm != "gn":
        _refuse_lost_norms(model, checkpoint)
        # Converted from Detectron, whose norms are scale and bias alone.
        model = replace(model, backbone=replace(trunk, norm="frozen_bn"))
    anchors, notes = _anchors(checkpoint, model)
    settings: Settings = TRAINING | {
        "mean": presets.MEAN_CAFFE2,
        "std": presets.NO_STD,
        "backbone.stride_in_1x1": in_1x1 if style is None else style == "caffe",
        "conventions": presets.SEGMENTOLY if fpn else presets.SEGMENTOLY_C4,
    }
    if not fpn:
        settings["rpn"] = presets.ONE_LEVEL_RPN
    elif model.roi_levels == "all":
        settings |= {"fpn.deformable": "held", "box_head.fc1_relu": False}
    elif model.mask_head.channels < model.fpn.channels or light:
        settings |= {"mask_head.pool_side": 7, "box_head.batch": 256}  # its light heads
    normalizer = checkpoint.tensors.get("data_normalizer.bias")
    if normalizer is not None:
        settings["mean"] = three(-normalizer)
    if normalizer is not None or light:
        settings |= {"rpn.pre_nms": _LIGHT_ROIS, "rpn.post_nms": _LIGHT_ROIS}
    spec = Spec(
        with_conventions(replace(model, anchors=anchors), settings),
        _input(model),
        default_classes(model.classes),
    )
    return Described(spec, notes)


def _input(model: ModelConfig) -> Preprocess:
    if model.neck != "fpn":
        return presets.SEGMENTOLY_C4_INPUT
    if model.fpn.bottom_up == "bn":
        return presets.SEGMENTOLY_LIGHT_INPUT
    return presets.SEGMENTOLY_INPUT


def _refuse_lost_norms(model: ModelConfig, checkpoint: Checkpoint) -> None:
    if model.neck == "fpn" and model.box_head.fcs == 1:
        raise UserError(
            f"{checkpoint.path}: is a group norm model of Detectron that segmentoly converted without the "
            "norms of its pyramid and heads",
            hint="convert Detectron's own .pkl file",
        )


def _anchors(checkpoint: Checkpoint, model: ModelConfig) -> tuple[AnchorConfig, tuple[str, ...]]:
    """Boxes around the middle of a cell: those in the file, else those of the model zoo."""
    fpn = model.neck == "fpn"
    strides = (4, 8, 16, 32, 64) if fpn else (16,)
    pattern = "prior_boxes.{}.prior_boxes" if fpn else "prior_boxes.prior_boxes"
    boxes = saved_cells(checkpoint.tensors, pattern, len(strides))
    notes: tuple[str, ...] = ()
    if len(boxes) != len(strides):
        notes = ("anchors of segmentoly's model zoo; those of Detectron have --set model.anchors.cells=[]",)
        if model.fpn.bottom_up == "bn":
            return presets.SEGMENTOLY_LIGHT_ANCHORS, notes
        sides = zip(_WIDTHS, _HEIGHTS, strict=True) if fpn else ((_C4_WIDTHS, _C4_HEIGHTS),)
        # Its light head for masks came with small images.
        share = _LIGHT_SHARE if fpn and model.mask_head.channels < model.fpn.channels else 1.0
        boxes = [share * _centred(*level) for level in sides]
    cells = [box + stride / 2 for box, stride in zip(boxes, strides, strict=True)]
    anchors = explicit_anchors(cells)
    defaults = presets.ONE_LEVEL_ANCHORS if not fpn else AnchorConfig()
    return (replace(defaults, cells=anchors.cells) if notes else anchors), notes


def _centred(widths: Sequence[float], heights: Sequence[float]) -> NDArray[np.float64]:
    half_width, half_height = np.array(widths) / 2, np.array(heights) / 2
    return np.stack([-half_width, -half_height, half_width, half_height], 1)


SOURCE = Source(
    "segmentoly",
    frozenset(("detection_head.cls_score.weight", "rpn.bbox_deltas.weight")),
    TABLE,
    describe,
)
# Before the other: with norms the convolutions of the mask head have other numbers.
NORMED_SOURCE = Source(
    "segmentoly-norms",
    SOURCE.fingerprint | {"mask_head.conv_fcn.1.weight"},
    NORMED_TABLE,
    describe,
)
