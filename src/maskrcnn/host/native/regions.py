"""RoIAlign, NMS, max-pooling and the masks of detections' own classes by the compiled loops.

B images, L levels, R boxes (of all images), C channels, H, W cells of a level, S bins per side.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn.host.native.convolution import CELLS, Map, strides
from maskrcnn.host.native.library import Threads, address, library

BOXES = 8  # that a thread pools at a time
LANES = 16  # float32 values of a register


class _Pool(ctypes.Structure):
    """`struct pool` of native.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("levels", "sizes", "scales", "boxes", "level_of", "image_of")),
        ("out", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("count", "depth", "cell", "side", "samples", "aligned")),
        *((name, ctypes.c_int64) for name in ("most", "block", "half")),
        ("bias", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("relu", "step", "bins")),
    ]


@dataclass(frozen=True)
class Finish:
    """What becomes of a box's bins: every `step`-th along both axes is taken, bias added, and ReLU.

    bias: float32, at least (C,) and the next multiple of 16.
    """

    step: int = 1
    bias: np.ndarray | None = None
    relu: bool = False


def pool_levels(
    levels: Sequence[np.ndarray],
    boxes: np.ndarray,
    image_of: np.ndarray,
    level_of: np.ndarray,
    scales: Sequence[float],
    side: int,
    samples: int,
    aligned: bool,
    threads: Threads,
    finish: Finish = Finish(),
) -> np.ndarray:
    """RoIAlign (He et al. 2017) of each box on its own level and image.

    levels L x (B, H, W, C) float32 or bfloat16 (as uint16), boxes (R, 4) in network pixels, image_of and
    level_of int64 (R,), scales cells per pixel of each level -> (R, S, S, C) of that kind, or as few bins as
    finish takes. samples: points per bin and side, 0 for ceil(box side in cells / S). aligned: the half pixel
    is subtracted; otherwise boxes are at least one cell wide.
    """
    compiled = library()
    assert compiled is not None
    channels = levels[0].shape[3]
    levels = [in_lanes(level) for level in levels]
    depth, cell = levels[0].shape[3], strides(levels[0])[2]
    bins = -(-side // finish.step)
    pooled = np.empty((len(boxes), bins, bins, depth), levels[0].dtype)
    boxes = np.ascontiguousarray(boxes, np.float32)
    sizes = np.array([level.shape[1:3] for level in levels], np.int64)
    places = (ctypes.c_void_p * len(levels))(*(level.ctypes.data for level in levels))
    rates = np.array(scales, np.float32)
    # A bin takes two cells a sample and axis, but never more than there are.
    extent = np.max(boxes[:, 2:] - boxes[:, :2], initial=0) * max(scales)
    points = samples or int(min(np.ceil(extent / side), sizes.max()))
    most = 2 * max(points, 1) + 2 if samples else int(min(2 * points, sizes.max())) + 4
    level_of, image_of = (np.ascontiguousarray(each, np.int64) for each in (level_of, image_of))
    work = _Pool(
        ctypes.addressof(places),
        *(address(each) for each in (sizes, rates, boxes, level_of, image_of, pooled)),
        *(len(boxes), depth, cell, side, samples, aligned, most, BOXES, levels[0].itemsize == 2),
        *(address(finish.bias), finish.relu, finish.step, bins),
    )
    threads.run(compiled.maskrcnn_pool_levels, work, 2 * side * most * 4)
    return pooled[..., :channels]


def in_lanes(cells: np.ndarray) -> np.ndarray:
    """cells (B, H, W, C) with zeros as channels up to a multiple of 16, rows behind each other."""
    missing = -cells.shape[3] % LANES
    if missing:
        cells = np.pad(cells, ((0, 0), (0, 0), (0, 0), (0, missing)))
    image, row, cell = strides(cells)
    if (image, row) != (cells.shape[1] * row, cells.shape[2] * cell):
        cells = np.ascontiguousarray(cells)
    return cells


def greedy(boxes: np.ndarray, groups: np.ndarray, iou: float, keep: int) -> np.ndarray:
    """boxes (N, 4) float32 and groups int64 (N,), best first -> bool (N,), those that stay, at most `keep`.

    A box goes where its IoU with a better one of its group is above iou.
    """
    compiled = library()
    assert compiled is not None
    boxes, groups = np.ascontiguousarray(boxes, np.float32), np.ascontiguousarray(groups, np.int64)
    kept, room = np.empty(len(boxes), np.uint8), np.empty(6 * len(boxes), np.float32)
    count, most = ctypes.c_int64(len(boxes)), ctypes.c_int64(keep)
    places = [ctypes.c_void_p(address(each)) for each in (boxes, groups, room, kept)]
    compiled.maskrcnn_nms(*places[:2], count, ctypes.c_float(iou), most, *places[2:])
    return kept.astype(bool)


def max_pool(cells: np.ndarray, first: int, threads: Threads) -> np.ndarray:
    """cells (B, H, W, C), no value below 0 -> the largest of 3 x 3 at stride 2, (B, h, w, C).

    first: where the first window begins, -1 for a padding on every side and 0 for one right and below only.
    """
    compiled = library()
    assert compiled is not None
    channels = cells.shape[3]
    cells = in_lanes(cells)
    count, height, width, depth = cells.shape
    out = np.empty((count, (height + 1) // 2, (width + 1) // 2, depth), cells.dtype)
    half = cells.itemsize == 2
    taps = np.ascontiguousarray(np.mgrid[:3, :3].reshape(2, -1) + first, np.int32)
    zeros = np.zeros(depth, np.float32)
    work = Map(
        *(address(each) for each in (cells, zeros, None, None, None, out, *taps, None, None)),
        *(count, height, width, *strides(cells), *out.shape[1:3], depth, depth),
        *(0, 9, depth, 2, False, 0, 0, False, CELLS, cells.itemsize, half, half, 0),
    )
    threads.run(compiled.maskrcnn_max_pool, work, 0)
    return out[..., :channels]


def own_class(cells: np.ndarray, weight: np.ndarray, bias: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """cells (R, n, C), weight (K, C), bias (K,), labels int64 (R,) -> logits of the row's class (R, n).

    Of all K classes only the own of each row is computed.
    """
    compiled = library()
    assert compiled is not None
    cells, weight = in_lanes(cells[None])[0], in_lanes(weight[None, None])[0, 0]
    cells = np.ascontiguousarray(cells)
    logits = np.empty(cells.shape[:2], np.float32)
    shape = (ctypes.c_int64(each) for each in cells.shape)
    given = (np.ascontiguousarray(each) for each in (weight, bias, labels.astype(np.int64)))
    arrays = [cells, *given, logits]
    first, *others = (ctypes.c_void_p(address(each)) for each in arrays)
    compiled.maskrcnn_own_class(first, cells.itemsize == 2, *shape, *others)
    return logits


def mean(cells: np.ndarray) -> np.ndarray:
    """cells (R, S, S, C) -> (R, 1, 1, C) of the same kind."""
    compiled = library()
    assert compiled is not None
    count, channels = len(cells), cells.shape[3]
    cells = np.ascontiguousarray(in_lanes(cells))
    means = np.empty((count, 1, 1, cells.shape[3]), cells.dtype)
    size, depth = ctypes.c_int64(cells.shape[1] * cells.shape[2]), ctypes.c_int64(cells.shape[3])
    places = [ctypes.c_void_p(address(each)) for each in (cells, means)]
    compiled.maskrcnn_mean(places[0], cells.itemsize == 2, ctypes.c_int64(count), size, depth, places[1])
    return means[..., :channels]
