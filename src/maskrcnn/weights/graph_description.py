"""Writes into a graph of another tool how it is fed, so that nothing has to be said when it is used."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

from maskrcnn import presets
from maskrcnn.config_file import with_settings
from maskrcnn.errors import UserError
from maskrcnn.predict import open_model
from maskrcnn.preprocess import padded_size, resized_size
from maskrcnn.spec import Exported, Origin, Preprocess, Spec
from maskrcnn.stored_spec import ENTRY_KEY, KEY, METADATA, message_fields
from maskrcnn.weights.convert import classes_named
from maskrcnn.weights.own_config import Settings, mmdetection_settings, read_config, with_values
from maskrcnn.weights.source import STYLES, without_style
from maskrcnn.whole_file import shown, whole_file

INPUT_OF_STYLE: dict[str, Settings] = {
    "pytorch": {"model.mean": presets.MEAN_RGB, "model.std": presets.STD_RGB, "preprocess.channels": "rgb"},
    "caffe": {"model.mean": presets.MEAN_BGR, "model.std": presets.NO_STD, "preprocess.channels": "bgr"},
}
# Images that a graph of one size must be fed with alike.
UPRIGHT, LYING = (640, 480), (480, 640)
# Of a protobuf field: its number times eight, and two for "bytes of a given length".
LENGTH_GIVEN = 2


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

    source: .onnx, or .xml with its .bin beside it, that ONNX Runtime or OpenVINO opens. style: `pytorch` or
    `caffe`, of a graph of mmdetection. source_config: its config, dumped to one file. classes: `coco` or a
    file of names. settings: `preprocess.resize=fit_window` and the like, applied last.
    Raises UserError, and leaves no file, for a graph of an unknown tool, one that has our own inputs, and a
    description that does not fit the graph's size.
    """
    source, out = Path(source), Path(out)
    _check_paths(source, out)
    spec = open_model(source, device="cpu").spec
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
    write = _write_onnx if source.suffix.lower() == ".onnx" else _write_openvino
    write(source, out, spec)
    return Described(spec, _notes(spec, style, source_config))


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


def _notes(spec: Spec, style: str | None, config: str | Path | None) -> tuple[str, ...]:
    notes = []
    if spec.exported and spec.exported.contract == "mmdetection" and not (style or config):
        notes.append(
            "taken to be of pytorch style (RGB, ImageNet's mean and std); --style caffe says otherwise"
        )
    if not spec.classes.names:
        notes.append("the graph does not tell its classes; give them with --classes FILE")
    return tuple(notes)


def _write_onnx(source: Path, out: Path, spec: Spec) -> None:
    """All fields of the message but an older description, and the description at the end."""
    size = os.path.getsize(source)
    with open(source, "rb") as file, whole_file(out) as temporary, open(temporary, "wb") as made:
        start = 0
        for number, length in message_fields(file, size):
            end = file.tell() + length
            old = number == METADATA and _key(file, end) == KEY
            file.seek(end if old else start)
            if not old:
                _copy(file, made, end - start)
            start = end
        entry = _field(ENTRY_KEY, KEY.encode()) + _field(ENTRY_KEY + 1, spec.to_json().encode())
        made.write(_field(METADATA, entry))


def _key(file: BinaryIO, end: int) -> str:
    parts = {number: file.read(length) for number, length in message_fields(file, end)}
    return parts.get(ENTRY_KEY, b"").decode("utf-8", "replace")


def _copy(file: BinaryIO, made: BinaryIO, count: int) -> None:
    while count:
        piece = file.read(min(count, 1 << 20))
        made.write(piece)
        count -= len(piece)


def _field(number: int, contents: bytes) -> bytes:
    """A field of a protobuf message."""
    return _varint(number << 3 | LENGTH_GIVEN) + _varint(len(contents)) + contents


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _write_openvino(source: Path, out: Path, spec: Spec) -> None:
    tree = ElementTree.parse(source)
    root = tree.getroot()
    info = root.find("rt_info")
    info = ElementTree.SubElement(root, "rt_info") if info is None else info
    for old in info.findall(KEY):
        info.remove(old)
    ElementTree.SubElement(info, KEY, value=spec.to_json())
    with whole_file(out.with_suffix(".bin")) as weights:
        shutil.copyfile(source.with_suffix(".bin"), weights)
    with whole_file(out) as temporary:
        tree.write(temporary, encoding="utf-8", xml_declaration=True)
