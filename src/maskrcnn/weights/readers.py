"""Read the tensors of a checkpoint file without torch and without running anything in it.

Read by content, not by suffix: torch's zip and its older format, pickles of numpy arrays, safetensors. Values
are views of the file mapped into memory, so a tensor costs nothing until it is written.
"""

import hashlib
import json
import math
import mmap
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.errors import UserError
from maskrcnn.weights.mindspore_ckpt import begins_like_mindspore, read_mindspore
from maskrcnn.weights.training_checkpoint import LEVELS, state_dict
from maskrcnn.weights.unpickle import Inert, Malformed, PickledArray, Storage, Tensor, unpickle
from maskrcnn.weights.wts import FIRST_LINE, read_wts

Array = NDArray[Any]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of a file that torch.save wrote before version 1.6."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds. tensors: by the names of its source; meta: what lies beside the state dict.

    container: how it was stored; sha256: of the whole file; notes: which of its weights these are.
    """

    path: Path
    container: str
    sha256: str
    tensors: dict[str, Array]
    meta: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | Path, averaged: bool = False) -> Checkpoint:
    """Every tensor of a checkpoint file, of the moving average that training kept if averaged is true.

    Raises UserError when it is none, damaged, or needs code to run.
    """
    path = Path(path)
    content = _mapped(path)
    start = bytes(content[:16])
    try:
        if start[:4] == b"PK\x03\x04":
            container, value = "torch zip", _read_zip(path, content)
        elif start[:1] == b"\x80" and start[4:9] != b"\0\0\0\0{":  # a header's length may begin so too
            container, value = _read_pickle(content)
        elif start[8:9] == b"{":
            container, value = "safetensors", _read_safetensors(content)
        elif begins_like_mindspore(start):
            container, value = "MindSpore ckpt", read_mindspore(content)
        elif FIRST_LINE.match(start):
            container, value = "wts", read_wts(content)
        else:
            raise UserError(f"{path}: is {_what_it_is(start)}, not a checkpoint", hint=_KINDS)
    except _DAMAGE as error:
        raise UserError(f"{path}: cut short or damaged ({error})", hint="fetch the file again") from error
    state = state_dict(path, value, averaged)
    tensors = {name: _as_array(path, name, tensor) for name, tensor in state.named.items()}
    sha256 = hashlib.sha256(content).hexdigest()
    return Checkpoint(path, container, sha256, tensors, state.beside, state.notes)


_DAMAGE = (
    Malformed,
    zipfile.BadZipFile,
    NotImplementedError,  # a zip of a later version
    struct.error,
    ValueError,
    OverflowError,
    MemoryError,
    RecursionError,
)

_KINDS = (
    "give a .pth, .pt, .pkl, .ckpt, .wts or .safetensors file; `maskrcnn convert --help` names the sources"
)


def _mapped(path: Path) -> mmap.mmap:
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a checkpoint", hint=_KINDS)
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise UserError(f"{path}: is empty", hint="fetch the file again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file", hint="check the path") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", hint="check the path") from error


def _what_it_is(start: bytes) -> str:
    if start.startswith(b"\x89HDF"):
        return "an HDF5 file"
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z")):
        return "a compressed archive"
    if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in start):
        return f"text (it starts with {start.decode('ascii')!r})"
    return "of an unknown kind"


# torch.save since 1.6: a zip of `NAME/data.pkl` and one uncompressed member for each storage


def _read_zip(path: Path, content: mmap.mmap) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
    pickles = [name for name in members if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(f"{path}: is a zip archive, but not one of torch.save", hint=_KINDS)
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in members:
        raise UserError(
            f"{path}: is a TorchScript program", hint="convert the checkpoint that it was made from"
        )
    if f"{root}byteorder" in members and _member(content, members[f"{root}byteorder"]) != b"little":
        raise UserError(f"{path}: was written on a big-endian machine", hint="save it again on a common one")

    def flat(storage: Storage) -> Array:
        member = members.get(f"{root}data/{storage.key}")
        if member is None:
            raise Malformed(f"storage {storage.key} is missing")
        return _flat(_member(content, member), storage)

    return _with_arrays(unpickle(bytes(_member(content, members[pickles[0]]))), flat)


def _member(content: mmap.mmap, member: zipfile.ZipInfo) -> memoryview:
    if member.compress_type != zipfile.ZIP_STORED:
        raise Malformed(f"{member.filename} is compressed, which torch.save never does")
    start = member.header_offset
    if content[start : start + 4] != b"PK\x03\x04":
        raise Malformed(f"{member.filename} has no header")
    name_length, extra_length = struct.unpack_from("<HH", content, start + 26)
    start += 30 + name_length + extra_length
    if start + member.file_size > len(content):
        raise Malformed(f"{member.filename} ends after the file")
    return memoryview(content)[start : start + member.file_size]


# torch.save before 1.6: five pickles, then every storage behind its count; and pickles of numpy arrays


def _read_pickle(content: mmap.mmap) -> tuple[str, Any]:
    first = unpickle(content)
    if first != LEGACY_MAGIC:
        return "pickle", _with_arrays(first, None)
    unpickle(content)  # protocol version
    system = unpickle(content)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise Malformed("it was written on a big-endian machine")
    named: dict[str, Storage] = {}
    value, keys = unpickle(content, named), unpickle(content)
    found = _legacy_storages(content, named, keys)

    def flat(storage: Storage) -> Array:
        if storage.key not in found:
            raise Malformed(f"storage {storage.key} is missing")
        return found[storage.key]

    return "torch legacy", _with_arrays(value, flat)


def _legacy_storages(content: mmap.mmap, named: dict[str, Storage], keys: Any) -> dict[str, Array]:
    found = {}
    position = content.tell()
    for key in keys if isinstance(keys, list) else ():
        storage = named.get(key) if isinstance(key, str) else None
        if storage is None:
            raise Malformed("a storage has an unknown type")
        (count,) = struct.unpack_from("<q", content, position)
        end = position + 8 + count * _itemsize(storage)
        if count != storage.count or end > len(content):
            raise Malformed(f"storage {key} ends after the file")
        found[storage.key] = _flat(memoryview(content)[position + 8 : end], storage)
        position = end
    return found


def _itemsize(storage: Storage) -> int:
    return 2 if storage.dtype == "bfloat16" else np.dtype(storage.dtype).itemsize


def _flat(raw: memoryview, storage: Storage) -> Array:
    if storage.count * _itemsize(storage) > len(raw):
        raise Malformed(f"storage {storage.key} claims {storage.count} values in {len(raw)} bytes")
    kind = "<u2" if storage.dtype == "bfloat16" else np.dtype(storage.dtype).newbyteorder("<")
    return np.frombuffer(raw, kind, storage.count)


def _with_arrays(value: Any, flat: Any) -> Any:
    """The same containers with every Tensor and PickledArray of the upper LEVELS as an array."""
    if not isinstance(value, dict):
        return value
    for container, key, item in list(_places(value)):
        if isinstance(item, Tensor) and flat is not None:
            container[key] = _view(item, flat(item.storage))
        elif isinstance(item, PickledArray):
            container[key] = (
                item.array if item.array is not None else Inert("numpy.ndarray of Python objects")
            )
    return value


def _places(value: Any) -> Any:
    """Every (dict, key, item) of a dict and of the dicts in it, each dict once."""
    seen = level = {id(value): value}
    for _ in range(LEVELS):
        yield from ((each, key, item) for each in level.values() for key, item in each.items())
        inner = (item for each in level.values() for item in each.values() if isinstance(item, dict))
        level = {id(item): item for item in inner if id(item) not in seen}
        seen = seen | level


def _view(tensor: Tensor, values: Array) -> Array:
    if len(tensor.size) != len(tensor.stride) or math.prod(tensor.size) > len(values):
        raise Malformed("a tensor claims more values than its storage has")
    last = tensor.offset + sum(
        (side - 1) * step for side, step in zip(tensor.size, tensor.stride, strict=True)
    )
    if math.prod(tensor.size) and last >= len(values):
        raise Malformed("a tensor ends after its storage")
    steps = tuple(step * values.itemsize for step in tensor.stride)
    offset = tensor.offset if math.prod(tensor.size) else 0
    view = np.ndarray(tensor.size, values.dtype, values, offset * values.itemsize, steps)
    return widened(view) if tensor.storage.dtype == "bfloat16" else view


def widened(bits: Array) -> Array:
    """bfloat16 as uint16 -> float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


