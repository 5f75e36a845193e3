"""From a checkpoint of another project to a model file that describes itself."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.presets import COCO, COCO_90
from maskrcnn.spec import Classes, Origin, Spec
from maskrcnn.weights.architecture import check_sides, infer, name_of, parameter_shapes
from maskrcnn.weights.model_file import write_model_file
from maskrcnn.weights.readers import read_checkpoint
from maskrcnn.weights.recognise import SOURCES, recognise, source_named
from maskrcnn.weights.rewrite import Rewritten, Table, listing, rewrite, their_name
from maskrcnn.weights.source import PROGRAMS, STYLES, Source, filled_statistics

Array = NDArray[Any]


@dataclass(frozen=True)
class RowCount:
    """How many tensors a row of the source's table claimed."""

    theirs: str
    ours: str
    op: str
    tensors: int


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    notes: what it rests on that the file does not say. container: how the file was stored.
    """

    spec: Spec
    architecture: str
    container: str
    tensors: int
    rows: tuple[RowCount, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values: source, sha256, architecture, counts per row, conventions, the rest of the Spec."""
        spec = asdict(self.spec)
        return {
            "source": self.spec.origin.source,
            "file": self.spec.origin.file,
            "sha256": self.spec.origin.sha256,
            "container": self.container,
            "architecture": self.architecture,
            "tensors": self.tensors,
            "rows": [asdict(row) for row in self.rows],
            "conventions": spec["model"].pop("conventions"),
            "notes": list(self.notes),
            "spec": spec,
        }


def convert(
    source: str | Path,
    out: str | Path,
    *,
    origin: str | None = None,
    style: str | None = None,
    classes: str | Path | None = None,
    source_config: str | Path | None = None,
    averaged: bool = False,
    settings: Iterable[str] = (),
) -> Report:
    """Write the model file `out` from the checkpoint `source` and report how.

    source: a file, or a published checkpoint as `zoo:NAME`, which is converted as its entry says. origin:
    name of the source project instead of recognising it. style: `caffe` or `pytorch` where a file does not
    tell; of a .wts file `tensorrtx` or `ixrt`, to be fed and computed as that program does. classes: `coco`
    or a file of names. source_config: the config of the model. averaged: take the moving average of the
    weights that the file holds beside them. settings: `model.rpn.post_nms=300` and the like, applied last.
    Raises UserError, and leaves no file, when any tensor has no place or any parameter no tensor.
    """
    _check_arguments(source, out, origin, style)
    if str(source).startswith("zoo:"):
        from maskrcnn.zoo import convertible

        published = convertible(source, style, settings)
        source, style, settings = published.path, published.style, published.settings
    checkpoint = read_checkpoint(source, averaged)
    place = str(source)
    named = checkpoint.tensors
    found = source_named(origin, named) if origin else recognise(named, place)
    if style is not None and style not in found.styles:
        raise UserError(
            f"{place}: is a checkpoint of {found.name}, and --style {style} is for those of tensorrtx",
            hint="leave out --style, or convert the .wts file",
        )
    rewritten = rewrite(checkpoint.tensors, found.table, place)
    model = infer(_known_shapes(rewritten, found, place), place)
    described = found.describe(
        model, checkpoint, style, None if source_config is None else str(source_config)
    )
    spec = replace(described.spec, origin=_origin(found.name, checkpoint.path, checkpoint.sha256))
    if classes is not None:
        spec = replace(spec, classes=classes_named(classes, model.classes))
    spec = _with_settings(spec, settings)
    tensors = filled_statistics(rewritten.tensors, spec.model)
    _check_shapes(tensors, rewritten, spec.model, found.table, place)
    write_model_file(out, spec, {name: _stored(array) for name, array in tensors.items()})
    rows = tuple(RowCount(row.theirs, row.ours, row.op.name, count) for row, count in rewritten.used)
    notes = checkpoint.notes + described.notes + _class_notes(spec)
    return Report(spec, name_of(spec.model), checkpoint.container, len(checkpoint.tensors), rows, notes)


def _check_arguments(source: str | Path, out: str | Path, origin: str | None, style: str | None) -> None:
    if Path(out).suffix != ".safetensors":
        raise UserError(
            f"{out}: a model file ends in .safetensors", hint=f"write {Path(out).with_suffix('.safetensors')}"
        )
    if Path(out).is_dir():
        raise UserError(f"{out}: is a folder", hint="name a file in it")
    if not Path(out).absolute().parent.is_dir():
        raise UserError(f"{out}: there is no folder {Path(out).parent}", hint="make it first")
    if Path(out).exists() and Path(source).exists() and Path(out).samefile(source):
        raise UserError(f"{out}: is the checkpoint itself", hint="choose another name for the model file")
    if origin is not None and origin not in SOURCES:
        raise UserError(f"--from {origin}: is no known source", hint=f"choose {', '.join(SOURCES)}")
    if style is not None and style not in STYLES + PROGRAMS:
        raise UserError(f"--style {style}: is no style", hint=f"choose {', '.join(STYLES + PROGRAMS)}")


