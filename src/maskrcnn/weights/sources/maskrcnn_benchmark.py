"""Names of maskrcnn-benchmark's Mask R-CNN: FPN, and C4, whose last stage stands in the box head.

Container: `.pth`, {"model": ...} with `module.` before every name.
Recognised: R50, R101, R152 and ResNeXt trunks; two-FC and 4conv1fc heads; frozen batch norm, group norm (but
    not behind fully connected layers); class-agnostic boxes.
Conventions: boxes of x2 - x1 + 1 pixels, Detectron's anchors, RoIAlign without the half pixel, batch norm
    without eps, NMS from the threshold on.
Notes: anchors are those that the checkpoint saved. Detections are given best first and not class by class.
"""

from dataclasses import replace

from maskrcnn import presets
from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.spec import Spec
from maskrcnn.weights.detectron_lineage import (
    TRAINING,
    ConfigKeys,
    anchors_of_cells,
    four,
    saved_cells,
    settings_of,
    three,
)
from maskrcnn.weights.own_config import Settings, at, read_config, with_values
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

_BOX, _MASK = "roi_heads.box.feature_extractor", "roi_heads.mask.feature_extractor"

TABLE: Table = (
    Row("backbone.body.stem.conv1.weight", "backbone.stem.conv.weight"),
    Row("backbone.body.stem.bn1.{statistic}", "backbone.stem.conv.norm.{statistic}"),
    Row("backbone.body.layer{s}.{b}.conv{i}.weight", "backbone.res{s+1}.{b}.conv{i}.weight"),
    Row("backbone.body.layer{s}.{b}.bn{i}.{statistic}", "backbone.res{s+1}.{b}.conv{i}.norm.{statistic}"),
    Row("backbone.body.layer{s}.{b}.downsample.0.weight", "backbone.res{s+1}.{b}.shortcut.weight"),
    Row(
        "backbone.body.layer{s}.{b}.downsample.1.{statistic}",
        "backbone.res{s+1}.{b}.shortcut.norm.{statistic}",
    ),
    Row("backbone.fpn.fpn_inner{l}.{parameter}", "fpn.lateral{l+1}.{parameter}"),
    Row("backbone.fpn.fpn_layer{l}.{parameter}", "fpn.output{l+1}.{parameter}"),
    Row("backbone.fpn.fpn_inner{l}.0.weight", "fpn.lateral{l+1}.weight"),
    Row("backbone.fpn.fpn_inner{l}.1.{parameter}", "fpn.lateral{l+1}.norm.{parameter}"),
    Row("backbone.fpn.fpn_layer{l}.0.weight", "fpn.output{l+1}.weight"),
    Row("backbone.fpn.fpn_layer{l}.1.{parameter}", "fpn.output{l+1}.norm.{parameter}"),
    Row("rpn.head.conv.{parameter}", "rpn.conv1.{parameter}"),
    Row("rpn.head.cls_logits.{parameter}", "rpn.objectness.{parameter}"),
    Row("rpn.head.bbox_pred.{parameter}", "rpn.deltas.{parameter}"),
    Row(f"{_BOX}.head.layer4.{{b}}.conv{{i}}.weight", "res5.{b}.conv{i}.weight"),
    Row(f"{_BOX}.head.layer4.{{b}}.bn{{i}}.{{statistic}}", "res5.{b}.conv{i}.norm.{statistic}"),
    Row(f"{_BOX}.head.layer4.{{b}}.downsample.0.weight", "res5.{b}.shortcut.weight"),
    Row(f"{_BOX}.head.layer4.{{b}}.downsample.1.{{statistic}}", "res5.{b}.shortcut.norm.{statistic}"),
    # With C4 the mask head is given the box head's own module.
    Row(f"{_MASK}.head.layer4.{{b}}.conv{{i}}.weight", "res5.{b}.conv{i}.weight", REPEATED),
    Row(f"{_MASK}.head.layer4.{{b}}.bn{{i}}.{{statistic}}", "res5.{b}.conv{i}.norm.{statistic}", REPEATED),
    Row(f"{_MASK}.head.layer4.{{b}}.downsample.0.weight", "res5.{b}.shortcut.weight", REPEATED),
    Row(
        f"{_MASK}.head.layer4.{{b}}.downsample.1.{{statistic}}",
        "res5.{b}.shortcut.norm.{statistic}",
        REPEATED,
    ),
    # Positions in the Sequential of a convolution, its norm and a ReLU, four times.
    Row(f"{_BOX}.xconvs.0.weight", "box_head.conv1.weight"),
    Row(f"{_BOX}.xconvs.1.{{parameter}}", "box_head.conv1.norm.{parameter}"),
    Row(f"{_BOX}.xconvs.3.weight", "box_head.conv2.weight"),
    Row(f"{_BOX}.xconvs.4.{{parameter}}", "box_head.conv2.norm.{parameter}"),
    Row(f"{_BOX}.xconvs.6.weight", "box_head.conv3.weight"),
    Row(f"{_BOX}.xconvs.7.{{parameter}}", "box_head.conv3.norm.{parameter}"),
    Row(f"{_BOX}.xconvs.9.weight", "box_head.conv4.weight"),
    Row(f"{_BOX}.xconvs.10.{{parameter}}", "box_head.conv4.norm.{parameter}"),
    Row(f"{_BOX}.fc6.{{parameter}}", "box_head.fc1.{parameter}"),
    Row(f"{_BOX}.fc7.{{parameter}}", "box_head.fc2.{parameter}"),
    Row("roi_heads.box.predictor.cls_score.{parameter}", "box_head.scores.{parameter}", BACKGROUND_TO_LAST),
    Row("roi_heads.box.predictor.bbox_pred.{parameter}", "box_head.deltas.{parameter}", DROP_BACKGROUND_BOX),
    Row(f"{_MASK}.mask_fcn{{i}}.{{parameter}}", "mask_head.conv{i}.{parameter}"),
    Row(f"{_MASK}.mask_fcn{{i}}.0.weight", "mask_head.conv{i}.weight"),
    Row(f"{_MASK}.mask_fcn{{i}}.1.{{parameter}}", "mask_head.conv{i}.norm.{parameter}"),
    Row("roi_heads.mask.predictor.conv5_mask.{parameter}", "mask_head.upsample.{parameter}"),
    Row(
        "roi_heads.mask.predictor.mask_fcn_logits.{parameter}",
        "mask_head.logits.{parameter}",
        DROP_BACKGROUND_MASK,
    ),
    # `describe` reads the anchors from them.
    Row("rpn.anchor_generator.cell_anchors.{l}", "", DROP),
)


