"""How many classes the graph of another tool has, by the length of one of its weights."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from maskrcnn.stored_spec import message_fields

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
        with open(path, "rb") as file:
            lengths = _lengths_in_onnx(file, path.stat().st_size, bias)
    return lengths[0] - 1 if lengths and lengths[0] > 1 else None


def _lengths_in_onnx(file: IO[bytes], size: int, bias: str) -> list[int]:
    """Over the messages of the file, which hold one another; what is not a small weight is passed over."""
    for number, length in message_fields(file, size):
        if number == GRAPH:
            return list(_of_graph(file, file.tell() + length, bias))
        file.seek(length, os.SEEK_CUR)
    return []


def _of_graph(file: IO[bytes], end: int, bias: str) -> Iterator[int]:
    for number, length in message_fields(file, end):
        following = file.tell() + length
        if number == INITIALIZER and length <= LARGEST_BIAS:
            name, side = _weight(file, following)
            if name.endswith(bias):
                yield side
        file.seek(following)


def _weight(file: IO[bytes], end: int) -> tuple[str, int]:
    """Name of a weight and its number of bytes, in floats."""
    name, floats = "", 0
    for number, length in message_fields(file, end):
        contents = file.read(length)
        if number == NAME:
            name = contents.decode("utf-8", "replace")
        elif number in (FLOATS, RAW):
            floats = length // 4
    return name, floats


def _lengths_in_openvino(path: Path, bias: str) -> list[int]:
    layers = ElementTree.parse(path).getroot().iterfind("layers/layer")
    found = (layer.find("data") for layer in layers if layer.get("name", "").endswith(bias))
    shapes = (data.get("shape", "") for data in found if data is not None)
    return [math.prod(int(side) for side in shape.split(",") if side.strip()) for shape in shapes]
