"""A hand-made graph with the inputs and outputs of an exported model, for the engines' tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.config import BoxHeadConfig, ModelConfig
from maskrcnn.spec import Classes, Exported, Preprocess, Spec

ROWS, SIDE = 3, 4
# Of red, green and blue; not exact in bf16.
WEIGHTS = (0.2989, 0.587, 0.1141)


def spec(precision: str = "fp32", **exported: Any) -> Spec:
    """Of two classes, resized to sides of at most 64 and padded to 32."""
    return Spec(
        model=ModelConfig(classes=2, box_head=BoxHeadConfig(detections=ROWS)),
        preprocess=Preprocess(short=32, long=64, pad_multiple=32),
        classes=Classes(("cat", "dog"), (17, 18)),
        precision=precision,  # type: ignore[arg-type]
        exported=Exported(**exported),
    )


def write_onnx(path: Path, description: Spec | None, outputs: tuple[str, ...] = ()) -> Path:
    """A graph that finds in each image one dog: its box is the whole image, its score how bright it is.

    outputs: other names for boxes, scores, labels, masks, num_detections.
    """
    import onnx
    from onnx import TensorProto as T
    from onnx import helper, numpy_helper

    exported = (description and description.exported) or Exported()
    constants = {
        "weights": np.array(WEIGHTS, np.float32).reshape(1, 3, 1, 1),
        "white": np.float32(255),
        "one": np.array([1], np.int64),
        "all": np.array([1, 2, 3], np.int64),
        "xy": np.array([1, 0], np.int64),
        "corner": np.array([0, 2, 0, 0], np.int64),
        "rows": np.array([0, 0, 0, ROWS - 1], np.int64),
        "row_boxes": np.array([0, 0, 0, 0, ROWS - 1, 0], np.int64),
        "sides": np.array([2, 3], np.int64),
        "crop": np.full((1, 1, SIDE, SIDE), 0.5, np.float32),
        "nothing": np.float32(0),
    }
    nodes = [
        (["image"], "Cast", "values", {"to": T.FLOAT}),
        (["values", "weights"], "Conv", "grey", {}),
        (["grey", "all"], "ReduceMean", "mean", {"keepdims": 0}),
        (["mean", "white"], "Div", "bright", {}),
        (["bright", "one"], "Unsqueeze", "first", {}),
        (["first", "rows"], "Pad", "scores", {}),
        (["size"], "Cast", "sizes", {"to": T.FLOAT}),
        (["sizes", "xy"], "Gather", "ends", {"axis": 1}),
        (["ends", "corner"], "Pad", "box", {}),
        (["box", "one"], "Unsqueeze", "first_box", {}),
        (["first_box", "row_boxes"], "Pad", "boxes", {}),
        (["scores", "nothing"], "Greater", "found", {}),
        (["found"], "Cast", "labels", {"to": T.INT64}),
        (["scores", "sides"], "Unsqueeze", "cells", {}),
        (["cells", "nothing"], "Greater", "cells_found", {}),
        (["cells_found"], "Cast", "cells_one", {"to": T.FLOAT}),
        (["cells_one", "crop"], "Mul", "masks", {}),
        (["labels", "one"], "ReduceSum", "num_detections", {"keepdims": 0}),
    ]
    batch, height, width = (
        getattr(exported, side) or name for side, name in (("batch", "B"), ("height", "H"), ("width", "W"))
    )
    shapes = {
        "boxes": (T.FLOAT, [batch, ROWS, 4]),
        "scores": (T.FLOAT, [batch, ROWS]),
        "labels": (T.INT64, [batch, ROWS]),
        "masks": (T.FLOAT, [batch, ROWS, SIDE, SIDE]),
        "num_detections": (T.INT64, [batch]),
    }
    renamed = {name: name for name in shapes} | dict(zip(shapes, outputs, strict=False))
    image = T.UINT8 if exported.image == "uint8" else T.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, given, [made], **extra) for given, op, made, extra in nodes]
        + [helper.make_node("Identity", [n], [to]) for n, to in renamed.items() if n != to],
        "tiny",
        [
            helper.make_tensor_value_info("image", image, [batch, 3, height, width]),
            helper.make_tensor_value_info("size", T.INT64, [batch, 2]),
        ],
        [helper.make_tensor_value_info(renamed[name], *shapes[name]) for name in shapes],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if description is not None:
        helper.set_model_props(model, {"maskrcnn": description.to_json()})
    onnx.save(model, path)
    return path


def write_xml(path: Path, description: Spec | None, framework: bool = False) -> Path:
    """The same for OpenVINO. framework: the description where conversion from ONNX leaves it."""
    import openvino

    source = write_onnx(path.with_suffix(".onnx"), description)
    model = openvino.Core().read_model(source)
    if framework:
        model = openvino.convert_model(source)
    elif description is not None:
        model.set_rt_info(description.to_json(), ["maskrcnn"])
    openvino.save_model(model, path, compress_to_fp16=False)
    source.unlink()
    return path


def planes(*greys: int, size: tuple[int, int] = (32, 64), dtype: str = "float32") -> np.ndarray:
    """A (B, 3, H, W) batch of even images."""
    return np.stack([np.full((3, *size), grey, dtype) for grey in greys])


def of_batch(description: Spec, batch: int) -> Spec:
    """The same for a fixed number of images."""
    assert description.exported
    return replace(description, exported=replace(description.exported, batch=batch))
