"""Which ONNX graphs PPL.NN's x86 engine runs rightly: others it refuses, computes wrongly, or ends on."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# Shape ends with opset 14, Conv and the rest with 16.
OPSETS = range(11, 15)
# What convolutional networks are made of and the engine computes as others do (PPL.NN of August 2024).
OPERATORS = {
    *("Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv"),
    *("ConvTranspose", "Div", "Flatten", "Gather", "Gemm", "GlobalAveragePool", "Identity", "MatMul"),
    *("MaxPool", "Mul", "Pad", "ReduceMean", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice"),
    *("Softmax", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
}
# What whole detectors have besides; those of mmcv take their place in graphs that mmdetection exports.
OF_DETECTORS = {
    *("And", "ArgMax", "Ceil", "ConstantOfShape", "CumSum", "Equal", "Exp", "Expand", "Floor", "GatherND"),
    *("Greater", "If", "Less", "Log", "Loop", "Max", "Min", "Neg", "NonMaxSuppression", "NonZero", "Not"),
    *("OneHot", "Pow", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "RoiAlign"),
    *("ScatterElements", "ScatterND", "Split", "Sum", "Tile", "TopK", "Where"),
    *("mmcv:MMCVRoiAlign", "mmcv:NonMaxSuppression"),
}
# Without all of these its kernels read what is not there.
EXPLICIT = {
    "Conv": {"kernel_shape"},
    "ConvTranspose": {"kernel_shape", "strides", "pads", "dilations", "group"},
    "Squeeze": {"axes"},
    "ReduceMean": {"axes"},
}
RESIZES = {("nearest", "asymmetric"), ("linear", "pytorch_half_pixel"), ("cubic", "pytorch_half_pixel")}
MOST_NAMED = 4


def check_graph(path: Path, whole: bool = False) -> None:
    """Raise UserError that names what PPL.NN would not run, or run wrongly. whole: it is a whole detector."""
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path}: needs {error.name} to be checked for PPL.NN", hint="install it with `pip install onnx`"
        ) from error
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise UserError(
            f"{path}: is not an ONNX model, or not all of it", hint="copy or export it again"
        ) from error
    found = faults(model, whole)
    if found:
        more = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise UserError(
            f"{path}: PPL.NN does not run {', '.join(found[:MOST_NAMED])}{more}",
            hint=f"export the model {'' if whole else 'as parts '}in opset 11, or use another engine",
        )


def faults(model: "ModelProto", whole: bool = False) -> list[str]:
    """What PPL.NN refuses, computes wrongly without a word, or ends the process on; [] for nothing.

    whole: a detector in one graph may have more operators than convolutional networks.
    """
    found = []
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset not in OPSETS:
        found.append(f"opset {opset}")
    found += _unnamed_inputs(model.graph)
    twice = [name for name, count in Counter(node.name for node in model.graph.node).items() if count > 1]
    found += [f"two nodes of the name {name}" for name in twice if name]
    allowed = OPERATORS | OF_DETECTORS if whole else OPERATORS
    kinds = Counter(fault for node in nodes(model.graph) for fault in _of_node(node, opset, allowed))
    if whole:
        from maskrcnn.backends.pplnn_whole import typed_faults

        kinds.update(typed_faults(model))
    return found + [f"{fault} ({count} nodes)" if count > 1 else fault for fault, count in kinds.items()]


def _unnamed_inputs(graph: "GraphProto") -> Iterator[str]:
    weights = {each.name for each in graph.initializer}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in weights and any(
            not dim.dim_param and not dim.HasField("dim_value") for dim in dims
        ):
            yield f"input {value.name} with a dimension of neither number nor name"


def nodes(graph: "GraphProto") -> Iterator["NodeProto"]:
    """Of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def _of_node(node: "NodeProto", opset: int, allowed: set[str]) -> Iterator[str]:
    name = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
    if name not in allowed:
        yield name
        return
    if node.domain:
        return
    given = {each.name: each for each in node.attribute}
    missing = EXPLICIT.get(node.op_type, set()) - set(given)
    if missing and not (node.op_type == "Squeeze" and opset >= 13 and len(node.input) > 1):
        yield f"{node.op_type} without {', '.join(sorted(missing))}"
    if "" in node.input and node.op_type != "Resize":
        yield f"{node.op_type} with an input left out"
    if node.op_type == "Resize":
        mode, place = (_text(given.get(name)) for name in ("mode", "coordinate_transformation_mode"))
        rounding = _text(given.get("nearest_mode")) or "round_prefer_floor"
        if (mode or "nearest", place or "half_pixel") not in RESIZES:
            yield f"Resize of mode {mode or 'nearest'}, {place or 'half_pixel'}"
        elif mode == "nearest" and rounding != "floor":
            yield f"Resize with nearest_mode {rounding}"
    if node.op_type == "Softmax" and opset >= 13 and "axis" in given and given["axis"].i != -1:
        yield f"Softmax over axis {given['axis'].i}"


def _text(attribute: Any) -> str:
    return attribute.s.decode() if attribute is not None else ""
