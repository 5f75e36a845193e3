"""Names of mmdetection's Mask R-CNN, 2.x and 3.x: FPN, and C4, whose last stage is the `shared_head`."""

from dataclasses import replace
from typing import Any

from maskrcnn import presets
from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.presets import COCO
from maskrcnn.spec import Classes, Preprocess, Spec
from maskrcnn.weights.own_config import Settings, literals, mmdetection_settings, read_config, with_values
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.rewrite import Row, Table
from maskrcnn.weights.source import (
    OF_STYLE,
    Described,
    Source,
    default_classes,
    with_conventions,
    without_style,
)

TABLE: Table = (
    Row("backbone.conv1.weight", "backbone.stem.conv.weight"),
    Row("backbone.bn1.{statistic}", "backbone.stem.conv.norm.{statistic}"),
    Row("backbone.gn1.{parameter}", "backbone.stem.conv.norm.{parameter}"),
    Row("backbone.layer{s}.{b}.conv{i}.weight", "backbone.res{s+1}.{b}.conv{i}.weight"),
    Row("backbone.layer{s}.{b}.bn{i}.{statistic}", "backbone.res{s+1}.{b}.conv{i}.norm.{statistic}"),
    Row("backbone.layer{s}.{b}.gn{i}.{parameter}", "backbone.res{s+1}.{b}.conv{i}.norm.{parameter}"),
    Row("backbone.layer{s}.{b}.downsample.0.weight", "backbone.res{s+1}.{b}.shortcut.weight"),
    Row("backbone.layer{s}.{b}.downsample.1.{statistic}", "backbone.res{s+1}.{b}.shortcut.norm.{statistic}"),
    Row("neck.lateral_convs.{l}.conv.{parameter}", "fpn.lateral{l+2}.{parameter}"),
    Row("neck.lateral_convs.{l}.bn.{statistic}", "fpn.lateral{l+2}.norm.{statistic}"),
    Row("neck.lateral_convs.{l}.gn.{parameter}", "fpn.lateral{l+2}.norm.{parameter}"),
    Row("neck.fpn_convs.{l}.conv.{parameter}", "fpn.output{l+2}.{parameter}"),
    Row("neck.fpn_convs.{l}.bn.{statistic}", "fpn.output{l+2}.norm.{statistic}"),
    Row("neck.fpn_convs.{l}.gn.{parameter}", "fpn.output{l+2}.norm.{parameter}"),
    Row("rpn_head.rpn_conv.{parameter}", "rpn.conv1.{parameter}"),
    Row("rpn_head.rpn_conv.{i}.conv.{parameter}", "rpn.conv{i+1}.{parameter}"),
    Row("rpn_head.rpn_cls.{parameter}", "rpn.objectness.{parameter}"),
    Row("rpn_head.rpn_reg.{parameter}", "rpn.deltas.{parameter}"),
    Row("roi_head.shared_head.layer4.{b}.conv{i}.weight", "res5.{b}.conv{i}.weight"),
    Row("roi_head.shared_head.layer4.{b}.bn{i}.{statistic}", "res5.{b}.conv{i}.norm.{statistic}"),
    Row("roi_head.shared_head.layer4.{b}.downsample.0.weight", "res5.{b}.shortcut.weight"),
    Row("roi_head.shared_head.layer4.{b}.downsample.1.{statistic}", "res5.{b}.shortcut.norm.{statistic}"),
    Row("roi_head.bbox_head.shared_convs.{i}.conv.{parameter}", "box_head.conv{i+1}.{parameter}"),
    Row("roi_head.bbox_head.shared_convs.{i}.bn.{statistic}", "box_head.conv{i+1}.norm.{statistic}"),
    Row("roi_head.bbox_head.shared_convs.{i}.gn.{parameter}", "box_head.conv{i+1}.norm.{parameter}"),
    Row("roi_head.bbox_head.shared_fcs.{i}.{parameter}", "box_head.fc{i+1}.{parameter}"),
    Row("roi_head.bbox_head.fc_cls.{parameter}", "box_head.scores.{parameter}"),
    Row("roi_head.bbox_head.fc_reg.{parameter}", "box_head.deltas.{parameter}"),
    Row("roi_head.mask_head.convs.{i}.conv.{parameter}", "mask_head.conv{i+1}.{parameter}"),
    Row("roi_head.mask_head.convs.{i}.bn.{statistic}", "mask_head.conv{i+1}.norm.{statistic}"),
    Row("roi_head.mask_head.convs.{i}.gn.{parameter}", "mask_head.conv{i+1}.norm.{parameter}"),
    Row("roi_head.mask_head.upsample.{parameter}", "mask_head.upsample.{parameter}"),
    Row("roi_head.mask_head.conv_logits.{parameter}", "mask_head.logits.{parameter}"),
)


def _mmdetection(
    model: ModelConfig, checkpoint: Checkpoint, style: str | None, config: str | None
) -> Described:
    meta = checkpoint.meta.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    text = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), "")
    place = str(config or checkpoint.path)
    own = mmdetection_settings(read_config(config) if config else literals(text), place)
    own = without_style(own, style)
    preprocess, settings = _mmdetection_input(model, style, own, place)
    settings["conventions"] = presets.MMDETECTION
    if model.neck != "fpn":
        settings["rpn"] = replace(presets.ONE_LEVEL_RPN, convs=model.rpn.convs)
    spec = Spec(with_conventions(model, settings), preprocess, _mmdetection_classes(meta, model.classes))
    notes = ("thresholds and input are those of the checkpoint's own config",) if own else ()
    return Described(with_values(spec, own), notes)


def _mmdetection_input(
    model: ModelConfig, style: str | None, own: Settings, place: str
) -> tuple[Preprocess, Settings]:
    if style != "caffe" and model.backbone.groups > 1:
        # Every published ResNeXt is `pytorch`; 32x8d comes from Caffe2 and kept its channel order.
        if model.backbone.group_width == 8:
            return presets.MMDETECTION_CAFFE_INPUT, {"mean": presets.MEAN_BGR, "std": presets.STD_BGR}
        return presets.MMDETECTION_INPUT, {}
    if style is None and not all(path in own for path in OF_STYLE):
        raise UserError(
            f"{place}: has no config that tells if its trunk is of caffe or pytorch style",
            hint="add --style caffe or --style pytorch, or --source-config with the model's config",
        )
    if style != "caffe":
        return presets.MMDETECTION_INPUT, {}
    # No published group norm trunk has its stride in the 1x1 convolution.
    stride = {"backbone.stride_in_1x1": model.backbone.norm != "gn"}
    return presets.MMDETECTION_CAFFE_INPUT, stride | {"mean": presets.MEAN_BGR, "std": presets.NO_STD}


def _mmdetection_classes(meta: dict[str, Any], count: int) -> Classes:
    """Names beside the tensors: `CLASSES` in 2.x, `dataset_meta` in 3.x."""
    for holder in (meta, meta.get("dataset_meta")):
        found = holder if isinstance(holder, dict) else {}
        names = found.get("CLASSES", found.get("classes"))
        if (
            isinstance(names, list | tuple)
            and len(names) == count
            and all(isinstance(name, str) for name in names)
        ):
            return COCO if tuple(names) == COCO.names else Classes(tuple(names), tuple(range(1, count + 1)))
    return default_classes(count)


SOURCE = Source("mmdetection", frozenset(("rpn_head.rpn_cls.weight",)), TABLE, _mmdetection)
