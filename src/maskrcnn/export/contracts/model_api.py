"""Writes a model file as an OpenVINO network that OpenVINO Model API opens without being told anything.

N detections, K classes, M side of a mask, H, W size of the window that an image is fitted into.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from maskrcnn.backends.contracts.model_api import INPUTS, KNOWN, OUTPUTS
from maskrcnn.backends.pytorch import read_network
from maskrcnn.backends.silent_openvino import openvino
from maskrcnn.backends.whole_graph import OUTPUTS as ROWS
from maskrcnn.errors import UserError
from maskrcnn.export.form import Form
from maskrcnn.export.onnx import onnx_graph
from maskrcnn.export.openvino import halve_weights, save_network
from maskrcnn.spec import Exported, Preprocess, Spec
from maskrcnn.stored_spec import KEY
from maskrcnn.whole_file import disk_errors_told

SUFFIX = ".xml"
# Scores below it Model API leaves out unless its user asks for others; that of `maskrcnn predict`.
SCORE = 0.5
# Its list of labels is split at blanks, and begins with what is no object.
BACKGROUND = "background"
# Our rule: what Model API calls it.
RESIZE = {
    "fit_window": "fit_to_window",
    "letterbox": "fit_to_window_letterbox",
    "stretch": "standard",
}

op = openvino.opset13
Node = Any


def export(model_file: Path, out: Path, form: Form) -> Spec:
    """Write the network of a `.safetensors` model file to `out` and the `.bin` beside it; returns its
    description.

    Inputs image float32 (1, 3, H, W) in 0..255 and image_info float32 (1, 3); outputs boxes (N, 4) in pixels
    of the window, classes int64 (N,) from 1 on, scores (N,), raw_masks (N, K + 1, M, M). Without a size the
    window is that of the model's own rule. Raises UserError for a wrong file or form.
    """
    _check(form)
    rule = read_network(model_file)[0].preprocess
    form = replace(form, size=form.size or window_of(rule), batch=1, precision=form.precision)
    spec, graph = onnx_graph(model_file, replace(form, precision="fp32"))
    spec = replace(
        spec,
        preprocess=_as_model_api_resizes(spec),
        precision=form.precision,
        exported=replace(spec.exported or Exported(), contract="model-api"),
    )
    with TemporaryDirectory(prefix="maskrcnn-") as folder, disk_errors_told(out):
        Path(folder, "graph.onnx").write_bytes(graph.SerializeToString())
        del graph
        network = for_model_api(openvino.Core().read_model(Path(folder, "graph.onnx")), spec)
        network.set_rt_info(spec.to_json(), KEY)
        for name, value in model_info(spec).items():
            network.set_rt_info(value, ["model_info", name])
        if form.precision != "fp32":
            halve_weights(network)
        save_network(network, out)
    return spec


def window_of(rule: Preprocess) -> tuple[int, int]:
    """(height, width) that holds every landscape picture at the model's own size."""
    multiple = rule.pad_multiple
    return -(-rule.short // multiple) * multiple, -(-rule.long // multiple) * multiple


def model_info(spec: Spec) -> dict[str, str]:
    """What Model API reads from the file, by the names that it has for it. Normalisation is in the graph."""
    names = spec.classes.names or ("",) * spec.model.classes
    labels = [name.replace(" ", "_") or f"class_{number}" for number, name in enumerate(names)]
    rule = spec.preprocess
    return {
        "model_type": "MaskRCNN",
        "labels": " ".join([BACKGROUND, *labels]),
        "confidence_threshold": str(SCORE),
        "resize_type": RESIZE[rule.resize],
        "pad_value": str(round(_one(rule))),
        # It takes images as OpenCV reads them, BGR.
        "reverse_input_channels": str(rule.channels == "rgb"),
        "embedded_processing": "False",
    }


def _as_model_api_resizes(spec: Spec) -> Preprocess:
    """Bilinear on bytes, sides rounded to even, one scale for both axes; a fill where an image ends.

    The fill is what normalisation makes nearly zero of, in case an image ends in rows of just that value.
    """
    rule = replace(spec.preprocess, filter="opencv")
    if rule.resize == "stretch":
        return rule
    fill = _one(rule) if rule.resize == "letterbox" else np.mean(spec.model.mean)
    return replace(rule, size_rule="caffe2", pad_value=float(np.clip(round(fill), 0, 255)))


def _one(rule: Preprocess) -> float:
    """The fill as one number, which is all that Model API knows."""
    return float(np.mean(rule.fill))


def _check(form: Form) -> None:
    refused = {
        f"--batch {form.batch}": form.batch > 1,
        "--uint8": form.uint8,
        "--num-detections": form.counted,
    }
    for option, given in refused.items():
        if given:
            raise UserError(
                f"{option}: OpenVINO Model API feeds one image as it is and reads as many rows as there are",
                hint="leave it out",
            )


def for_model_api(network: "openvino.Model", spec: Spec) -> "openvino.Model":
    """The same network with the inputs and outputs of Model API around it."""
    inner = {each.get_friendly_name(): each for each in network.get_parameters()}
    image = op.parameter(inner["image"].get_partial_shape(), openvino.Type.f32)
    info = op.parameter([1, 3], openvino.Type.f32)
    for name in ("image", "size"):
        inner[name].output(0).get_tensor().set_names({f"{name}.network"})
    for name, parameter in zip(INPUTS, (image, info), strict=True):
        parameter.set_friendly_name(name)
        parameter.output(0).get_tensor().set_names({name})
    image.set_layout(openvino.Layout("NCHW"))
    size = op.unsqueeze(_size(image, info, spec.preprocess), _whole(0))
    for name, value in (("image", image), ("size", size)):
        for reader in inner[name].output(0).get_target_inputs():
            reader.replace_source_output(value.output(0))
    found = {name: network.output(name).node.input_value(0) for name in ROWS}
    for name, source in found.items():
        source.get_tensor().set_names({f"{name}.network"})
    results = []
    for name, value in _rows(found, spec.model.classes).items():
        value.output(0).get_tensor().set_names({name})
        results.append(op.result(value, name=name))
    return openvino.Model(results, [image, info], "maskrcnn")


def _size(image: Node, info: Node, rule: Preprocess) -> Node:
    """int64 (2,), height and width of what is in the window. Where they are not told it ends where all that
    follows is fill; a letterbox and a stretched image fill it.
    """
    if rule.resize != "fit_window":
        return op.constant(np.array([rule.short, rule.long], np.int64))
    told = op.convert(op.gather(op.squeeze(info, _whole(0)), op.constant([1, 0]), _whole(0)), "i64")
    differs = op.not_equal(image, op.constant(np.float32(_one(rule))))
    ends = []
    for along, side in ((2, rule.short), (3, rule.long)):
        others = op.constant([axis for axis in range(4) if axis != along])
        some = op.convert(op.reduce_logical_or(differs, others), "i64")
        places = op.multiply(some, op.constant(np.arange(1, side + 1, dtype=np.int64)))
        ends.append(op.reduce_max(places, _whole(0), True))
    seen = op.maximum(op.concat(ends, 0), _whole(1))
    kind = op.squeeze(op.gather(info, _whole(2), _whole(1)), _whole(0))
    return op.select(op.equal(kind, op.constant(np.float32(KNOWN))), told, seen)


def _rows(found: dict[str, Node], classes: int) -> dict[str, Node]:
    """The rows that hold a detection, by the names of OUTPUTS. A mask is zero in all classes but its own."""
    boxes, scores, labels, masks = (op.squeeze(found[name], _whole(0)) for name in ROWS)
    real = op.convert(op.greater(scores, op.constant(np.float32(0))), "i64")
    first, step = (op.constant(np.array([value], np.int64)) for value in (0, 1))
    count = op.reduce_sum(real, first, True)
    boxes, scores, labels, masks = (
        op.slice(rows, first, count, step, first) for rows in (boxes, scores, labels, masks)
    )
    numbers = op.add(op.convert(labels, "i64"), _whole(1))
    own = op.one_hot(numbers, _whole(classes + 1), *(op.constant(np.float32(each)) for each in (1, 0)), 1)
    wide = op.unsqueeze(own, op.constant(np.array([2, 3], np.int64)))
    raw_masks = op.multiply(wide, op.unsqueeze(masks, _whole(1)))
    return dict(zip(OUTPUTS, (boxes, numbers, scores, raw_masks), strict=True))


def _whole(value: int) -> Node:
    return op.constant(np.int64(value))
