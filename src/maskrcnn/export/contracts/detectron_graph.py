"""Joins the three plain graphs of a model by the operators that OpenVINO took over from Detectron.

A anchors per cell, N boxes, K classes, C channels, S bins and M mask pixels per side, h, w cells of a level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, compose, helper, numpy_helper

from maskrcnn.backends.contracts.segmentoly import BATCH, BOXES, CLASSES, IMAGE, IMAGE_INFO, MASKS, SCORES
from maskrcnn.export.clean import clean
from maskrcnn.host.anchors import anchors_of_cells
from maskrcnn.host.boxes import CANONICAL_SIDE
from maskrcnn.spec import Spec

DOMAIN = "org.openvinotoolkit"
# Sides in which a box goes to the next level, as multiples of the canonical one.
NEXT_LEVEL = (0.5, 1.0, 2.0)
# Pixels of proposals in one of the network's: a power of two, so that floats lose nothing.
FINE = 1024
ONE, HALF = np.array(1, np.float32), np.array(0.5, np.float32)


class Nodes:
    """Nodes and constants of a graph that is being written; values are their names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, kind: str, *inputs: str | np.ndarray, name: str = "", **settings: Any) -> str:
        """Add a node of one output; an array among the inputs is a constant. Returns the output's name."""
        return self.several(kind, inputs, (name or f"joined.{len(self.nodes)}",), **settings)[0]

    def several(
        self, kind: str, inputs: Sequence[str | np.ndarray], names: Sequence[str], **settings: Any
    ) -> Sequence[str]:
        """Add a node whose outputs have these names."""
        domain = DOMAIN if kind.startswith("ExperimentalDetectron") else ""
        read = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        self.nodes.append(helper.make_node(kind, read, list(names), domain=domain, **settings))
        return names

    def _constant(self, values: np.ndarray) -> str:
        name = f"constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def graph_of(self, file: Path, inputs: Mapping[str, str]) -> None:
        """Add all of an ONNX file; what it calls `image` is called `dense.image` for `dense.onnx`.

        inputs: values of this graph by the names of the file's inputs.
        """
        prefix = f"{file.stem}."
        part = compose.add_prefix(onnx.load(file), prefix).graph
        names = {f"{prefix}{name}": value for name, value in inputs.items()}
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
        self.nodes += part.node
        self.constants += part.initializer


@dataclass(frozen=True)
class Pyramid:
    """Names of the levels that boxes are pooled from, and network pixels per cell of each."""

    levels: tuple[str, ...]
    strides: tuple[int, ...]


def joined(parts: Path, spec: Spec, opset: int) -> ModelProto:
    """One graph of a folder of parts that was written for one image of a fixed size; its mean is inside.

    Inputs and outputs are those of `backends.contracts.segmentoly`.
    """
    exported = spec.exported
    assert exported is not None
    nodes = Nodes()
    strides = (4, 8, 16, 32, 64) if spec.model.neck == "fpn" else (16,)
    nodes.graph_of(parts / "dense.onnx", {"image": normalised(nodes, spec)})
    rois = proposals(nodes, spec, strides)
    pyramid = Pyramid(tuple(f"dense.level{number}" for number in range(len(strides[:4]))), strides[:4])
    features = pooled_features(nodes, pyramid, rois, spec.model.box_head.pool_side, spec)
    nodes.graph_of(parts / "box_head.onnx", {"features": features})
    detections(nodes, spec, rois)
    found, missing = rows_found(nodes, spec)
    features = pooled_features(nodes, pyramid, found, spec.model.mask_head.pool_side, spec)
    nodes.graph_of(parts / "mask_head.onnx", {"features": features})
    masks(nodes, spec, missing)
    graph = helper.make_graph(nodes.nodes, "maskrcnn", *_interface(spec), nodes.constants)
    versions = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=8)
    clean(model)
    return model


