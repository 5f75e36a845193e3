"""To tensorrtx: detectron2's names with norms folded, constants of its program, and numbers as text."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from maskrcnn.config import ModelConfig
from maskrcnn.presets import TENSORRTX_INPUT
from maskrcnn.spec import Spec
from maskrcnn.weights.rewrite import Table
from maskrcnn.weights.sources.tensorrtx import PYRAMID_TABLE, TABLE
from maskrcnn.weights.target import Said, Target, refused
from maskrcnn.weights.wts import write_wts

NMS_METHODS = {"none": 0, "linear": 1, "gaussian": 2}
GAUSSIAN_SIGMA = 0.5


def _rows(model: ModelConfig) -> Table:
    """Only one RPN convolution has no number."""
    table = PYRAMID_TABLE if model.neck == "fpn" else TABLE
    convs = "proposal_generator.rpn_head.conv.{parameter}"
    return tuple(row for row in table if model.rpn.convs == 1 or row.theirs != convs)


def _refuse(model: ModelConfig) -> None:
    for part in ("backbone", "fpn", "box_head", "mask_head"):
        used = part != "fpn" or model.neck == "fpn"
        if used and getattr(model, part).norm == "gn":
            raise refused("tensorrtx", f"group norm, which {part} has, and which cannot be folded")


def _misfits(model: ModelConfig) -> tuple[str, ...]:
    """What its program, which reads C4 only, has no constant for; an FPN file is for other readers."""
    if model.neck != "c4":
        return (f"model.neck: its program runs C4 models, not {model.neck.upper()}",)
    found = []
    if (model.backbone.width, model.backbone.groups, model.backbone.group_width) != (64, 1, 64):
        found.append("model.backbone: its trunks are ResNets of 64 channels")
    if model.box_head.class_agnostic or model.mask_head.class_agnostic:
        found.append("model.box_head.class_agnostic: its heads have an output for each class")
    return tuple(found)


def _say(spec: Spec, differing: Set[str]) -> Said:
    """Constants of rcnn.cpp; classes and the score are never what a model wants there."""
    if spec.model.neck != "c4":
        return Said("", "", frozenset())
    model, rpn, box = spec.model, spec.model.rpn, spec.model.box_head
    values = {
        "model.mean": _vector("PIXEL_MEAN", model.mean),
        "model.std": _vector("PIXEL_STD", model.std),
        "preprocess.short": _number("MIN_SIZE", float(spec.preprocess.short)),
        "preprocess.long": _number("MAX_SIZE", float(spec.preprocess.long)),
        "model.anchors.sizes": _vector("ANCHOR_SIZES", model.anchors.sizes[0]),
        "model.anchors.ratios": _vector("ASPECT_RATIOS", model.anchors.ratios),
        "model.rpn.pre_nms": _number("PRE_NMS_TOP_K_TEST", rpn.pre_nms),
        "model.rpn.nms_iou": _number("RPN_NMS_THRESH", rpn.nms_iou),
        "model.rpn.post_nms": _number("POST_NMS_TOPK", rpn.post_nms),
        "model.conventions.roi_samples": _number("SAMPLING_RATIO", model.conventions.roi_samples),
        "model.box_head.nms_iou": _number("NMS_THRESH_TEST", box.nms_iou),
        "model.box_head.detections": _number("DETECTIONS_PER_IMAGE", box.detections),
        "model.box_head.delta_weights": _vector("BBOX_REG_WEIGHTS", box.delta_weights),
        "model.box_head.soft_nms.method": f"static int NMS_METHOD = {NMS_METHODS[box.soft_nms.method]};",
    }
    own_letterbox = spec.preprocess == TENSORRTX_INPUT  # its program makes it unasked
    if own_letterbox:
        del values["preprocess.short"], values["preprocess.long"]
    lines = [
        f"#define BACKBONE_RESNETTYPE R{model.backbone.depth}",
        _number("NUM_CLASSES", model.classes),
        _number("SCORE_THRESH", box.score_over),
        *(values[path] for path in values if path in differing),
    ]
    carried = {"model.box_head.score_over", *values}
    if own_letterbox:
        carried |= {path for path in differing if path.startswith("preprocess.")}
    if box.soft_nms.min_score == box.score_over:  # it shows what is above the score after the decay
        carried.add("model.box_head.soft_nms.min_score")
    if box.soft_nms.sigma == GAUSSIAN_SIGMA:
        carried.add("model.box_head.soft_nms.sigma")
    return Said("\n".join(lines) + "\n", "constants of rcnn/rcnn.cpp", frozenset(carried & differing))


def _number(name: str, value: float) -> str:
    kind = "int" if isinstance(value, int) else "float"
    return f"static constexpr {kind} {name} = {value};"


def _vector(name: str, values: tuple[float, ...]) -> str:
    return f"static const std::vector<float> {name} = {{ {', '.join(map(str, values))} }};"


def _write(path: Path, tensors: Mapping[str, NDArray[Any]], spec: Spec, config: str) -> None:
    write_wts(path, tensors)


TARGET = Target(
    name="wts",
    source=lambda model: "tensorrtx-fpn" if model.neck == "fpn" else "tensorrtx",
    suffixes=(".wts",),
    rows=_rows,
    refuse=_refuse,
    misfits=_misfits,
    say=_say,
    write=_write,
    order=("fpn.", "backbone.", "rpn.", "res5.", "box_head.", "mask_head."),
    anchor_order="size_first",
    folded=True,
)
