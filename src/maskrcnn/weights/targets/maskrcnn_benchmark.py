"""To maskrcnn-benchmark: its names, its config, the anchors that it saves, and a file of torch."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.config import AnchorConfig, Conventions, ModelConfig
from maskrcnn.spec import Spec
from maskrcnn.weights.detectron_lineage import Corners, legacy_cell
from maskrcnn.weights.rewrite import Table
from maskrcnn.weights.sources.maskrcnn_benchmark import TABLE
from maskrcnn.weights.target import (
    Said,
    Settings,
    Target,
    nested,
    refused,
    spelled,
    stage_channels,
    yaml_text,
)
from maskrcnn.weights.writers import write_torch

BASES = {"fpn": "e2e_mask_rcnn_R_50_FPN_1x.yaml", "c4": "e2e_mask_rcnn_R_50_C4_1x.yaml"}
BODIES = {"fpn": (50, 101, 152), "c4": (50, 101)}
STRIDES = {"fpn": (4, 8, 16, 32, 64), "c4": (16,)}
STACKED_CONVS = 4


def _rows(model: ModelConfig) -> Table:
    """With group norm a convolution of pyramid and mask head is the first of a Sequential."""
    parts = {"backbone.fpn.": model.fpn.norm, "roi_heads.mask.": model.mask_head.norm}

    def names(theirs: str) -> bool:
        plain = (
            ("fpn_inner{l}.{p", "fpn_layer{l}.{p", "mask_fcn{i}.{p")
            if "gn" in [norm for part, norm in parts.items() if theirs.startswith(part)]
            else ("fpn_inner{l}.0", "fpn_inner{l}.1", "fpn_layer{l}.0", "fpn_layer{l}.1")
            + ("mask_fcn{i}.0", "mask_fcn{i}.1")
        )
        return not any(form in theirs for form in plain)

    return tuple(row for row in TABLE if names(row.theirs))


def _refuse(model: ModelConfig) -> None:
    box, name = model.box_head, "maskrcnn-benchmark"
    if model.neck == "dc5":
        raise refused(name, "Mask R-CNN on a dilated trunk (DC5)")
    if model.backbone.norm == "none":
        raise refused(name, "biases in the trunk, where the model has its norms folded")
    if model.rpn.convs != 1:
        raise refused(name, f"name for rpn.conv2, of which the model has {model.rpn.convs} in a row")
    if model.mask_head.class_agnostic:
        raise refused(name, "class-agnostic masks, which mask_head.logits makes")
    if model.neck == "fpn" and (box.convs, box.fcs) not in ((0, 2), (STACKED_CONVS, 1)):
        raise refused(name, f"box head of {box.convs} convolutions and {box.fcs} linear layers")
    for part in ("fpn", "box_head", "mask_head"):
        if getattr(model, part).norm not in ("gn", "none"):
            raise refused(name, f"batch norm in its {part}, only group norm")
    if box.convs and box.norm != "gn":
        raise refused(name, "names here for a box head of convolutions without group norm")


def _misfits(model: ModelConfig) -> tuple[str, ...]:
    depth, known = model.backbone.depth, BODIES[model.neck]
    if depth in known:
        return ()
    return (f"model.backbone.depth: its {model.neck.upper()} trunks have {known[0]} to {known[-1]} layers",)


def _say(spec: Spec, differing: Set[str]) -> Said:
    values = _values(spec)
    settings = _architecture(spec.model)
    stride = "model.backbone.stride_in_1x1"  # the base config has it, those of ResNeXt and group norm not
    published = set() if spec.model.backbone.stride_in_1x1 else {stride}
    for path in sorted((differing | published) & values.keys()):
        settings |= values[path]
    base = BASES[spec.model.neck]
    # The anchors of the checkpoint are loaded like weights,
    carried = {"model.anchors.sizes", "model.anchors.ratios", "model.anchors.cells"} | values.keys()
    # and its detections come class by class anyway.
    carried |= {"model.conventions.anchor_cell", "model.conventions.detection_order"}
    return Said(
        yaml_text(nested(settings)),
        f"merged over configs/{base} of maskrcnn-benchmark",
        frozenset(carried & differing),
    )


def _values(spec: Spec) -> dict[str, Settings]:
    """Keys for each of our settings; one extractor serves both heads of C4."""
    model, preprocess = spec.model, spec.preprocess
    heads = ("BOX", "MASK") if model.neck == "fpn" else ("BOX",)
    samples = model.conventions.roi_samples
    proposals = {"MODEL.RPN.POST_NMS_TOP_N_TEST": model.rpn.post_nms}
    if model.neck == "fpn":
        proposals["MODEL.RPN.FPN_POST_NMS_TOP_N_TEST"] = model.rpn.post_nms
    side = model.mask_head.pool_side
    return {
        "model.mean": {"INPUT.PIXEL_MEAN": model.mean},
        "model.std": {"INPUT.PIXEL_STD": model.std},
        "preprocess.short": {"INPUT.MIN_SIZE_TEST": preprocess.short},
        "preprocess.long": {"INPUT.MAX_SIZE_TEST": preprocess.long},
        "preprocess.pad_multiple": {
            "DATALOADER.SIZE_DIVISIBILITY": preprocess.pad_multiple if preprocess.pad_multiple > 1 else 0
        },
        "model.backbone.stride_in_1x1": {"MODEL.RESNETS.STRIDE_IN_1X1": model.backbone.stride_in_1x1},
        "model.rpn.pre_nms": {"MODEL.RPN.PRE_NMS_TOP_N_TEST": model.rpn.pre_nms},
        "model.rpn.post_nms": proposals,
        "model.rpn.nms_iou": {"MODEL.RPN.NMS_THRESH": model.rpn.nms_iou},
        "model.box_head.delta_weights": {"MODEL.ROI_HEADS.BBOX_REG_WEIGHTS": model.box_head.delta_weights},
        "model.box_head.score_over": {"MODEL.ROI_HEADS.SCORE_THRESH": model.box_head.score_over},
        "model.box_head.nms_iou": {"MODEL.ROI_HEADS.NMS": model.box_head.nms_iou},
        "model.box_head.detections": {"MODEL.ROI_HEADS.DETECTIONS_PER_IMG": model.box_head.detections},
        "model.conventions.roi_samples": {
            f"MODEL.ROI_{head}_HEAD.POOLER_SAMPLING_RATIO": samples for head in heads
        },
        "model.mask_head.pool_side": {
            "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": side,
            "MODEL.ROI_MASK_HEAD.RESOLUTION": 2 * side,
        },
    }


def _architecture(model: ModelConfig) -> Settings:
    """Every key whose value in the base config is another one."""
    trunk, box, mask = model.backbone, model.box_head, model.mask_head
    stages = stage_channels(model)
    fpn, gn = model.neck == "fpn", trunk.norm == "gn"
    sizes = tuple(level[0] for level in model.anchors.sizes) if fpn else model.anchors.sizes[0]
    usual: tuple[tuple[str, Any, Any], ...] = (
        ("MODEL.BACKBONE.CONV_BODY", f"R-{trunk.depth}-{model.neck.upper()}", f"R-50-{model.neck.upper()}"),
        ("MODEL.RESNETS.NUM_GROUPS", trunk.groups, 1),
        ("MODEL.RESNETS.WIDTH_PER_GROUP", trunk.group_width, 64),
        ("MODEL.RESNETS.STEM_OUT_CHANNELS", trunk.width, 64),
        ("MODEL.RESNETS.RES2_OUT_CHANNELS", stages[0], 256),
        (
            "MODEL.RESNETS.BACKBONE_OUT_CHANNELS",
            model.fpn.channels if fpn else stages[2],
            256 if fpn else 1024,
        ),
        ("MODEL.RESNETS.TRANS_FUNC", "BottleneckWithGN" if gn else "", ""),
        ("MODEL.RESNETS.STEM_FUNC", "StemWithGN" if gn else "", ""),
        ("MODEL.FPN.USE_GN", fpn and model.fpn.norm == "gn", False),
        ("MODEL.RPN.ANCHOR_SIZES", spelled(sizes), (32, 64, 128, 256, 512)),
        ("MODEL.RPN.ASPECT_RATIOS", model.anchors.ratios, (0.5, 1.0, 2.0)),
        ("MODEL.CLS_AGNOSTIC_BBOX_REG", box.class_agnostic, False),
        ("MODEL.ROI_BOX_HEAD.NUM_CLASSES", model.classes + 1, 81),
        ("MODEL.ROI_MASK_HEAD.CONV_LAYERS", (mask.channels,) * (mask.convs or 4), (256,) * 4),
        ("MODEL.ROI_MASK_HEAD.USE_GN", mask.convs > 0 and mask.norm == "gn", False),
    )
    if fpn:
        usual += (
            ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", box.pool_side, 7),
            ("MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", box.fc_channels, 1024),
        )
    found = {key: value for key, value, default in usual if value != default}
    if box.convs:
        found |= {
            "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FPNXconv1fcFeatureExtractor",
            "MODEL.ROI_BOX_HEAD.USE_GN": True,
            "MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM": box.channels,
            "MODEL.ROI_BOX_HEAD.NUM_STACKED_CONVS": box.convs,
        }
    return found


def _cells(spec: Spec) -> dict[str, NDArray[Any]]:
    """The anchors of each level's first cell, which the checkpoint of a strict load has to hold."""
    model = spec.model
    cells = model.anchors.cells or tuple(
        _cell(model.anchors, level, stride, model.conventions)
        for level, stride in enumerate(STRIDES[model.neck])
    )
    return {
        f"rpn.anchor_generator.cell_anchors.{level}": np.array(cell, np.float32)
        for level, cell in enumerate(cells)
    }


