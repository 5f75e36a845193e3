"""Lays the colour and the contour of one mask on an image, smooth between the mask's cells.

M side of a mask, h, w size of its window inside the image; k parts that a cell is cut into.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

Colour = tuple[int, int, int]

INK = (18, 18, 18)
HALO = 0.4  # of the dark rim on both sides of a contour, for backgrounds of its own colour
TINT = 0.4  # how much of its colour a mask takes
STRIP = 1 << 13  # pixels painted at a time: they stay in the cache, and BLAS starts no threads for so few
LARGE = 1 << 16  # pixels of a window from which on looking for its edge first pays
PART = 12  # least pixels along the side of what a cell is then cut into
AROUND = 2  # cells of zeros around a mask, beyond which its spline is zero


def tint(canvas: np.ndarray, roi_mask: np.ndarray, box: np.ndarray, colour: Colour, line: float) -> None:
    """Tint the inside of one mask and trace its edge on canvas, uint8 (H, W, 3), in place.

    roi_mask (M, M), box (4,) in image pixels, line: width of the contour in pixels. Only the pixels of the
    box are touched. Between cells the probability is a quadratic B-spline: linear interpolation would show
    them as facets.
    """
    across = _spline(box[0], box[2], canvas.shape[1], roi_mask.shape[1], margin=2 * line)
    down = _spline(box[1], box[3], canvas.shape[0], roi_mask.shape[0], margin=2 * line)
    if not len(across.weights) or not len(down.weights):
        return
    window = canvas[
        down.first : down.first + len(down.weights), across.first : across.first + len(across.weights)
    ]
    surface = _Surface(down, across, roi_mask @ across.weights.T, roi_mask @ across.slopes.T)
    if window.shape[0] * window.shape[1] >= LARGE and min(across.cell, down.cell) >= PART:
        _tint_large(window, roi_mask, surface, colour, line)
        return
    strip = max(1, STRIP // window.shape[1])
    for start in range(0, len(window), strip):
        rows = slice(start, start + strip)
        _paint(window[rows], surface.distance(rows, slice(None)), colour, line)


def blend(pixels: np.ndarray, colour: Colour, alpha: np.ndarray) -> None:
    """Mix colour into pixels, uint8 (h, w, 3), in place; alpha (h, w) in 0..1."""
    weight = alpha.astype(np.float32, copy=False)
    height, width = weight.shape
    flat = _flat(colour, 1 << (height * width).bit_length())[: height * width].reshape(height, width, 3)
    pixels[:] = cv2.blendLinear(np.ascontiguousarray(pixels), flat, 1 - weight, weight)


@lru_cache(maxsize=16)
def _flat(colour: Colour, count: int) -> np.ndarray:
    """A row of pixels of one colour, uint8 (count, 3); making it anew took a quarter of the drawing time."""
    return np.full((count, 3), colour, np.uint8)


@dataclass(frozen=True)
class _Spline:
    """n pixels of an axis from `first` on: weights (n, M) of the M cells, and their slopes per pixel.

    low: where the first cell begins, in pixels from `first`. cell: side of a cell in pixels, at least 1.
    """

    first: int
    low: float
    weights: np.ndarray
    slopes: np.ndarray
    cell: float


def _spline(low: float, high: float, count: int, cells: int, margin: float) -> _Spline:
    """M cells between low and high, on an axis of count pixels; zero outside them, margin pixels around."""
    first, last = max(0, math.floor(low - margin)), min(count, math.ceil(high + margin))
    cell = max(float(high - low), 1e-3) / cells
    wide = max(cell, 1.0)  # cells smaller than a pixel are averaged
    centres = np.arange(first, max(last, first), dtype=np.float32) + 0.5 - low
    offsets = (centres[:, None] - (np.arange(cells) + 0.5) * cell) / wide
    reached = np.abs(offsets) < 1.5
    offsets = offsets[reached]
    far = np.abs(offsets)
    tail = 1.5 - far
    weights, slopes = np.zeros((2, *reached.shape), np.float32)
    weights[reached] = np.where(far < 0.5, 0.75 - far**2, tail**2 / 2) * (cell / wide)
    slopes[reached] = np.where(far < 0.5, -2 * offsets, -np.sign(offsets) * tail) * (cell / wide**2)
    return _Spline(first, float(low) - first, weights, slopes, wide)


@dataclass(frozen=True)
class _Surface:
    """A mask's probability over its window. values, slopes_x (M, w): already along the rows."""

    down: _Spline
    across: _Spline
    values: np.ndarray
    slopes_x: np.ndarray

    @property
    def least_slope(self) -> float:
        """A plateau near one half would otherwise be all edge."""
        return 0.2 / max(self.across.cell, self.down.cell)

    def distance(self, rows: slice, columns: slice) -> np.ndarray:
        """To the mask's edge in pixels, positive inside, float32 (rows, columns)."""
        weights, slopes = self.down.weights[rows], self.down.slopes[rows]
        values = self.values[:, columns]
        slope = cv2.magnitude(weights @ self.slopes_x[:, columns], slopes @ values)
        return (weights @ values - np.float32(0.5)) / np.maximum(slope, np.float32(self.least_slope))


