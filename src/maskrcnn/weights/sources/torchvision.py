"""Names of torchvision's Mask R-CNN: v1, v2, and the spellings of files saved before torchvision 0.13."""

from maskrcnn import presets
from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.presets import COCO_90
from maskrcnn.spec import Spec
from maskrcnn.weights.own_config import Settings
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.rewrite import BACKGROUND_TO_LAST, DROP_BACKGROUND_BOX, DROP_BACKGROUND_MASK, Row, Table
from maskrcnn.weights.source import Described, Source, default_classes, with_conventions

TABLE: Table = (
    Row("backbone.body.conv1.weight", "backbone.stem.conv.weight"),
    Row("backbone.body.bn1.{statistic}", "backbone.stem.conv.norm.{statistic}"),
    Row("backbone.body.layer{s}.{b}.conv{i}.weight", "backbone.res{s+1}.{b}.conv{i}.weight"),
    Row("backbone.body.layer{s}.{b}.bn{i}.{statistic}", "backbone.res{s+1}.{b}.conv{i}.norm.{statistic}"),
    Row("backbone.body.layer{s}.{b}.downsample.0.weight", "backbone.res{s+1}.{b}.shortcut.weight"),
    Row(
        "backbone.body.layer{s}.{b}.downsample.1.{statistic}",
        "backbone.res{s+1}.{b}.shortcut.norm.{statistic}",
    ),
    Row("backbone.fpn.inner_blocks.{l}.0.{parameter}", "fpn.lateral{l+2}.{parameter}"),
    Row("backbone.fpn.inner_blocks.{l}.1.{statistic}", "fpn.lateral{l+2}.norm.{statistic}"),
    Row("backbone.fpn.layer_blocks.{l}.0.{parameter}", "fpn.output{l+2}.{parameter}"),
    Row("backbone.fpn.layer_blocks.{l}.1.{statistic}", "fpn.output{l+2}.norm.{statistic}"),
    Row("rpn.head.conv.{i}.0.{parameter}", "rpn.conv{i+1}.{parameter}"),
    Row("rpn.head.cls_logits.{parameter}", "rpn.objectness.{parameter}"),
    Row("rpn.head.bbox_pred.{parameter}", "rpn.deltas.{parameter}"),
    Row("roi_heads.box_head.fc6.{parameter}", "box_head.fc1.{parameter}"),
    Row("roi_heads.box_head.fc7.{parameter}", "box_head.fc2.{parameter}"),
    Row("roi_heads.box_head.{i}.0.{parameter}", "box_head.conv{i+1}.{parameter}"),
    Row("roi_heads.box_head.{i}.1.{statistic}", "box_head.conv{i+1}.norm.{statistic}"),
    # Position in the Sequential of 4 convolutions, a Flatten, and then Linear, ReLU, Linear.
    Row("roi_heads.box_head.5.{parameter}", "box_head.fc1.{parameter}"),
    Row("roi_heads.box_head.7.{parameter}", "box_head.fc2.{parameter}"),
    Row("roi_heads.box_predictor.cls_score.{parameter}", "box_head.scores.{parameter}", BACKGROUND_TO_LAST),
    Row("roi_heads.box_predictor.bbox_pred.{parameter}", "box_head.deltas.{parameter}", DROP_BACKGROUND_BOX),
    Row("roi_heads.mask_head.{i}.0.{parameter}", "mask_head.conv{i+1}.{parameter}"),
    Row("roi_heads.mask_head.{i}.1.{statistic}", "mask_head.conv{i+1}.norm.{statistic}"),
    Row("roi_heads.mask_predictor.conv5_mask.{parameter}", "mask_head.upsample.{parameter}"),
    Row(
        "roi_heads.mask_predictor.mask_fcn_logits.{parameter}",
        "mask_head.logits.{parameter}",
        DROP_BACKGROUND_MASK,
    ),
    # before 0.13
    Row("backbone.fpn.inner_blocks.{l}.{parameter}", "fpn.lateral{l+2}.{parameter}"),
    Row("backbone.fpn.layer_blocks.{l}.{parameter}", "fpn.output{l+2}.{parameter}"),
    Row("rpn.head.conv.{parameter}", "rpn.conv1.{parameter}"),
    Row("roi_heads.mask_head.mask_fcn{i}.{parameter}", "mask_head.conv{i}.{parameter}"),
)


def _torchvision(
    model: ModelConfig, checkpoint: Checkpoint, style: str | None, config: str | None
) -> Described:
    if style is not None or config is not None:
        raise UserError(
            "torchvision models have one style and no config", hint="leave out --style and --source-config"
        )
    notes: tuple[str, ...] = ()
    settings: Settings = {
        "rpn.pre_nms_training": 2000,
        "rpn.post_nms_training": 2000,
        "rpn.smooth_l1_beta": 1 / 9,
        "box_head.smooth_l1_beta": 1 / 9,
        "conventions": presets.TORCHVISION,
    }
    trunk = model.backbone
    # The published file is an R50; torchvision sets its eps to 0 and leaves that of every other trunk.
    if (trunk.norm, trunk.depth, trunk.groups) == ("frozen_bn", 50, 1):
        settings["backbone.norm_eps"] = 0.0
        notes = (
            "frozen batch norm has eps 0, as in torchvision's published weights; for a model trained from "
            "a trunk alone add --set model.backbone.norm_eps=1e-5",
        )
    classes = COCO_90 if model.classes == 90 else default_classes(model.classes)
    return Described(Spec(with_conventions(model, settings), presets.TORCHVISION_INPUT, classes), notes)


SOURCE = Source(
    "torchvision",
    frozenset(("rpn.head.cls_logits.weight", "roi_heads.box_predictor.cls_score.weight")),
    TABLE,
    _torchvision,
)
