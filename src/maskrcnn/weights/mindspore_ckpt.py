"""Read and write MindSpore's `.ckpt`, a protobuf message, without MindSpore and without protobuf.

    Checkpoint { repeated Value value = 1 }
    Value { string tag = 1; TensorProto tensor = 2 }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3 }

Values are little-endian in C order. A tensor above 512 MiB is several Values of one tag in a row, each with
the dims of the whole. The file may end in `crc_num` and 10 bytes, big-endian: crc32 of all before.
"""

import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.protobuf import NoMessage, field, fields, head, varint, written
from maskrcnn.weights.unpickle import MOST_SIDES, Inert, Malformed
from maskrcnn.whole_file import shown, whole_file

Array = NDArray[Any]

DTYPES = {
    "Int8": "i1",
    "UInt8": "u1",
    "Int16": "<i2",
    "UInt16": "<u2",
    "Int32": "<i4",
    "UInt32": "<u4",
    "Int64": "<i8",
    "UInt64": "<u8",
    "Float16": "<f2",
    "Float32": "<f4",
    "Float64": "<f8",
    "Bool": "?",
    "BFloat16": "<u2",  # its 16 bits
}
_NAMES = {np.dtype(code): name for name, code in DTYPES.items() if name != "BFloat16"}

_TRAINING = re.compile(r"[^.]*|(?:moments|moment[12]|accum|accumulation|stat)\..*")
"""Names of what a training adds: numbers of its own, and the optimiser's copies of the parameters."""

MOST_TENSORS = 100_000
LARGEST_PART = 512 << 20
"""Bytes of one Value; MindSpore splits longer tensors."""

_TRAILER = b"crc_num"
_TRAILER_LENGTH = len(_TRAILER) + 10
_CRC_CHUNK = 1 << 24


@dataclass
class _Parts:
    """One tensor: its content comes in one Value or several in a row."""

    kind: str
    dims: tuple[int, ...]
    contents: list[memoryview]

    def length(self) -> int:
        return sum(len(content) for content in self.contents)

    def wanted(self) -> int:
        """Bytes of the whole tensor; 0 where the dtype has no fixed size."""
        return math.prod(self.dims) * np.dtype(DTYPES[self.kind]).itemsize if self.kind in DTYPES else 0


def begins_like_mindspore(start: bytes) -> bool:
    """Whether the first 16 bytes of a file are a Value, whose first field is a tag."""
    if start[:1] != b"\x0a":
        return False
    place = 1
    while place < len(start) - 1 and start[place] >= 0x80:
        place += 1
    return start[place + 1 : place + 2] == b"\x0a" and start[place : place + 1] != b"\x0a"


def read_mindspore(content: Any, training: bool = False) -> dict[str, Any]:
    """Every tensor of a mapped file as a view of it, bfloat16 as float32, without texts.

    training: with the state of a training as well, which is no part of a model. A tensor of a type that is no
    number here is an Inert. Raises Malformed.
    """
    try:
        return _tensors(memoryview(content), training)
    except NoMessage as error:
        raise Malformed(str(error)) from error


def _tensors(whole: memoryview, training: bool) -> dict[str, Any]:
    tensors: dict[str, _Parts] = {}
    before = ""
    for value in _values(_without_trailer(whole)):
        tag, parts = _value(value)
        held = tensors.get(tag)
        if held is None:
            tensors[tag] = parts
        elif tag == before and (held.kind, held.dims) == (parts.kind, parts.dims) and _is_open(held):
            held.contents += parts.contents
        else:
            raise Malformed(f"it has {tag} a second time")
        if len(tensors) > MOST_TENSORS:
            raise Malformed(f"it has more than {MOST_TENSORS} tensors")
        before = tag
    return {
        tag: _array(tag, parts)
        for tag, parts in tensors.items()
        if parts.kind != "str" and (training or not _TRAINING.fullmatch(tag))
    }


def _is_open(parts: _Parts) -> bool:
    return parts.kind in ("str", "Int4") or parts.length() < parts.wanted()


