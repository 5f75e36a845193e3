"""Names and shapes of detectron2's and mmdetection's checkpoints, written down from their modules.

Small widths make whole checkpoints that convert in milliseconds.
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STATISTICS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Plan:
    """What to build. norm: of the trunk; head_norm: of pyramid, box and mask convolutions, "" for none."""

    depth: int = 50
    neck: str = "fpn"
    norm: str = "frozen_bn"
    head_norm: str = ""
    width: int = 64
    groups: int = 1
    group_width: int = 64
    channels: int = 256
    fc: int = 1024
    classes: int = 80
    box_convs: int = 0
    fcs: int = 2
    rpn_convs: int = 1
    agnostic: bool = False


SMALL = {"width": 8, "group_width": 8, "channels": 16, "fc": 24, "classes": 5}

SMALL_GN = {
    "norm": "gn",
    "head_norm": "gn",
    "width": 32,
    "channels": 32,
    "group_width": 32,
    "fcs": 1,
    "box_convs": 4,
}


def filled(shapes: Shapes, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 values, positive variances, int64 counters."""
    random = np.random.default_rng(seed)
    return {
        name: np.zeros((), np.int64)
        if name.endswith("tracked")
        else (0.1 * random.standard_normal(shape) + name.endswith("running_var")).astype(np.float32)
        for name, shape in shapes.items()
    }