def normalised(nodes: Nodes, spec: Spec) -> str:
    """(im_data - mean) / std inside the image that im_info tells of, and what the model has outside it."""
    assert spec.exported is not None
    height, width = spec.exported.height, spec.exported.width
    inside = []
    for axis, (count, shape) in enumerate(((height, (1, 1, height, 1)), (width, (1, 1, 1, width)))):
        side = cut(nodes, IMAGE_INFO, axis, axis + 1, 1)
        number = np.arange(count, dtype=np.float32).reshape(shape)
        inside.append(nodes("Cast", nodes("Less", number, side), to=TensorProto.FLOAT))
    within = nodes("Mul", *inside)
    mean, std = (np.array(each, np.float32).reshape(1, 3, 1, 1) for each in (spec.model.mean, spec.model.std))
    if spec.model.conventions.padding == "black":
        return nodes("Div", nodes("Sub", nodes("Mul", IMAGE, within), mean), std)
    return nodes("Mul", nodes("Div", nodes("Sub", IMAGE, mean), std), within)


@dataclass(frozen=True)
class Boxes:
    """Names of centres and sides, (..., 2) each, of boxes whose last pixel is a part of them."""

    centre: str
    sides: str


def boxes_of(nodes: Nodes, first: str, last: str) -> Boxes:
    """From the corners (..., 2)."""
    sides = nodes("Add", nodes("Sub", last, first), ONE)
    return Boxes(nodes("Add", first, nodes("Mul", sides, HALF)), sides)


def clipped_deltas(
    nodes: Nodes, deltas: str, boxes: Boxes, onto: Boxes, edge: str, spec: Spec, pixel: int = 1
) -> str:
    """Deltas (..., 4) that move `onto` to where deltas (..., 4) move `boxes`, clipped to the image.

    edge: width and height (2,) of the image. pixel: what is left at least of a box beyond it. Operators clip
    otherwise: one to pixels that nothing is left of, the other at 0 alone.
    """
    limit = np.array(spec.model.conventions.delta_limit, np.float32)
    shift, growth = cut(nodes, deltas, 0, 2, -1), cut(nodes, deltas, 2, 4, -1)
    half = nodes("Mul", nodes("Mul", nodes("Exp", nodes("Min", growth, limit)), boxes.sides), HALF)
    middle = nodes("Add", nodes("Mul", shift, boxes.sides), boxes.centre)
    least = np.array(pixel, np.float32)
    first = nodes("Max", nodes("Sub", middle, half), np.array(0, np.float32))
    first = nodes("Min", first, nodes("Sub", edge, least))
    end = nodes("Min", nodes("Max", nodes("Add", middle, half), least), edge)
    sides = nodes("Sub", end, first)
    centre = nodes("Add", first, nodes("Mul", sides, HALF))
    moved = nodes("Div", nodes("Sub", centre, onto.centre), onto.sides)
    return nodes("Concat", moved, nodes("Log", nodes("Div", sides, onto.sides)), axis=-1)


def cut(nodes: Nodes, values: str, start: int, end: int, axis: int) -> str:
    """values[start:end] along an axis."""
    return nodes("Slice", values, *(np.array([number]) for number in (start, end, axis)))


def image_edge(nodes: Nodes) -> str:
    """Width and height (2,) of the image in the network's input."""
    return nodes("Gather", nodes("Reshape", IMAGE_INFO, np.array([3])), np.array([1, 0]))