def _cell(anchors: AnchorConfig, level: int, stride: int, conventions: Conventions) -> tuple[Corners, ...]:
    """Ratio by ratio, as the network of this model computes them."""
    if conventions.anchor_cell == "legacy":
        return legacy_cell(anchors.sizes[level], anchors.ratios, stride)
    found = []
    for ratio in anchors.ratios:
        for size in anchors.sizes[level]:
            half = np.array((size / np.sqrt(ratio), size * np.sqrt(ratio))) / 2
            corners = np.concatenate([-half, half]).astype(np.float32)
            corners = corners.round() if conventions.anchor_cell == "rounded" else corners
            found.append(tuple(corners.tolist()))
    return tuple(found)


def _write(path: Path, tensors: Mapping[str, NDArray[Any]], spec: Spec, config: str) -> None:
    write_torch(path, {"model": tensors})


TARGET = Target(
    name="maskrcnn-benchmark",
    source=lambda model: "maskrcnn-benchmark",
    suffixes=(".pth",),
    rows=_rows,
    refuse=_refuse,
    misfits=_misfits,
    say=_say,
    write=_write,
    order=("backbone.", "fpn.", "rpn.", "res5.", "box_head.", "mask_head."),
    anchor_order="ratio_first",
    counters="dropped",
    fixed=_cells,
)
