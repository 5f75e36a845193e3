"""Outlines of masks along the edges of their pixels: exact, so that filling them gives the mask back.

Coordinates are x, y in pixels; pixel i covers i to i+1. A corner is where an outline turns. On a screen,
where y goes down, outer rings run clockwise, holes the other way: the object is always on the right.
h, w size of a mask's window, n corners of a ring.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# Pixels, and distances between corners, that are looked at together: a few megabytes.
MOST_AT_ONCE = 2**18


@dataclass(frozen=True, eq=False)
class Part:
    """Pixels that hang together by their edges. outer: (n, 2) int32 x, y; holes: the same each.

    Rings do not repeat their first corner. A ring touches itself nowhere and the rings of one mask touch in
    single corners at most, as the geometry standards (OGC simple features, GeoJSON) ask.
    """

    outer: np.ndarray
    holes: tuple[np.ndarray, ...] = ()


def outlines(crop: np.ndarray, x: int, y: int) -> tuple[Part, ...]:
    """Mask bool (h, w) of the window from column x and row y on -> its parts, in image pixels."""
    padded = np.zeros((crop.shape[0] + 2, crop.shape[1] + 2), bool)
    padded[1:-1, 1:-1] = crop
    rows, columns, twice = _turns(padded)
    labels = _labels(padded) if twice.any() else None
    # Two outlines meet in a crossing, where two pixels touch by a corner: two corners, the left one first.
    lower = np.repeat(twice, 1 + twice)
    second = np.flatnonzero(lower)[1::2]
    rows, columns = np.repeat(rows, 1 + twice), np.repeat(columns, 1 + twice)
    if labels is not None:
        left = _left_turns_down(padded, labels, rows[second], columns[second])
        lower[second - 1], lower[second] = left, ~left
    starts = np.flatnonzero(padded[rows[::2] + 1, columns[::2] + 1]) * 2
    rings = _rings(starts.tolist(), np.lexsort((lower, rows, columns)))
    corners = np.stack([columns + x, rows + y], axis=1).astype(np.int32)
    if len(rings) <= 1:
        return tuple(Part(corners[ring]) for ring in rings)
    labels = _labels(padded) if labels is None else labels
    parts: dict[int, list[np.ndarray]] = {}
    for ring in rings:
        part = int(labels[rows[ring[0]] + 1, columns[ring[0]] + 1])
        parts.setdefault(part, []).append(corners[ring])
    # The outer ring of a part begins above all its holes, so it was found before them.
    return tuple(Part(outer, tuple(holes)) for outer, *holes in parts.values())


def area(ring: np.ndarray) -> float:
    """Signed area of a ring (n, 2) in square pixels: positive for an outer ring, negative for a hole."""
    x, y = ring.astype(np.float64).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def joined(parts: Sequence[Part]) -> np.ndarray:
    """One ring (n, 2) around all parts, of which there is at least one, for formats that hold no more.

    Bridges of no width between nearest corners join the rings, so that what it encloses by either rule of
    filling, even-odd or winding, is the mask exactly.
    """
    rings = [ring for part in parts for ring in (part.outer, *part.holes)]
    whole = rings[0]
    for ring in rings[1:]:
        here, there = _nearest(whole, ring)
        detour = np.concatenate([ring[there:], ring[: there + 1]])
        whole = np.concatenate([whole[: here + 1], detour, whole[here:]])
    return whole


def _turns(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows and columns where outlines turn, in reading order, and whether two meet there."""
    width = padded.shape[1] - 1
    step = max(1, MOST_AT_ONCE // width)
    points, crossings = [], []
    for top in range(0, len(padded) - 1, step):
        block = padded[top : top + step + 1]
        across, down = block[:, 1:] ^ block[:, :-1], block[1:] ^ block[:-1]
        crossing = across[1:] & across[:-1] & down[:, 1:]
        here = np.flatnonzero((across[1:] ^ across[:-1]) | crossing)
        points.append(here + top * width)
        crossings.append(crossing.ravel()[here])
    rows, columns = np.divmod(np.concatenate(points), width)
    return rows, columns, np.concatenate(crossings)


def _labels(padded: np.ndarray) -> np.ndarray:
    """The number of the part of each pixel; diagonal neighbours alone do not make one part."""
    return cv2.connectedComponents(padded.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1]


def _left_turns_down(
    padded: np.ndarray, labels: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Whether, in a crossing, the outline that comes from the left turns down there; else it turns up.

    Pixels of two parts stay apart. Those of one part are joined there, which closes a hole: else its outer
    ring would touch itself.
    """
    falling = padded[rows, columns]  # the object is above left and below right, and not the other two
    first = np.where(falling, labels[rows, columns], labels[rows, columns + 1])
    other = np.where(falling, labels[rows + 1, columns + 1], labels[rows + 1, columns])
    return falling == (first == other)


def _rings(starts: list[int], by_column: np.ndarray) -> list[list[int]]:
    """The corners of each ring, by their numbers in reading order: 2k and 2k + 1 bound a horizontal edge.

    starts: left ends of edges that have the object below. by_column: the corners in the order of columns,
    where those at 2k and 2k + 1 bound a vertical edge.
    """
    vertical = np.empty(len(by_column), np.int64)
    vertical[by_column[0::2]], vertical[by_column[1::2]] = by_column[1::2], by_column[0::2]
    across = vertical.tolist()
    seen = bytearray(len(across))
    rings = []
    for start in starts:
        if seen[start]:
            continue
        ring, corner = [], start
        while True:
            seen[corner] = 1
            ring += [corner, corner ^ 1]
            corner = across[corner ^ 1]
            if corner == start:
                break
        rings.append(ring)
    return rings


def _nearest(whole: np.ndarray, ring: np.ndarray) -> tuple[int, int]:
    """Rows of the two corners, one of each, that are nearest to each other."""
    best, found = np.inf, (0, 0)
    step = max(1, MOST_AT_ONCE // len(ring))
    for start in range(0, len(whole), step):
        away = (whole[start : start + step, None] - ring[None]).astype(np.float64)
        squares = np.einsum("ijk,ijk->ij", away, away)
        at = int(squares.argmin())
        if squares.flat[at] < best:
            best, found = squares.flat[at], (start + at // len(ring), at % len(ring))
    return found
