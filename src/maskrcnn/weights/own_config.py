"""What a checkpoint's own configuration says, as our settings (`model.rpn.post_nms` -> value).

mmdetection keeps its Python config as text in the checkpoint: literals and `dict(...)` are read from its
syntax tree, anything else is unknown and nothing is run. detectron2 writes a config.yaml beside it.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from maskrcnn.errors import UserError

Settings = dict[str, Any]
T = TypeVar("T")

UNKNOWN = object()
"""An expression that is no literal."""


def with_values(original: T, settings: Settings) -> T:
    """A copy of a frozen dataclass with dotted fields replaced."""
    parts: dict[str, Settings] = {}
    for path, value in settings.items():
        head, _, rest = path.partition(".")
        parts.setdefault(head, {})[rest] = value
    known = {field.name for field in fields(original)}  # type: ignore[arg-type]
    assert parts.keys() <= known, f"{parts.keys() - known} in {type(original)}"
    values = {
        head: with_values(inner, rest) if is_dataclass(inner := getattr(original, head)) else rest[""]
        for head, rest in parts.items()
    }
    return replace(original, **values)  # type: ignore[type-var]


def read_config(path: str | Path) -> dict[str, Any]:
    """A config file of a source: YAML of detectron2, or the Python that mmdetection dumps into one file."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read as a config ({error})", hint="give its config.yaml or config.py"
        ) from error
    if path.suffix == ".py":
        return literals(text)
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: is not YAML", hint="give the config.yaml that detectron2 wrote") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no settings", hint="give the config.yaml that detectron2 wrote")
    return values


def literals(text: str) -> dict[str, Any]:
    """The assignments of a Python config; what is no literal, `dict(...)` or earlier name is UNKNOWN."""
    names: dict[str, Any] = {}
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                names[statement.targets[0].id] = _value(statement.value, names)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return names


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    found: Any
    match node:
        case ast.Constant():
            found = node.value
        case ast.Name(id=name):
            found = names.get(name, UNKNOWN)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            found = [_value(part, names) for part in parts]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            found = -number
        case ast.Dict(keys=keys, values=parts):
            texts = [key.value if isinstance(key, ast.Constant) else None for key in keys]
            found = dict(zip(texts, (_value(part, names) for part in parts), strict=True))
        case ast.Call(func=ast.Name(id="dict"), keywords=keywords):
            found = _keywords(keywords, names)
        case _:
            found = UNKNOWN
    return found


def _keywords(keywords: list[ast.keyword], names: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for keyword in keywords:
        value = _value(keyword.value, names)
        if keyword.arg is not None:
            values[keyword.arg] = value
        elif isinstance(value, dict):
            values |= value
    return values


# detectron2's keys (detectron2/config/defaults.py), ours, and how the value is read


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    return first, second, third


def _levels(values: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, level)) for level in values)


def _four(values: Any) -> tuple[float, ...]:
    numbers = tuple(map(float, values))
    if len(numbers) != 4:
        raise ValueError("four numbers are needed")
    return numbers


_DETECTRON2: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("MODEL.PIXEL_MEAN", "model.mean", _triple),
    ("MODEL.PIXEL_STD", "model.std", _triple),
    ("INPUT.FORMAT", "preprocess.channels", lambda text: {"RGB": "rgb", "BGR": "bgr"}[text]),
    ("INPUT.MIN_SIZE_TEST", "preprocess.short", int),
    ("INPUT.MAX_SIZE_TEST", "preprocess.long", int),
    ("MODEL.RESNETS.STRIDE_IN_1X1", "model.backbone.stride_in_1x1", bool),
    ("MODEL.ANCHOR_GENERATOR.SIZES", "model.anchors.sizes", _levels),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "model.anchors.ratios", lambda values: _levels(values)[0]),
    ("MODEL.RPN.PRE_NMS_TOPK_TEST", "model.rpn.pre_nms", int),
    ("MODEL.RPN.POST_NMS_TOPK_TEST", "model.rpn.post_nms", int),
    ("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "model.rpn.pre_nms_training", int),
    ("MODEL.RPN.POST_NMS_TOPK_TRAIN", "model.rpn.post_nms_training", int),
    ("MODEL.RPN.NMS_THRESH", "model.rpn.nms_iou", float),
    ("MODEL.RPN.BATCH_SIZE_PER_IMAGE", "model.rpn.batch", int),
    ("MODEL.RPN.POSITIVE_FRACTION", "model.rpn.positive_fraction", float),
    ("MODEL.RPN.SMOOTH_L1_BETA", "model.rpn.smooth_l1_beta", float),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "model.box_head.score_over", float),
    ("MODEL.ROI_HEADS.NMS_THRESH_TEST", "model.box_head.nms_iou", float),
    ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "model.box_head.batch", int),
    ("MODEL.ROI_HEADS.POSITIVE_FRACTION", "model.box_head.positive_fraction", float),
    ("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", "model.box_head.smooth_l1_beta", float),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "model.box_head.delta_weights", _four),
    ("TEST.DETECTIONS_PER_IMAGE", "model.box_head.detections", int),
    ("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", "model.conventions.roi_samples", int),
    (
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
        "model.conventions.roi_aligned",
        lambda text: {"ROIAlignV2": True, "ROIAlign": False}[text],
    ),
)


