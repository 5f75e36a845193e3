"""Writes a model file as three plain convolutional graphs, for engines that know no detection operators.

B images, L levels, A anchors per cell, R boxes, C channels, S bins and M mask pixels per side, K classes.
"""

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.backends.pytorch import read_network
from maskrcnn.errors import UserError
from maskrcnn.export.clean import clean, quiet
from maskrcnn.export.form import FIRST_OPSET, LAST_OPSET, Form, described
from maskrcnn.export.graph import DTYPES, free_side
from maskrcnn.model.layers import ConvNorm
from maskrcnn.model.mask_rcnn import MaskRCNN, fold_norms
from maskrcnn.spec import Spec
from maskrcnn.stored_spec import KEY, PARTS_FILE
from maskrcnn.weights.model_file import read_spec
from maskrcnn.whole_file import disk_errors_told, shown, temporary_path

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

# The newest that PPL.NN and other older engines read; what newer ones have is of no use to convolutions.
OPSET = 11
# Dense is traced at sides that differ and are even in every level, in padding multiples.
TRACED = (128, 192)
TRACED_ROWS = 3


def plain(model: MaskRCNN) -> MaskRCNN:
    """Change the model in place: group norms become what every engine has."""
    for module in model.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.GroupNorm):
            module.norm = PlainGroupNorm(module.norm)
    return model


class PlainGroupNorm(nn.Module):
    """A GroupNorm of means and products; opset 11 has none, and PPL.NN no InstanceNormalization for it."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) -> (B, C, h, w)."""
        norm = self.norm
        groups = x.reshape(x.shape[0], norm.num_groups, -1)
        groups = groups - groups.mean(2, keepdim=True)
        spread = ((groups * groups).mean(2, keepdim=True) + norm.eps).sqrt()
        return (groups / spread).reshape(x.shape) * norm.weight[:, None, None] + norm.bias[:, None, None]


def export_parts(
    model_file: str | Path,
    out: str | Path,
    form: Form | None = None,
    opset: int = OPSET,
    suffix: Literal[".onnx", ".xml"] = ".onnx",
) -> Spec:
    """As `write_parts`, for the host. Raises UserError as well for models of which it cannot pool RoIs."""
    model = read_spec(model_file).model
    if model.roi_levels == "all" or model.fpn.deformable != "none":
        raise UserError(
            f"{shown(model_file)}: has deformable convolutions or RoIs of all levels at once, and .parts "
            "have neither",
            hint="export it to .onnx for ONNX Runtime, or to .xml for OpenVINO",
        )
    return write_parts(model_file, out, form, opset, suffix)