def _known_shapes(rewritten: Rewritten, source: Source, place: str) -> dict[str, tuple[int, ...]]:
    needed = (
        "box_head.scores.weight",
        "box_head.deltas.weight",
        "backbone.stem.conv.weight",
        "mask_head.upsample.weight",
    )
    missing = [their_name(name, source.table) for name in needed if name not in rewritten.tensors]
    if missing:
        raise UserError(
            f"{place}: {listing(missing)} missing from this {source.name} checkpoint",
            hint="give the checkpoint of a whole Mask R-CNN",
        )
    shapes = {name: array.shape for name, array in rewritten.tensors.items()}
    check_sides(shapes, rewritten.origins, place)
    return shapes


def _origin(source: str, path: Path, sha256: str) -> Origin:
    return Origin(source=source, file=path.name, sha256=sha256, tool_version=version("maskrcnn"))


def _with_settings(spec: Spec, settings: Iterable[str]) -> Spec:
    settings = list(settings)
    if not settings:
        return spec
    from maskrcnn.config_file import with_settings  # pydantic loads in 0.1 s

    return with_settings(spec, settings)


def _check_shapes(
    tensors: Mapping[str, Array], rewritten: Rewritten, model: ModelConfig, table: Table, place: str
) -> None:
    """Every parameter has its tensor, every tensor its parameter, every shape agrees."""
    wanted = parameter_shapes(model)

    def theirs(names: Iterable[str]) -> list[str]:
        return [rewritten.origins.get(name) or their_name(name, table) for name in names]

    architecture = name_of(model)
    missing = theirs(name for name in wanted if name not in tensors)
    extra = theirs(name for name in tensors if name not in wanted)
    wrong = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name]]
    if missing:
        raise UserError(
            f"{place}: {listing(missing)} missing from a {architecture}", hint="is the file complete?"
        )
    if extra:
        raise UserError(
            f"{place}: {listing(extra)} not part of a {architecture}", hint="is it a plain Mask R-CNN?"
        )
    if wrong:
        first = wrong[0]
        raise UserError(
            f"{place}: {theirs([first])[0]} is {_sides(tensors[first].shape)} where a {architecture} has "
            f"{_sides(wanted[first])}" + (f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""),
            hint="describe it with --set, such as --set model.anchors.sizes=[[32],[64],[128],[256],[512]]",
        )


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _stored(array: Array) -> Array:
    return np.asarray(array, np.float32 if array.dtype.kind == "f" else array.dtype, order="C")


def classes_named(which: str | Path, count: int | None) -> Classes:
    """`coco`, or those of a file. Raises UserError unless there are as many as count; None for any number."""
    classes = (
        {80: COCO, 90: COCO_90}.get(count or 0, COCO)
        if str(which) == "coco"
        else _classes_of_file(Path(which))
    )
    if count is not None and len(classes) != count:
        raise UserError(
            f"--classes {which}: has {len(classes)} names where the model has {count} classes",
            hint="give one name for each class, in the order of the model's outputs, without background",
        )
    return classes


def _classes_of_file(path: Path) -> Classes:
    """One name a line, or JSON: a list of names, or the categories of a COCO file by their ids."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--classes {path}: cannot be read ({error})", hint="give `coco` or a text file of names"
        ) from error
    if path.suffix != ".json":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return Classes(tuple(lines), tuple(range(1, len(lines) + 1)))
    try:
        values = json.loads(text)
        values = values["categories"] if isinstance(values, dict) else values
        if all(isinstance(value, str) for value in values):
            return Classes(tuple(values), tuple(range(1, len(values) + 1)))
        pairs = sorted((int(value["id"]), str(value["name"])) for value in values)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"--classes {path}: is no list of names and has no COCO categories",
            hint='write ["apple", "pear"]',
        ) from error
    return Classes(tuple(name for _, name in pairs), tuple(number for number, _ in pairs))


def _class_notes(spec: Spec) -> tuple[str, ...]:
    if spec.classes.names[:1] == ("class 1",):
        return ("the file has no class names; give them with --classes FILE",)
    return ()
