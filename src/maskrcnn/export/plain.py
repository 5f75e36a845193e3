"""Takes out of a graph what only this package understands: the input `size` and the description."""

from pathlib import Path
from typing import Any

from maskrcnn.errors import UserError
from maskrcnn.stored_spec import KEY
from maskrcnn.whole_file import shown, whole_file

SIZE = "size"


def make_plain(path: Path) -> None:
    """Rewrite a whole `.onnx` or `.xml`: it takes the image alone, and all of it is image."""
    {".onnx": _onnx, ".xml": _openvino}[path.suffix.lower()](path)


def _onnx(path: Path) -> None:
    import onnx
    from onnx import helper

    model = onnx.load(path)
    graph = model.graph
    for index, value in enumerate(graph.input):
        if value.name == SIZE:
            del graph.input[index]
            break
    else:
        raise UserError(f"{shown(path)}: is plain already", hint="use it as it is")
    made = [
        helper.make_node("Shape", ["image"], ["image.sides"], start=2, end=4),
        helper.make_node("Shape", ["image"], ["image.count"], start=0, end=1),
        helper.make_node("Constant", [], ["two"], value_ints=[2]),
        helper.make_node("Concat", ["image.count", "two"], ["size.shape"], axis=0),
        helper.make_node("Expand", ["image.sides", "size.shape"], [SIZE]),
    ]
    nodes = [*made, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [(each.key, each.value) for each in model.metadata_props if each.key != KEY]
    del model.metadata_props[:]
    for key, value in kept:
        model.metadata_props.add(key=key, value=value)
    with whole_file(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _openvino(path: Path) -> None:
    from maskrcnn.backends.silent_openvino import openvino
    from maskrcnn.export.openvino import save_network

    op = openvino.opset13
    network = openvino.Core().read_model(path)
    parameters: dict[str, Any] = {each.get_friendly_name(): each for each in network.get_parameters()}
    image, size = parameters["image"], parameters[SIZE]
    shape = op.shape_of(image)
    zero = op.constant(0)
    sides = op.gather(shape, op.constant([2, 3]), zero)
    wanted = op.concat([op.gather(shape, op.constant([0]), zero), op.constant([2])], 0)
    whole = op.broadcast(sides, wanted)
    for each in size.output(0).get_target_inputs():
        each.replace_source_output(whole.output(0))
    network.remove_parameter(size)
    network.validate_nodes_and_infer_types()
    # OpenVINO maps the weights' file, which is rewritten here: the copy in memory has to come first.
    network = network.clone()
    save_network(network, path)
