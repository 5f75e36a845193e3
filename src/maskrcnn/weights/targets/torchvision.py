"""To torchvision: its names, a program that builds the model, and a plain state dict."""

import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from maskrcnn.config import ModelConfig, Norm
from maskrcnn.spec import Spec
from maskrcnn.weights.architecture import BLOCKS
from maskrcnn.weights.rewrite import Table
from maskrcnn.weights.sources.torchvision import TABLE
from maskrcnn.weights.target import Said, Target, refused, spelled, stage_channels
from maskrcnn.weights.writers import write_torch

# Named by the position of its layers: 4 convolutions, a Flatten, then Linear, ReLU, Linear.
POSITIONED_CONVS = 4


def _rows(model: ModelConfig) -> Table:
    """A box head with convolutions is called by positions, any other by fc6 and fc7."""
    fc = "roi_heads.box_head.fc" if model.box_head.convs else "roi_heads.box_head.5"
    return tuple(row for row in TABLE if not row.theirs.startswith(fc))


def _refuse(model: ModelConfig) -> None:
    box = model.box_head
    if model.neck != "fpn":
        raise refused("torchvision", f"names for a {model.neck.upper()} model, only for FPN")
    if model.backbone.norm == "none":
        raise refused("torchvision", "biases in the trunk, where the model has its norms folded")
    if box.class_agnostic or model.mask_head.class_agnostic:
        part = "box_head.deltas" if box.class_agnostic else "mask_head.logits"
        raise refused("torchvision", f"class-agnostic head, which {part} is")
    if (box.convs, box.fcs) not in ((0, 2), (POSITIONED_CONVS, 1), (POSITIONED_CONVS, 2)):
        raise refused(
            "torchvision",
            f"names here for a box head of {box.convs} convolutions and {box.fcs} linear layers",
        )


def _misfits(model: ModelConfig) -> tuple[str, ...]:
    found = []
    if model.backbone.width != 64:
        found.append(f"model.backbone.width: its trunks begin with 64 channels, not {model.backbone.width}")
    if model.backbone.depth < 50 and model.backbone.groups > 1:
        found.append("model.backbone.groups: its basic blocks have no groups")
    return tuple(found)


def _say(spec: Spec, differing: Set[str]) -> Said:
    model = spec.model
    arguments = _heads(model) | {
        argument: value
        for argument, (paths, value) in _arguments(spec).items()
        if not differing.isdisjoint(paths)
    }
    said = {path for paths, _ in _arguments(spec).values() for path in paths} | {
        f"model.{part}.norm_eps" for part in ("backbone", "fpn", "box_head", "mask_head")
    }
    built = [
        f"trunk = {_trunk(model)}",
        'stages = {"layer1": "0", "layer2": "1", "layer3": "2", "layer4": "3"}',
        f"channels = {list(stage_channels(model))}",
        f"norm = {_norm(model.fpn.norm, model.fpn.norm_eps)}",
        f"backbone = BackboneWithFPN(trunk, stages, channels, {model.fpn.channels}, norm_layer=norm)",
        "model = MaskRCNN(",
        "    backbone,",
        *(f"    {argument}={value}," for argument, value in arguments.items()),
        ")",
    ]
    words = set(re.findall(r"\w+", " ".join(built)))
    imports = [f"from {module} import {name}" for module, name in IMPORTS if name in words]
    text = "\n".join([*imports, "", *built]) + "\n"
    return Said(text, "this builds the model that loads it", frozenset(said & differing))


_DETECTION = "torchvision.models.detection"
IMPORTS = (
    ("functools", "partial"),
    ("torch", "nn"),
    (f"{_DETECTION}", "MaskRCNN"),
    (f"{_DETECTION}.anchor_utils", "AnchorGenerator"),
    (f"{_DETECTION}.backbone_utils", "BackboneWithFPN"),
    (f"{_DETECTION}.faster_rcnn", "FastRCNNConvFCHead"),
    (f"{_DETECTION}.faster_rcnn", "FastRCNNPredictor"),
    (f"{_DETECTION}.faster_rcnn", "TwoMLPHead"),
    (f"{_DETECTION}.mask_rcnn", "MaskRCNNHeads"),
    (f"{_DETECTION}.mask_rcnn", "MaskRCNNPredictor"),
    (f"{_DETECTION}.rpn", "RPNHead"),
    ("torchvision.models.resnet", "BasicBlock"),
    ("torchvision.models.resnet", "Bottleneck"),
    ("torchvision.models.resnet", "ResNet"),
    ("torchvision.ops", "FrozenBatchNorm2d"),
    ("torchvision.ops", "MultiScaleRoIAlign"),
)


def _trunk(model: ModelConfig) -> str:
    trunk = model.backbone
    kind = "Bottleneck" if trunk.depth >= 50 else "BasicBlock"
    grouped = trunk.depth >= 50 and (trunk.groups, trunk.group_width) != (1, 64)
    groups = f", groups={trunk.groups}, width_per_group={trunk.group_width}" if grouped else ""
    norm = _norm(trunk.norm, trunk.norm_eps)
    return f"ResNet({kind}, {list(BLOCKS[trunk.depth])}{groups}, norm_layer={norm})"


