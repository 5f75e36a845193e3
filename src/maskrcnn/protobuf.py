"""Reads and writes protobuf messages without protobuf and without their schema, for files of any size."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Wire types: a whole number, 8 bytes, bytes with their length before them, 4 bytes.
VARINT, EIGHT_BYTES, LENGTH_GIVEN, FOUR_BYTES = 0, 1, 2, 5


class NoMessage(ValueError):
    """Bytes that are no protobuf message, or not all of one."""


class Field(NamedTuple):
    """One field. value: a whole number, or bytes. start, end: its place in the message, with its number."""

    number: int
    value: int | memoryview
    start: int
    end: int


def mapped(path: Path) -> memoryview:
    """A file as bytes that are read when they are looked at. Raises OSError, and NoMessage if it is empty."""
    with open(path, "rb") as file:
        try:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError as error:
            raise NoMessage("it is empty") from error


def fields(message: memoryview) -> Iterator[Field]:
    """All fields in their order, as views; only what lies between them is read. Raises NoMessage."""
    place = 0
    while place < len(message):
        start = place
        key, place = varint(message, place)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise NoMessage("a field has the number 0")
        value: int | memoryview
        if kind == VARINT:
            value, place = varint(message, place)
        else:
            length, place = _length(message, place, kind)
            if length > len(message) - place:
                raise NoMessage("a field ends after its message")
            value = message[place : place + length]
            place += length
        yield Field(number, value, start, place)


def parts(message: memoryview, number: int) -> Iterator[memoryview]:
    """The values of those fields of a number that hold bytes: messages, texts or packed numbers."""
    return (
        each.value for each in fields(message) if each.number == number and not isinstance(each.value, int)
    )


def varint(message: memoryview, place: int) -> tuple[int, int]:
    """The whole number at a place, and the place after it. Raises NoMessage."""
    number = 0
    for shift in range(0, 64, 7):
        if place >= len(message):
            raise NoMessage("it ends within a number")
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise NoMessage("a number has more than 64 bits")


def written(number: int) -> bytes:
    """A whole number, 0 or more, as `varint` reads it."""
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def head(number: int, length: int) -> bytes:
    """What stands before the bytes of a field."""
    return written(number << 3 | LENGTH_GIVEN) + written(length)


def field(number: int, contents: bytes) -> bytes:
    """A field that holds bytes."""
    return head(number, len(contents)) + contents


def _length(message: memoryview, place: int, kind: int) -> tuple[int, int]:
    if kind == LENGTH_GIVEN:
        return varint(message, place)
    if kind not in (EIGHT_BYTES, FOUR_BYTES):
        raise NoMessage(f"a field has the wire type {kind}")
    return (8 if kind == EIGHT_BYTES else 4), place
