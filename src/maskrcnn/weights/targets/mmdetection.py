"""To mmdetection 3.x: its names, its config, which the checkpoint holds as text, and a file of torch."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from maskrcnn.config import ModelConfig, Norm
from maskrcnn.spec import Spec
from maskrcnn.weights.rewrite import Table
from maskrcnn.weights.sources.mmdetection import TABLE
from maskrcnn.weights.target import Said, Settings, Target, nested, refused, spelled, stage_channels
from maskrcnn.weights.writers import write_torch

BASES = {"fpn": "mask-rcnn_r50_fpn_1x_coco.py", "c4": "mask-rcnn_r50-caffe-c4_1x_coco.py"}
STRIDES = {"fpn": (4, 8, 16, 32, 64), "c4": (16,)}
LONGEST_LINE = 100


def _rows(model: ModelConfig) -> Table:
    """Norms are called by their kind, and only one RPN convolution has no number."""
    parts = {"backbone.": model.backbone.norm, "neck.": model.fpn.norm}
    parts |= {"roi_head.bbox_head.": model.box_head.norm, "roi_head.mask_head.": model.mask_head.norm}

    def names(theirs: str) -> bool:
        norm = next((norm for part, norm in parts.items() if theirs.startswith(part)), "bn")
        other = (".bn", ".gn")[norm != "gn"]
        return other not in theirs and (model.rpn.convs == 1 or theirs != "rpn_head.rpn_conv.{parameter}")

    return tuple(row for row in TABLE if names(row.theirs))


def _refuse(model: ModelConfig) -> None:
    if model.neck == "dc5":
        raise refused("mmdetection", "config of a Mask R-CNN on a dilated trunk (DC5)")
    if model.backbone.norm == "none":
        raise refused("mmdetection", "biases in the trunk, where the model has its norms folded")
    if model.neck == "c4" and model.backbone.norm == "gn":
        raise refused("mmdetection", "names for group norm in res5.0.conv1.norm, the shared head of C4")


def _misfits(model: ModelConfig) -> tuple[str, ...]:
    trunk, found = model.backbone, []
    if model.neck == "c4" and ((trunk.width, trunk.groups) != (64, 1) or trunk.depth < 50):
        found.append(
            "model.backbone: its shared head of C4 has bottlenecks of 64 channels after such a trunk"
        )
    if trunk.groups == 1 and trunk.depth >= 50 and trunk.group_width != trunk.width:
        found.append(f"model.backbone.group_width: its bottlenecks are as wide as its stem, {trunk.width}")
    return tuple(found)


def _say(spec: Spec, differing: Set[str]) -> Said:
    said = _values(spec)
    settings: Settings = _architecture(spec.model) | said["always"]
    for path in sorted(differing & said.keys()):
        settings |= said[path]
    paths = {"model.mean", "model.std", "model.backbone.stride_in_1x1", "preprocess.channels"}
    text = f"_base_ = {BASES[spec.model.neck]!r}\n" + _assigned("model", nested(settings))
    pipeline = {"preprocess.short", "preprocess.long"}
    if differing & pipeline and spec.preprocess.resize == "shortest_edge":
        text += _test_pipeline(spec)
        paths |= pipeline
    carried = (paths | said.keys()) & differing
    return Said(text, f"beside configs/mask_rcnn/{BASES[spec.model.neck]} of mmdetection", frozenset(carried))


def _values(spec: Spec) -> dict[str, Settings]:
    """Keys of `model` for each of our settings, and those that are always there."""
    model = spec.model
    rpn, box, soft = model.rpn, model.box_head, model.box_head.soft_nms
    kind = "nms" if soft.method == "none" else "soft_nms"
    stds = tuple(1 / weight for weight in box.delta_weights)
    style = "caffe" if model.backbone.stride_in_1x1 else "pytorch"
    nms = "test_cfg.rcnn.nms"
    return {
        "always": {
            "data_preprocessor.mean": model.mean,
            "data_preprocessor.std": model.std,
            "data_preprocessor.bgr_to_rgb": spec.preprocess.channels == "rgb",
            "backbone.style": style,
            "backbone.init_cfg": None,  # of another trunk
            **({"roi_head.shared_head.style": style} if model.neck == "c4" else {}),
        },
        "preprocess.pad_multiple": {"data_preprocessor.pad_size_divisor": spec.preprocess.pad_multiple},
        "model.rpn.pre_nms": {"test_cfg.rpn.nms_pre": rpn.pre_nms},
        "model.rpn.post_nms": {"test_cfg.rpn.max_per_img": rpn.post_nms},
        "model.rpn.nms_iou": {"test_cfg.rpn.nms.iou_threshold": rpn.nms_iou},
        "model.box_head.score_over": {"test_cfg.rcnn.score_thr": box.score_over},
        "model.box_head.nms_iou": {f"{nms}.iou_threshold": box.nms_iou},
        "model.box_head.detections": {"test_cfg.rcnn.max_per_img": box.detections},
        "model.box_head.soft_nms.method": {f"{nms}.type": kind, f"{nms}.method": soft.method},
        "model.box_head.soft_nms.sigma": {f"{nms}.sigma": soft.sigma},
        "model.box_head.soft_nms.min_score": {f"{nms}.min_score": soft.min_score},
        "model.conventions.roi_samples": _of_layers(model, "sampling_ratio", model.conventions.roi_samples),
        "model.conventions.roi_aligned": _of_layers(model, "aligned", model.conventions.roi_aligned),
        **_only_if(
            tuple(1 / std for std in stds) == box.delta_weights,
            "model.box_head.delta_weights",
            {"roi_head.bbox_head.bbox_coder.target_stds": stds},
        ),
        **_anchors(model),
    }


def _only_if(possible: bool, path: str, settings: Settings) -> dict[str, Settings]:
    return {path: settings} if possible else {}


def _of_layers(model: ModelConfig, key: str, value: Any) -> Settings:
    """C4 has one extractor for both heads."""
    boxes = {f"roi_head.bbox_roi_extractor.roi_layer.{key}": value}
    return boxes if model.neck == "c4" else boxes | {f"roi_head.mask_roi_extractor.roi_layer.{key}": value}


def _anchors(model: ModelConfig) -> dict[str, Settings]:
    """A size is a scale times the base size of its level, so every level has the same scales."""
    sizes, generator = model.anchors.sizes, "rpn_head.anchor_generator"
    bases = tuple(level[0] for level in sizes) if len(sizes) > 1 else tuple(map(float, STRIDES[model.neck]))
    scales = tuple(size / bases[0] for size in sizes[0])
    fits = all(
        tuple(scale * base for scale in scales) == level for base, level in zip(bases, sizes, strict=True)
    )
    return {
        "model.anchors.ratios": {f"{generator}.ratios": model.anchors.ratios},
        **_only_if(
            fits,
            "model.anchors.sizes",
            {f"{generator}.base_sizes": spelled(bases), f"{generator}.scales": spelled(scales)},
        ),
    }


def _architecture(model: ModelConfig) -> Settings:
    """Every key whose value in the base config is another one."""
    trunk, box, mask = model.backbone, model.box_head, model.mask_head
    stages = stage_channels(model)
    kind = "ResNeXt" if trunk.groups > 1 else "ResNet"
    usual: tuple[tuple[str, Any, Any], ...] = (
        ("backbone.type", kind, "ResNet"),
        ("backbone.depth", trunk.depth, 50),
        ("backbone.groups", trunk.groups, 1),
        ("backbone.base_width", trunk.group_width if trunk.groups > 1 else 64, 64),
        ("backbone.stem_channels", trunk.width, 64),
        ("backbone.base_channels", trunk.width, 64),
        ("backbone.norm_cfg", _norm_cfg(trunk.norm), _norm_cfg("bn")),
        ("rpn_head.num_convs", model.rpn.convs, 1),
        ("roi_head.bbox_head.num_classes", model.classes, 80),
        ("roi_head.mask_head.num_classes", model.classes, 80),
        ("roi_head.bbox_head.reg_class_agnostic", box.class_agnostic, False),
        ("roi_head.mask_head.class_agnostic", mask.class_agnostic, False),
        ("roi_head.mask_head.conv_out_channels", mask.channels, 256),
    )
    usual += _fpn_keys(model, stages) if model.neck == "fpn" else _c4_keys(model, stages)
    return {key: value for key, value, default in usual if value != default}


def _fpn_keys(model: ModelConfig, stages: tuple[int, ...]) -> tuple[tuple[str, Any, Any], ...]:
    box, channels, roi = model.box_head, model.fpn.channels, "roi_head"
    two_fc = (box.convs, box.fcs) == (0, 2)
    return (
        ("neck.in_channels", stages, (256, 512, 1024, 2048)),
        ("neck.out_channels", channels, 256),
        ("neck.norm_cfg", _norm_cfg(model.fpn.norm), None),
        *((f"rpn_head.{key}", channels, 256) for key in ("in_channels", "feat_channels")),
        *((f"{roi}.{part}_roi_extractor.out_channels", channels, 256) for part in ("bbox", "mask")),
        *((f"{roi}.{part}_head.in_channels", channels, 256) for part in ("bbox", "mask")),
        (f"{roi}.bbox_head.type", "Shared2FCBBoxHead" if two_fc else "ConvFCBBoxHead", "Shared2FCBBoxHead"),
        (f"{roi}.bbox_head.num_shared_convs", box.convs, 0),
        (f"{roi}.bbox_head.num_shared_fcs", 2 if two_fc else box.fcs, 2 if two_fc else None),
        (f"{roi}.bbox_head.conv_out_channels", box.channels if box.convs else 256, 256),
        (f"{roi}.bbox_head.fc_out_channels", box.fc_channels, 1024),
        (f"{roi}.bbox_head.norm_cfg", _norm_cfg(box.norm), None),
        (f"{roi}.bbox_head.roi_feat_size", box.pool_side, 7),
        (f"{roi}.bbox_roi_extractor.roi_layer.output_size", box.pool_side, 7),
        (f"{roi}.mask_roi_extractor.roi_layer.output_size", model.mask_head.pool_side, 14),
        (f"{roi}.mask_head.num_convs", model.mask_head.convs, 4),
        (f"{roi}.mask_head.norm_cfg", _norm_cfg(model.mask_head.norm), None),
    )


def _c4_keys(model: ModelConfig, stages: tuple[int, ...]) -> tuple[tuple[str, Any, Any], ...]:
    return (
        ("roi_head.shared_head.depth", model.backbone.depth, 50),
        *((f"rpn_head.{key}", stages[2], 1024) for key in ("in_channels", "feat_channels")),
        ("roi_head.bbox_roi_extractor.out_channels", stages[2], 1024),
        *((f"roi_head.{part}_head.in_channels", stages[3], 2048) for part in ("bbox", "mask")),
    )


def _norm_cfg(norm: Norm) -> dict[str, Any] | None:
    if norm == "none":
        return None
    return {"type": "GN", "num_groups": 32} if norm == "gn" else {"type": "BN"}


def _test_pipeline(spec: Spec) -> str:
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    steps = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": (spec.preprocess.long, spec.preprocess.short), "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": keys},
    ]
    written = "".join(f"    {_python(step, '    ')},\n" for step in steps)
    loaders = "".join(
        f"{split}_dataloader = dict(dataset=dict(pipeline=test_pipeline))\n" for split in ("val", "test")
    )
    return f"test_pipeline = [\n{written}]\n{loaders}"


def _assigned(name: str, values: dict[str, Any]) -> str:
    return f"{name} = {_python(values)}\n"


def _python(value: Any, indent: str = "") -> str:
    """A dict as `dict(...)`, on one line if it is short."""
    if not isinstance(value, dict):
        return repr(value)
    line = "dict(" + ", ".join(f"{key}={_python(item)}" for key, item in value.items()) + ")"
    if len(indent) + len(line) < LONGEST_LINE:
        return line
    inner = indent + "    "
    items = "".join(f"{inner}{key}={_python(item, inner)},\n" for key, item in value.items())
    return f"dict(\n{items}{indent})"


def _write(path: Path, tensors: Mapping[str, NDArray[Any]], spec: Spec, config: str) -> None:
    meta: dict[str, Any] = {"cfg": config}
    if spec.classes.names:  # 2.x reads CLASSES, 3.x dataset_meta
        meta |= {"CLASSES": spec.classes.names, "dataset_meta": {"classes": spec.classes.names}}
    write_torch(path, {"state_dict": tensors, "meta": meta})


TARGET = Target(
    name="mmdetection",
    source=lambda model: "mmdetection",
    suffixes=(".pth",),
    rows=_rows,
    refuse=_refuse,
    misfits=_misfits,
    say=_say,
    write=_write,
    order=(
        *("backbone.", "fpn.lateral", "fpn.output", "rpn.", "res5."),
        *("box_head.scores", "box_head.deltas", "box_head.", "mask_head."),
    ),
    anchor_order="ratio_first",
    shortcut_last=True,
    counters="made",
    style=lambda model: "caffe" if model.backbone.stride_in_1x1 else "pytorch",
)