def proposals(nodes: Nodes, spec: Spec, strides: Sequence[int]) -> str:
    """Boxes (P, 4) in network pixels, best first, zero rows at the end.

    NMS of the operator takes x2 - x1 for a side where all else has x2 - x1 + 1. So it gets finer pixels, in
    which a box ends a pixel before the next whole one begins, and the one that it leaves out is nothing.
    """
    assert spec.exported is not None
    model, rpn = spec.model, spec.model.rpn
    edge: str | np.ndarray = image_edge(nodes)
    if model.conventions.rpn_clip == "padded":
        edge = np.array([spec.exported.width, spec.exported.height], np.float32)
    edge = nodes("Mul", edge, np.array(FINE, np.float32))
    info = nodes(
        "Concat", cut(nodes, edge, 1, 2, 0), cut(nodes, edge, 0, 1, 0), np.ones(1, np.float32), axis=0
    )
    cells = anchors_of_cells(model.anchors, strides, model.conventions)
    found = []
    for number, (stride, cell) in enumerate(zip(strides, cells, strict=True)):
        logits = f"dense.objectness{number}"
        anchors = fine_anchors(nodes, cell, stride, logits)
        of_level = nodes.several(
            "ExperimentalDetectronGenerateProposalsSingleImage",
            (
                info,
                anchors,
                fine_deltas(nodes, f"dense.deltas{number}", anchors, edge, len(cell), spec),
                nodes("Squeeze", nodes("Sigmoid", logits), axes=[0]),
            ),
            (f"rois{number}", f"probabilities{number}"),
            pre_nms_count=rpn.pre_nms,
            post_nms_count=rpn.post_nms,
            nms_threshold=rpn.nms_iou,
            # A side of just the least, and what rounding takes of it.
            min_size=max(FINE * model.conventions.rpn_min_size - 1, 0.0),
        )
        found.append(of_level)
    boxes, scores = (nodes("Concat", *column, axis=0) for column in zip(*found, strict=True))
    best = nodes("ExperimentalDetectronTopKROIs", boxes, scores, max_rois=rpn.post_nms)
    real = nodes("Greater", nodes("ReduceMax", best, axes=[1], keepdims=1), np.array(0, np.float32))
    end = 1 / FINE - 1
    whole = nodes("Mul", best, np.array(1 / FINE, np.float32))
    whole = nodes("Add", whole, np.array([0, 0, end, end], np.float32))
    return nodes("Mul", whole, nodes("Cast", real, to=TensorProto.FLOAT))


def fine_anchors(nodes: Nodes, cell: np.ndarray, stride: int, level: str) -> str:
    """Anchors (h * w * A, 4) of a level in fine pixels."""
    # The operator adds the middle of each cell, half a stride from the corner.
    fine = FINE * (cell - stride / 2) + np.array([0, 0, FINE - 1, FINE - 1])
    return nodes(
        "ExperimentalDetectronPriorGridGenerator",
        fine.astype(np.float32),
        level,
        IMAGE,
        w=0,
        h=0,
        stride_x=float(FINE * stride),
        stride_y=float(FINE * stride),
        flatten=1,
    )


def fine_deltas(nodes: Nodes, deltas: str, anchors: str, edge: str, per_cell: int, spec: Spec) -> str:
    """deltas (1, 4 A, h, w) of anchors (h * w * A, 4) in fine pixels -> (4 A, h, w), to clipped boxes."""
    assert spec.exported is not None
    boxes = boxes_of(nodes, cut(nodes, anchors, 0, 2, 1), cut(nodes, anchors, 2, 4, 1))
    maps = nodes("Transpose", deltas, perm=[0, 2, 3, 1])
    rows = nodes("Reshape", maps, np.array([-1, 4]))
    clipped = clipped_deltas(nodes, rows, boxes, boxes, edge, spec, FINE)
    restored = nodes("Reshape", clipped, nodes("Shape", maps))
    return nodes("Squeeze", nodes("Transpose", restored, perm=[0, 3, 1, 2]), axes=[0])


