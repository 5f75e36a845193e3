"""From a model file to a checkpoint that another tool loads under its own names."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from maskrcnn.config import ModelConfig, RPNConfig
from maskrcnn.errors import UserError
from maskrcnn.spec import Spec
from maskrcnn.weights.architecture import infer, name_of, parameter_shapes
from maskrcnn.weights.convert import RowCount
from maskrcnn.weights.model_file import read_model_file, read_spec
from maskrcnn.weights.prepare_back import Prepared, prepared
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.recognise import SOURCES
from maskrcnn.weights.rewrite import Rewritten, listing, rewrite, rewrite_back
from maskrcnn.weights.source import Source
from maskrcnn.weights.target import Said, Target, refused

Array = NDArray[Any]

TARGETS = {
    "torchvision": "torchvision",
    "detectron2": "detectron2",
    "mmdetection": "mmdetection",
    "maskrcnn-benchmark": "maskrcnn_benchmark",
    "wts": "tensorrtx",
    "mindspore": "mindspore",
}
"""What --to may be, and the module that knows it."""

# What only training reads, and what every reader sees from names and shapes.
UNSAID = frozenset(
    f"model.{path}"
    for path in (
        *(f"rpn.{name}" for name in ("pre_nms_training", "post_nms_training")),
        *(
            f"{head}.{name}"
            for head in ("rpn", "box_head")
            for name in ("foreground_iou", "background_iou", "batch", "positive_fraction", "smooth_l1_beta")
        ),
        *("classes", "neck", "rpn.convs", "box_head.kind", "box_head.fcs", "box_head.fc_channels"),
        *(f"backbone.{name}" for name in ("depth", "groups", "group_width", "width", "norm")),
        *(f"{part}.{name}" for part in ("fpn", "box_head", "mask_head") for name in ("channels", "norm")),
        *(f"{head}.{name}" for head in ("box_head", "mask_head") for name in ("convs", "class_agnostic")),
    )
)


@dataclass(frozen=True)
class BackReport:
    """What was written for another tool.

    sha256: of the model file. differences: what the other side does otherwise and cannot be told.
    config: what it has to be told, in its own language; where: what to do with that.
    """

    target: str
    sha256: str
    spec: Spec
    architecture: str
    tensors: int
    rows: tuple[RowCount, ...]
    differences: tuple[str, ...]
    config: str
    where: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "target": self.target,
            "sha256": self.sha256,
            "architecture": self.architecture,
            "tensors": self.tensors,
            "rows": [asdict(row) for row in self.rows],
            "differences": list(self.differences),
            "config": self.config,
            "where": self.where,
            "notes": list(self.notes),
            "spec": asdict(self.spec),
        }


def convert_back(
    model: str | Path, out: str | Path, to: str, *, allow_differences: bool = False
) -> BackReport:
    """Write the model file `model` as the checkpoint `out` of another tool and report how.

    to: one of TARGETS. allow_differences: write although the other side computes something otherwise that
    neither the checkpoint nor a config can tell it; the report lists it. Raises UserError, and leaves no
    file, when it is not allowed to, and for an architecture without names on the other side.
    """
    model, out = Path(model), Path(out)
    target = target_named(to)
    _check_out(model, out, target)
    spec, tensors = _read(model)
    _refuse(spec.model, target)
    target.refuse(spec.model)
    ready = prepared(tensors, spec, target)
    named = named_tensors(ready, target)
    source = SOURCES[target.source(ready.spec.model)]
    back = rewrite(named, source.table, str(out))
    differing = _differing(ready.spec, _taken_for_granted(source, back, named, target.style(spec.model), out))
    said = target.say(ready.spec, differing.keys())
    differences = _differences(differing, said, target, ready.spec.model)
    if differences and not allow_differences:
        raise UserError(
            f"{model}: {_counted(differences)} no place in {target.name}: "
            + "; ".join(differences[:3])
            + (f"; and {len(differences) - 3} more" if len(differences) > 3 else ""),
            hint="--allow-differences writes it all the same and lists them",
        )
    target.write(out, named, ready.spec, said.config)
    return BackReport(
        target=target.name,
        sha256=_sha256(model),
        spec=spec,
        architecture=name_of(spec.model),
        tensors=len(named),
        rows=tuple(RowCount(row.theirs, row.ours, _undone(row.op.name), count) for row, count in back.used),
        differences=differences,
        config=said.config,
        where=said.where,
        notes=ready.notes + _notes(back, spec),
    )


def _refuse(model: ModelConfig, target: Target) -> None:
    """Raise UserError for what segmentoly alone has."""
    if model.neck == "fpn" and model.fpn.bottom_up is not None:
        raise refused(target.name, "bottom-up path behind its pyramid")
    if model.rpn.convs and model.rpn.conv_side != RPNConfig.conv_side:
        raise refused(target.name, f"RPN of {model.rpn.conv_side} x {model.rpn.conv_side} convolutions")
    for part, has in (("pyramid", model.fpn.conv_bias), ("mask head", model.mask_head.conv_bias)):
        if has:
            raise refused(target.name, f"biases before the norms of its {part}")


def target_named(to: str) -> Target:
    """The target of that name. Raises UserError for an unknown one."""
    if to not in TARGETS:
        raise UserError(f"--to {to}: is no known target", hint=f"choose {', '.join(TARGETS)}")
    found: Target = import_module(f"maskrcnn.weights.targets.{TARGETS[to]}").TARGET
    return found


def _check_out(model: Path, out: Path, target: Target) -> None:
    if out.suffix not in target.suffixes:
        raise UserError(
            f"{out}: a {target.name} checkpoint ends in {' or '.join(target.suffixes)}",
            hint=f"write {out.with_suffix(target.suffixes[0])}",
        )
    if out.is_dir():
        raise UserError(f"{out}: is a folder", hint="name a file in it")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}", hint="make it first")
    if out.exists() and model.exists() and out.samefile(model):
        raise UserError(f"{out}: is the model file itself", hint="choose another name")


def _read(model: Path) -> tuple[Spec, dict[str, Array]]:
    """The description and every parameter of a model file, floating point as float32."""
    spec = read_spec(model)
    if spec.precision == "int8":
        raise UserError(
            f"{model}: has whole numbers as weights, which no other tool reads",
            hint="convert the model that it was quantized from",
        )
    tensors = read_model_file(model)[1]
    wanted = parameter_shapes(spec.model)
    wrong = [
        name
        for name in wanted.keys() | tensors.keys()
        if name not in wanted or name not in tensors or wanted[name] != tensors[name].shape
    ]
    if wrong:
        raise UserError(
            f"{model}: {listing(sorted(wrong))} not as its description says", hint="make the model file again"
        )
    return spec, tensors


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named_tensors(ready: Prepared, target: Target) -> dict[str, Array]:
    """Every tensor under the target's name, in the target's order. Raises UserError if one has no name."""
    tensors = {name: ready.tensors[name] for name in saved_order(ready.tensors, ready.spec.model, target)}
    try:
        named = rewrite_back(tensors, target.rows(ready.spec.model))
    except LookupError as error:
        raise UserError(
            f"{target.name} has no name for {error}, a part of this {name_of(ready.spec.model)}",
            hint="choose another --to",
        ) from error
    fixed = target.fixed(ready.spec)  # what it makes itself, for its RPN
    place = next((place for place, name in enumerate(named) if name.startswith("rpn.")), 0)
    items = list(named.items())
    return dict([*items[:place], *fixed.items(), *items[place:]])


def saved_order(tensors: Mapping[str, Array], model: ModelConfig, target: Target) -> list[str]:
    """Our names in the order in which the target's own state dict has them."""
    known = {name: place for place, name in enumerate(parameter_shapes(model))}
    blocks: dict[str, int] = {}

    def place(name: str) -> tuple[int, int, bool, int]:
        start = known.get(name, known.get(name.replace("num_batches_tracked", "running_var"), 0))
        group = next(number for number, begin in enumerate(target.order) if name.startswith(begin))
        block = re.match(r".*res\d\.\d+\.", name)
        begin = blocks.setdefault(block[0], start) if block else start
        return group, begin, target.shortcut_last and ".shortcut." in name, start

    ordered = sorted(tensors, key=lambda name: (known.get(name, len(known)), name))
    return sorted(ordered, key=place)


