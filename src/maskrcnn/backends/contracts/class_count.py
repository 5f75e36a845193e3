"""How many classes the graph of another tool has, by the length of one of its weights."""

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from maskrcnn.protobuf import fields, mapped, parts

# Numbers of fields in ModelProto, GraphProto and TensorProto, from onnx.proto.
GRAPH, INITIALIZER, FLOATS, NAME, RAW = 7, 5, 4, 8, 9
LARGEST_BIAS = 1 << 20


def class_count(path: Path, bias: str) -> int | None:
    """Outputs without the background of the layer whose bias has a name that ends so; None if there is none.

    path: an .onnx or .xml that an engine has opened; no weights are read.
    """
    if path.suffix.lower() == ".xml":
        lengths = _lengths_in_openvino(path, bias)
    else:
        lengths = list(_lengths_in_onnx(mapped(path), bias))
    return lengths[0] - 1 if lengths and lengths[0] > 1 else None


def _lengths_in_onnx(model: memoryview, bias: str) -> Iterator[int]:
    """Of messages that hold one another; what is not a small weight is passed over."""
    for graph in parts(model, GRAPH):
        for weight in parts(graph, INITIALIZER):
            if len(weight) <= LARGEST_BIAS:
                name, side = _weight(weight)
                if name.endswith(bias):
                    yield side


def _weight(message: memoryview) -> tuple[str, int]:
    """Name of a weight and its number of bytes, in floats."""
    name, floats = "", 0
    for number, value, *_ in fields(message):
        if isinstance(value, int):
            continue
        if number == NAME:
            name = bytes(value).decode("utf-8", "replace")
        elif number in (FLOATS, RAW):
            floats = len(value) // 4
    return name, floats


def _lengths_in_openvino(path: Path, bias: str) -> list[int]:
    layers = ElementTree.parse(path).getroot().iterfind("layers/layer")
    found = (layer.find("data") for layer in layers if layer.get("name", "").endswith(bias))
    shapes = (data.get("shape", "") for data in found if data is not None)
    return [math.prod(int(side) for side in shape.split(",") if side.strip()) for shape in shapes]
