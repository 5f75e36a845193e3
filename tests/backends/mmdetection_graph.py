"""Graphs with the inputs and outputs that mmdetection's exporters write, made of the example model."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from maskrcnn.config import ModelConfig

BIAS = "roi_head.bbox_head.fc_cls.bias"
ROWS, SIDE, CLASSES = 100, 28, 80


@dataclass(frozen=True)
class Layout:
    """What differs between versions of mmdetection and mmdeploy.

    size: of the input, None for any. boxes: name of the output. batch: whether outputs have a first
    dimension of 1. masks: pasted as these values, or crops of the class found or of all classes. named:
    whether the classifier's bias has its name.
    """

    size: tuple[int, int] | None = None
    boxes: Literal["dets", "boxes"] = "dets"
    batch: bool = True
    masks: Literal["bool", "bytes", "float", "crops", "all"] = "bool"
    named: bool = True


def write_mmdetection(path: Path, layout: Layout, model: ModelConfig | None = None) -> Path:
    """The example model behind such inputs and outputs. model: whose mean and std it reads."""
    source = onnx.load(str(files("maskrcnn").joinpath("example.onnx")))
    graph = source.graph
    nodes, constants = _before(model or ModelConfig())
    after, more = _after(layout)
    for node in graph.node:
        node.output[:] = [f"own_{name}" if name in OWN else name for name in node.output]
        node.input[:] = [f"own_{name}" if name in OWN else name for name in node.input]
    if layout.named:
        _name_classifier(graph)
    height, width = layout.size or ("height", "width")
    made = helper.make_graph(
        [*nodes, *graph.node, *after],
        "mmdetection",
        [helper.make_tensor_value_info("input", T.FLOAT, [1, 3, height, width])],
        _outputs(layout),
        [*graph.initializer, *constants, *more],
    )
    onnx.save(helper.make_model(made, opset_imports=source.opset_import, ir_version=10), path)
    return path


OWN = ("boxes", "scores", "labels", "masks")


def _before(model: ModelConfig) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """From `input` to the example's `image` and `size`."""
    nodes = [
        helper.make_node("Mul", ["input", "mm_std"], ["mm_scaled"]),
        helper.make_node("Add", ["mm_scaled", "mm_mean"], ["image"]),
        helper.make_node("Shape", ["input"], ["mm_size"], start=2, end=4),
        helper.make_node("Unsqueeze", ["mm_size", "mm_0"], ["size"]),
    ]
    constants = {
        "mm_mean": np.float32(model.mean).reshape(1, 3, 1, 1),
        "mm_std": np.float32(model.std).reshape(1, 3, 1, 1),
        "mm_0": np.int64([0]),
    }
    return nodes, [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]


def _after(layout: Layout) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """From the example's rows to the outputs."""
    constants = {
        "mm_1": np.int64([1]),
        "mm_2": np.int64([2]),
        "mm_nought": np.float32(0),
        "mm_one": np.float32(1),
        "mm_half": np.float32(0.5),
        "mm_side": np.float32(SIDE),
        "mm_cells": np.arange(SIDE, dtype=np.float32),
        "mm_classes": np.int64(CLASSES),
        "mm_values": np.float32([0, 1]),
        "mm_white": np.float32(255),
    }
    steps: list[tuple[str, list[str], list[str], dict]] = [
        *((("Squeeze"), [f"own_{name}", "mm_0"], [f"mm_all_{name}"], {}) for name in OWN),
        ("Greater", ["mm_all_scores", "mm_nought"], ["mm_found"], {}),
        ("NonZero", ["mm_found"], ["mm_places"], {}),
        ("Squeeze", ["mm_places", "mm_0"], ["mm_rows"], {}),
        *(("Gather", [f"mm_all_{name}", "mm_rows"], [f"mm_{name}"], {}) for name in OWN),
        ("Unsqueeze", ["mm_scores", "mm_1"], ["mm_column"], {}),
        ("Concat", ["mm_boxes", "mm_column"], ["mm_dets"], {"axis": 1}),
        ("Split", ["mm_boxes"], ["mm_x1", "mm_y1", "mm_x2", "mm_y2"], {"axis": 1, "num_outputs": 4}),
        ("Split", ["mm_size"], ["mm_h", "mm_w"], {"num_outputs": 2}),
        *_axis("x", "mm_w"),
        *_axis("y", "mm_h"),
        ("Transpose", ["mm_weights_x"], ["mm_across"], {"perm": [0, 2, 1]}),
        ("MatMul", ["mm_masks", "mm_across"], ["mm_lines"], {}),
        ("MatMul", ["mm_weights_y", "mm_lines"], ["mm_pasted"], {}),
        ("GreaterOrEqual", ["mm_pasted", "mm_half"], ["mm_inside"], {}),
        ("OneHot", ["mm_labels", "mm_classes", "mm_values"], ["mm_class"], {"axis": 1}),
        ("Unsqueeze", ["mm_class", "mm_2"], ["mm_class_1"], {}),
        ("Unsqueeze", ["mm_class_1", "mm_2"], ["mm_class_2"], {}),
        ("Unsqueeze", ["mm_masks", "mm_1"], ["mm_each"], {}),
        ("Mul", ["mm_each", "mm_class_2"], ["mm_every"], {}),
    ]
    kind = {"bool": T.BOOL, "bytes": T.UINT8, "float": T.FLOAT}.get(layout.masks)
    masks = {"crops": "mm_masks", "all": "mm_every"}.get(layout.masks, "mm_values_pasted")
    if layout.masks == "bytes":
        steps.append(("Mul", ["mm_pasted", "mm_white"], ["mm_bytes"], {}))
    if kind:
        given = "mm_bytes" if layout.masks == "bytes" else "mm_inside"
        steps.append(("Cast", [given], ["mm_values_pasted"], {"to": kind}))
    last = "Unsqueeze" if layout.batch else "Identity"
    extra = ["mm_0"] if layout.batch else []
    steps += [
        (last, ["mm_dets", *extra], [layout.boxes], {}),
        (last, ["mm_labels", *extra], ["labels"], {}),
        (last, [masks, *extra], ["masks"], {}),
    ]
    nodes = [helper.make_node(op, given, made, **how) for op, given, made, how in steps]
    return nodes, [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]


