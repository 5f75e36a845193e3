"""Writes into a graph of another tool how it is fed, so that nothing has to be said when it is used."""

import hashlib
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from filecmp import cmp
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from maskrcnn import presets
from maskrcnn.config_file import with_settings
from maskrcnn.errors import UserError
from maskrcnn.predict import open_model
from maskrcnn.preprocess import padded_size, resized_size
from maskrcnn.protobuf import Field, field, fields, mapped
from maskrcnn.spec import Exported, Origin, Preprocess, Spec
from maskrcnn.stored_spec import ENTRY_KEY, ENTRY_VALUE, KEY, METADATA, entry
from maskrcnn.weights.convert import classes_named
from maskrcnn.weights.external_data import external_files
from maskrcnn.weights.own_config import Settings, mmdetection_settings, read_config, with_values
from maskrcnn.weights.source import STYLES, without_style
from maskrcnn.weights.unpasted_graph import without_pasting
from maskrcnn.whole_file import shown, whole_file

INPUT_OF_STYLE: dict[str, Settings] = {
    "pytorch": {"model.mean": presets.MEAN_RGB, "model.std": presets.STD_RGB, "preprocess.channels": "rgb"},
    "caffe": {"model.mean": presets.MEAN_BGR, "model.std": presets.NO_STD, "preprocess.channels": "bgr"},
}
# Images that a graph of one size must be fed with alike.
UPRIGHT, LYING = (640, 480), (480, 640)


@dataclass(frozen=True)
class Described:
    """What a graph is now said to be. notes: what that rests on."""

    spec: Spec
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def describe_graph(
    source: str | Path,
    out: str | Path,
    *,
    style: str | None = None,
    classes: str | Path | None = None,
    source_config: str | Path | None = None,
    settings: Iterable[str] = (),
) -> Described:
    """Copy a graph of another tool to `out`, with a description; no weight and no node is changed.

    But masks that a graph pastes with an operator of mmcv, which no engine here has, are left as crops.

    source: .onnx, with its files of weights if it has any, or .xml with its .bin beside it, that ONNX Runtime
        or OpenVINO opens. Into another folder these files are copied, under their names.
    style: `pytorch` or `caffe`, of a graph of mmdetection. source_config: its config, dumped to one file.
    classes: `coco` or a file of names. settings: `preprocess.resize=fit_window` and the like, applied last.
    Raises UserError, and leaves no file, for a graph of an unknown tool, one that has our own inputs, and a
    description that does not fit the graph's size.
    """
    source, out = Path(source), Path(out)
    _check_paths(source, out)
    with without_pasting(source) as graph:
        spec = _described(graph, source, style, classes, source_config, settings)
        write = _write_onnx if source.suffix.lower() == ".onnx" else _write_openvino
        write(graph, source, out, spec)
        return Described(spec, _notes(spec, style, source_config, graph != source))


def _described(
    graph: Path,
    source: Path,
    style: str | None,
    classes: str | Path | None,
    source_config: str | Path | None,
    settings: Iterable[str],
) -> Spec:
    """graph: what an engine opens of source."""
    spec = open_model(graph, device="cpu").spec
    exported = spec.exported or Exported()
    if exported.contract == "maskrcnn":
        raise UserError(
            f"{shown(source)}: was written by maskrcnn and describes itself", hint="use it as it is"
        )
    if (style or source_config) and exported.contract != "mmdetection":
        option = "--style" if style else "--source-config"
        raise UserError(
            f"{shown(source)}: is a graph of {exported.contract}, and {option} is for those of mmdetection",
            hint="say it with --set",
        )
    spec = with_values(spec, _of_mmdetection(style, source_config, exported))
    if classes is not None:
        count = spec.model.classes if spec.classes.names else None
        named = classes_named(classes, count)
        spec = replace(spec, classes=named, model=replace(spec.model, classes=len(named)))
    spec = replace(spec, origin=_origin(spec, source))
    spec = with_settings(spec, settings)
    _check_size(spec, exported)
    return spec


def _check_paths(source: Path, out: Path) -> None:
    if not source.is_file():
        raise UserError(f"{shown(source)}: no such file", hint="check the path")
    if out.suffix.lower() != source.suffix.lower():
        raise UserError(
            f"{shown(out)}: a graph keeps its format, {source.suffix}",
            hint=f"write {shown(out.with_suffix(source.suffix))}",
        )
    if not out.absolute().parent.is_dir():
        raise UserError(f"{shown(out)}: there is no folder {shown(out.parent)}", hint="make it first")
    if out.exists() and out.samefile(source):
        raise UserError(f"{shown(out)}: is the graph itself", hint="choose another name")


