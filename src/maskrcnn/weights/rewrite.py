"""Rename and reshape tensors by a table whose rows are used or refused.

A pattern is a dotted name with captures: `{s}` (one letter) is a whole number, the words of CAPTURES stand
for what they list. On our side a number may be shifted: `layer{s}` -> `res{s+1}`. A source may spell the
listed words its own way, in the same order: `conv1_{parameter:w|b}` -> `conv1.{parameter}`.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.errors import UserError

Array = NDArray[Any]

CAPTURES = {
    "parameter": "weight|bias",
    "statistic": "weight|bias|running_mean|running_var|num_batches_tracked",
    "layer": "shortcut|conv1|conv2|conv3",
    "any": ".+",
}


@dataclass(frozen=True)
class Op:
    """What happens to a tensor on the way; inverse is None where values are lost."""

    name: str
    apply: Callable[[Array], Array]
    inverse: Callable[[Array], Array] | None = None


def _same(array: Array) -> Array:
    return array


def _first_to_last(array: Array) -> Array:
    return np.concatenate([array[1:], array[:1]])


def _last_to_first(array: Array) -> Array:
    return np.concatenate([array[-1:], array[:-1]])


def _without_rows(count: int) -> Callable[[Array], Array]:
    # A class-agnostic layer has just these rows and no background among them.
    return lambda array: array if len(array) == count else array[count:]


def _with_zero_rows(count: int) -> Callable[[Array], Array]:
    return lambda array: np.concatenate([np.zeros((count, *array.shape[1:]), array.dtype), array])


SAME = Op("same", _same, _same)
BACKGROUND_TO_LAST = Op("background_to_last", _first_to_last, _last_to_first)
DROP_BACKGROUND_BOX = Op("drop_background_box", _without_rows(4), _with_zero_rows(4))
DROP_BACKGROUND_MASK = Op("drop_background_mask", _without_rows(1), _with_zero_rows(1))
TRANSPOSED = Op("transposed", np.transpose, np.transpose)
DROP = Op("drop", _same)
# A parameter that two modules share and that their framework therefore saves under both names.
REPEATED = Op("repeated", _same, _same)


def then(first: Op, second: Op) -> Op:
    """Both in turn; the inverse undoes the second and then the first."""
    undo_first, undo_second = first.inverse, second.inverse
    back = None if undo_first is None or undo_second is None else lambda a: undo_first(undo_second(a))
    return Op(f"{first.name}, {second.name}", lambda array: second.apply(first.apply(array)), back)


@dataclass(frozen=True)
class Row:
    """theirs, ours: patterns with the same captures; ours is "" where DROP leaves the tensor out."""

    theirs: str
    ours: str
    op: Op = SAME


Table = tuple[Row, ...]


@dataclass(frozen=True)
class Rewritten:
    """tensors: by our names; origins: our name -> theirs; used: how many tensors each used row claimed."""

    tensors: dict[str, Array]
    origins: dict[str, str]
    used: tuple[tuple[Row, int], ...]


def rewrite(tensors: Mapping[str, Array], table: Table, place: str) -> Rewritten:
    """Every tensor under our name. Raises UserError when no row claims one, or two get the same name."""
    ours: dict[str, Array] = {}
    origins: dict[str, str] = {}
    ops: dict[str, Op] = {}
    counts = dict.fromkeys(table, 0)
    unclaimed = []
    for theirs, array in tensors.items():
        claim = _claim(theirs, table)
        if claim is None:
            unclaimed.append(theirs)
            continue
        row, name = claim
        counts[row] += 1
        if not name:
            continue
        moved = _applied(row.op, array, f"{place}: {theirs}")
        if name in ours:
            repeats = REPEATED in (row.op, ops[name])
            _refuse_second((theirs, moved), (origins[name], ours[name]), repeats, place)
            continue
        ours[name], origins[name], ops[name] = moved, theirs, row.op
    if unclaimed:
        raise UserError(
            f"{place}: {listing(unclaimed)} not part of a Mask R-CNN that this version knows",
            hint="convert a plain Mask R-CNN: no cascade, deformable convolution, keypoint or semantic head",
        )
    return Rewritten(ours, origins, tuple((row, count) for row, count in counts.items() if count))


def _applied(op: Op, array: Array, tensor: str) -> Array:
    try:
        return op.apply(array)
    except (IndexError, TypeError, ValueError) as error:  # it has too few sides
        raise UserError(
            f"{tensor} has {array.ndim} sides and cannot be put into our order ({op.name})",
            hint="is the file complete?",
        ) from error


def _refuse_second(second: tuple[str, Array], first: tuple[str, Array], repeats: bool, place: str) -> None:
    """A parameter may come twice only where its framework saves it twice, and then with the same values."""
    if not repeats:
        raise UserError(
            f"{place}: {second[0]} and {first[0]} are the same parameter",
            hint="remove one of them; a checkpoint has one spelling of each name",
        )
    if not np.array_equal(second[1], first[1]):
        raise UserError(
            f"{place}: {second[0]} is not the same as {first[0]}",
            hint="box and mask head have to share their last stage, as in the published configs",
        )


def rewrite_back(tensors: Mapping[str, Array], table: Table) -> dict[str, Array]:
    """From our names to theirs; the first row that fits is taken, rows that were dropped are zero.

    A parameter that the source saves under two names is there under both.
    """
    repeats = tuple(row for row in table if row.op is REPEATED)
    theirs = {}
    for name, array in tensors.items():
        row, original = _claim_back(name, table)
        assert row.op.inverse is not None, f"{row} has no way back"
        theirs[original] = row.op.inverse(array)
        with suppress(LookupError):
            theirs[_claim_back(name, repeats)[1]] = array
    return theirs


def their_name(name: str, table: Table) -> str:
    """What a parameter of ours is called in a table's source, by the first row that fits."""
    try:
        return _claim_back(name, table)[1]
    except LookupError:
        return name


