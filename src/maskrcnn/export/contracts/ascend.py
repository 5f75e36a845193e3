"""Writes a model as Ascend's ModelZoo has it, of operators that every engine knows.

D rows, K classes, C channels, S bins and M mask pixels per side, H, W size of the network's input.
"""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskrcnn.backends.contracts.ascend import INPUT, OUTPUTS, letterbox
from maskrcnn.backends.pytorch import read_network
from maskrcnn.errors import UserError
from maskrcnn.export.clean import clean, quiet
from maskrcnn.export.form import Form, described
from maskrcnn.export.onnx import OLDEST
from maskrcnn.export.onnx_ops import translations
from maskrcnn.model.mask_head import MaskHead
from maskrcnn.model.mask_rcnn import MaskRCNN, fold_norms
from maskrcnn.spec import Spec
from maskrcnn.stored_spec import KEY
from maskrcnn.whole_file import shown, whole_file

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIX = ".onnx"


def export(model_file: Path, out: Path, form: Form) -> Spec:
    """Write a `.safetensors` model file to `out`, whole or not at all; returns its description.

    Input `input` (1, 3, H, W) float32, normalised; outputs `dets` (D, 5) x1, y1, x2, y2 in network pixels and
    score, `labels` int32 (D,), `masks` (D, K, M, M) of all classes. Masks of rows
    without a score mean nothing. Raises UserError for a wrong file or form.
    """
    spec, model = prepared(model_file, out, form)
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST:
        raise UserError(
            f"torch {torch.__version__} cannot export a whole graph; {OLDEST[0]}.{OLDEST[1]} or later can",
            hint="upgrade torch and torchvision",
        )
    save(_traced(AscendGraph(model, form), form), spec, out)
    return spec


def prepared(model_file: Path, out: Path, form: Form) -> tuple[Spec, MaskRCNN]:
    """The description of the graph to be made, and the network. Raises UserError for a wrong file or form."""
    _check(out, form)
    spec, state = read_network(model_file)
    model = MaskRCNN(spec.model)
    model.load_state_dict(state)
    exported = described(spec, replace(form, batch=1), model_file)
    assert exported.exported is not None and form.size is not None
    exported = replace(
        exported,
        preprocess=letterbox(exported.preprocess, form.size, spec.model.mean),
        exported=replace(exported.exported, contract="ascend"),
    )
    return exported, fold_norms(model)


def save(graph: "ModelProto", spec: Spec, out: Path) -> None:
    """Write a graph with its description."""
    clean(graph)
    graph.metadata_props.add(key=KEY, value=spec.to_json())
    with whole_file(out) as temporary:
        temporary.write_bytes(graph.SerializeToString())


def atc_command(file: Path, size: tuple[int, int], chip: str, aipp: Path | None = None) -> str:
    """The line of Ascend's own compiler for an exported file; chip as `npu-smi info` has it, as 310P3.

    size: (height, width) of the input. aipp: a configuration with which it takes bytes.
    """
    height, width = size
    name = file.with_suffix("") if aipp is None else file.with_name(f"{file.stem}-bytes")
    return shlex.join(
        [
            "atc",
            f"--model={file}",
            "--framework=5",
            f"--output={name}",
            "--input_format=NCHW",
            f"--input_shape={INPUT}:1,3,{height},{width}",
            "--log=info",
            f"--soc_version={chip if chip.startswith('Ascend') else f'Ascend{chip}'}",
            *([] if aipp is None else [f"--insert_op_conf={aipp}"]),
        ]
    )


class AscendGraph(nn.Module):
    """A model from normalised planes to the three outputs; all of the input is image."""

    def __init__(self, model: MaskRCNN, form: Form) -> None:
        super().__init__()
        self.model = model
        assert form.size is not None
        self.padded = form.size
        self.register_buffer("size", torch.tensor([form.size]), persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image (1, 3, H, W), normalised -> dets (D, 5), labels int32 (D,), masks (D, K, M, M)."""
        model, size = self.model, self.get_buffer("size")
        levels = levels_of(model, image)
        proposals, real = model.propose(levels, size, self.padded)
        boxes, scores, labels = model.detect(levels, proposals, real, size)
        features = model.roi(levels, boxes, model.config.mask_head.pool_side)
        masks = every_mask(model.mask_head, features, model.config.classes)
        return torch.cat([boxes[0], scores[0, :, None]], 1), labels[0].to(torch.int32), masks


def levels_of(model: MaskRCNN, image: Tensor) -> list[Tensor]:
    """image (1, 3, H, W), normalised -> what heads read, finest first."""
    stages = model.backbone(image)
    return [stages[-1]] if model.fpn is None else model.fpn(stages)


def every_mask(head: MaskHead, features: Tensor, classes: int) -> Tensor:
    """features (D, C, S, S) -> probabilities of every class (D, K, M, M)."""
    masks = head.every(features).sigmoid()
    return masks.expand(-1, classes, -1, -1) if head.config.class_agnostic else masks


def _traced(model: AscendGraph, form: Form) -> "ModelProto":
    with quiet(), torch.inference_mode():
        program = torch.onnx.export(
            model.eval(),
            (torch.zeros(1, 3, *model.padded),),
            dynamo=True,
            opset_version=form.opset,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            custom_translation_table=translations(),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _check(out: Path, form: Form) -> None:
    if form.size is None:
        raise UserError(f"{shown(out)}: --size is missing", hint="theirs is --size 1216x1216")
    wrong = {
        f"--batch {form.batch}": form.batch > 1,
        f"--precision {form.precision}": form.precision != "fp32",
        "--uint8": form.uint8,
        "--num-detections": form.counted,
    }
    for option, given in wrong.items():
        if given:
            raise UserError(
                f"{option}: their graph takes one float32 image and has three outputs", hint="leave it out"
            )
