"""Names of the files in which an ONNX graph keeps weights outside itself."""

from collections.abc import Iterator

from maskrcnn.protobuf import fields, parts
from maskrcnn.stored_spec import entry

# Message: numbers of the fields that lead to weights, and what they hold, from onnx.proto.
INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
EXTERNAL_DATA = 13
LOCATION = b"location"


def external_files(model: memoryview) -> list[str]:
    """Each of them once, in the order of the graph; paths from its folder on. Raises NoMessage.

    model: the graph's file. Of the weights in it only the numbers around them are read.
    """
    return list(dict.fromkeys(_locations(model, "model")))


def _locations(message: memoryview, kind: str) -> Iterator[str]:
    if kind == "tensor":
        for key, place in map(entry, parts(message, EXTERNAL_DATA)):
            if key == LOCATION:
                yield place.decode("utf-8", "surrogateescape")
        return
    for number, value, *_ in fields(message):
        inside = INSIDE[kind].get(number)
        if inside is not None and not isinstance(value, int):
            yield from _locations(value, inside)
