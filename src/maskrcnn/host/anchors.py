"""Anchor boxes of one cell (Ren et al. 2015), as each public implementation rounds and orders them.

A anchors per cell.
"""

from collections.abc import Sequence

import numpy as np

from maskrcnn.config import AnchorConfig, Conventions


def anchors_of_cells(
    config: AnchorConfig, strides: Sequence[int], conventions: Conventions
) -> list[np.ndarray]:
    """The anchors around the cell at (0, 0) of each level, (A, 4) float32 in network pixels."""
    if config.cells:
        return [np.array(cell, np.float32) for cell in config.cells]
    return [
        _cell(sizes, config.ratios, stride, conventions)
        for sizes, stride in zip(config.sizes, strides, strict=True)
    ]


def _cell(
    sizes: Sequence[float], ratios: Sequence[float], stride: int, conventions: Conventions
) -> np.ndarray:
    if conventions.anchor_order == "size_first":
        pairs = [(size, ratio) for size in sizes for ratio in ratios]
    else:
        pairs = [(size, ratio) for ratio in ratios for size in sizes]
    if conventions.anchor_cell == "legacy":
        return np.array([_legacy_anchor(size, ratio, stride) for size, ratio in pairs], np.float32)
    side, ratio = np.array(pairs, np.float64).T
    half = np.stack([side / np.sqrt(ratio), side * np.sqrt(ratio)], 1) / 2
    cell = np.concatenate([-half, half], 1).astype(np.float32)
    return cell.round() if conventions.anchor_cell == "rounded" else cell


def _legacy_anchor(size: float, ratio: float, stride: int) -> list[float]:
    """Detectron: a stride-sized box of inclusive corners, its sides rounded for the ratio and then scaled."""
    width = float(round((stride * stride / ratio) ** 0.5))
    height = float(round(width * ratio))
    centre, scale = (stride - 1) / 2, size / stride
    half_width, half_height = (width * scale - 1) / 2, (height * scale - 1) / 2
    return [centre - half_width, centre - half_height, centre + half_width, centre + half_height]
