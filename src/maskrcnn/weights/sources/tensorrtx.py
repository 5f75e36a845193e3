"""Names of tensorrtx's `.wts` files: detectron2's, with every batch norm folded into its convolution.

Container: `.wts`, text, without shapes.
Recognised: `tensorrtx` is C4 of R18 to R152, which tensorrtx and IxRT run, and DC5; `tensorrtx-fpn` what
    their script writes of a detectron2 FPN model, ResNeXt too.
Conventions: C4 has detectron2's, but linear soft-NMS and no limit of box deltas.
Notes: detectron2's resizing is taken, and its score over 0.05; --style tensorrtx and --style ixrt take the
    letterbox of those programs, and for IxRT RPN NMS over 0.5. Soft-NMS goes by the decayed scores, theirs
    by those before, over the 1000 best pairs of box and class. y2 is clipped to the height, theirs to the
    width. Proposals that NMS removed do not come back, theirs fill up to 1000. Masks are pasted as in
    detectron2, theirs resized into a rectangle that is a pixel larger on each side.
"""

from dataclasses import replace

from maskrcnn import presets
from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.weights.own_config import Settings, with_values
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.rewrite import DROP, Row, Table
from maskrcnn.weights.source import PROGRAMS, STYLES, Described, Source
from maskrcnn.weights.sources import detectron2

_HEADS: Table = (
    Row("proposal_generator.rpn_head.conv.{parameter}", "rpn.conv1.{parameter}"),
    Row("proposal_generator.rpn_head.conv.conv{i}.{parameter}", "rpn.conv{i+1}.{parameter}"),
    Row("proposal_generator.rpn_head.objectness_logits.{parameter}", "rpn.objectness.{parameter}"),
    Row("proposal_generator.rpn_head.anchor_deltas.{parameter}", "rpn.deltas.{parameter}"),
    Row("roi_heads.box_head.conv{i}.{parameter}", "box_head.conv{i}.{parameter}"),
    Row("roi_heads.box_head.fc{i}.{parameter}", "box_head.fc{i}.{parameter}"),
    Row("roi_heads.box_predictor.cls_score.{parameter}", "box_head.scores.{parameter}"),
    Row("roi_heads.box_predictor.bbox_pred.{parameter}", "box_head.deltas.{parameter}"),
    Row("roi_heads.mask_head.mask_fcn{i}.{parameter}", "mask_head.conv{i}.{parameter}"),
    Row("roi_heads.mask_head.deconv.{parameter}", "mask_head.upsample.{parameter}"),
    Row("roi_heads.mask_head.predictor.{parameter}", "mask_head.logits.{parameter}"),
    # tensorrtx has them as constants; older detectron2 writes them into the file.
    Row("pixel_mean", "", DROP),
    Row("pixel_std", "", DROP),
    Row("proposal_generator.anchor_generator.cell_anchors.{l}", "", DROP),
)

TABLE: Table = (
    Row("backbone.stem.conv1.{parameter}", "backbone.stem.conv.{parameter}"),
    Row("backbone.res{s}.{b}.{layer}.{parameter}", "backbone.res{s}.{b}.{layer}.{parameter}"),
    Row("roi_heads.res5.{b}.{layer}.{parameter}", "res5.{b}.{layer}.{parameter}"),
    *_HEADS,
)

PYRAMID_TABLE: Table = (
    Row("backbone.bottom_up.stem.conv1.{parameter}", "backbone.stem.conv.{parameter}"),
    Row("backbone.bottom_up.res{s}.{b}.{layer}.{parameter}", "backbone.res{s}.{b}.{layer}.{parameter}"),
    Row("backbone.fpn_lateral{l}.{parameter}", "fpn.lateral{l}.{parameter}"),
    Row("backbone.fpn_output{l}.{parameter}", "fpn.output{l}.{parameter}"),
    *_HEADS,
)

_NOTES = (
    "as tensorrtx computes: linear soft-NMS and no limit of box deltas, but detectron2's input and score "
    "over 0.05; with --style tensorrtx or --style ixrt also their preprocess.resize=letterbox",
)
_PROGRAM_NOTES = {
    "tensorrtx": (
        "as tensorrtx computes, with its letterbox filled with 128; score over 0.05, while its "
        "program shows scores over 0.6: --set model.box_head.score_over=0.6"
    ),
    "ixrt": "as IxRT's sample computes: its letterbox filled with 128, RPN NMS over 0.5",
}
# Of these its page has the trunks trained from torchvision's weights, and lets them see R, G, B.
_FROM_TORCHVISION = (18, 34, 152)
_AS_TORCHVISION: Settings = {
    "model.backbone.stride_in_1x1": False,
    "model.mean": presets.MEAN_RGB,
    "model.std": presets.STD_RGB,
    "preprocess.channels": "rgb",
}
_TORCHVISION_NOTE = (
    "R18, R34 and R152 as tensorrtx's page trains them: RGB, torchvision's mean and std, strides in the 3x3; "
    "--style caffe, --style pytorch or --source-config say otherwise"
)
# tensorrtx has detectron2's 0.7.
_RPN_IOU = {"ixrt": 0.5}
_NOT_THEIRS = "tensorrtx runs C4 models only; numbers and input are detectron2's"


def _tensorrtx(
    model: ModelConfig, checkpoint: Checkpoint, style: str | None, config: str | None
) -> Described:
    program = style if style in PROGRAMS else None
    described = detectron2.SOURCE.describe(model, checkpoint, None if program else style, config)
    if model.neck != "c4":
        if program:
            raise UserError(
                f"{program} runs C4 models, and this is {model.neck.upper()}",
                hint=f"leave out --style {program}",
            )
        return replace(described, notes=(*described.notes, _NOT_THEIRS))
    habits = replace(described.spec.model, conventions=presets.TENSORRTX)
    if model.backbone.depth in _FROM_TORCHVISION and style in (None, "tensorrtx") and config is None:
        spec = with_values(replace(described.spec, model=habits), _AS_TORCHVISION)
        described, habits = Described(spec, (*described.notes, _TORCHVISION_NOTE)), spec.model
    score_over = habits.box_head.score_over
    soft = {"box_head.soft_nms.method": "linear", "box_head.soft_nms.min_score": score_over}
    if program is None:
        spec = replace(described.spec, model=with_values(habits, soft))
        return Described(spec, described.notes + _NOTES)
    rpn_iou = _RPN_IOU.get(program, habits.rpn.nms_iou)
    fed = replace(
        described.spec,
        model=with_values(habits, soft | {"rpn.nms_iou": rpn_iou}),
        preprocess=replace(presets.TENSORRTX_INPUT, channels=described.spec.preprocess.channels),
    )
    return Described(fed, (*described.notes, _PROGRAM_NOTES[program]))


_OBJECTNESS = "proposal_generator.rpn_head.objectness_logits.weight"

SOURCE = Source(
    "tensorrtx",
    frozenset((_OBJECTNESS, "backbone.stem.conv1.bias")),
    TABLE,
    _tensorrtx,
    styles=STYLES + PROGRAMS,
)
PYRAMID_SOURCE = Source(
    "tensorrtx-fpn",
    frozenset((_OBJECTNESS, "backbone.bottom_up.stem.conv1.bias")),
    PYRAMID_TABLE,
    _tensorrtx,
    styles=STYLES + PROGRAMS,
)
