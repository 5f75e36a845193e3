"""What PPL.NN computes wrongly or ends on in whole detectors, by the types and ranks of their values."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from maskrcnn.backends.pplnn_graph import nodes

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TypeProto

# Numbers of ONNX's types.
FLOAT, INT32 = 1, 6
REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum")
# A kernel of these reads beyond its inputs where the second has more than one dimension.
OF_TWO = ("Max", "Min", "Sum")
Values = dict[str, "TypeProto.Tensor"]


def typed_faults(model: "ModelProto") -> Iterator[str]:
    """Faults of single nodes; what has no known type is left to the first run."""
    values = _values(model)
    for node in nodes(model.graph):
        check = CHECKS.get(node.op_type)
        if check is not None:
            yield from check(node, values)


def _reduction(node: "NodeProto", values: Values) -> Iterator[str]:
    given = {each.name: each for each in node.attribute}
    if len(node.input) > 1:
        yield f"{node.op_type} with axes as an input"
    elif "axes" not in given and ("keepdims" not in given or given["keepdims"].i):
        yield f"{node.op_type} without axes"


def _of_two(node: "NodeProto", values: Values) -> Iterator[str]:
    ranks = [len(values[name].shape.dim) if name in values else 0 for name in node.input]
    if len(ranks) == 2 and ranks[1] > 1:
        yield f"{node.op_type} of two values of {ranks[0]} and {ranks[1]} dimensions"


def _scatter(node: "NodeProto", values: Values) -> Iterator[str]:
    data = values.get(node.input[0])
    if data is not None and data.elem_type != FLOAT:
        yield "ScatterND of other values than floats"


def _mean(node: "NodeProto", values: Values) -> Iterator[str]:
    data = values.get(node.input[0])
    if data is not None and data.elem_type != FLOAT:
        yield "ReduceMean of whole numbers"


def _gather(node: "NodeProto", values: Values) -> Iterator[str]:
    places = values.get(node.input[1])
    if places is not None and places.elem_type == INT32:
        yield "Gather with places of 32 bits"


def _branch(node: "NodeProto", values: Values) -> Iterator[str]:
    for attribute in node.attribute:
        if attribute.HasField("g") and _passes_nothing_through(attribute):
            yield f"{node.op_type} that returns a constant of no elements"


def _loop(node: "NodeProto", values: Values) -> Iterator[str]:
    yield from _branch(node, values)
    carried = len(node.input) - 2
    if 0 < carried < len(node.output):
        yield "Loop that carries values and collects others"


def _suppression(node: "NodeProto", values: Values) -> Iterator[str]:
    if node.domain and len(node.input) != 2:
        yield f"{node.domain}:{node.op_type} of {len(node.input)} inputs"


def _passes_nothing_through(attribute: "AttributeProto") -> bool:
    graph = attribute.g
    empty = {each.name for each in graph.initializer if 0 in each.dims}
    for node in graph.node:
        if node.op_type == "Constant" and any(
            each.HasField("t") and 0 in each.t.dims for each in node.attribute
        ):
            empty.update(node.output)
    return any(each.name in empty for each in graph.output)


def _values(model: "ModelProto") -> Values:
    """Types by name, as far as they can be inferred; names are unique over a graph and those inside it."""
    from onnx import shape_inference

    try:
        inferred = shape_inference.infer_shapes(model)
    except shape_inference.InferenceError:
        inferred = model  # with what it says itself
    found: Values = {}
    for graph in _graphs(inferred.graph):
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.tensor_type.HasField("shape"):
                found[value.name] = value.type.tensor_type
        found |= {each.name: _type_of(each.data_type, len(each.dims)) for each in graph.initializer}
    return found


def _graphs(graph: "GraphProto") -> Iterator["GraphProto"]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _type_of(kind: int, rank: int) -> "TypeProto.Tensor":
    from onnx import helper

    return helper.make_tensor_type_proto(kind, [None] * rank).tensor_type


CHECKS: dict[str, Callable[["NodeProto", Values], Iterator[str]]] = {
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(OF_TWO, _of_two),
    "ScatterND": _scatter,
    "ReduceMean": _mean,
    "Gather": _gather,
    "If": _branch,
    "Loop": _loop,
    "NonMaxSuppression": _suppression,
}