def pooled_features(nodes: Nodes, pyramid: Pyramid, boxes: str, side: int, spec: Spec) -> str:
    """RoIAlign of boxes (N, 4) in network pixels -> (N, C, S, S), of all L levels at once (N, L * C, S, S).

    The operator tells levels by x2 - x1 where its own family has x2 - x1 + 1; the few boxes that belong one
    level further are pooled there.
    """
    first, last = with_an_area(nodes, boxes)
    wide = nodes("Concat", first, last, axis=1)
    if spec.model.roi_levels == "all" or len(pyramid.levels) == 1:
        pairs = zip(pyramid.levels, pyramid.strides, strict=True)
        found = [_extracted(nodes, wide, Pyramid((level,), (stride,)), side, spec) for level, stride in pairs]
        return nodes("Concat", *found, axis=1) if len(found) > 1 else found[0]
    beyond = Pyramid((*pyramid.levels[1:], pyramid.levels[-1]), (*pyramid.strides[1:], pyramid.strides[-1]))
    # A last row for the operator where there is none: it takes no empty lists.
    count = cut(nodes, nodes("Shape", boxes), 0, 1, 0)
    rows = nodes("Concat", wide, np.array([[0, 0, 1, 1]], np.float32), axis=0)
    further = nodes("NonZero", _levels_apart(nodes, nodes("Sub", last, first), spec))
    further = nodes("Concat", nodes("Reshape", further, np.array([-1])), count, axis=0)
    there = _extracted(nodes, nodes("Gather", rows, further), beyond, side, spec)
    here = _extracted(nodes, rows, pyramid, side, spec)
    pooled = nodes("ScatterND", here, nodes("Unsqueeze", further, axes=[1]), there)
    return nodes("Slice", pooled, np.array([0]), count, np.array([0]))


def _levels_apart(nodes: Nodes, sides: str, spec: Spec) -> str:
    """1 for boxes (N,) of these sides (N, 2) that one pixel more puts on the next level, else 0."""
    inside = spec.model.conventions.level_eps_inside
    from_on = np.array([[(CANONICAL_SIDE * (part - inside)) ** 2 for part in NEXT_LEVEL]], np.float32)
    levels = []
    for each in (sides, nodes("Add", sides, ONE)):
        area = nodes("ReduceProd", each, axes=[1], keepdims=1)
        below = nodes("Cast", nodes("Less", area, from_on), to=TensorProto.FLOAT)
        levels.append(nodes("ReduceSum", below, axes=[1], keepdims=0))
    return nodes("Sub", *levels)


def with_an_area(nodes: Nodes, boxes: str) -> tuple[str, str]:
    """First and last corner (N, 2) of boxes (N, 4) that are made at least a pixel long.

    The operators leave boxes of x2 = x1 out; RoIAlign reads both as the same box, of a cell.
    """
    first = cut(nodes, boxes, 0, 2, 1)
    return first, nodes("Max", cut(nodes, boxes, 2, 4, 1), nodes("Add", first, ONE))


def _extracted(nodes: Nodes, boxes: str, pyramid: Pyramid, side: int, spec: Spec) -> str:
    name = f"features{len(nodes.nodes)}"
    return nodes.several(
        "ExperimentalDetectronROIFeatureExtractor",
        (boxes, *pyramid.levels),
        (name, f"{name}.boxes"),
        pyramid_scales=pyramid.strides,
        output_size=side,
        sampling_ratio=spec.model.conventions.roi_samples,
        image_id=0,
        distribute_rois_between_levels=1,
        preserve_rois_order=1,
    )[0]


def detections(nodes: Nodes, spec: Spec, rois: str) -> None:
    """The outputs `boxes`, `classes`, `scores` and `batch_ids`; their first class is the background."""
    head, count = spec.model.box_head, spec.model.classes + 1
    first, last = with_an_area(nodes, rois)
    deltas = box_deltas(nodes, spec, rois, (first, last))
    nodes.several(
        "ExperimentalDetectronDetectionOutput",
        (
            nodes("Concat", first, last, axis=1),
            nodes("Pad", deltas, np.array([0, 4, 0, 0])),
            background_first(nodes, rois, count),
            IMAGE_INFO,
        ),
        (BOXES, CLASSES, SCORES),
        num_classes=count,
        nms_threshold=head.nms_iou,
        score_threshold=head.score_over,
        post_nms_count=spec.model.rpn.post_nms,
        max_detections_per_image=head.detections,
        class_agnostic_box_regression=0,
        deltas_weights=head.delta_weights,
        max_delta_log_wh=spec.model.conventions.delta_limit,
    )
    nodes("Mul", CLASSES, np.array(0, np.int32), name=BATCH)


