"""Read and write tensorrtx's `.wts`: one line of text a tensor, every number as 8 hexadecimal digits.

The first line is the number of tensors; each further one is `NAME COUNT  HEX HEX ...`, big-endian float32 in
C order. The file has no shapes: a layer's bias tells its outputs, its name the side of its kernel.
"""

import binascii
import mmap
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.weights.unpickle import Malformed
from maskrcnn.whole_file import shown, whole_file

Array = NDArray[Any]

CHUNK = 1 << 18
"""Values decoded or encoded at a time, so that the text of a chunk (2.4 MB) stays in the cache."""

MOST_TENSORS = 100_000
MOST_BLANKS = 80

FIRST_LINE = re.compile(rb"[0-9]{1,9}[ \t]*\r?\n")
_HEAD = re.compile(rb"[ \t]*([^ \t\r\n]+)[ \t]+([0-9]{1,18})(?=[ \t\r]|$)[ \t]*")
_LONGEST_HEAD = 1024

# Side of a square kernel, by the end of a layer's name as detectron2 has it; the first that fits.
_SIDES = (
    (r"stem\.conv1", 7),
    (r"res\d\.\d+\.(?:shortcut|conv3)", 1),
    (r"res\d\.\d+\.conv2", 3),
    (r"fpn_lateral\d", 1),
    (r"fpn_output\d", 3),
    (r"rpn_head\.conv(?:\.conv\d+)?", 3),
    (r"rpn_head\.(?:objectness_logits|anchor_deltas)", 1),
    (r"(?:box_head\.conv|mask_head\.mask_fcn)\d+", 3),
    (r"mask_head\.predictor", 1),
)
_FIRST_OF_BLOCK = re.compile(r"(res\d\.\d+)\.conv1$")


def read_wts(content: mmap.mmap) -> dict[str, Array]:
    """Every tensor of the file, float32; in its shape where the name is one of detectron2, else flat.

    Memory: the tensors, and a few MB. Raises Malformed.
    """
    first_line = FIRST_LINE.match(content)
    if first_line is None or int(first_line[0]) > MOST_TENSORS:
        raise Malformed("its first line is no number of tensors")
    start, claimed = first_line.end(), int(first_line[0])
    flat: dict[str, Array] = {}
    for number, (begin, end) in enumerate(_lines(content, start), start=2):
        if len(flat) == claimed:
            raise Malformed(f"line {number} is one more than the {claimed} tensors of its first line")
        name, values = _tensor(content, begin, end, number)
        if name in flat:
            raise Malformed(f"line {number} has {name} a second time")
        flat[name] = values
    if len(flat) != claimed:
        raise Malformed(f"it has {len(flat)} tensors where its first line says {claimed}")
    return _shaped(flat)


def _lines(content: mmap.mmap, start: int) -> Iterator[tuple[int, int]]:
    """Where each line begins and ends; a few blank ones may stand at the end."""
    while content[start : start + MOST_BLANKS].strip():
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        yield start, end
        start = end + 1
    if len(content) - start > MOST_BLANKS:
        raise Malformed("it has blank lines between tensors")


def _tensor(content: mmap.mmap, begin: int, end: int, number: int) -> tuple[str, Array]:
    head = _HEAD.match(content[begin : min(end, begin + _LONGEST_HEAD)])
    if head is None:
        raise Malformed(f"line {number} does not begin with a name and a count")
    name = shown(head[1].decode("utf-8", "backslashreplace"))
    count, first = int(head[2]), begin + head.end()
    while end > first and content[end - 1] in b" \t\r":
        end -= 1
    # One separator and 8 digits a value; the separator of the first one belongs to the head.
    if 9 * count > end - first + 1:
        raise Malformed(f"line {number}: {name} says {count} values and has {end - first} letters for them")
    if count and 9 * count != end - first + 1:
        return name, _loosely_spaced(content, first, end, count, f"line {number}: {name}")
    if not count and end > first:
        raise Malformed(f"line {number}: {name} says no values and has some")
    return name, _evenly_spaced(content, first - 1, count, f"line {number}: {name}")


def _evenly_spaced(content: mmap.mmap, start: int, count: int, place: str) -> Array:
    """Values of one separator and 8 digits each, as every known writer spaces them."""
    values = np.empty(count, np.float32)
    for first in range(0, count, CHUNK):
        size = min(CHUNK, count - first)
        text = np.frombuffer(content, np.uint8, 9 * size, start + 9 * first).reshape(size, 9)
        if not np.isin(text[:, 0], (32, 9)).all():
            raise Malformed(f"{place} has values that are not 8 digits")
        values[first : first + size] = _decoded(text[:, 1:].tobytes(), place)
    return values


def _loosely_spaced(content: mmap.mmap, start: int, end: int, count: int, place: str) -> Array:
    """Values with any white space between them."""
    values = np.empty(count, np.float32)
    found = 0
    while start < end:
        stop = min(start + 9 * CHUNK, end)
        while stop < end and content[stop] not in b" \t\r":
            stop += 1
        words = content[start:stop].split()
        if any(len(word) != 8 for word in words):
            raise Malformed(f"{place} has values that are not 8 digits")
        if found + len(words) > count:
            raise Malformed(f"{place} says {count} values and has more")
        values[found : found + len(words)] = _decoded(b"".join(words), place)
        found, start = found + len(words), stop
    if found != count:
        raise Malformed(f"{place} says {count} values and has {found}")
    return values


def _decoded(digits: bytes, place: str) -> Array:
    try:
        return np.frombuffer(binascii.unhexlify(digits), ">f4")
    except binascii.Error as error:
        raise Malformed(f"{place} has a letter that is no hexadecimal digit") from error


def _shaped(flat: dict[str, Array]) -> dict[str, Array]:
    return {name: values.reshape(_shape(name, flat)) for name, values in flat.items()}


def _shape(name: str, flat: Mapping[str, Array]) -> tuple[int, ...]:
    """Shape of a weight by its name and its bias; what does not divide stays flat, for the checks to name."""
    layer = name.removesuffix(".weight")
    count = flat[name].size
    outputs = flat[f"{layer}.bias"].size if layer != name and f"{layer}.bias" in flat else 0
    if not outputs:
        return (count,)
    if layer.endswith("mask_head.deconv"):
        return (count // (4 * outputs), outputs, 2, 2) if count % (4 * outputs) == 0 else (count,)
    side = _side(layer, flat)
    if count % (outputs * (side or 1) ** 2):
        return (count,)
    return (outputs, count // (outputs * side**2), side, side) if side else (outputs, count // outputs)


def _side(layer: str, flat: Mapping[str, Array]) -> int:
    """0 for a fully connected layer."""
    block = _FIRST_OF_BLOCK.search(layer)
    if block is not None:  # of three convolutions the first is 1x1, of two it is 3x3
        return 1 if f"{layer.removesuffix('conv1')}conv3.weight" in flat else 3
    return next((side for pattern, side in _SIDES if re.search(rf"(?:^|\.){pattern}$", layer)), 0)


def write_wts(path: Path, tensors: Mapping[str, Array]) -> None:
    """Write the tensors in their order, as float32 whatever they are.

    Raises UserError where the disk refuses.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(f"{len(tensors)}\n".encode())
        for name, array in tensors.items():
            assert name and not re.search(r"\s", name), name
            values = np.asarray(array, order="C").reshape(-1)
            file.write(f"{name} {values.size} ".encode())
            for first in range(0, values.size, CHUNK):
                chunk = values[first : first + CHUNK].astype(">f4")
                file.write(b" " + binascii.hexlify(chunk.tobytes(), " ", 4))
            file.write(b"\n")