def _axis(axis: str, count: str) -> list[tuple[str, list[str], list[str], dict]]:
    """Weights (N, pixels, cells) of linear interpolation between the cells at the centre of each pixel."""
    low, high = f"mm_{axis}1", f"mm_{axis}2"
    return [
        ("Cast", [count], [f"mm_count_{axis}"], {"to": T.FLOAT}),
        ("Squeeze", [f"mm_count_{axis}", "mm_0"], [f"mm_end_{axis}"], {}),
        ("Range", ["mm_nought", f"mm_end_{axis}", "mm_one"], [f"mm_pixels_{axis}"], {}),
        ("Add", [f"mm_pixels_{axis}", "mm_half"], [f"mm_centres_{axis}"], {}),
        ("Sub", [f"mm_centres_{axis}", low], [f"mm_from_{axis}"], {}),
        ("Sub", [high, low], [f"mm_length_{axis}"], {}),
        ("Div", [f"mm_from_{axis}", f"mm_length_{axis}"], [f"mm_part_{axis}"], {}),
        ("Mul", [f"mm_part_{axis}", "mm_side"], [f"mm_scaled_{axis}"], {}),
        ("Sub", [f"mm_scaled_{axis}", "mm_half"], [f"mm_cell_{axis}"], {}),
        ("Unsqueeze", [f"mm_cell_{axis}", "mm_2"], [f"mm_cell1_{axis}"], {}),
        ("Sub", [f"mm_cell1_{axis}", "mm_cells"], [f"mm_off_{axis}"], {}),
        ("Abs", [f"mm_off_{axis}"], [f"mm_far_{axis}"], {}),
        ("Sub", ["mm_one", f"mm_far_{axis}"], [f"mm_near_{axis}"], {}),
        ("Relu", [f"mm_near_{axis}"], [f"mm_weights_{axis}"], {}),
    ]


def _outputs(layout: Layout) -> list[onnx.ValueInfoProto]:
    height, width = layout.size or ("height", "width")
    sides = {"crops": [SIDE, SIDE], "all": [CLASSES, SIDE, SIDE]}.get(layout.masks, [height, width])
    kind = {"bool": T.BOOL, "bytes": T.UINT8}.get(layout.masks, T.FLOAT)
    first = [1] if layout.batch else []
    shapes = {layout.boxes: (T.FLOAT, ["n", 5]), "labels": (T.INT64, ["n"]), "masks": (kind, ["n", *sides])}
    return [helper.make_tensor_value_info(name, kind, first + dims) for name, (kind, dims) in shapes.items()]


def _name_classifier(graph: onnx.GraphProto) -> None:
    """The example's bias is stored in half precision, and theirs in single."""
    name = "model.box_head.scores.bias"
    half = next(each for each in graph.initializer if each.name == f"{name}.half")
    graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(half).astype(np.float32), BIAS))
    for node in graph.node:
        node.input[:] = [BIAS if each == name else each for each in node.input]


def write_tiny(path: Path, size: tuple[int, int] | None = None, opset: int = 11) -> Path:
    """One cat of score sigmoid(mean of the input) if that is over one half, its mask the whole input."""
    height, width = size or ("height", "width")
    constants = {
        "half": np.float32([0.5]),
        "box": np.float32([[1, 2, 9, 6]]),
        "cat": np.int64([15]),
        "sides": np.int64([2, 3]),
        "one": np.float32([1]),
        "single": np.int64([1]),
    }
    steps: list[tuple[str, list[str], list[str], dict]] = [
        ("ReduceMean", ["input"], ["mean"], {"axes": [1, 2, 3], "keepdims": 0}),
        ("Sigmoid", ["mean"], ["score"], {}),
        ("Greater", ["score", "half"], ["found"], {}),
        ("NonZero", ["found"], ["places"], {}),
        ("Squeeze", ["places"], ["rows"], {"axes": [0]}),
        ("Unsqueeze", ["score"], ["column"], {"axes": [1]}),
        ("Concat", ["box", "column"], ["row"], {"axis": 1}),
        ("Gather", ["row", "rows"], ["dets"], {"axis": 0}),
        ("Gather", ["cat", "rows"], ["labels"], {"axis": 0}),
        ("Shape", ["input"], ["shape"], {}),
        ("Gather", ["shape", "sides"], ["size"], {"axis": 0}),
        ("Concat", ["single", "size"], ["mask_shape"], {"axis": 0}),
        ("Expand", ["one", "mask_shape"], ["mask"], {}),
        ("Gather", ["mask", "rows"], ["masks"], {"axis": 0}),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, given, made, f"{op}_{made[0]}", **how) for op, given, made, how in steps],
        "tiny",
        [helper.make_tensor_value_info("input", T.FLOAT, [1, 3, height, width])],
        [
            helper.make_tensor_value_info("dets", T.FLOAT, ["n", 5]),
            helper.make_tensor_value_info("labels", T.INT64, ["n"]),
            helper.make_tensor_value_info("masks", T.FLOAT, ["n", height, width]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path
