"""Files of raw values as PPL.NN's tools/pplnn.py and its program pplnn name, write and read them.

Values are little-endian in C order, without a header; float16 outputs are written as float32.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.whole_file import shown

Arrays = dict[str, np.ndarray]
Shapes = Sequence[tuple[int, ...]]

# What a type is called in the name of a file.
TYPES: dict[str, np.dtype] = {
    "fp64": np.dtype("<f8"),
    "fp32": np.dtype("<f4"),
    "fp16": np.dtype("<f2"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint64": np.dtype("<u8"),
    "uint32": np.dtype("<u4"),
    "uint16": np.dtype("<u2"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
NAMES = {dtype: name for name, dtype in TYPES.items()}
# Sides of an image where a graph takes any.
FREE_SIDE = 256


@dataclass(frozen=True)
class Input:
    """An input of a graph; a side is 0 where it may be any."""

    name: str
    dims: tuple[int, ...]
    dtype: np.dtype


def input_file(number: int, name: str, array: np.ndarray, program: bool = False) -> str:
    """The name for one input. program: as the C++ program writes it, with five digits."""
    dims = "_".join(str(side) for side in array.shape)
    place = f"{number:05d}" if program else str(number)
    return f"pplnn_input_{place}_{_plain(name)}-{dims}-{NAMES[array.dtype.newbyteorder('<')]}.dat"


def output_file(name: str) -> str:
    """The name for one output."""
    return f"pplnn_output-{_plain(name)}.dat"


def _plain(name: str) -> str:
    # Theirs cannot write a value whose name is that of a file in a folder.
    return name.replace("/", "_")


def save_inputs(folder: Path, arrays: Mapping[str, np.ndarray], program: bool = False) -> None:
    """One file for each, in the order of the graph. Raises UserError where the disk refuses."""
    for number, (name, array) in enumerate(arrays.items()):
        _write(folder / input_file(number, name, array, program), [array])


def save_together(folder: Path, arrays: Mapping[str, np.ndarray], program: bool = False) -> None:
    """All inputs in one file."""
    _write(folder / ("pplnn_input.dat" if program else "pplnn_inputs.dat"), list(arrays.values()))


def save_outputs(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """One file for each output."""
    for name, array in arrays.items():
        _write(folder / output_file(name), [_saved(array)])


def _saved(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _write(path: Path, arrays: Sequence[np.ndarray]) -> None:
    from maskrcnn.results.files import write_whole

    little = (each.astype(each.dtype.newbyteorder("<"), copy=False) for each in arrays)
    write_whole(path, b"".join(each.tobytes() for each in little))


def read_inputs(files: Sequence[Path], wanted: Sequence[Input], shapes: Shapes = ()) -> Arrays:
    """`--inputs`: a file for each input, of the graph's type. shapes: of all inputs, none for the graph's.

    Raises UserError for another number of files, and a file of another length.
    """
    _check_number(files, wanted)
    found = {}
    for path, each, dims in zip(files, wanted, _dims(wanted, shapes), strict=True):
        found[each.name] = _array(path, _bytes(path), dims, each.dtype)
    return found


def read_reshaped(files: Sequence[Path], wanted: Sequence[Input]) -> Arrays:
    """`--reshaped-inputs`: as before, with dimensions and type in the name, `NAME-1_3_8_8-fp32.dat`."""
    _check_number(files, wanted)
    found = {}
    for path, each in zip(files, wanted, strict=True):
        dims, dtype = _in_name(path)
        found[each.name] = _array(path, _bytes(path), dims, dtype).astype(each.dtype, copy=False)
    return found


def read_together(path: Path, wanted: Sequence[Input], shapes: Shapes = ()) -> Arrays:
    """`--input`: all inputs in one file."""
    contents, dims = _bytes(path), _dims(wanted, shapes)
    lengths = [math.prod(each) * of.dtype.itemsize for each, of in zip(dims, wanted, strict=True)]
    if sum(lengths) != len(contents):
        raise UserError(
            f"{shown(path)}: has {len(contents)} bytes, and the graph's inputs {sum(lengths)}",
            hint="see --in-shapes",
        )
    ends = list(accumulate(lengths, initial=0))
    return {
        of.name: _array(path, contents[start:end], each, of.dtype)
        for of, each, (start, end) in zip(wanted, dims, pairwise(ends), strict=True)
    }


def read_outputs(folder: Path, like: Mapping[str, np.ndarray]) -> Arrays:
    """What theirs saved, by name; flat where it has another length. like: outputs of the same graph here."""
    found = {}
    for name, array in like.items():
        ours = _saved(array)
        contents = _bytes(folder / output_file(name))
        flat = np.frombuffer(contents[: len(contents) // ours.itemsize * ours.itemsize], ours.dtype)
        found[name] = flat.reshape(ours.shape) if flat.size == ours.size else flat
    return found


def random_inputs(wanted: Sequence[Input], shapes: Shapes = ()) -> Arrays:
    """Without files: -1 to 1, or 0 and 1 for whole numbers, the same at every call.

    A first dimension that may be any is 1, another one 256.
    """
    free = [
        tuple(side or (FREE_SIDE if place else 1) for place, side in enumerate(each.dims)) for each in wanted
    ]
    numbers = np.random.default_rng(0)
    found = {}
    for each, dims in zip(wanted, _dims(wanted, shapes or free), strict=True):
        low, high = (-1, 1) if each.dtype.kind == "f" else (0, 2)
        found[each.name] = numbers.uniform(low, high, dims).astype(each.dtype)
    return found


def parsed_shapes(text: str) -> Shapes:
    """`--in-shapes 1_3_800_1200,2`: (1, 3, 800, 1200) and (2,); nothing between commas is one number."""
    if not text:
        return ()
    try:
        return [tuple(int(side) for side in part.split("_") if part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(
            f"--in-shapes {text}: are no shapes", hint="write them as 1_3_800_1200, several with commas"
        ) from error


def _dims(wanted: Sequence[Input], shapes: Shapes) -> Shapes:
    if not shapes:
        for each in wanted:
            if 0 in each.dims:
                raise UserError(
                    f"input {each.name}: the graph takes any size",
                    hint="say it with --in-shapes 1_3_800_1200",
                )
        return [each.dims for each in wanted]
    if len(shapes) != len(wanted):
        raise UserError(
            f"--in-shapes: has {len(shapes)} shapes, and the graph {len(wanted)} inputs",
            hint="give one for each, with commas",
        )
    return shapes


def _check_number(files: Sequence[Path], wanted: Sequence[Input]) -> None:
    if len(files) != len(wanted):
        names = ", ".join(each.name for each in wanted)
        raise UserError(
            f"{len(files)} input files, and the graph has {len(wanted)} inputs: {names}",
            hint="give one file for each, in this order, with commas",
        )


def _in_name(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """From the right, as the name of an input may have dashes."""
    parts = path.name.partition(".")[0] if path.name.count(".") == 1 else path.name.rpartition(".")[0]
    try:
        _, dims, kind = parts.rsplit("-", 2)
        return tuple(int(side) for side in dims.split("_") if dims), TYPES[kind]
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{shown(path)}: its name does not tell dimensions and type",
            hint=f"name it as NAME-1_3_800_1200-fp32.dat; types are {', '.join(TYPES)}",
        ) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read ({error.strerror})", hint="check the path") from error


def _array(path: Path, contents: bytes, dims: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if len(contents) != math.prod(dims) * dtype.itemsize:
        raise UserError(
            f"{shown(path)}: has {len(contents)} bytes, and {'_'.join(map(str, dims))} of "
            f"{NAMES[dtype]} has {math.prod(dims) * dtype.itemsize}",
            hint="see --in-shapes",
        )
    return np.frombuffer(contents, dtype).reshape(dims)
