"""Writes a model file as an engine of TensorRT or IxRT, which runs on the kind of GPU it was made on."""

from pathlib import Path

from maskrcnn.export.form import Form
from maskrcnn.export.onnx import onnx_graph
from maskrcnn.export.tensorrt_plan import build
from maskrcnn.spec import Spec


def export_tensorrt(model_file: str | Path, out: str | Path, form: Form | None = None) -> Spec:
    """Build the engine of a `.safetensors` model file into `out`, whole or not at all; returns its Spec.

    Inputs and outputs are those of `export_onnx`; types are those of its graph, so that boxes stay float32,
    or, where an engine does not go by them (IxRT), what it chooses of float32 and the form's precision. A
    free height and width may be anything up to the longest side that the preprocessing gives.
    Raises UserError for a wrong file or form, and for what this engine cannot build.
    """
    spec, graph = onnx_graph(model_file, form or Form())
    build(graph.SerializeToString(), spec, Path(out))
    return spec
