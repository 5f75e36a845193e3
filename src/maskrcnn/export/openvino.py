"""Writes a model file as one OpenVINO network, from image to detections: an `.xml` and its `.bin`."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from maskrcnn.backends.silent_openvino import openvino
from maskrcnn.export.form import Form
from maskrcnn.export.onnx import onnx_graph
from maskrcnn.export.plain import make_plain
from maskrcnn.spec import Spec
from maskrcnn.stored_spec import KEY
from maskrcnn.whole_file import disk_errors_told, whole_file

# Values of a constant that is worth halving; anchors and other small ones stay exact.
MANY = 1024


def export_openvino(model_file: str | Path, out: str | Path, form: Form | None = None) -> Spec:
    """Write the network of a `.safetensors` model file to `out` and the `.bin` beside it; returns its
    description.

    Inputs and outputs are those of `export_onnx`. Weights are stored as float16 unless the precision is
    fp32; the arithmetic is chosen when the network is compiled, by the precision that its description has.
    Raises UserError for a wrong file or form.
    """
    out, form = Path(out), form or Form()
    # Its convolutions stay float32 here, and each device lowers them as its kernels need it.
    spec, graph = onnx_graph(model_file, replace(form, precision="fp32"))
    spec = replace(spec, precision=form.precision)
    with TemporaryDirectory(prefix="maskrcnn-") as folder, disk_errors_told(out):
        Path(folder, "graph.onnx").write_bytes(graph.SerializeToString())
        del graph
        network = openvino.Core().read_model(Path(folder, "graph.onnx"))
        network.set_rt_info(spec.to_json(), KEY)
        if form.precision != "fp32":
            halve_weights(network)
            keep_boxes_exact(network)
        save_network(network, out)
    if form.plain:
        make_plain(out)
    return spec


def save_network(network: openvino.Model, out: Path) -> None:
    """Write `.xml` and `.bin`, whole or not at all."""
    with whole_file(out) as xml, whole_file(out.with_suffix(".bin")) as weights:
        # OpenVINO knows the two by their suffixes.
        written = xml.with_suffix(".xml"), xml.with_suffix(".bin")
        try:
            openvino.save_model(network, written[0], compress_to_fp16=False)
            for each, temporary in zip(written, (xml, weights), strict=True):
                each.replace(temporary)
        except RuntimeError as error:
            raise OSError(str(error).splitlines()[-1]) from error
        finally:
            for each in written:
                each.unlink(missing_ok=True)


def keep_boxes_exact(network: openvino.Model) -> None:
    """Make the boxes that RoIAlign pools outputs of the network, `pooled_boxes.0` and so on.

    OpenVINO's CPU rounds what leads to convolutions alone to bf16, in steps of 4 pixels at 1000, and leaves
    what leads to an output past them. On the example model boxes are 0.12 px off, without this 0.41.
    """
    pooled = [node.input_value(1) for node in network.get_ops() if node.get_type_name() == "ROIAlign"]
    names = [f"pooled_boxes.{number}" for number in range(len(pooled))]
    for port, name in zip(pooled, names, strict=True):
        port.get_tensor().set_names({name})
    network.add_outputs(names)


def halve_weights(network: openvino.Model) -> None:
    """Store the large constants as float16, from which they are converted when the network is compiled.

    OpenVINO's own compression leaves nearly all as they are: it spares what the size of a tensor depends on,
    and the number of masks depends on every convolution.
    """
    for node in network.get_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != openvino.Type.f32:
            continue
        if node.data.size < MANY or np.abs(node.data).max() > np.finfo(np.float16).max:
            continue
        readers = node.output(0).get_target_inputs()
        widened = openvino.opset13.convert(openvino.opset13.constant(node.data.astype(np.float16)), "f32")
        for each in readers:
            each.replace_source_output(widened.output(0))
