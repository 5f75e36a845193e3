"""Which source a checkpoint is of, and what that source means by numbers that no tensor holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn import presets
from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.presets import COCO, COCO_90
from maskrcnn.spec import Classes, Preprocess, Spec
from maskrcnn.weights.own_config import (
    Settings,
    detectron2_settings,
    literals,
    mmdetection_settings,
    read_config,
    with_values,
)
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.rewrite import Table
from maskrcnn.weights.tables import detectron2, mmdetection, torchvision

STYLES = ("caffe", "pytorch")


@dataclass(frozen=True)
class Described:
    """A Spec, and what it rests on beyond the tensors. notes: sentences for the report."""

    spec: Spec
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """fingerprint: names that every checkpoint of it has. describe: from the architecture to a Spec."""

    name: str
    fingerprint: frozenset[str]
    table: Table
    describe: Callable[[ModelConfig, Checkpoint, str | None, str | None], Described]


def recognise(tensors: Mapping[str, Any], place: str) -> Source:
    """The source whose fingerprint is in the names. Raises UserError when it is none that is converted."""
    for source in SOURCES.values():
        if source.fingerprint <= tensors.keys():
            return source
    for sign, sentence, hint in _OTHERS:
        if any(name.startswith(sign) for name in tensors):
            raise UserError(f"{place}: {sentence}", hint=hint)
    some = ", ".join(list(tensors)[:3])
    raise UserError(
        f"{place}: its names ({some}, ...) are of no known Mask R-CNN",
        hint=f"sources are {', '.join(SOURCES)}; name one with --from to see what is missing",
    )


_OTHERS = (
    ("rpn.objectness.", "is a maskrcnn model already", "use it as it is: `maskrcnn predict MODEL PHOTO`"),
    (
        "bbox_head.fc_cls",
        "is of mmdetection 1.x, whose numbers differ",
        "upgrade it with mmdetection 2.x first",
    ),
    (
        "roi_heads.box.predictor",
        "is of maskrcnn-benchmark, which is not converted",
        "convert a detectron2 checkpoint",
    ),
    ("conv1_w", "is a Caffe2 file of Detectron, which is not converted", "convert it with detectron2 first"),
    ("bbox_head.", "is a detector of mmdetection without a mask head", "give the checkpoint of a Mask R-CNN"),
    ("layer1.", "is a bare trunk", "give the checkpoint of a whole Mask R-CNN"),
    ("stem.conv1", "is a bare trunk", "give the checkpoint of a whole Mask R-CNN"),
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
    classes = COCO_90 if model.classes == 90 else _default_classes(model.classes)
    return Described(Spec(_with_conventions(model, settings), presets.TORCHVISION_INPUT, classes), notes)


def _detectron2(
    model: ModelConfig, checkpoint: Checkpoint, style: str | None, config: str | None
) -> Described:
    own = detectron2_settings(read_config(config), str(config)) if config else {}
    own = _without_style(own, style)
    model, converted = _without_statistics(model)
    deviating, notes = _detectron2_defaults(model, style, bool(own))
    settings: Settings = {"mean": presets.MEAN_BGR, "conventions": presets.DETECTRON2} | deviating
    if model.neck != "fpn":
        settings["rpn"] = replace(presets.ONE_LEVEL_RPN, convs=model.rpn.convs)
    pad = 32 if model.neck == "fpn" else 1
    spec = Spec(
        _with_conventions(model, settings),
        replace(presets.DETECTRON2_INPUT, pad_multiple=pad),
        _default_classes(model.classes),
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


def _mmdetection(
    model: ModelConfig, checkpoint: Checkpoint, style: str | None, config: str | None
) -> Described:
    meta = checkpoint.meta.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    text = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), "")
    place = str(config or checkpoint.path)
    own = mmdetection_settings(read_config(config) if config else literals(text), place)
    own = _without_style(own, style)
    preprocess, settings = _mmdetection_input(model, style, own, place)
    settings["conventions"] = presets.MMDETECTION
    if model.neck != "fpn":
        settings["rpn"] = replace(presets.ONE_LEVEL_RPN, convs=model.rpn.convs)
    spec = Spec(_with_conventions(model, settings), preprocess, _mmdetection_classes(meta, model.classes))
    notes = ("thresholds and input are those of the checkpoint's own config",) if own else ()
    return Described(with_values(spec, own), notes)


_OF_STYLE = ("model.mean", "model.std", "model.backbone.stride_in_1x1", "preprocess.channels")


def _without_style(own: Settings, style: str | None) -> Settings:
    """A style given by hand wins over the config."""
    return own if style is None else {path: value for path, value in own.items() if path not in _OF_STYLE}


def _mmdetection_input(
    model: ModelConfig, style: str | None, own: Settings, place: str
) -> tuple[Preprocess, Settings]:
    if style != "caffe" and model.backbone.groups > 1:
        # Every published ResNeXt is `pytorch`; 32x8d comes from Caffe2 and kept its channel order.
        if model.backbone.group_width == 8:
            return presets.MMDETECTION_CAFFE_INPUT, {"mean": presets.MEAN_BGR, "std": presets.STD_BGR}
        return presets.MMDETECTION_INPUT, {}
    if style is None and not all(path in own for path in _OF_STYLE):
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
    return _default_classes(count)


def _default_classes(count: int) -> Classes:
    if count == len(COCO):
        return COCO
    return Classes(tuple(f"class {number}" for number in range(1, count + 1)), tuple(range(1, count + 1)))


def _with_conventions(model: ModelConfig, settings: Settings) -> ModelConfig:
    whole = {path: value for path, value in settings.items() if path in ("conventions", "rpn")}
    model = replace(model, **whole)
    return with_values(model, {path: value for path, value in settings.items() if path not in whole})


def filled_statistics(tensors: Mapping[str, NDArray[Any]], model: ModelConfig) -> dict[str, NDArray[Any]]:
    """Mean 0 and variance 1 for batch norms without statistics, as detectron2 loads trunks of Caffe2."""
    found = dict(tensors)
    for name in tensors:
        layer = name.removesuffix(".norm.weight")
        if layer != name and f"{layer}.norm.running_var" not in tensors and _is_frozen(layer, model):
            found[f"{layer}.norm.running_mean"] = np.zeros_like(tensors[name])
            found[f"{layer}.norm.running_var"] = np.ones_like(tensors[name])
    return found


def _is_frozen(layer: str, model: ModelConfig) -> bool:
    return layer.startswith(("backbone.", "res5.")) and model.backbone.norm == "frozen_bn"


SOURCES = {
    source.name: source
    for source in (
        Source(
            "torchvision",
            frozenset(("rpn.head.cls_logits.weight", "roi_heads.box_predictor.cls_score.weight")),
            torchvision.TABLE,
            _torchvision,
        ),
        Source(
            "detectron2",
            frozenset(("proposal_generator.rpn_head.objectness_logits.weight",)),
            detectron2.TABLE,
            _detectron2,
        ),
        Source("mmdetection", frozenset(("rpn_head.rpn_cls.weight",)), mmdetection.TABLE, _mmdetection),
    )
}
