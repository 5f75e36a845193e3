"""Names and shapes of the checkpoints of Detectron's descendants, written down from their modules.

Small widths make whole checkpoints that convert in milliseconds.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frameworks import BLOCKS, SMALL, Plan, Shapes, convolution, filled, layer, norm, stage_channels, trunk

GOLDEN = Path(__file__).parents[1] / "golden"


def maskrcnn_benchmark_shapes(plan: Plan) -> Shapes:
    """Of maskrcnn-benchmark's GeneralizedRCNN; with C4 the heads share a stage, saved under both names."""
    box, mask = (f"roi_heads.{head}.feature_extractor" for head in ("box", "mask"))
    shapes = convolution(
        "backbone.body.stem.conv1", "backbone.body.stem.bn1", plan.norm, (plan.width, 3, 7, 7)
    )
    for stage, block, role, out, inputs, groups, side in trunk(plan):
        on_rois = plan.neck == "c4" and stage == 5
        for root in (f"{box}.head", f"{mask}.head") if on_rois else ("backbone.body",):
            start = f"{root}.layer{stage - 1}.{block}"
            name, norm_name = f"{start}.{role}", f"{start}.bn{role[-1]}"
            if role == "shortcut":
                name, norm_name = f"{start}.downsample.0", f"{start}.downsample.1"
            shapes |= convolution(name, norm_name, plan.norm, (out, inputs // groups, side, side))
    channels, anchors = (plan.channels, 3) if plan.neck == "fpn" else (stage_channels(plan, 4), 15)
    if plan.neck == "fpn":
        for level in (1, 2, 3, 4):
            for role, inputs, side in (
                ("inner", stage_channels(plan, level + 1), 1),
                ("layer", channels, 3),
            ):
                shapes |= _sequential(f"backbone.fpn.fpn_{role}{level}", plan, (channels, inputs, side, side))
    shapes |= layer("rpn.head.conv", (channels, channels, 3, 3))
    shapes |= layer("rpn.head.cls_logits", (anchors, channels, 1, 1))
    shapes |= layer("rpn.head.bbox_pred", (4 * anchors, channels, 1, 1))
    features = stage_channels(plan, 5)
    if plan.neck == "fpn":
        for index in range(plan.box_convs):
            shapes[f"{box}.xconvs.{3 * index}.weight"] = (plan.channels, plan.channels, 3, 3)
            shapes |= dict(norm(f"{box}.xconvs.{3 * index + 1}", "gn", plan.channels))
        features = 49 * channels
        for number in range(plan.fcs):
            shapes |= layer(f"{box}.fc{number + 6}", (plan.fc, features))
            features = plan.fc
        for number in (1, 2, 3, 4):
            shapes |= _sequential(f"{mask}.mask_fcn{number}", plan, (channels, channels, 3, 3))
    above = channels if plan.neck == "fpn" else features
    return shapes | _predictors(plan, features, above)


def _sequential(name: str, plan: Plan, shape: tuple[int, ...]) -> Shapes:
    """A convolution alone, or one without bias and its group norm."""
    return convolution(f"{name}.0", f"{name}.1", "gn", shape) if plan.head_norm else layer(name, shape)


def _predictors(plan: Plan, features: int, above: int) -> Shapes:
    box, mask = "roi_heads.box.predictor", "roi_heads.mask.predictor"
    shapes = layer(f"{box}.cls_score", (plan.classes + 1, features))
    shapes |= layer(f"{box}.bbox_pred", (8 if plan.agnostic else 4 * (plan.classes + 1), features))
    weight = {f"{mask}.conv5_mask.weight": (above, plan.channels, 2, 2)}
    shapes |= weight | {f"{mask}.conv5_mask.bias": (plan.channels,)}
    return shapes | layer(f"{mask}.mask_fcn_logits", (plan.classes + 1, plan.channels, 1, 1))


def shared(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with one value for what box and mask head share."""
    box, mask = "roi_heads.box.feature_extractor.head", "roi_heads.mask.feature_extractor.head"
    return {name: state[name.replace(mask, box)] for name in state}


def maskrcnn_benchmark_file(
    path: Path, change: Callable[[dict[str, np.ndarray]], Any] | None = None, **changes: Any
) -> Path:
    """A small maskrcnn-benchmark checkpoint, after `change` of its state dict."""
    state = shared(filled(maskrcnn_benchmark_shapes(Plan(**{**SMALL, **changes}))))
    if change is not None:
        change(state)
    named = {f"module.{name}": torch.from_numpy(array.copy()) for name, array in state.items()}
    torch.save({"model": named, "iteration": 90000, "optimizer": {"state": {}}}, path)
    return path


def segmentoly_shapes(plan: Plan, as_convolutions: bool = False) -> Shapes:
    """Of segmentoly's FPNMaskRCNN and ResNet50C4MaskRCNN; as_convolutions: its fc_detection_head=False."""
    root = "backbone.stages"
    shapes = convolution(f"{root}.stage_0.conv1", f"{root}.stage_0.bn1", plan.norm, (plan.width, 3, 7, 7))
    for stage, block, role, out, inputs, groups, side in trunk(plan):
        on_rois = plan.neck == "c4" and stage == 5
        start = f"common_detection_mask_head.{block}" if on_rois else f"{root}.stage_{stage - 1}.{block}"
        name, norm_name = f"{start}.{role}", f"{start}.bn{role[-1]}"
        if role == "shortcut":
            name, norm_name = f"{start}.downsample.0", f"{start}.downsample.1"
        shapes |= convolution(name, norm_name, plan.norm, (out, inputs // groups, side, side))
    channels, anchors = (plan.channels, 3) if plan.neck == "fpn" else (stage_channels(plan, 4), 15)
    if plan.neck == "fpn":
        shapes |= layer("fpn.conv_top", (channels, stage_channels(plan, 5), 1, 1))
        for index in range(3):
            name = f"fpn.topdown_lateral.{index}.conv_lateral"
            shapes |= layer(name, (channels, stage_channels(plan, 4 - index), 1, 1))
        for index in range(4):
            shapes |= layer(f"fpn.posthoc.{index}", (channels, channels, 3, 3))
    shapes |= layer("rpn.conv", (channels, channels, 3, 3))
    shapes |= layer("rpn.cls_score", (anchors, channels, 1, 1))
    shapes |= layer("rpn.bbox_deltas", (4 * anchors, channels, 1, 1))
    return shapes | _segmentoly_heads(plan, channels, as_convolutions)


def _segmentoly_heads(plan: Plan, channels: int, as_convolutions: bool) -> Shapes:
    one = (1, 1) if as_convolutions or plan.neck == "c4" else ()
    shapes: Shapes = {}
    features, above, upsample = stage_channels(plan, 5), stage_channels(plan, 5), "upconv5"
    if plan.neck == "fpn":
        wide = (channels, 7, 7) if as_convolutions else (49 * channels,)
        shapes |= layer("detection_head.fc1", (plan.fc, *wide))
        shapes |= layer("detection_head.fc2", (plan.fc, plan.fc, *one))
        features, above, upsample = plan.fc, channels, "upconv"
        for index in (0, 2, 4, 6):
            shapes |= layer(f"mask_head.conv_fcn.{index}", (channels, channels, 3, 3))
    shapes |= layer("detection_head.cls_score", (plan.classes + 1, features, *one))
    shapes |= layer("detection_head.bbox_pred", (4 * (plan.classes + 1), features, *one))
    shapes[f"mask_head.{upsample}.weight"] = (above, plan.channels, 2, 2)
    shapes[f"mask_head.{upsample}.bias"] = (plan.channels,)
    return shapes | layer("mask_head.segm", (plan.classes + 1, plan.channels, 1, 1))


def segmentoly_normed_shapes(light: bool, width: int = 32, classes: int = 5) -> Shapes:
    """Of ResNet50FPNGNMaskRCNN, or light: of InstanceSegmentationSecurity0050, with narrow layers."""
    kind = "bn" if light else "gn"
    channels = 2 * width  # two of each group
    plan = Plan(norm=kind, width=width, group_width=width, channels=channels, fc=24, classes=classes)
    plain = segmentoly_shapes(plan)
    kept = ("backbone.", "rpn.", "detection_head.", "mask_head.upconv", "mask_head.segm")
    shapes = {name: shape for name, shape in plain.items() if name.startswith(kept)}
    pyramid = {name: shape for name, shape in plain.items() if name.startswith("fpn.")}
    for position in range(6 if light else 4):
        shapes |= layer(f"mask_head.conv_fcn.{3 * position}", (channels, channels, 3, 3))
        shapes |= dict(norm(f"mask_head.conv_fcn.{3 * position + 1}", kind, channels))
    if light:
        shapes |= pyramid | layer("detection_head.fc3", (24, 24))
        shapes["rpn.conv.weight"] = (channels, channels, 1, 1)
        for role, number in ((role, number) for role in ("conv1", "conv2") for number in range(3)):
            shapes[f"bupa.{role}.{number}.0.weight"] = (channels, channels, 3, 3)
            shapes |= dict(norm(f"bupa.{role}.{number}.1", kind, channels))
        return shapes
    for name in ("detection_head.fc2.weight", "detection_head.fc2.bias"):
        del shapes[name]
    for position in range(4):
        shapes[f"detection_head.convs.{3 * position}.weight"] = (channels, channels, 3, 3)
        shapes |= dict(norm(f"detection_head.convs.{3 * position + 1}", kind, channels))
    for name, shape in pyramid.items():
        start, parameter = name.rsplit(".", 1)
        shapes[f"{start}.0.{parameter}"] = shape
        shapes[f"{start}.1.{parameter}"] = (channels,)
    return shapes


def segmentoly_file(path: Path, state: dict[str, np.ndarray]) -> Path:
    """A segmentoly checkpoint of that state dict."""
    torch.save({"model": {name: torch.from_numpy(array) for name, array in state.items()}}, path)
    return path


def caffe2_names(name: str) -> list[tuple[str, tuple[int, ...], str]]:
    """Blob, shape and detectron2's name of each blob of a published Detectron model."""
    lines = (GOLDEN / "caffe2" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split() for line in lines)
    return [(blob, tuple(map(int, shape.split("x"))), theirs) for blob, shape, theirs in rows]


def caffe2_shapes(plan: Plan) -> Shapes:
    """Of Detectron's generalized_rcnn: AffineChannel, or group norm everywhere where plan.norm is `gn`."""
    kind = "gn" if plan.norm == "gn" else "bn"
    shapes: Shapes = {"conv1_w": (plan.width, 3, 7, 7)}
    shapes |= _affine("conv1_gn" if kind == "gn" else "res_conv1_bn", plan.width)
    branches = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    for stage, block, role, out, inputs, groups, side in trunk(plan):
        name = f"res{stage}_{block}_{branches[role]}"
        shapes |= {f"{name}_w": (out, inputs // groups, side, side)} | _affine(f"{name}_{kind}", out)
    channels, anchors = (plan.channels, 3) if plan.neck == "fpn" else (stage_channels(plan, 4), 15)
    if plan.neck == "fpn":
        for stage, blocks in enumerate(BLOCKS[plan.depth], start=2):
            last = f"res{stage}_{blocks - 1}_sum"
            lateral = f"fpn_inner_{last}" if stage == 5 else f"fpn_inner_{last}_lateral"
            shapes |= _blob(lateral, (channels, stage_channels(plan, stage), 1, 1), kind == "gn")
            shapes |= _blob(f"fpn_{last}", (channels, channels, 3, 3), kind == "gn")
    fpn2 = "_fpn2" if plan.neck == "fpn" else ""
    shapes |= _blob(f"conv_rpn{fpn2}", (channels, channels, 3, 3))
    shapes |= _blob(f"rpn_cls_logits{fpn2}", (anchors, channels, 1, 1))
    shapes |= _blob(f"rpn_bbox_pred{fpn2}", (4 * anchors, channels, 1, 1))
    return shapes | _caffe2_heads(plan, channels, kind == "gn")


def _caffe2_heads(plan: Plan, channels: int, group_norm: bool) -> Shapes:
    shapes: Shapes = {}
    features = above = stage_channels(plan, 5)
    if plan.neck == "fpn":
        for number in range(1, plan.box_convs + 1):
            shapes |= _blob(f"head_conv{number}", (channels, channels, 3, 3), group_norm)
        features, above = 49 * channels, channels
        for number in range(plan.fcs):
            shapes |= _blob(f"fc{number + 6}", (plan.fc, features))
            features = plan.fc
        for number in (1, 2, 3, 4):
            name = f"_mask_fcn{number}" if group_norm else f"_[mask]_fcn{number}"
            shapes |= _blob(name, (channels, channels, 3, 3), group_norm)
    shapes |= _blob("cls_score", (plan.classes + 1, features))
    shapes |= _blob("bbox_pred", (8 if plan.agnostic else 4 * (plan.classes + 1), features))
    shapes |= {"conv5_mask_w": (above, plan.channels, 2, 2), "conv5_mask_b": (plan.channels,)}
    masks = 1 if plan.agnostic else plan.classes + 1
    return shapes | _blob("mask_fcn_logits", (masks, plan.channels, 1, 1))


def _blob(name: str, shape: tuple[int, ...], group_norm: bool = False) -> Shapes:
    after = _affine(f"{name}_gn", shape[0]) if group_norm else {f"{name}_b": (shape[0],)}
    return {f"{name}_w": shape} | after


def _affine(name: str, channels: int) -> Shapes:
    return {f"{name}_s": (channels,), f"{name}_b": (channels,)}
