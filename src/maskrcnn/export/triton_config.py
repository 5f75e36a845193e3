"""What Triton Inference Server wants to know of an ONNX graph, in its text format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskrcnn.spec import Exported, Spec
from maskrcnn.stored_spec import KEY

# Images that the server may put together; those of one size only.
MOST = 8
# TensorProto.DataType of ONNX: name in Triton.
TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64", 10: "TYPE_FP16"}


def triton_config(name: str, spec: Spec, graph: Path) -> str:
    """config.pbtxt of a whole `.onnx` graph; its description is the parameter `maskrcnn`, for clients.

    Images are put together where the graph takes any number of them.
    """
    import onnx

    found = onnx.load(graph, load_external_data=False).graph
    together = (spec.exported or Exported()).batch == 0
    parts = [
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {MOST if together else 0}",
        *(["dynamic_batching { }"] if together else []),
        *(_value("input", value, together) for value in found.input),
        *(_value("output", value, together) for value in found.output),
        f'parameters {{\n  key: "{KEY}"\n  value {{ string_value: {json.dumps(spec.to_json())} }}\n}}',
    ]
    return "".join(f"{part}\n" for part in parts)


def _value(kind: str, value: Any, together: bool) -> str:
    tensor = value.type.tensor_type
    shape = [-1 if side.dim_param else side.dim_value for side in tensor.shape.dim]
    lines = [f"  name: {json.dumps(value.name)}", f"  data_type: {TYPES[tensor.elem_type]}"]
    if together and len(shape) == 1:
        # A number for each image; Triton has no tensors without sides.
        lines += ["  dims: [ 1 ]", "  reshape { shape: [ ] }"]
    else:
        lines.append(f"  dims: {_sides(shape[1:] if together else shape)}")
    return "\n".join([f"{kind} {{", *lines, "}"])


def _sides(shape: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, shape))} ]"
