"""Write tensors into the containers of other tools, one after the other, with neither torch nor pickle.

What a file asks its reader to call is written as a name: torch need not be there to be named.
"""

import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.whole_file import whole_file

Array = NDArray[Any]

ALIGNMENT = 64
"""torch.save begins every tensor at a multiple of it, so that a mapped file can be used as it is."""

ROOT = "archive"
"""Folder of every member; torch.save calls it so when it does not know the file's name."""

_STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage"} | {
    "int64": "LongStorage",
    "int32": "IntStorage",
}


@dataclass(frozen=True)
class Name:
    """A function or class that whoever loads the pickle looks up."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """What the loading side gets by calling a Name; state is then given to its __setstate__."""

    function: Name
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True)
class Outside:
    """A value that stands outside the pickle, by a key that its reader understands."""

    key: tuple[Any, ...]


def write_torch(path: Path, content: Mapping[str, Any]) -> None:
    """A file as torch.save writes it: arrays, however deep in dicts, become tensors.

    torch.load(weights_only=True) reads it. Memory: one tensor. Raises UserError where the disk refuses.
    """
    arrays: list[Array] = []
    pickled = BytesIO()
    write_pickle(pickled.write, _with_arrays(content, lambda array: _tensor(array, arrays)), protocol=2)
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _add(archive, f"{ROOT}/data.pkl", pickled.getvalue())
        _add(archive, f"{ROOT}/byteorder", b"little")
        for number, array in enumerate(arrays):
            _add(archive, f"{ROOT}/data/{number}", _bytes(array))
        _add(archive, f"{ROOT}/version", b"3\n")


def write_numpy_pickle(path: Path, content: Mapping[str, Any]) -> None:
    """A pickle of dicts that hold numpy arrays, for every Python 3 and numpy.

    Memory: one tensor. Raises UserError where the disk refuses.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        # 3 is the first protocol with bytes; numpy writes the same names into it.
        write_pickle(file.write, _with_arrays(content, _ndarray), protocol=3)


def _with_arrays(value: Any, stored: Callable[[Array], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_arrays(item, stored) for key, item in value.items()}
    return stored(value) if isinstance(value, np.ndarray) else value


def _tensor(array: Array, arrays: list[Array]) -> Call:
    """A tensor whose values are the next member of the archive."""
    arrays.append(array)
    storage = Name("torch", _STORAGES[array.dtype.name])
    strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
    key = Outside(("storage", storage, str(len(arrays) - 1), "cpu", array.size))
    hooks = Call(Name("collections", "OrderedDict"), ())
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), (key, 0, array.shape, strides, False, hooks))


def _add(archive: zipfile.ZipFile, name: str, content: Any) -> None:
    member = zipfile.ZipInfo(name)  # dated 1980: the same tensors make the same file
    assert archive.fp is not None
    # After 30 bytes and the name comes an extra field, which has a header of 4 bytes itself.
    begin = archive.fp.tell() + 30 + len(name.encode()) + 4
    padding = -begin % ALIGNMENT
    member.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    archive.writestr(member, content)


def _ndarray(array: Array) -> Call:
    # numpy.core is what every numpy understands; numpy 2 writes numpy._core, which 1.25 does not.
    empty = Call(Name("numpy.core.multiarray", "_reconstruct"), (Name("numpy", "ndarray"), (0,), b"b"))
    code = f"{array.dtype.kind}{array.dtype.itemsize}"
    dtype = Call(Name("numpy", "dtype"), (code, False, True), (3, "<", None, None, None, -1, -1, 0))
    return Call(empty.function, empty.arguments, (1, array.shape, dtype, False, array))


def _bytes(array: Array) -> memoryview:
    """The values in C order, little-endian; of a contiguous array without a copy."""
    little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return little.reshape(-1).view(np.uint8).data


def write_pickle(write: Callable[[Any], Any], value: Any, protocol: int) -> None:
    """One pickle of dicts, tuples, plain values, Names, Calls and Outsides; an array is its bytes."""
    write(b"\x80" + bytes([protocol]))
    _write(write, value)
    write(b".")


def _write(write: Callable[[Any], Any], value: Any) -> None:
    match value:
        case None | True | False:
            write({None: b"N", True: b"\x88", False: b"\x89"}[value])
        case int():
            _write_int(write, value)
        case float():
            write(b"G" + struct.pack(">d", value))
        case str():
            text = value.encode()
            write(b"X" + struct.pack("<I", len(text)) + text)
        case bytes() | np.ndarray():
            raw = value if isinstance(value, bytes) else _bytes(value)
            write(b"B" + struct.pack("<I", len(raw)))
            write(raw)
        case tuple():
            _write_all(write, b"(", value, b"t")
        case dict():
            _write_all(write, b"}(", [part for pair in value.items() for part in pair], b"u")
        case Name():
            write(f"c{value.module}\n{value.name}\n".encode())
        case Outside():
            _write_all(write, b"", [value.key], b"Q")
        case Call():
            _write_all(write, b"", [value.function, value.arguments], b"R")
            if value.state is not None:
                _write_all(write, b"", [value.state], b"b")
        case _:
            raise TypeError(f"{type(value)} has no place in a checkpoint")


def _write_all(write: Callable[[Any], Any], before: bytes, values: Any, after: bytes) -> None:
    write(before)
    for value in values:
        _write(write, value)
    write(after)


def _write_int(write: Callable[[Any], Any], value: int) -> None:
    if -(1 << 31) <= value < 1 << 31:
        write(b"J" + struct.pack("<i", value))
        return
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    write(b"\x8a" + bytes([len(raw)]) + raw)