# safetensors: the length of a JSON header, the header, the values


_SAFETENSORS_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def _read_safetensors(content: mmap.mmap) -> dict[str, Any]:
    (length,) = struct.unpack_from("<Q", content, 0)
    if length > len(content) - 8:
        raise Malformed("its header ends after the file")
    header = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise Malformed("its header is no table")
    values = memoryview(content)[8 + length :]
    metadata = header.pop("__metadata__", {})
    tensors: dict[str, Any] = {}
    for name, entry in header.items():
        tensors[name] = _safetensor(name, entry, values)
    return {"state_dict": tensors, "meta": metadata}


def _safetensor(name: str, entry: Any, values: memoryview) -> Array:
    try:
        kind, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        dtype = np.dtype(_SAFETENSORS_DTYPES[kind])
        if not 0 <= start <= end <= len(values) or (end - start) != math.prod(shape) * dtype.itemsize:
            raise Malformed(f"{name} has {end - start} bytes for {kind} {shape}")
        array = np.frombuffer(values[start:end], dtype).reshape(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"its entry of {name} is not understood") from error
    return widened(array) if kind == "BF16" else array


# from the whole value to named tensors


def _as_array(path: Path, name: str, item: Any) -> Array:
    if isinstance(item, np.ndarray):
        return item
    what = item.name if isinstance(item, Inert) else type(item).__name__
    raise UserError(
        f"{path}: {name} is no tensor but {what}, which is not built; nothing of it was run",
        hint="save the model's `state_dict()` with plain tensors",
    )