def listing(names: list[str], shown: int = 4) -> str:
    """`a is`, `a, b are` or `a, b, c, d and 7 more are`, for an error."""
    more = len(names) - shown
    text = ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
    return f"{text} {'is' if len(names) == 1 else 'are'}"


def _claim(theirs: str, table: Table) -> tuple[Row, str] | None:
    for row in table:
        values = _matched(row.theirs, theirs)
        if values is not None:
            return row, _filled(row.ours, values)
    return None


def _claim_back(ours: str, table: Table) -> tuple[Row, str]:
    for row in table:
        values = _matched(row.ours, ours) if row.ours else None
        if values is not None:
            shifted = {key: _shifted(text, -_shift(row.ours, key)) for key, text in values.items()}
            return row, _filled(row.theirs, shifted)
    raise LookupError(ours)


_CAPTURE = re.compile(r"\{(\w+?)([+-]\d+)?(?::([\w|]+))?\}")


def _matched(pattern: str, name: str) -> dict[str, str] | None:
    """What each capture of the pattern stands for in the name, listed words as CAPTURES has them."""
    match = _regex(pattern).fullmatch(name)
    if match is None:
        return None
    values = match.groupdict()
    for capture in _CAPTURE.finditer(pattern):
        if capture[3]:
            place = capture[3].split("|").index(values[capture[1]])
            values[capture[1]] = CAPTURES[capture[1]].split("|")[place]
    return values


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    parts, position = [], 0
    for capture in _CAPTURE.finditer(pattern):
        name = capture[1]
        # At most three digits: no network has a thousand blocks, and a name may be anything.
        kind = capture[3] or CAPTURES.get(name, r"0|[1-9][0-9]{0,2}")
        parts += [re.escape(pattern[position : capture.start()]), f"(?P<{name}>{kind})"]
        position = capture.end()
    return re.compile("".join(parts) + re.escape(pattern[position:]))


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    return _CAPTURE.sub(lambda capture: _spelled(capture, values[capture[1]]), pattern)


def _spelled(capture: re.Match[str], text: str) -> str:
    if capture[3]:
        return capture[3].split("|")[CAPTURES[capture[1]].split("|").index(text)]
    return _shifted(text, int(capture[2] or 0))


def _shifted(text: str, shift: int) -> str:
    return str(int(text) + shift) if shift else text


def _shift(pattern: str, name: str) -> int:
    return next(int(capture[2] or 0) for capture in _CAPTURE.finditer(pattern) if capture[1] == name)
