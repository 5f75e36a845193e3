"""Names of detectron2's Mask R-CNN: FPN, C4 and DC5; with FPN the trunk stands under `bottom_up`."""

from maskrcnn.weights.rewrite import DROP, Row, Table

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