def detectron2_settings(config: dict[str, Any], place: str) -> Settings:
    """What a config.yaml of detectron2 says. Raises UserError for a value that cannot be honoured."""
    if not isinstance(config.get("MODEL"), dict):
        raise UserError(
            f"{place}: has no MODEL section", hint="give the config.yaml that detectron2 wrote while training"
        )
    if at(config, "MODEL.ANCHOR_GENERATOR.OFFSET") not in (None, 0, 0.0):
        raise UserError(
            f"{place}: its anchors have an offset, which is not supported", hint="train with OFFSET 0.0"
        )
    settings = {}
    for theirs, ours, read in _DETECTRON2:
        value = at(config, theirs)
        if value is not None:
            settings[ours] = _read(read, value, f"{place}: {theirs}")
    return settings


# mmdetection's keys, those of 3.x and those that 2.x had in their place


_MMDETECTION: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("test_cfg.rpn.nms_pre", "model.rpn.pre_nms", int),
    ("test_cfg.rpn.max_num", "model.rpn.post_nms", int),
    ("test_cfg.rpn.max_per_img", "model.rpn.post_nms", int),
    ("test_cfg.rpn.nms_thr", "model.rpn.nms_iou", float),
    ("test_cfg.rpn.nms.iou_threshold", "model.rpn.nms_iou", float),
    ("test_cfg.rpn.min_bbox_size", "model.conventions.rpn_min_size", float),
    ("train_cfg.rpn_proposal.nms_pre", "model.rpn.pre_nms_training", int),
    ("train_cfg.rpn_proposal.max_num", "model.rpn.post_nms_training", int),
    ("train_cfg.rpn_proposal.max_per_img", "model.rpn.post_nms_training", int),
    ("test_cfg.rcnn.score_thr", "model.box_head.score_over", float),
    ("test_cfg.rcnn.nms.iou_thr", "model.box_head.nms_iou", float),
    ("test_cfg.rcnn.nms.iou_threshold", "model.box_head.nms_iou", float),
    ("test_cfg.rcnn.max_per_img", "model.box_head.detections", int),
    ("backbone.norm_cfg.eps", "model.backbone.norm_eps", float),
    ("roi_head.bbox_roi_extractor.roi_layer.sample_num", "model.conventions.roi_samples", int),
    ("roi_head.bbox_roi_extractor.roi_layer.sampling_ratio", "model.conventions.roi_samples", int),
    ("roi_head.bbox_roi_extractor.roi_layer.aligned", "model.conventions.roi_aligned", bool),
    ("rpn_head.anchor_generator.ratios", "model.anchors.ratios", lambda values: tuple(map(float, values))),
    ("rpn_head.anchor_ratios", "model.anchors.ratios", lambda values: tuple(map(float, values))),
)


def mmdetection_settings(config: dict[str, Any], place: str) -> Settings:
    """What a config of mmdetection says, {} if it has no model. Raises UserError for the unsupported."""
    model = config.get("model")
    if not isinstance(model, dict):
        return {}
    model = {"test_cfg": config.get("test_cfg"), "train_cfg": config.get("train_cfg")} | model
    _refuse_other_models(model, place)
    settings = {}
    for theirs, ours, read in _MMDETECTION:
        value = at(model, theirs)
        if value is not None:
            settings[ours] = _read(read, value, f"{place}: model.{theirs}")
    style = at(model, "backbone.style") or "pytorch"
    settings["model.backbone.stride_in_1x1"] = style == "caffe"
    return (
        settings
        | _anchor_sizes(model, place)
        | _coder(model, place)
        | _soft_nms(model, place)
        | _input(config, place)
    )


def _refuse_other_models(model: dict[str, Any], place: str) -> None:
    anchors = at(model, "rpn_head.anchor_generator.type")
    coder = at(model, "roi_head.bbox_head.bbox_coder.type")
    upsampling = at(model, "neck.upsample_cfg.mode")
    for what, found, supported in (
        ("anchor generator", anchors, "AnchorGenerator"),
        ("box coder", coder, "DeltaXYWHBBoxCoder"),
        ("FPN upsampling", upsampling, "nearest"),
    ):
        if found not in (None, supported):
            raise UserError(f"{place}: its {what} is {found}", hint=f"only {supported} is supported")


