"""What Detectron handed down to maskrcnn-benchmark and segmentoly: anchors of inclusive corners, its training
and configs of dotted upper-case keys."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.config import AnchorConfig
from maskrcnn.errors import UserError
from maskrcnn.weights.own_config import Settings, at

Corners = tuple[float, float, float, float]
ConfigKeys = tuple[tuple[str, str, Callable[[Any], Any]], ...]
"""Their key, our setting, and how the value is read."""

RATIOS = (0.5, 1.0, 2.0)

TRAINING: Settings = {
    "rpn.pre_nms_training": 2000,
    "rpn.post_nms_training": 2000,
    "rpn.smooth_l1_beta": 1 / 9,
    "box_head.smooth_l1_beta": 1.0,
}


def legacy_cell(sizes: Sequence[float], ratios: Sequence[float], stride: int) -> tuple[Corners, ...]:
    """Detectron's anchors x1, y1, x2, y2 of one cell, ratio by ratio; the last pixel belongs to them."""
    corners = []
    for ratio in ratios:
        width = float(round((stride * stride / ratio) ** 0.5))
        height = float(round(width * ratio))
        for size in sizes:
            half_width, half_height = (width * size / stride - 1) / 2, (height * size / stride - 1) / 2
            centre = (stride - 1) / 2
            corners.append(
                (centre - half_width, centre - half_height, centre + half_width, centre + half_height)
            )
    return tuple(corners)


def anchors_of_cells(cells: Sequence[NDArray[Any]], strides: Sequence[int]) -> AnchorConfig:
    """The anchors that a checkpoint saved, a (A, 4) array a level: as sizes and ratios where those make them,
    else as they are, with the sides of squares of their area as sizes.
    """
    sizes = tuple(_sizes(cell) for cell in cells)
    rebuilt = (legacy_cell(level, RATIOS, stride) for level, stride in zip(sizes, strides, strict=True))
    if all(
        np.shape(cell) == np.shape(made) and np.allclose(cell, made, atol=1e-3)
        for cell, made in zip(cells, rebuilt, strict=True)
    ):
        return AnchorConfig(sizes, RATIOS)
    return explicit_anchors(cells)


def explicit_anchors(cells: Sequence[NDArray[Any]]) -> AnchorConfig:
    """Anchors as they are, (A, 4) a level, with the sides of squares of their area as sizes."""
    levels = [np.asarray(cell, np.float64) for cell in cells]
    sides = [np.sqrt((cell[:, 2:] - cell[:, :2] + 1).prod(1)) for cell in levels]
    return AnchorConfig(
        sizes=tuple(tuple(level.round(3).tolist()) for level in sides),
        ratios=(1.0,),
        cells=tuple(tuple(four(corners) for corners in cell.tolist()) for cell in levels),
    )


def _sizes(cell: NDArray[Any]) -> tuple[float, ...]:
    """Widths of the anchors of ratio 1, the middle third."""
    third = len(cell) // 3
    square = np.asarray(cell, np.float64)[third : 2 * third]
    return tuple((square[:, 2] - square[:, 0] + 1).round(3).tolist())


def saved_cells(tensors: Mapping[str, NDArray[Any]], pattern: str, levels: int) -> list[NDArray[Any]]:
    """The anchors under `pattern`, which has {} for the level; [] unless every level has some of four."""
    found = [tensors.get(pattern.format(level)) for level in range(levels)]
    return [
        cell for cell in found if cell is not None and cell.ndim == 2 and cell.shape[1] == 4 and len(cell)
    ]


def settings_of(config: Mapping[str, Any], keys: ConfigKeys, place: str) -> Settings:
    """What a config says of the keys it has. Raises UserError for a value that cannot be read."""
    settings = {}
    for theirs, ours, read in keys:
        value = at(config, theirs)
        if value is None:
            continue
        try:
            settings[ours] = read(value)
        except (TypeError, ValueError, LookupError, ArithmeticError, SyntaxError, RecursionError) as error:
            raise UserError(
                f"{place}: {theirs} is {value!r:.80}", hint="correct it, or leave the config out"
            ) from error
    return settings


def three(values: Any) -> tuple[float, float, float]:
    """Three numbers, in however many brackets."""
    first, second, third = (float(number) for number in np.ravel(values))
    return first, second, third


def four(values: Any) -> tuple[float, float, float, float]:
    """Four numbers."""
    first, second, third, fourth = map(float, values)
    return first, second, third, fourth


def floats(values: Any) -> tuple[float, ...]:
    """Numbers, at least one."""
    numbers = tuple(map(float, values))
    if not numbers:
        raise ValueError("no numbers")
    return numbers
