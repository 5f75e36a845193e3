"""Names of detectron2's Mask R-CNN: FPN, C4 and DC5; with FPN the trunk stands under `bottom_up`."""

from dataclasses import replace

import numpy as np

from maskrcnn import presets
from maskrcnn.config import ModelConfig
from maskrcnn.spec import Spec
from maskrcnn.weights.own_config import Settings, detectron2_settings, read_config, with_values
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.rewrite import DROP, Row, Table
from maskrcnn.weights.source import Described, Source, default_classes, with_conventions, without_style

TABLE: Table = (
    Row("backbone.bottom_up.stem.conv1.weight", "backbone.stem.conv.weight"),
    Row("backbone.bottom_up.stem.conv1.norm.{statistic}", "backbone.stem.conv.norm.{statistic}"),
    Row("backbone.bottom_up.res{s}.{b}.{layer}.weight", "backbone.res{s}.{b}.{layer}.weight"),
    Row(
        "backbone.bottom_up.res{s}.{b}.{layer}.norm.{statistic}",
        "backbone.res{s}.{b}.{layer}.norm.{statistic}",
    ),
    Row("backbone.fpn_lateral{l}.{parameter}", "fpn.lateral{l}.{parameter}"),
    Row("backbone.fpn_lateral{l}.norm.{statistic}", "fpn.lateral{l}.norm.{statistic}"),
    Row("backbone.fpn_output{l}.{parameter}", "fpn.output{l}.{parameter}"),
    Row("backbone.fpn_output{l}.norm.{statistic}", "fpn.output{l}.norm.{statistic}"),
    Row("backbone.stem.conv1.weight", "backbone.stem.conv.weight"),
    Row("backbone.stem.conv1.norm.{statistic}", "backbone.stem.conv.norm.{statistic}"),
    Row("backbone.res{s}.{b}.{layer}.weight", "backbone.res{s}.{b}.{layer}.weight"),
    Row("backbone.res{s}.{b}.{layer}.norm.{statistic}", "backbone.res{s}.{b}.{layer}.norm.{statistic}"),
    Row("proposal_generator.rpn_head.conv.{parameter}", "rpn.conv1.{parameter}"),
    Row("proposal_generator.rpn_head.conv.conv{i}.{parameter}", "rpn.conv{i+1}.{parameter}"),
    Row("proposal_generator.rpn_head.objectness_logits.{parameter}", "rpn.objectness.{parameter}"),
    Row("proposal_generator.rpn_head.anchor_deltas.{parameter}", "rpn.deltas.{parameter}"),
    Row("roi_heads.res5.{b}.{layer}.weight", "res5.{b}.{layer}.weight"),
    Row("roi_heads.res5.{b}.{layer}.norm.{statistic}", "res5.{b}.{layer}.norm.{statistic}"),
    Row("roi_heads.box_head.conv{i}.{parameter}", "box_head.conv{i}.{parameter}"),
    Row("roi_heads.box_head.conv{i}.norm.{statistic}", "box_head.conv{i}.norm.{statistic}"),
    Row("roi_heads.box_head.fc{i}.{parameter}", "box_head.fc{i}.{parameter}"),
    Row("roi_heads.box_predictor.cls_score.{parameter}", "box_head.scores.{parameter}"),
    Row("roi_heads.box_predictor.bbox_pred.{parameter}", "box_head.deltas.{parameter}"),
    Row("roi_heads.mask_head.mask_fcn{i}.{parameter}", "mask_head.conv{i}.{parameter}"),
    Row("roi_heads.mask_head.mask_fcn{i}.norm.{statistic}", "mask_head.conv{i}.norm.{statistic}"),
    Row("roi_heads.mask_head.deconv.{parameter}", "mask_head.upsample.{parameter}"),
    Row("roi_heads.mask_head.predictor.{parameter}", "mask_head.logits.{parameter}"),
    # Buffers that older versions saved; `sources` reads the normalisation from them.
    Row("pixel_mean", "", DROP),
    Row("pixel_std", "", DROP),
    Row("proposal_generator.anchor_generator.cell_anchors.{l}", "", DROP),
)


def _detectron2(
    model: ModelConfig, checkpoint: Checkpoint, style: str | None, config: str | None
) -> Described:
    own = detectron2_settings(read_config(config), str(config)) if config else {}
    own = without_style(own, style)
    model, converted = _without_statistics(model)
    deviating, notes = _detectron2_defaults(model, style, bool(own))
    settings: Settings = {"mean": presets.MEAN_BGR, "conventions": presets.DETECTRON2} | deviating
    if model.neck != "fpn":
        settings["rpn"] = replace(presets.ONE_LEVEL_RPN, convs=model.rpn.convs)
    pad = 32 if model.neck == "fpn" else 1
    spec = Spec(
        with_conventions(model, settings),
        replace(presets.DETECTRON2_INPUT, pad_multiple=pad),
        default_classes(model.classes),
    )
    return Described(
        with_values(spec, _saved_statistics(checkpoint) | _with_all_levels(own, model)), converted + notes
    )


def _without_statistics(model: ModelConfig) -> tuple[ModelConfig, tuple[str, ...]]:
    """A trunk's norms without statistics are group norm only if the pyramid has it too, as published."""
    if model.backbone.norm != "gn" or (model.neck == "fpn" and model.fpn.norm == "gn"):
        return model, ()
    frozen = replace(model, backbone=replace(model.backbone, norm="frozen_bn"))
    return frozen, (
        "the trunk's norms have no statistics: mean 0 and variance 1 of frozen batch norm are taken",
    )


def _detectron2_defaults(
    model: ModelConfig, style: str | None, configured: bool
) -> tuple[Settings, tuple[str, ...]]:
    """Stride placement and std of detectron2's published configs, and what else they could be."""
    trunk = model.backbone
    if style is not None:
        caffe = style == "caffe"
        return {"backbone.stride_in_1x1": caffe, "std": presets.NO_STD if caffe else presets.STD_BGR}, ()
    if trunk.groups > 1:
        return {"std": presets.STD_BGR}, ()
    other = ""
    if trunk.norm == "gn":
        other = "scratch_mask_rcnn_R_50_FPN_9x_gn has --set model.std=[57.375,57.12,58.395]"
    elif trunk.norm == "bn":
        other = "scratch_mask_rcnn_R_50_FPN_9x_syncbn has --style pytorch"
    notes = (f"std 1 as in most published {trunk.norm} models; {other}",) if other and not configured else ()
    return {"backbone.stride_in_1x1": trunk.norm != "gn", "std": presets.NO_STD}, notes


def _with_all_levels(own: Settings, model: ModelConfig) -> Settings:
    # One list of sizes stands for every level.
    sizes = own.get("model.anchors.sizes")
    return (
        own | {"model.anchors.sizes": sizes * 5} if sizes and len(sizes) == 1 and model.neck == "fpn" else own
    )


def _saved_statistics(checkpoint: Checkpoint) -> Settings:
    """pixel_mean and pixel_std, which checkpoints of older versions hold as buffers."""
    buffers = (("model.mean", "pixel_mean"), ("model.std", "pixel_std"))
    found = {ours: checkpoint.tensors.get(theirs) for ours, theirs in buffers}
    return {
        ours: tuple(round(float(number), 4) for number in np.ravel(values))
        for ours, values in found.items()
        if values is not None and values.size == 3
    }


SOURCE = Source(
    "detectron2", frozenset(("proposal_generator.rpn_head.objectness_logits.weight",)), TABLE, _detectron2
)
