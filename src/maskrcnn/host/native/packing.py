"""Weights as the compiled convolutions read them: in panels of 64 outputs, in float32, bfloat16 or int8.

C channels in, N out, k, l cells of a kernel's sides.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Precision = Literal["fp32", "bf16", "int8"]
PANEL = 64  # outputs whose weights lie together in memory
FLOATS, HALVES, BYTES = range(3)  # kinds of weights, as native.c counts them

# Winograd's F(4 x 4, 3 x 3) on these points and 0 and infinity: rounding is a quarter of what 1 and 2 leave.
POINTS = (math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))


@dataclass(frozen=True)
class Packed:
    """Weights of `kind`, of which `together` lie behind each other in an output.

    rates, totals: of int8 weights, what 1 stands for in each output and their sum.
    """

    weights: np.ndarray
    kind: int
    together: int
    rates: np.ndarray | None = None
    totals: np.ndarray | None = None


def in_panels(weight: np.ndarray, half: bool) -> Packed:
    """weight (N, C, k, l) -> (panels, k * l, C, 64), zeros behind the last output.

    half: bfloat16, (panels, k * l, C / 2, 64, 2).
    """
    count, depth = weight.shape[:2]
    lines = _filled(weight.reshape(count, depth, -1), 2 if half else 1)
    panels = lines.reshape(-1, PANEL, *lines.shape[1:]).transpose(0, 3, 2, 1)
    return _paired(panels) if half else Packed(np.ascontiguousarray(panels), FLOATS, 1)


def in_bytes(weight: np.ndarray) -> Packed:
    """weight (N, C, 1, 1), C a multiple of 4 -> int8 (panels, C / 4, 64, 4), a rate for each output."""
    lines = _filled(weight.reshape(*weight.shape[:2], 1), 1)[:, :, 0]
    most = np.abs(lines).max(1)
    rates = np.where(most > 0, most, 1).astype(np.float32) / np.float32(127)
    whole = np.rint(lines / rates[:, None]).astype(np.int8)
    quads = whole.reshape(-1, PANEL, lines.shape[1] // 4, 4).swapaxes(1, 2)
    return Packed(np.ascontiguousarray(quads), BYTES, 4, rates, whole.sum(1, dtype=np.int32))


def in_points(weight: np.ndarray, half: bool) -> Packed:
    """weight (N, C, 3, 3) -> its values at the 6 x 6 points, (36, panels, C, 64).

    half: bfloat16, (36, panels, C / 2, 64, 2).
    """
    rows = [np.array([1, 0, 0]) / np.prod(POINTS)]
    for point in POINTS:
        others = [point - other for other in (0.0, *POINTS) if other != point]
        rows.append(np.array([1, point, point * point]) / np.prod(others))
    transform = np.stack([*rows, np.array([0, 0, 1])])
    values = transform @ (weight.astype(np.float64).reshape(-1, 3, 3) @ transform.T)
    lines = _filled(values.astype(np.float32).reshape(*weight.shape[:2], 36), 1)
    panels = lines.reshape(-1, PANEL, *lines.shape[1:]).transpose(3, 0, 2, 1)
    return _paired(panels) if half else Packed(np.ascontiguousarray(panels), FLOATS, 1)


def to_half(values: np.ndarray) -> np.ndarray:
    """float32 -> the nearest bfloat16, as uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)


def to_float(halves: np.ndarray) -> np.ndarray:
    """bfloat16 as uint16 -> float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _filled(lines: np.ndarray, multiple: int) -> np.ndarray:
    """lines (N, C, n) with zeros up to whole panels and a multiple of channels."""
    count, depth = lines.shape[:2]
    return np.pad(lines, ((0, -count % PANEL), (0, -depth % multiple), (0, 0)))


def _paired(panels: np.ndarray) -> Packed:
    """panels (a, b, C, 64) -> bfloat16 (a, b, C / 2, 64, 2)."""
    halves = to_half(panels).reshape(*panels.shape[:2], -1, 2, PANEL)
    return Packed(np.ascontiguousarray(halves.swapaxes(3, 4)), HALVES, 2)
