"""Reads the description in a model file of any engine, without that engine and without the weights."""

import os
from pathlib import Path

from maskrcnn.errors import UserError
from maskrcnn.protobuf import NoMessage, fields, mapped
from maskrcnn.spec import Spec, spec_from_json

KEY = "maskrcnn"
PARTS_FILE = "maskrcnn.json"
# What a TensorRT file begins with; the length of the description in 8 bytes, the description and the plan
# follow.
ENGINE_MARK = b"maskrcnn"
LONGEST_TEXT = 100_000_000
# Numbers of fields in ModelProto and StringStringEntryProto, from onnx.proto.
GRAPH, METADATA, ENTRY_KEY, ENTRY_VALUE = 7, 14, 1, 2


def stored_spec(path: str | Path) -> Spec:
    """What a .safetensors, .onnx, .xml, .engine or .parts says of itself.

    Raises UserError for a file that is damaged, of another kind, or not one of ours.
    """
    spec = found_spec(path)
    if spec is None:
        raise UserError(
            f"{path}: has no maskrcnn description, so it is not known how to feed it",
            hint="`maskrcnn convert` gives one to a graph of another tool, and `maskrcnn export` writes them",
        )
    return spec


def found_spec(path: str | Path) -> Spec | None:
    """As `stored_spec`, and None for a graph that says nothing of itself, as those of other tools."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        from maskrcnn.weights.model_file import read_spec

        return read_spec(path)
    readers = {".onnx": _in_onnx, ".xml": _in_openvino, ".engine": _in_engine, ".parts": _in_parts}
    try:
        text = readers[suffix](path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read ({reason})", hint="check the path") from error
    return None if text is None else spec_from_json(text, path)


def engine_header(spec: Spec) -> bytes:
    """What goes before the plan in a TensorRT file."""
    text = spec.to_json().encode()
    return ENGINE_MARK + len(text).to_bytes(8, "little") + text


def plan_offset(path: Path) -> int:
    """Where the plan begins in a TensorRT file; call it after `stored_spec`, which checks the file."""
    with open(path, "rb") as file:
        file.seek(len(ENGINE_MARK))
        return len(ENGINE_MARK) + 8 + int.from_bytes(file.read(8), "little")


def _in_engine(path: Path) -> str | None:
    with open(path, "rb") as file:
        if file.read(len(ENGINE_MARK)) != ENGINE_MARK:
            return None
        length = int.from_bytes(file.read(8), "little")
        if length > min(LONGEST_TEXT, os.path.getsize(path) - file.tell()):
            raise _damaged(path, "a TensorRT file of maskrcnn")
        return _text(path, file.read(length))


def _in_parts(path: Path) -> str | None:
    file = path / PARTS_FILE
    if not path.is_dir():
        raise UserError(f"{path}: is no folder of parts", hint="export the model again")
    return _text(file, file.read_bytes()) if file.exists() else None


def _in_openvino(path: Path) -> str | None:
    """From the rt_info of the whole network, or of the framework that it was converted from."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError) as error:
        raise _damaged(path, "an OpenVINO network") from error
    if root.tag != "net":
        raise _damaged(path, "an OpenVINO network")
    if not path.with_suffix(".bin").exists():
        raise UserError(
            f"{path}: its weights are missing, {path.with_suffix('.bin').name} is not beside it",
            hint="copy both files together",
        )
    for place in (f"rt_info/{KEY}", f"rt_info/framework/{KEY}"):
        found = root.find(place)
        if found is not None:
            return found.get("value")
    return None


def _in_onnx(path: Path) -> str | None:
    """From metadata_props; the graph, which holds the weights, is passed over."""
    texts: dict[str, str] = {}
    numbers = set()
    try:
        for each in fields(mapped(path)):
            numbers.add(each.number)
            if each.number == METADATA and not isinstance(each.value, int):
                key, value = entry(each.value)
                texts[_text(path, key)] = _text(path, value)
    except NoMessage as error:
        raise _damaged(path, "an ONNX model") from error
    if GRAPH not in numbers:
        raise _damaged(path, "an ONNX model")
    return texts.get(KEY)


def entry(message: memoryview) -> tuple[bytes, bytes]:
    """Key and value of an entry of ONNX's metadata and external data. Raises NoMessage."""
    found = {each.number: bytes(each.value) for each in fields(message) if not isinstance(each.value, int)}
    return found.get(ENTRY_KEY, b""), found.get(ENTRY_VALUE, b"")


def _text(path: Path, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: its model description is no text ({error})", hint="export it again"
        ) from error


def _damaged(path: Path, kind: str) -> UserError:
    return UserError(f"{path}: is not {kind}, or not all of it", hint="copy or export it again")