def _taken_for_granted(
    source: Source, back: Rewritten, named: Mapping[str, Array], style: str | None, out: Path
) -> Spec:
    """What the target means by such names and shapes when it is told nothing, as its own reader has it."""
    shapes = {name: array.shape for name, array in back.tensors.items()}
    checkpoint = Checkpoint(out, "", "", dict(named), {})
    model = infer(shapes, str(out))
    return source.describe(model, checkpoint, style, None).spec


def _differing(spec: Spec, native: Spec) -> dict[str, tuple[Any, Any]]:
    """Setting: value here and there, where it changes what is detected."""
    there = dict(_leaves(native))
    skipped = UNSAID | _without_effect(spec)
    return {
        path: (value, there[path])
        for path, value in _leaves(spec)
        if path not in skipped and value != there[path]
    }


def _leaves(spec: Spec) -> Iterator[tuple[str, Any]]:
    yield from _fields("model", spec.model)
    yield from _fields("preprocess", spec.preprocess)


def _fields(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not is_dataclass(value):
        yield path, value
        return
    for field in fields(value):
        yield from _fields(f"{path}.{field.name}", getattr(value, field.name))


def _without_effect(spec: Spec) -> frozenset[str]:
    """Settings that this model never reads."""
    model, conventions = spec.model, "model.conventions."
    found: list[str] = []
    if model.neck != "fpn":
        found += [*(path for path, _ in _fields("model.fpn", model.fpn))]
        found += [f"{conventions}level_eps_inside", f"{conventions}level_eps_outside"]
    for part in ("backbone", "fpn", "box_head", "mask_head"):
        if getattr(model, part).norm == "none":
            found.append(f"model.{part}.norm_eps")
    if model.box_head.kind == "res5":
        found.append("model.box_head.norm_eps")
    if model.backbone.depth < 50:
        found.append("model.backbone.stride_in_1x1")
    if model.box_head.soft_nms.method == "none":
        found += ["model.box_head.soft_nms.sigma", "model.box_head.soft_nms.min_score"]
    if model.anchors.cells:
        found += ["model.anchors.sizes", "model.anchors.ratios", f"{conventions}anchor_cell"]
        found.append(f"{conventions}anchor_order")
    if spec.preprocess.resize != "letterbox":
        found.append("preprocess.pad_value")
    return frozenset(found)


def _differences(
    differing: Mapping[str, tuple[Any, Any]], said: Said, target: Target, model: ModelConfig
) -> tuple[str, ...]:
    left = tuple(
        f"{path.removeprefix('model.')} {_shown(ours)}, {_shown(theirs)} there"
        for path, (ours, theirs) in differing.items()
        if path not in said.paths
    )
    return (*(text.removeprefix("model.") for text in target.misfits(model)), *left)


def _shown(value: Any) -> str:
    text = str(value).replace("'", "")
    return text if len(text) < 60 else f"{text[:56]}..."


def _counted(differences: tuple[str, ...]) -> str:
    return f"{len(differences)} of its settings have" if len(differences) > 1 else "one of its settings has"


def _undone(op: str) -> str:
    """What the inverse of an operation does."""
    return op.replace("_to_last", "_to_first").replace("drop_background", "zero_background")


def _notes(back: Rewritten, spec: Spec) -> tuple[str, ...]:
    ops = {name for row, _ in back.used for name in row.op.name.split(", ")}
    notes = []
    if any(name.startswith("drop_background") for name in ops):
        notes.append(
            "rows of the background in box deltas and masks, which the model does not have, are zero"
        )
    first = "background_to_last" in ops
    where = "output 0 is the background, output 1" if first else "the background is the last output, output 0"
    name = next((name for name in spec.classes.names if name), "")
    notes.append(f"{where} is {name or 'the first class'}")
    return tuple(notes)