def _paint(pixels: np.ndarray, distance: np.ndarray, colour: Colour, line: float) -> None:
    """Tint, rim and contour by the distance (h, w) to the mask's edge in pixels, positive inside."""
    near = np.abs(distance)
    rim = np.clip(_reach(line) - near, 0, 1)
    if rim.any():
        blend(pixels, INK, HALO * rim)
    edge = np.clip(line / 2 + 0.5 - near, 0, 1)
    blend(pixels, colour, np.maximum(edge, TINT * np.clip(distance + 0.5, 0, 1)))


def _reach(line: float) -> float:
    """Pixels from the edge beyond which a mask is nothing but tint or nothing at all."""
    return 1.2 * line + 0.5


def _tint_large(
    window: np.ndarray, roi_mask: np.ndarray, surface: _Surface, colour: Colour, line: float
) -> None:
    """The same as strip by strip, but what is far from the edge comes from a table or stays as it is."""
    sides = _sides(roi_mask, surface, _reach(line))
    tops, lefts = _bounds(surface.down, sides.shape[0]), _bounds(surface.across, sides.shape[1])
    table = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    blend(table, colour, np.full((1, 256), TINT, np.float32))
    near: list[tuple[slice, slice]] = []
    pixels = 0
    for row, first, last in _runs(sides):
        side = sides[row, first]
        place = slice(tops[row], tops[row + 1]), slice(lefts[first], lefts[last])
        part = window[place]
        if not part.size:
            continue
        if side == 1:
            cv2.LUT(part, table, dst=part)
            continue
        near.append(place)
        pixels += part.size // 3
        if pixels >= STRIP:
            _paint_places(window, near, surface, colour, line)
            near, pixels = [], 0
    if near:
        _paint_places(window, near, surface, colour, line)


def _paint_places(
    window: np.ndarray, places: list[tuple[slice, slice]], surface: _Surface, colour: Colour, line: float
) -> None:
    """Paint several rectangles of a window as one row of pixels: what NumPy takes for a call is paid once."""
    pixels = np.concatenate([window[place].reshape(-1, 3) for place in places])[None]
    distance = np.concatenate([surface.distance(*place).ravel() for place in places])[None]
    _paint(pixels, distance, colour, line)
    done = 0
    for place in places:
        part = window[place]
        count = part.size // 3
        part[:] = pixels[0, done : done + count].reshape(part.shape)
        done += count


def _sides(roi_mask: np.ndarray, surface: _Surface, reach: float) -> np.ndarray:
    """int8 (rows, columns) of parts of cells: 1 if inside by more than reach, -1 if outside by it, else 0.

    A spline lies between the least and the largest of the 3 x 3 values around, the closer the smaller the
    parts are, and so does its slope between their differences.
    """
    net = np.pad(roi_mask.astype(np.float32), AROUND)
    for _ in range(_halvings(surface.down)):
        net = _halved(net)
    net = net.T
    for _ in range(_halvings(surface.across)):
        net = _halved(net)
    net = np.ascontiguousarray(net.T)
    square = np.ones((3, 3), np.uint8)
    part_x = surface.across.cell / 2 ** _halvings(surface.across)
    part_y = surface.down.cell / 2 ** _halvings(surface.down)
    steps_x, steps_y = np.abs(np.diff(net, axis=1, prepend=0)), np.abs(np.diff(net, axis=0, prepend=0))
    # Their own rounding is far below a thousandth.
    slope = np.hypot(cv2.dilate(steps_x, square) / part_x, cv2.dilate(steps_y, square) / part_y)
    beyond = np.maximum(slope, surface.least_slope) * (1.001 * reach) + 0.001
    inside = cv2.erode(net, square) - 0.5 > beyond
    outside = 0.5 - cv2.dilate(net, square) > beyond
    return inside.astype(np.int8) - outside


def _halvings(spline: _Spline) -> int:
    """How often a cell can be halved before its parts have less than PART pixels."""
    return int(math.log2(spline.cell / PART))


def _halved(net: np.ndarray) -> np.ndarray:
    """Values (n, m) of a quadratic spline -> (2 n, m) of the same by cells half as high (Chaikin 1974)."""
    before, after = np.roll(net, 1, 0), np.roll(net, -1, 0)
    return np.stack([0.75 * net + 0.25 * before, 0.75 * net + 0.25 * after], 1).reshape(-1, net.shape[1])


def _bounds(spline: _Spline, parts: int) -> list[int]:
    """The first pixel of each part and the end of the last; the outermost ones take all that is left."""
    count, cells = spline.weights.shape
    starts = spline.low + (np.linspace(0, cells + 2 * AROUND, parts + 1) - AROUND) * spline.cell
    places = np.clip(np.ceil(starts - 0.5), 0, count).astype(int).tolist()
    return [0, *places[1:-1], count]


def _runs(sides: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """sides (n, m) -> row, first and after the last column of equal ones beside each other, but of -1."""
    starts = np.ones(sides.shape, bool)
    starts[:, 1:] = sides[:, 1:] != sides[:, :-1]
    places = np.flatnonzero(starts)
    ends = np.append(places[1:], sides.size)
    wanted = sides.ravel()[places] != -1
    rows, firsts = np.divmod(places[wanted], sides.shape[1])
    lasts = ends[wanted] - rows * sides.shape[1]
    return zip(rows.tolist(), firsts.tolist(), lasts.tolist(), strict=True)
