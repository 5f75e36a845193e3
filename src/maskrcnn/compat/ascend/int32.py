"""Makes the labels of a graph int32, as Ascend's `label_to_int32.py` does to a node of one name."""

from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn.errors import UserError
from maskrcnn.whole_file import shown, whole_file

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# Of the ONNX standard.
INT32, INT64 = 6, 7
NAME = "labels.int32"


def label_to_int32(source: Path, out: Path) -> str:
    """Write a graph whose int64 output is int32; returns the name of that output.

    The cast that makes it is changed if nothing else reads it, else another follows. Raises UserError for a
    file that is no graph, and for one that has not exactly one integer output.
    """
    import onnx

    from maskrcnn.stored_spec import found_spec

    if source.suffix.lower() != ".onnx":
        raise UserError(f"{shown(source)}: is no .onnx", hint="name the graph of a detector")
    found_spec(source)  # reads the file's fields, and says what is wrong with them
    model = onnx.load(source)
    name = _cast(model, source)
    with whole_file(out) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return name


def _cast(model: "ModelProto", source: Path) -> str:
    graph = model.graph
    whole = [each for each in graph.output if each.type.tensor_type.elem_type in (INT32, INT64)]
    if len(whole) != 1:
        names = ", ".join(each.name for each in whole) or "none"
        raise UserError(
            f"{shown(source)}: its outputs of whole numbers are {names}, and labels are one",
            hint="name a detector's graph",
        )
    labels = whole[0]
    if labels.type.tensor_type.elem_type == INT32:
        return labels.name
    labels.type.tensor_type.elem_type = INT32
    maker = next((node for node in graph.node if labels.name in node.output), None)
    if maker is not None and maker.op_type == "Cast" and not _is_read(graph, labels.name):
        next(each for each in maker.attribute if each.name == "to").i = INT32
    else:
        _follow(graph, labels.name, maker)
    return labels.name


def _is_read(graph: "GraphProto", name: str) -> bool:
    return any(name in node.input for node in graph.node)


def _follow(graph: "GraphProto", name: str, maker: "NodeProto | None") -> None:
    """Let a Cast make the output of that name of what made it before."""
    from onnx import helper

    before = f"{name}.int64"
    if maker is not None:
        maker.output[:] = [before if each == name else each for each in maker.output]
    for node in graph.node:
        node.input[:] = [before if each == name else each for each in node.input]
    graph.node.append(helper.make_node("Cast", [before], [name], name=NAME, to=INT32))
