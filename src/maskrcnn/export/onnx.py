"""Writes a model file as one ONNX graph of standard operators, from image to detections.

B images, D detections per image, M mask pixels per side.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maskrcnn.backends.pytorch import read_network
from maskrcnn.backends.whole_graph import INPUTS, OUTPUTS
from maskrcnn.errors import UserError
from maskrcnn.export.clean import clean, quiet
from maskrcnn.export.form import Form, described
from maskrcnn.export.graph import WholeGraph, free_side
from maskrcnn.export.onnx_ops import translations
from maskrcnn.export.plain import make_plain
from maskrcnn.export.stage_names import name_stages
from maskrcnn.model.mask_rcnn import MaskRCNN, fold_norms
from maskrcnn.spec import Spec
from maskrcnn.stored_spec import KEY
from maskrcnn.whole_file import shown, whole_file

if TYPE_CHECKING:
    from onnx import ModelProto

COUNTED = (*OUTPUTS, "num_detections")
# A graph for any size is traced at one whose sides differ and are even in every level, (4, 6) x 32.
TRACED = (128, 192)
# 2.6 fails on the sizes of its own interpolation and padding; those between were not tried.
OLDEST = (2, 11)


def export_onnx(model_file: str | Path, out: str | Path, form: Form | None = None) -> Spec:
    """Write the graph of a `.safetensors` model file to `out`, whole or not at all; returns its description.

    Inputs image (B, 3, H, W) float32 or uint8 in 0..255 and size int64 (B, 2); outputs boxes (B, D, 4) in
    network pixels, scores (B, D), labels int64 (B, D), masks (B, D, M, M), and num_detections int64 (B,) if
    counted. Raises UserError for a wrong file or form.
    """
    out, form = Path(out), form or Form()
    if form.precision == "bf16":
        raise UserError(
            f"--precision bf16: ONNX Runtime has no bf16 convolutions, which {shown(out)} would need",
            hint="use fp16, or write an .xml for OpenVINO",
        )
    spec, graph = onnx_graph(model_file, form)
    graph.metadata_props.add(key=KEY, value=spec.to_json())
    with whole_file(out) as temporary:
        temporary.write_bytes(graph.SerializeToString())
    if form.plain:
        make_plain(out)
    return spec


def onnx_graph(model_file: str | Path, form: Form, as_stored: bool = False) -> tuple[Spec, "ModelProto"]:
    """The description of the graph of a `.safetensors` model file, and the graph, without it, in memory.

    as_stored: weights as in the file, their norms beside them and not folded in.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST:
        raise UserError(
            f"torch {torch.__version__} cannot export a whole graph; {OLDEST[0]}.{OLDEST[1]} or later can",
            hint="upgrade torch and torchvision, or export to .parts",
        )
    spec, state = read_network(model_file)
    exported = described(spec, form, model_file)
    model = MaskRCNN(spec.model)
    model.load_state_dict(state)
    example, ranges = _example(exported, form)
    network = model.eval().requires_grad_(False) if as_stored else fold_norms(model)
    graph = _traced(WholeGraph(network, form), example, ranges, form)
    name_stages(graph)
    clean(graph)
    _name_sides(graph)
    return exported, graph


def _example(spec: Spec, form: Form) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """An input to trace with, and the dimensions of each input that are free."""
    multiple = spec.preprocess.pad_multiple
    height, width = form.size or TRACED
    count = form.batch or 2
    batch = torch.export.Dim("batch", max=1024)
    free: dict[int, Any] = {} if form.batch else {0: batch}
    sides: dict[int, Any] = {}
    if form.size is None:
        sides = {number: free_side(name, multiple) for number, name in ((2, "height"), (3, "width"))}
    image = torch.zeros((count, 3, height, width), dtype=torch.uint8 if form.uint8 else torch.float32)
    size = torch.tensor([[height, width]]).repeat(count, 1)
    return (image, size), {"image": free | sides, "size": free}


def _traced(
    model: WholeGraph, example: tuple[Tensor, ...], ranges: dict[str, Any], form: Form
) -> "ModelProto":
    with quiet(), torch.inference_mode():
        program = torch.onnx.export(
            model,
            example,
            dynamo=True,
            opset_version=form.opset,
            input_names=INPUTS,
            output_names=COUNTED if form.counted else OUTPUTS,
            dynamic_shapes=ranges,
            custom_translation_table=translations(),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _name_sides(graph: "ModelProto") -> None:
    """Call the free dimensions of the inputs what they are."""
    for value in graph.graph.input:
        for name, dimension in zip(_names(value.name), value.type.tensor_type.shape.dim, strict=True):
            if dimension.dim_param:
                dimension.dim_param = name


def _names(value: str) -> tuple[str, ...]:
    return ("batch", "channels", "height", "width") if value == "image" else ("batch", "sides")