def box_deltas(nodes: Nodes, spec: Spec, rois: str, corners: tuple[str, str]) -> str:
    """Deltas (N, 4 K) that move boxes of these corners to where the box head's move rois, clipped."""
    head = spec.model.box_head
    weights = np.array(head.delta_weights, np.float32)
    deltas = nodes("Div", nodes("Reshape", "box_head.deltas", np.array([0, -1, 4])), weights)
    theirs, ours = (
        boxes_of(nodes, *(nodes("Unsqueeze", each, axes=[1]) for each in pair))
        for pair in ((cut(nodes, rois, 0, 2, 1), cut(nodes, rois, 2, 4, 1)), corners)
    )
    moved = clipped_deltas(nodes, deltas, theirs, ours, image_edge(nodes), spec)
    flat = nodes("Flatten", nodes("Mul", moved, weights))
    return nodes("Tile", flat, np.array([1, spec.model.classes])) if head.class_agnostic else flat


def background_first(nodes: Nodes, rois: str, count: int) -> str:
    """Scores (N, K + 1), the background's first; those of rows without a box are zero."""
    scores = nodes("Softmax", "box_head.logits", axis=1)
    classes, background = cut(nodes, scores, 0, count - 1, 1), cut(nodes, scores, count - 1, count, 1)
    zero = np.array(0, np.float32)
    real = nodes("Greater", nodes("ReduceMax", rois, axes=[1], keepdims=1), zero)
    real = nodes("Cast", real, to=TensorProto.FLOAT)
    return nodes("Mul", nodes("Concat", background, classes, axis=1), real)


def rows_found(nodes: Nodes, spec: Spec) -> tuple[str, str]:
    """Boxes (n, 4) of the rows with a detection, or of one row, and how many rows (1,) are left out.

    Most of the time is that of the mask head, and most rows are empty.
    """
    real = nodes("Cast", nodes("Greater", CLASSES, np.array(0, np.int32)), to=TensorProto.FLOAT)
    count = nodes("Max", nodes("ReduceSum", real, axes=[0], keepdims=1), ONE)
    count = nodes("Cast", count, to=TensorProto.INT64)
    boxes = nodes("Slice", BOXES, np.array([0]), count, np.array([0]))
    return boxes, nodes("Sub", np.array([spec.model.box_head.detections]), count)


def masks(nodes: Nodes, spec: Spec, missing: str) -> None:
    """The output `raw_masks`, (N, K + 1, M, M) with zeros for the background and for empty rows."""
    found = "mask_head.masks"
    if spec.model.mask_head.class_agnostic:
        found = nodes("Tile", found, np.array([1, spec.model.classes, 1, 1]))
    pads = nodes("Concat", np.array([0, 1, 0, 0]), missing, np.array([0, 0, 0]), axis=0)
    nodes("Reshape", nodes("Pad", found, pads), np.array(_masks_shape(spec)), name=MASKS)


def _masks_shape(spec: Spec) -> tuple[int, ...]:
    model = spec.model
    side = model.mask_head.pool_side * (1 if model.neck == "c4" else 2)
    return model.box_head.detections, model.classes + 1, side, side


def _interface(spec: Spec) -> tuple[list[Any], list[Any]]:
    assert spec.exported is not None
    rows = spec.model.box_head.detections
    number, whole = TensorProto.FLOAT, TensorProto.INT32
    inputs = {IMAGE: (1, 3, spec.exported.height, spec.exported.width), IMAGE_INFO: (1, 3)}
    outputs = {
        BOXES: (number, (rows, 4)),
        CLASSES: (whole, (rows,)),
        SCORES: (number, (rows,)),
        BATCH: (whole, (rows,)),
        MASKS: (number, _masks_shape(spec)),
    }
    describe = helper.make_tensor_value_info
    return (
        [describe(name, number, shape) for name, shape in inputs.items()],
        [describe(name, kind, shape) for name, (kind, shape) in outputs.items()],
    )