def write_parts(
    model_file: str | Path,
    out: str | Path,
    form: Form | None = None,
    opset: int = OPSET,
    suffix: Literal[".onnx", ".xml"] = ".onnx",
    operators: Callable[[MaskRCNN], MaskRCNN] = plain,
) -> Spec:
    """Write the folder `out` with the three graphs of a `.safetensors` model file and their description.

    form: size, batch and precision; the rest is for whole graphs. opset: of the ONNX standard; `form` has
    that of whole graphs. suffix: of the graphs, `.xml` for OpenVINO. operators: changes the model, whose
    norms are folded, into what the engine has.
    Raises UserError for a wrong file or form, and where `out` is a folder of something else.
    """
    form = form or Form()
    _check(form, opset, suffix)
    spec, state = read_network(model_file)
    exported = described(spec, replace(form, opset=FIRST_OPSET), model_file)
    assert exported.exported is not None
    exported = replace(exported, exported=replace(exported.exported, form="parts"))
    model = MaskRCNN(spec.model)
    model.load_state_dict(state)
    operators(fold_norms(model)).to(DTYPES["fp32" if suffix == ".xml" else form.precision])
    with whole_folder(Path(out)) as folder:
        for name, part in parts_of(model, exported).items():
            graph = _traced(part, opset)
            clean(graph)
            _names_last(graph.graph)
            graph.metadata_props.add(key=KEY, value=exported.to_json())
            write = _write_onnx if suffix == ".onnx" else _write_openvino
            write(graph, folder / f"{name}{suffix}", exported)
        (folder / PARTS_FILE).write_text(exported.to_json())
    return exported


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; on leaving it takes the name, and an older folder of parts goes.

    After any error or interruption an older one is as it was. Raises UserError where the disk refuses, and
    where `path` is no folder of parts.
    """
    if path.exists() and not (path / PARTS_FILE).exists():
        raise UserError(f"{shown(path)}: exists and is no folder of parts", hint="choose another name")
    temporary, old = temporary_path(path), temporary_path(path)
    try:
        with disk_errors_told(path):
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():
                path.rename(old)
            try:
                temporary.rename(path)
            except OSError:
                with suppress(OSError):
                    old.rename(path)
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True)
class Part:
    """One network and how it is traced. sides: (height, width) multiples of an input that may have any size,
    0 where it is fixed. any_count: the first dimension is free.
    """

    network: nn.Module
    example: Tensor
    inputs: str
    outputs: tuple[str, ...]
    any_count: bool = True
    multiple: int = 0


def parts_of(model: MaskRCNN, spec: Spec) -> dict[str, Part]:
    """`dense`, `box_head` and `mask_head` of a model with folded norms, for the sizes of a description."""
    config, exported = spec.model, spec.exported
    assert exported is not None
    dtype = model.rpn.objectness.weight.dtype
    height, width = exported.height or TRACED[0], exported.width or TRACED[1]
    image = torch.zeros(exported.batch or 2, 3, height, width)
    levels, every = len(model.roi_scales), len(model.anchors.strides)
    maps = [f"level{n}" for n in range(levels)]
    maps += [f"{name}{n}" for name in ("objectness", "deltas") for n in range(every)]
    channels = model.rpn.objectness.weight.shape[1] * (levels if config.roi_levels == "all" else 1)
    rois = [
        torch.zeros(TRACED_ROWS, channels, *[head.pool_side] * 2)
        for head in (config.box_head, config.mask_head)
    ]
    return {
        "dense": Part(
            Dense(model, dtype),
            image,
            "image",
            tuple(maps),
            exported.batch == 0,
            0 if exported.height else spec.preprocess.pad_multiple,
        ),
        "box_head": Part(BoxHead(model, dtype), rois[0], "features", ("logits", "deltas")),
        "mask_head": Part(MaskHead(model, dtype), rois[1], "features", ("masks",)),
    }


class Dense(nn.Module):
    """Trunk, pyramid and the RPN's convolutions."""

    def __init__(self, model: MaskRCNN, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """image (B, 3, H, W) float32, normalised -> the levels that boxes are pooled from (B, C, h, w), then
        of every level the logits (B, A, h, w) and the deltas (B, 4 A, h, w).
        """
        model = self.model
        stages = model.backbone(_in(self.dtype, image))
        levels = [stages[-1]] if model.fpn is None else model.fpn(stages)
        objectness, deltas = [], []
        for level in levels:
            x = level
            for number in range(1, model.rpn.config.convs + 1):
                x = F.relu(getattr(model.rpn, f"conv{number}")(x))
            objectness.append(model.rpn.objectness(x))
            deltas.append(model.rpn.deltas(x))
        return tuple(
            _in(torch.float32, each) for each in (*levels[: len(model.roi_scales)], *objectness, *deltas)
        )


class BoxHead(nn.Module):
    """Classes and deltas of pooled boxes; in C4 with res5 before."""

    def __init__(self, model: MaskRCNN, dtype: torch.dtype) -> None:
        super().__init__()
        self.res5 = model.res5
        self.head = model.box_head
        self.dtype = dtype

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features (R, C, S, S) float32 -> class logits (R, K + 1), background last, deltas (R, 4 or 4 K)."""
        head, x = self.head, _in(self.dtype, features)
        for number in range(1, head.convs + 1):
            x = F.relu(getattr(head, f"conv{number}")(x))
        if self.res5 is not None:
            x = self.res5(x).mean((2, 3))
        for number in range(1, head.fcs + 1):
            x = getattr(head, f"fc{number}")(x)
            x = F.relu(x) if number > 1 or head.config.fc1_relu else x
        return _in(torch.float32, head.scores(x)), _in(torch.float32, head.deltas(x))


class MaskHead(nn.Module):
    """Masks of every class in pooled boxes; in C4 with res5 before."""

    def __init__(self, model: MaskRCNN, dtype: torch.dtype) -> None:
        super().__init__()
        self.res5 = model.res5
        self.head = model.mask_head
        self.dtype = dtype

    def forward(self, features: Tensor) -> Tensor:
        """features (R, C, S, S) float32 -> probabilities (R, K or 1, M, M)."""
        x = _in(self.dtype, features)
        x = x if self.res5 is None else self.res5(x)
        return _in(torch.float32, self.head.every(x)).sigmoid()


def _in(dtype: torch.dtype, x: Tensor) -> Tensor:
    """The older exporter writes a cast from a type to itself."""
    return x if x.dtype == dtype else x.to(dtype)


def _check(form: Form, opset: int, suffix: str) -> None:
    options = {"--uint8": form.uint8, "--num-detections": form.counted, "--plain": form.plain}
    for option, given in options.items():
        if given:
            raise UserError(
                f"{option}: is for whole graphs; parts have the host around them", hint="leave it out"
            )
    if not OPSET <= opset <= LAST_OPSET:
        raise UserError(
            f"--opset {opset}: parts are written in opset {OPSET} to {LAST_OPSET}",
            hint=f"leave it out, or use --opset {OPSET}",
        )
    if form.precision == "bf16" and suffix == ".onnx":
        raise UserError(
            "--precision bf16: engines that read .onnx have no bf16 convolution",
            hint="use fp32 or fp16, or graphs for OpenVINO",
        )


def _traced(part: Part, opset: int) -> "ModelProto":
    """From opset 18 on by torch's exporter of today, below by the older one, which alone writes them."""
    import onnx

    part.network.eval()
    free = {0: "count"} if part.any_count else {}
    if part.multiple:
        free |= {2: "height", 3: "width"}
    inputs, outputs = [part.inputs], list(part.outputs)
    with quiet(), torch.inference_mode():
        if opset < FIRST_OPSET:
            file: Any = io.BytesIO()
            torch.onnx.export(
                part.network,
                (part.example,),
                file,
                dynamo=False,
                opset_version=opset,
                input_names=inputs,
                output_names=outputs,
                dynamic_axes={part.inputs: free} if free else None,
            )
            return onnx.load_from_string(file.getvalue())
        program = torch.onnx.export(
            part.network,
            (part.example,),
            dynamo=True,
            opset_version=opset,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=({number: _dimension(name, part.multiple) for number, name in free.items()},),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _dimension(name: str, multiple: int) -> Any:
    if name == "count":
        return torch.export.Dim(name, max=1 << 16)
    return free_side(name, multiple)


def _names_last(graph: "GraphProto") -> None:
    """Where OpenVINO leaves nodes out a value has several names, and it shows the first in the alphabet.

    That has to be the output's.
    """
    outputs = {value.name for value in graph.output}
    inner = {name for node in graph.node for name in node.output if name and name not in outputs}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [f"value.{name}" if name in inner else name for name in names]


def _write_onnx(graph: "ModelProto", path: Path, spec: Spec) -> None:
    path.write_bytes(graph.SerializeToString())


def _write_openvino(graph: "ModelProto", path: Path, spec: Spec) -> None:
    """Weights are stored in float16 where the engine computes in no more."""
    from maskrcnn.backends.silent_openvino import openvino

    model = openvino.convert_model(io.BytesIO(graph.SerializeToString()))
    model.set_rt_info(spec.to_json(), KEY)
    openvino.save_model(model, path, compress_to_fp16=spec.precision != "fp32")