def _of_mmdetection(style: str | None, config: str | Path | None, exported: Exported) -> Settings:
    """What its style and its config say; a graph of one size has that size whatever its config says."""
    if style is not None and style not in STYLES:
        raise UserError(f"--style {style}: is no style", hint=f"choose {' or '.join(STYLES)}")
    own = mmdetection_settings(read_config(config), str(config)) if config else {}
    if exported.height and exported.width:
        sizes = ("preprocess.resize", "preprocess.short", "preprocess.long", "preprocess.pad_multiple")
        own = {path: value for path, value in own.items() if path not in sizes}
    return without_style(own, style) | (INPUT_OF_STYLE[style] if style else {})


def _origin(spec: Spec, source: Path) -> Origin:
    with open(source, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Origin(spec.origin.source, source.name, sha256, version("maskrcnn"))


def _check_size(spec: Spec, exported: Exported) -> None:
    for image in (UPRIGHT, LYING):
        fed = padded_size(_filled(image, spec.preprocess), spec.preprocess)
        for side, fixed in zip(fed, (exported.height, exported.width), strict=True):
            if fixed and side != fixed:
                raise UserError(
                    f"an image of {image[0]} x {image[1]} pixels would be fed as {fed[0]} x {fed[1]}, and "
                    f"the graph takes {exported.height or 'any'} x {exported.width or 'any'}",
                    hint="--set preprocess.resize=stretch, or fit_window with preprocess.pad_to_window=true",
                )


def _filled(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    if preprocess.resize == "letterbox":
        return preprocess.short, preprocess.long
    return resized_size(size, preprocess)


def _notes(spec: Spec, style: str | None, config: str | Path | None, cropped: bool) -> tuple[str, ...]:
    notes = []
    if cropped:
        notes.append(
            "masks are the crops before the graph pasted them with mmcv:grid_sampler, which is left out"
        )
    if spec.exported and spec.exported.contract == "mmdetection" and not (style or config):
        notes.append(
            "taken to be of pytorch style (RGB, ImageNet's mean and std); --style caffe says otherwise"
        )
    if not spec.classes.names:
        notes.append("the graph does not tell its classes; give them with --classes FILE")
    return tuple(notes)


def _write_onnx(graph: Path, source: Path, out: Path, spec: Spec) -> None:
    """All fields of the message but an older description, and the description at the end."""
    model = mapped(graph)
    with ExitStack() as files:
        # What is entered first takes its name last.
        made = files.enter_context(whole_file(out))
        _carry(external_files(model), source, out, files)
        with open(made, "wb") as file:
            for each in fields(model):
                if not _is_description(each):
                    file.write(model[each.start : each.end])
            described = field(ENTRY_KEY, KEY.encode()) + field(ENTRY_VALUE, spec.to_json().encode())
            file.write(field(METADATA, described))


def _is_description(given: Field) -> bool:
    if given.number != METADATA or isinstance(given.value, int):
        return False
    return entry(given.value)[0] == KEY.encode()


def _carry(names: Iterable[str], source: Path, out: Path, files: ExitStack) -> None:
    """Copy files of weights that a graph names beside itself, unless it stays in their folder.

    A link would cost nothing, but exporters write such a file in its place when a graph is exported again,
    and the weights of both would change.
    """
    if source.absolute().parent.samefile(out.absolute().parent):
        return
    for name in names:
        theirs, ours = source.parent / name, out.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(
                f"{shown(source)}: has weights in {shown(name)}, outside its folder",
                hint="save the graph with its weights beside it, or in it",
            )
        if ours.exists() and not ours.samefile(theirs) and not cmp(theirs, ours, shallow=False):
            raise UserError(
                f"{shown(ours)}: is in the way of the weights of {shown(source)}",
                hint="choose another folder",
            )
        if not ours.exists():
            shutil.copyfile(theirs, files.enter_context(whole_file(ours)))


def _write_openvino(graph: Path, source: Path, out: Path, spec: Spec) -> None:
    tree = ElementTree.parse(graph)
    root = tree.getroot()
    info = root.find("rt_info")
    info = ElementTree.SubElement(root, "rt_info") if info is None else info
    for old in info.findall(KEY):
        info.remove(old)
    ElementTree.SubElement(info, KEY, value=spec.to_json())
    with whole_file(out) as network, whole_file(out.with_suffix(".bin")) as weights:
        shutil.copyfile(source.with_suffix(".bin"), weights)
        tree.write(network, encoding="utf-8", xml_declaration=True)