def _arguments(spec: Spec) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Argument of MaskRCNN: the settings that it says, and its value; images are 0..1 there."""
    model, preprocess = spec.model, spec.preprocess
    rpn, box = model.rpn, model.box_head
    sizes = spelled(model.anchors.sizes)
    anchors = f"AnchorGenerator({sizes}, {(spelled(model.anchors.ratios),)} * {len(sizes)})"
    samples = "model.conventions.roi_samples"
    return {
        "min_size": (("preprocess.short",), preprocess.short),
        "max_size": (("preprocess.long",), preprocess.long),
        "size_divisible": (("preprocess.pad_multiple",), preprocess.pad_multiple),
        "image_mean": (("model.mean",), [value / 255 for value in model.mean]),
        "image_std": (("model.std",), [value / 255 for value in model.std]),
        "rpn_anchor_generator": (("model.anchors.sizes", "model.anchors.ratios"), anchors),
        "rpn_pre_nms_top_n_test": (("model.rpn.pre_nms",), rpn.pre_nms),
        "rpn_post_nms_top_n_test": (("model.rpn.post_nms",), rpn.post_nms),
        "rpn_nms_thresh": (("model.rpn.nms_iou",), rpn.nms_iou),
        "box_roi_pool": ((samples,), _pool(box.pool_side, model)),
        "box_score_thresh": (("model.box_head.score_over",), box.score_over),
        "box_nms_thresh": (("model.box_head.nms_iou",), box.nms_iou),
        "box_detections_per_img": (("model.box_head.detections",), box.detections),
        "bbox_reg_weights": (("model.box_head.delta_weights",), box.delta_weights),
        "mask_roi_pool": ((samples, "model.mask_head.pool_side"), _pool(model.mask_head.pool_side, model)),
    }


def _pool(side: int, model: ModelConfig) -> str:
    return f'MultiScaleRoIAlign(["0", "1", "2", "3"], {side}, {model.conventions.roi_samples})'


def _heads(model: ModelConfig) -> dict[str, Any]:
    """Arguments for the heads that MaskRCNN does not build by itself."""
    channels, box, mask = model.fpn.channels, model.box_head, model.mask_head
    outputs = model.classes + 1
    usual = (box.fc_channels, mask.channels) == (1024, 256)  # of the predictors that it builds by itself
    found: dict[str, Any] = {"num_classes": outputs} if usual else {}
    per_cell = len(model.anchors.sizes[0]) * len(model.anchors.ratios)
    if model.rpn.convs != 1:
        found["rpn_head"] = f"RPNHead({channels}, {per_cell}, conv_depth={model.rpn.convs})"
    if box.convs:
        layers = f"[{box.channels}] * {box.convs}, [{box.fc_channels}] * {box.fcs}"
        shape = (channels, box.pool_side, box.pool_side)
        found["box_head"] = (
            f"FastRCNNConvFCHead({shape}, {layers}, norm_layer={_norm(box.norm, box.norm_eps)})"
        )
    elif box.fc_channels != 1024:
        found["box_head"] = f"TwoMLPHead({channels} * {box.pool_side} ** 2, {box.fc_channels})"
    if box.pool_side != 7:
        found["box_roi_pool"] = _pool(box.pool_side, model)
    if (mask.channels, mask.convs, mask.norm) != (256, 4, "none"):
        layers = f"[{mask.channels}] * {mask.convs}"
        norm = _norm(mask.norm, mask.norm_eps)
        found["mask_head"] = f"MaskRCNNHeads({channels}, {layers}, 1, norm_layer={norm})"
    if not usual:
        found["box_predictor"] = f"FastRCNNPredictor({box.fc_channels}, {outputs})"
        found["mask_predictor"] = f"MaskRCNNPredictor({mask.channels}, {mask.channels}, {outputs})"
    return found


def _norm(norm: Norm, eps: float) -> str:
    layer = {
        "frozen_bn": "FrozenBatchNorm2d",
        "bn": "nn.BatchNorm2d",
        "gn": "nn.GroupNorm, 32",
        "none": "None",
    }[norm]
    if norm != "none" and eps != 1e-5:
        return f"partial({layer}, eps={eps})"
    return f"partial({layer})" if norm == "gn" else layer


def _write(path: Path, tensors: Mapping[str, NDArray[Any]], spec: Spec, config: str) -> None:
    write_torch(path, tensors)


TARGET = Target(
    name="torchvision",
    source=lambda model: "torchvision",
    suffixes=(".pth",),
    rows=_rows,
    refuse=_refuse,
    misfits=_misfits,
    say=_say,
    write=_write,
    order=("backbone.", "fpn.lateral", "fpn.output", "rpn.", "box_head.", "mask_head."),
    anchor_order="ratio_first",
    shortcut_last=True,
)