def hollow(shapes: Shapes) -> dict[str, np.ndarray]:
    """Arrays of those shapes that take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def norm(layer: str, kind: str, channels: int) -> Iterator[tuple[str, Shape]]:
    """Everything that a norm layer saves."""
    for name in STATISTICS if kind != "gn" else STATISTICS[:2]:
        yield f"{layer}.{name}", (channels,)
    if kind == "bn":
        yield f"{layer}.num_batches_tracked", ()


def trunk(plan: Plan) -> Iterator[tuple[int, int, str, int, int, int, int]]:
    """Every convolution of the stages: stage 2..5, block, role, out, in, groups, side."""
    basic = plan.depth < 50
    before = plan.width
    for stage, blocks in enumerate(BLOCKS[plan.depth], start=2):
        middle = plan.groups * plan.group_width * 2 ** (stage - 2)
        out = plan.width * 2 ** (stage - 2) * (1 if basic else 4)
        for block in range(blocks):
            if block == 0 and before != out:
                yield stage, block, "shortcut", out, before, 1, 1
            if basic:
                yield stage, block, "conv1", out, before, 1, 3
                yield stage, block, "conv2", out, out, 1, 3
            else:
                yield stage, block, "conv1", middle, before, 1, 1
                yield stage, block, "conv2", middle, middle, plan.groups, 3
                yield stage, block, "conv3", out, middle, 1, 1
            before = out


def stage_channels(plan: Plan, stage: int) -> int:
    """Output channels of stage 2..5."""
    return plan.width * 2 ** (stage - 2) * (1 if plan.depth < 50 else 4)


def layer(name: str, shape: Shape) -> Shapes:
    """A layer with weight and bias."""
    outputs = shape[1] if name.endswith(("deconv", "upsample")) else shape[0]
    return {f"{name}.weight": shape, f"{name}.bias": (outputs,)}


def convolution(name: str, norm_name: str, kind: str, shape: Shape) -> Shapes:
    """A convolution with its norm, or with a bias when it has none."""
    return {f"{name}.weight": shape, **dict(norm(norm_name, kind, shape[0]))} if kind else layer(name, shape)


def detectron2_shapes(plan: Plan) -> Shapes:
    """Of detectron2's GeneralizedRCNN with ResNet, FPN or not, and StandardROIHeads or Res5ROIHeads."""
    bottom = "backbone.bottom_up" if plan.neck == "fpn" else "backbone"
    shapes = convolution(
        f"{bottom}.stem.conv1", f"{bottom}.stem.conv1.norm", plan.norm, (plan.width, 3, 7, 7)
    )
    for stage, block, role, out, inputs, groups, side in trunk(plan):
        root = "roi_heads" if plan.neck == "c4" and stage == 5 else bottom
        name = f"{root}.res{stage}.{block}.{role}"
        shapes |= convolution(name, f"{name}.norm", plan.norm, (out, inputs // groups, side, side))
    channels, anchors = plan.channels, 3
    if plan.neck == "fpn":
        for level in (2, 3, 4, 5):
            for role, inputs, side in (("lateral", stage_channels(plan, level), 1), ("output", channels, 3)):
                name = f"backbone.fpn_{role}{level}"
                shapes |= convolution(name, f"{name}.norm", plan.head_norm, (channels, inputs, side, side))
    else:
        channels, anchors = stage_channels(plan, 4 if plan.neck == "c4" else 5), 15
    rpn = "proposal_generator.rpn_head"
    for number in range(plan.rpn_convs):
        name = f"{rpn}.conv" if plan.rpn_convs == 1 else f"{rpn}.conv.conv{number}"
        shapes |= layer(name, (channels, channels, 3, 3))
    shapes |= layer(f"{rpn}.objectness_logits", (anchors, channels, 1, 1))
    shapes |= layer(f"{rpn}.anchor_deltas", (4 * anchors, channels, 1, 1))
    return shapes | _detectron2_heads(plan, stage_channels(plan, 5) if plan.neck == "c4" else channels)


def _detectron2_heads(plan: Plan, channels: int) -> Shapes:
    shapes: Shapes = {}
    features = channels
    if plan.neck != "c4":
        for number in range(1, plan.box_convs + 1):
            name = f"roi_heads.box_head.conv{number}"
            shapes |= convolution(name, f"{name}.norm", plan.head_norm, (plan.channels, features, 3, 3))
            features = plan.channels
        features *= 49
        for number in range(1, plan.fcs + 1):
            shapes |= layer(f"roi_heads.box_head.fc{number}", (plan.fc, features))
            features = plan.fc
        for number in range(1, 5):
            name = f"roi_heads.mask_head.mask_fcn{number}"
            shape = (plan.channels, channels if number == 1 else plan.channels, 3, 3)
            shapes |= convolution(name, f"{name}.norm", plan.head_norm, shape)
    boxes, masks = (4, 1) if plan.agnostic else (4 * plan.classes, plan.classes)
    shapes |= layer("roi_heads.box_predictor.cls_score", (plan.classes + 1, features))
    shapes |= layer("roi_heads.box_predictor.bbox_pred", (boxes, features))
    above = channels if plan.neck == "c4" else plan.channels
    shapes |= layer("roi_heads.mask_head.deconv", (above, plan.channels, 2, 2))
    return shapes | layer("roi_heads.mask_head.predictor", (masks, plan.channels, 1, 1))


def mmdetection_shapes(plan: Plan) -> Shapes:
    """Of mmdetection's MaskRCNN: FPN, or C4 with its shared head."""
    kind = "gn" if plan.norm == "gn" else "bn"
    shapes = convolution("backbone.conv1", f"backbone.{kind}1", plan.norm, (plan.width, 3, 7, 7))
    for stage, block, role, out, inputs, groups, side in trunk(plan):
        root = "roi_head.shared_head" if plan.neck == "c4" and stage == 5 else "backbone"
        start = f"{root}.layer{stage - 1}.{block}"
        name, norm_name = f"{start}.{role}", f"{start}.{kind}{role[-1]}"
        if role == "shortcut":
            name, norm_name = f"{start}.downsample.0", f"{start}.downsample.1"
        shapes |= convolution(name, norm_name, plan.norm, (out, inputs // groups, side, side))
    channels, anchors = plan.channels, 3
    if plan.neck == "fpn":
        for index in range(4):
            for role, inputs, side in (("lateral", stage_channels(plan, index + 2), 1), ("fpn", channels, 3)):
                name = f"neck.{role}_convs.{index}"
                shape = (channels, inputs, side, side)
                shapes |= convolution(f"{name}.conv", f"{name}.{plan.head_norm}", plan.head_norm, shape)
    else:
        channels, anchors = stage_channels(plan, 4), 15
    for number in range(plan.rpn_convs):
        name = "rpn_head.rpn_conv" if plan.rpn_convs == 1 else f"rpn_head.rpn_conv.{number}.conv"
        shapes |= layer(name, (channels, channels, 3, 3))
    shapes |= layer("rpn_head.rpn_cls", (anchors, channels, 1, 1))
    shapes |= layer("rpn_head.rpn_reg", (4 * anchors, channels, 1, 1))
    return shapes | _mmdetection_heads(plan, stage_channels(plan, 5) if plan.neck == "c4" else channels)


def _mmdetection_heads(plan: Plan, channels: int) -> Shapes:
    shapes: Shapes = {}
    features = channels
    if plan.neck != "c4":
        for number in range(plan.box_convs):
            name = f"roi_head.bbox_head.shared_convs.{number}"
            shape = (plan.channels, features, 3, 3)
            shapes |= convolution(f"{name}.conv", f"{name}.{plan.head_norm}", plan.head_norm, shape)
            features = plan.channels
        features *= 49
        for number in range(plan.fcs):
            shapes |= layer(f"roi_head.bbox_head.shared_fcs.{number}", (plan.fc, features))
            features = plan.fc
        for number in range(4):
            name = f"roi_head.mask_head.convs.{number}"
            shape = (plan.channels, plan.channels, 3, 3)
            shapes |= convolution(f"{name}.conv", f"{name}.{plan.head_norm}", plan.head_norm, shape)
    boxes, masks = (4, 1) if plan.agnostic else (4 * plan.classes, plan.classes)
    shapes |= layer("roi_head.bbox_head.fc_cls", (plan.classes + 1, features))
    shapes |= layer("roi_head.bbox_head.fc_reg", (boxes, features))
    above = channels if plan.neck == "c4" else plan.channels
    shapes |= layer("roi_head.mask_head.upsample", (above, plan.channels, 2, 2))
    return shapes | layer("roi_head.mask_head.conv_logits", (masks, plan.channels, 1, 1))


def detectron2_file(path: Path, **changes: Any) -> Path:
    """A small detectron2 checkpoint."""
    content = {"model": filled(detectron2_shapes(Plan(**{**SMALL, **changes}))), "__author__": "me"}
    path.write_bytes(pickle.dumps(content))
    return path


def mmdetection_file(path: Path, meta: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A small mmdetection checkpoint; its trunks always have counters or group norm."""
    state = filled(mmdetection_shapes(Plan(**{**SMALL, "norm": "bn", **changes})))
    tensors = {name: torch.from_numpy(array).reshape(array.shape) for name, array in state.items()}
    torch.save({"state_dict": tensors, "meta": {"epoch": 12} if meta is None else meta}, path)
    return path
