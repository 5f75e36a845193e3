"""Names of torchvision's Mask R-CNN: v1, v2, and the spellings of files saved before torchvision 0.13."""

from maskrcnn.weights.rewrite import BACKGROUND_TO_LAST, DROP_BACKGROUND_BOX, DROP_BACKGROUND_MASK, Row, Table

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
