"""Write the example model's graph for machines without torch: `python scripts/write_example_graph.py`.

The graph holds no weights: they are read out of example.safetensors beside it, so the package has them once.
Run it after the example model or the exporter changed.
"""

import json
import struct
import sys
from pathlib import Path

import torch
from onnx import ModelProto, TensorProto, helper

from maskrcnn.export.form import Form
from maskrcnn.export.onnx import onnx_graph
from maskrcnn.stored_spec import KEY

PACKAGE = Path(__file__).parents[1] / "src" / "maskrcnn"
WEIGHTS = PACKAGE / "example.safetensors"
# Smaller tensors cost less as a copy than as a reference.
SMALLEST = 64


def main() -> None:
    """Write the graph beside the weights, or where the argument says."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE / "example.onnx"
    out.write_bytes(graph_of(WEIGHTS).SerializeToString())
    print(out, out.stat().st_size)


def graph_of(weights: Path) -> ModelProto:
    """The graph of a model file stored in float16, its weights left in that file."""
    spec, graph = onnx_graph(weights, Form(), as_stored=True)
    refer(graph, weights)
    graph.metadata_props.add(key=KEY, value=spec.to_json())
    return graph


def refer(graph: ModelProto, weights: Path) -> None:
    """Replace each weight by its place in the file, followed by a cast to float32."""
    begin, stored = header(weights)
    casts = []
    for tensor in graph.graph.initializer:
        entry = stored.get(tensor.name.removeprefix("model."))
        if entry is None or entry["dtype"] != "F16" or torch.Size(entry["shape"]).numel() < SMALLEST:
            continue
        assert list(tensor.dims) == entry["shape"], tensor.name
        casts.append(helper.make_node("Cast", [f"{tensor.name}.half"], [tensor.name], to=TensorProto.FLOAT))
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.name, tensor.data_type = f"{tensor.name}.half", TensorProto.FLOAT16
        tensor.data_location = TensorProto.EXTERNAL
        first, last = entry["data_offsets"]
        place = {"location": weights.name, "offset": begin + first, "length": last - first}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def header(weights: Path) -> tuple[int, dict[str, dict]]:
    """Where the tensors of a safetensors file begin, and what it says of each."""
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return 8 + length, json.loads(file.read(length))


if __name__ == "__main__":
    main()
