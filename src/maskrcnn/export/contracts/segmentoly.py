"""Writes a model file with segmentoly's inputs, outputs and operators, which OpenVINO has from Detectron."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from maskrcnn.backends.contracts.segmentoly import NOTHING, ONE
from maskrcnn.backends.silent_openvino import openvino
from maskrcnn.config import Conventions, ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.export.contracts.deformable import with_operators
from maskrcnn.export.contracts.detectron_graph import joined
from maskrcnn.export.form import Form
from maskrcnn.export.openvino import halve_weights, save_network
from maskrcnn.export.parts import OPSET, write_parts
from maskrcnn.spec import Preprocess, Spec
from maskrcnn.stored_spec import KEY
from maskrcnn.weights.model_file import read_spec
from maskrcnn.whole_file import disk_errors_told, shown, whole_file

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIX = ".xml"

# What the operators compute, of what can be chosen: field of the conventions, its value, and that in words.
THEIRS: Mapping[str, tuple[Any, str]] = {
    "plus_one": (True, "boxes of x2 - x1 + 1 pixels"),
    "plus_one_overlaps": (True, "boxes of x2 - x1 + 1 pixels everywhere"),
    "roi_aligned": (False, "RoIAlign without the half pixel"),
    "anchor_stride": ("fixed", "anchors at each level's own stride"),
    "rpn_nms_again": (False, "NMS on each level alone"),
    "delta_limit": (Conventions.delta_limit, "box deltas of at most log(1000 / 16)"),
    "clamp_shrinking": (False, "no lower limit of box deltas"),
    "detection_min_size": (0.0, "no least side of a detection"),
    "level_eps_outside": (0.0, "levels by floor(4 + log2(side / 224 + 1e-6))"),
}


def export(model_file: Path, out: Path, form: Form) -> Spec:
    """Write the network of a `.safetensors` model file to `out` and the `.bin` beside it; returns its
    description.

    Inputs and outputs are those of `backends.contracts.segmentoly`, for images of bytes in 0..255: the mean
    is inside. Without a size the window is that of the model's own rule. Raises UserError for a wrong file or
    form, and for a model that computes otherwise than the operators.
    """
    spec, graph = segmentoly_graph(model_file, form)
    with TemporaryDirectory(prefix="maskrcnn-") as folder, disk_errors_told(out):
        Path(folder, "graph.onnx").write_bytes(graph.SerializeToString())
        del graph
        network = openvino.Core().read_model(Path(folder, "graph.onnx"))
        network.set_rt_info(spec.to_json(), KEY)
        if form.precision != "fp32":
            halve_weights(network)
        save_network(network, out)
    return spec


def export_onnx(model_file: Path, out: Path, form: Form) -> Spec:
    """The same as an `.onnx` file, for OpenVINO and its converters; ONNX Runtime has no such operators."""
    spec, graph = segmentoly_graph(model_file, form)
    graph.metadata_props.add(key=KEY, value=spec.to_json())
    with whole_file(out) as temporary:
        temporary.write_bytes(graph.SerializeToString())
    return spec


def segmentoly_graph(model_file: Path, form: Form) -> tuple[Spec, "ModelProto"]:
    """The description of the graph of a `.safetensors` model file, and the graph, without it, in memory."""
    stored = read_spec(model_file)
    _check(stored.model, form, model_file)
    size = form.size or window_of(stored.preprocess)
    with TemporaryDirectory(prefix="maskrcnn-") as folder:
        parts = Path(folder, "model.parts")
        one_image = replace(form, size=size, batch=1, precision="fp32")
        spec = write_parts(model_file, parts, one_image, operators=with_operators)
        graph = joined(parts, spec, OPSET)
    assert spec.exported is not None
    exported = replace(spec.exported, form="whole", contract="segmentoly")
    # What is left to do before the graph is nothing.
    model = replace(spec.model, mean=NOTHING, std=ONE)
    return replace(spec, model=model, precision=form.precision, exported=exported), graph


def window_of(rule: Preprocess) -> tuple[int, int]:
    """(height, width) that holds every landscape picture at the model's own size: 800 x 1344 as published."""
    height, width = (-(-side // rule.pad_multiple) * rule.pad_multiple for side in (rule.short, rule.long))
    return height, width


def _check(model: ModelConfig, form: Form, place: Path) -> None:
    options = {"--uint8": form.uint8, "--num-detections": form.counted}
    for option, given in options.items():
        if given:
            raise UserError(f"{option}: segmentoly graphs have no such form", hint="leave it out")
    if form.batch > 1:
        raise UserError(f"--batch {form.batch}: segmentoly graphs take one image", hint="leave it out")
    if form.precision == "bf16":
        raise UserError("--precision bf16: segmentoly graphs are fp32 or fp16", hint="use one of them")
    if model.box_head.soft_nms.method != "none":
        raise UserError(
            f"{shown(place)}: has soft-NMS, and segmentoly's operators have none",
            hint="leave out --contract segmentoly",
        )
    for name, (value, words) in THEIRS.items():
        found = getattr(model.conventions, name)
        if found != value:
            raise UserError(
                f"{shown(place)}: has model.conventions.{name}={found}; segmentoly's operators have {words}",
                hint="models of Detectron, maskrcnn-benchmark and segmentoly have it; for others leave out "
                "--contract segmentoly",
            )
