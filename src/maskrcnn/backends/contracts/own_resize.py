"""To which size a graph of torchvision resizes its input, by the constants before its first Resize."""

import struct
from collections.abc import Iterator
from pathlib import Path

from maskrcnn.protobuf import fields, mapped, parts

# Numbers of fields in ModelProto, GraphProto, NodeProto, AttributeProto and TensorProto, from onnx.proto.
GRAPH, NODE, OP_TYPE, ATTRIBUTE, TENSOR, DIMS, FLOATS, RAW = 7, 1, 4, 5, 5, 1, 4, 9
FLOAT_BYTES = 4


def own_resize(path: Path) -> tuple[int, int] | None:
    """`min_size` and `max_size` of the network that an .onnx was made of; None where they are not found."""
    found = []
    for graph in parts(mapped(path), GRAPH):
        for kind, value in _constants(graph):
            if kind == b"Resize":
                break
            found += [value] if value is not None else []
    sides = [int(value) for value in found[:2]]
    return (sides[0], sides[1]) if len(sides) == 2 and 0 < sides[0] <= sides[1] else None


def _constants(graph: memoryview) -> Iterator[tuple[bytes, float | None]]:
    """Kind of each node, and the value of those that are one float."""
    for node in parts(graph, NODE):
        kind = next((bytes(each) for each in parts(node, OP_TYPE)), b"")
        tensors = (tensor for attribute in parts(node, ATTRIBUTE) for tensor in parts(attribute, TENSOR))
        yield kind, next(map(_number, tensors), None) if kind == b"Constant" else None


def _number(tensor: memoryview) -> float | None:
    """Of a tensor without dimensions and of four bytes, which is one float."""
    for number, value, *_ in fields(tensor):
        if number == DIMS:
            return None
        if number in (FLOATS, RAW) and not isinstance(value, int) and len(value) == FLOAT_BYTES:
            return float(struct.unpack("<f", value)[0])
    return None