def _anchor_sizes(model: dict[str, Any], place: str) -> Settings:
    generator = _dict(at(model, "rpn_head.anchor_generator"))
    scales = generator.get("scales") or at(model, "rpn_head.anchor_scales")
    strides = generator.get("strides") or at(model, "rpn_head.anchor_strides")
    bases = generator.get("base_sizes") or strides
    if not scales or not bases:
        return {}

    def sizes(values: Any) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(float(scale) * base for scale in scales) for base in values)

    return {"model.anchors.sizes": _read(sizes, bases, f"{place}: the anchor scales")}


def _coder(model: dict[str, Any], place: str) -> Settings:
    stds = at(model, "roi_head.bbox_head.bbox_coder.target_stds") or at(
        model, "roi_head.bbox_head.target_stds"
    )
    if stds is None:
        return {}
    # 1 / 0.1 is 10 and 1 / 0.2 is 5 exactly.
    return {
        "model.box_head.delta_weights": tuple(1 / std for std in _read(_four, stds, f"{place}: target_stds"))
    }


def _soft_nms(model: dict[str, Any], place: str) -> Settings:
    nms = _dict(at(model, "test_cfg.rcnn.nms"))
    if nms.get("type", "nms") == "nms":
        return {}
    if nms["type"] != "soft_nms" or nms.get("method", "linear") not in ("linear", "gaussian"):
        raise UserError(
            f"{place}: its NMS is {nms['type']}", hint="nms and soft_nms (linear, gaussian) are supported"
        )
    return {
        "model.box_head.soft_nms.method": nms.get("method", "linear"),
        "model.box_head.soft_nms.sigma": _read(float, nms.get("sigma", 0.5), f"{place}: sigma"),
        "model.box_head.soft_nms.min_score": _read(float, nms.get("min_score", 0.001), f"{place}: min_score"),
    }


def _input(config: dict[str, Any], place: str) -> Settings:
    """Normalisation, size and padding: of the data_preprocessor (3.x) or of the test pipeline (2.x)."""
    pipeline = at(config, "test_dataloader.dataset.pipeline") or at(config, "data.test.pipeline")
    steps = {str(step.get("type")): step for step in _steps(pipeline or config.get("test_pipeline"))}
    normalise = _dict(
        at(config, "model.data_preprocessor") or steps.get("Normalize") or config.get("img_norm_cfg")
    )
    divisor = normalise.get("pad_size_divisor") or steps.get("Pad", {}).get("size_divisor")
    settings = _test_size(steps, place)
    if normalise.get("mean") and normalise.get("std"):
        to_rgb = normalise.get("bgr_to_rgb", normalise.get("to_rgb", False))
        settings["model.mean"] = _read(_triple, normalise["mean"], f"{place}: mean")
        settings["model.std"] = _read(_triple, normalise["std"], f"{place}: std")
        settings["preprocess.channels"] = "rgb" if to_rgb is True else "bgr"
    if isinstance(divisor, int):
        settings["preprocess.pad_multiple"] = max(divisor, 1)
    return settings


def _test_size(steps: dict[str, dict[str, Any]], place: str) -> Settings:
    """mmdetection writes (width, height); with keep_ratio only the longer and the shorter count."""
    resize = steps.get("Resize", {})
    scale = resize.get("scale") or steps.get("MultiScaleFlipAug", {}).get("img_scale")
    if not scale:
        return {}
    if isinstance(scale, list) and isinstance(scale[0], list):
        scale = scale[0]
    width, height = _read(lambda sides: tuple(map(int, sides))[:2], scale, f"{place}: the test scale")
    if resize.get("keep_ratio") is False:
        return {"preprocess.resize": "stretch", "preprocess.short": height, "preprocess.long": width}
    return {"preprocess.short": min(width, height), "preprocess.long": max(width, height)}


def _dict(values: Any) -> dict[str, Any]:
    return values if isinstance(values, dict) else {}


def _steps(pipeline: Any) -> Iterator[dict[str, Any]]:
    for step in pipeline if isinstance(pipeline, list) else ():
        if isinstance(step, dict):
            yield step
            yield from _steps(step.get("transforms"))


def at(values: Any, path: str) -> Any:
    """The value under a dotted path of nested dicts, None where there is none or where it is UNKNOWN."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return None if values is UNKNOWN else values


def _read(read: Callable[[Any], T], value: Any, place: str) -> T:
    try:
        return read(value)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"{place} is {value!r:.80}", hint="correct it, or leave the config out") from error