def _without_trailer(whole: memoryview) -> memoryview:
    trailer = bytes(whole[-_TRAILER_LENGTH:])
    if not trailer.startswith(_TRAILER) or len(whole) < _TRAILER_LENGTH:
        return whole
    body = whole[:-_TRAILER_LENGTH]
    crc = 0
    for start in range(0, len(body), _CRC_CHUNK):
        crc = zlib.crc32(body[start : start + _CRC_CHUNK], crc)
    if int.from_bytes(trailer[len(_TRAILER) :], "big") != crc:
        raise Malformed("its checksum is another one")
    return body


def _values(body: memoryview) -> Iterator[memoryview]:
    for number, value, *_ in fields(body):
        if number != 1 or isinstance(value, int):
            raise Malformed("it is no list of tensors")
        yield value


def _value(message: memoryview) -> tuple[str, _Parts]:
    tag, parts = "", None
    for number, value, *_ in fields(message):
        if number == 1 and not isinstance(value, int):
            tag = _text(value)
        elif number == 2 and not isinstance(value, int):
            parts = _tensor(value)
        else:
            raise Malformed(f"{tag or 'a value'} is no tensor")
    if not tag or parts is None:
        raise Malformed(f"{tag or 'a value'} has no tensor or no name")
    return tag, parts


def _tensor(message: memoryview) -> _Parts:
    dims: list[int] = []
    kind = ""
    content = message[:0]
    for number, value, *_ in fields(message):
        if number == 1:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif number == 2 and not isinstance(value, int):
            kind = _text(value)
        elif number == 3 and not isinstance(value, int):
            content = value
        else:
            raise Malformed("a tensor has a field that is not known")
        if len(dims) > MOST_SIDES:
            raise Malformed(f"a tensor has more than {MOST_SIDES} sides")
    if any(side >= 1 << 63 for side in dims):
        raise Malformed("a tensor has a negative side")
    return _Parts(kind, tuple(dims), [content])


def _array(tag: str, parts: _Parts) -> Any:
    if parts.kind not in DTYPES:
        return Inert(f"MindSpore's type {parts.kind!r}")
    dtype = np.dtype(DTYPES[parts.kind])
    # One number is written with no dims or with the dims 0.
    dims = () if parts.dims == (0,) and parts.length() == dtype.itemsize else parts.dims
    if math.prod(dims) * dtype.itemsize != parts.length():
        raise Malformed(f"{tag} has {parts.length()} bytes for {parts.kind} {dims}")
    contents = parts.contents
    raw = contents[0] if len(contents) == 1 else np.concatenate([np.frombuffer(c, "u1") for c in contents])
    array = np.frombuffer(raw, dtype).reshape(dims)
    return (array.astype(np.uint32) << 16).view(np.float32) if parts.kind == "BFloat16" else array


def _packed(content: memoryview) -> list[int]:
    numbers: list[int] = []
    place = 0
    while place < len(content) and len(numbers) <= MOST_SIDES:
        number, place = varint(content, place)
        numbers.append(number)
    return numbers


def _text(content: memoryview) -> str:
    if len(content) > 10_000:
        raise Malformed(f"a name of {len(content)} letters")
    return shown(bytes(content).decode("utf-8", "backslashreplace"))


def write_mindspore(path: Path, tensors: Mapping[str, Array]) -> None:
    """Write the tensors in their order and dtypes, without a checksum, which MindSpore 1 does not know.

    Raises UserError where the disk refuses.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        for name, array in tensors.items():
            flat = np.asarray(array, order="C").reshape(-1)
            kind = _NAMES[flat.dtype.newbyteorder("<")]
            raw = flat.astype(DTYPES[kind], copy=False).view(np.uint8)
            for start in range(0, max(raw.size, 1), LARGEST_PART):
                part = raw[start : start + LARGEST_PART]
                file.write(_head(name, np.shape(array), kind, part.size))
                file.write(part.data)


def _head(name: str, dims: tuple[int, ...], kind: str, length: int) -> bytes:
    """Everything of a Value before its content."""
    sides = b"".join(b"\x08" + written(side) for side in dims)
    before = sides + field(2, kind.encode()) + head(3, length)
    tag = field(1, name.encode())
    tensor = head(2, len(before) + length)
    return head(1, len(tag) + len(tensor) + len(before) + length) + tag + tensor + before