_KEYS: ConfigKeys = (
    ("INPUT.MIN_SIZE_TEST", "preprocess.short", int),
    ("INPUT.MAX_SIZE_TEST", "preprocess.long", int),
    ("INPUT.PIXEL_MEAN", "model.mean", three),
    ("INPUT.PIXEL_STD", "model.std", three),
    ("DATALOADER.SIZE_DIVISIBILITY", "preprocess.pad_multiple", lambda multiple: max(int(multiple), 1)),
    ("MODEL.RESNETS.STRIDE_IN_1X1", "model.backbone.stride_in_1x1", bool),
    ("MODEL.RPN.PRE_NMS_TOP_N_TEST", "model.rpn.pre_nms", int),
    ("MODEL.RPN.NMS_THRESH", "model.rpn.nms_iou", float),
    ("MODEL.RPN.MIN_SIZE", "model.conventions.rpn_min_size", float),
    ("MODEL.ROI_HEADS.BBOX_REG_WEIGHTS", "model.box_head.delta_weights", four),
    ("MODEL.ROI_HEADS.SCORE_THRESH", "model.box_head.score_over", float),
    ("MODEL.ROI_HEADS.NMS", "model.box_head.nms_iou", float),
    ("MODEL.ROI_HEADS.DETECTIONS_PER_IMG", "model.box_head.detections", int),
    ("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", "model.conventions.roi_samples", int),
    ("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", "model.mask_head.pool_side", int),
)


def _maskrcnn_benchmark(
    model: ModelConfig, checkpoint: Checkpoint, style: str | None, config: str | None
) -> Described:
    fpn = model.neck == "fpn"
    own = without_style(_own_settings(config, fpn), style) if config else {}
    strides = (4, 8, 16, 32, 64) if fpn else (16,)
    cells = saved_cells(checkpoint.tensors, "rpn.anchor_generator.cell_anchors.{}", len(strides))
    settings: Settings = TRAINING | {
        "mean": presets.MEAN_CAFFE2,
        "std": presets.NO_STD,
        "backbone.stride_in_1x1": _stride_in_1x1(model, style),
        "backbone.norm_eps": 1e-5 if model.backbone.norm == "gn" else 0.0,
        "conventions": presets.MASKRCNN_BENCHMARK,
    }
    if len(cells) == len(strides):
        model = replace(model, anchors=anchors_of_cells(cells, strides))
    if not fpn:
        settings |= {"rpn": presets.ONE_LEVEL_RPN, "conventions": presets.MASKRCNN_BENCHMARK_C4}
    preprocess = presets.MASKRCNN_BENCHMARK_INPUT if fpn else presets.MASKRCNN_BENCHMARK_C4_INPUT
    spec = Spec(with_conventions(model, settings), preprocess, default_classes(model.classes))
    return Described(with_values(spec, own), _notes(model, style, bool(own)))


def _stride_in_1x1(model: ModelConfig, style: str | None) -> bool:
    """As its published configs: in the 3x3 for ResNeXt and group norm."""
    trunk = model.backbone
    return trunk.groups == 1 and trunk.norm != "gn" if style is None else style == "caffe"


def _notes(model: ModelConfig, style: str | None, configured: bool) -> tuple[str, ...]:
    if configured or style:
        return ()
    placed = "1x1" if _stride_in_1x1(model, style) else "3x3"
    return (f"stride in the {placed} convolution, as in the published configs; --style tells otherwise",)


def _own_settings(config: str, fpn: bool) -> Settings:
    values = read_config(config)
    if not isinstance(values.get("MODEL"), dict):
        raise UserError(
            f"{config}: has no MODEL section", hint="give the config.yml that maskrcnn-benchmark wrote"
        )
    if at(values, "INPUT.TO_BGR255") is False:
        raise UserError(
            f"{config}: INPUT.TO_BGR255 is false, whose input of 0 to 1 is not supported",
            hint="train with INPUT.TO_BGR255 True",
        )
    post_nms = "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST" if fpn else "MODEL.RPN.POST_NMS_TOP_N_TEST"
    return settings_of(values, (*_KEYS, (post_nms, "model.rpn.post_nms", int)), config)


SOURCE = Source(
    "maskrcnn-benchmark",
    frozenset(("rpn.head.cls_logits.weight", "roi_heads.box.predictor.cls_score.weight")),
    TABLE,
    _maskrcnn_benchmark,
)
