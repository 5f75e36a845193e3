"""Convolutions of channels-last maps by the compiled loops, Winograd's where it saves multiplications.

B images, H, W cells of a map, h, w of the result, C channels in, N out, k, l cells of a kernel's sides.
"""

import ctypes
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskrcnn.host.native.library import Threads, address, library
from maskrcnn.host.native.packing import (
    HALVES,
    PANEL,
    Packed,
    Precision,
    in_bytes,
    in_panels,
    in_points,
)

CELLS = 48  # cells that a thread works on at a time: their values stay in its cache
TILES = 96  # Winograd tiles that it works on at a time: the weights come from memory once for all of them

VALUES: dict[bool, np.dtype[Any]] = {
    False: np.dtype(np.float32),
    True: np.dtype(np.uint16),
}  # by whether they are bfloat16


class Map(ctypes.Structure):
    """`struct conv` of native.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("cells", "zeros", "weights", "bias", "residual", "out")),
        *((name, ctypes.c_void_p) for name in ("tap_y", "tap_x", "rates", "totals")),
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "image", "row", "cell")),
        *((name, ctypes.c_int64) for name in ("out_height", "out_width", "columns", "out_size")),
        *((name, ctypes.c_int64) for name in ("residual_size", "taps", "depth", "stride", "relu")),
        *((name, ctypes.c_int64) for name in ("residual_height", "residual_width", "shift", "block")),
        *((name, ctypes.c_int64) for name in ("value", "half_in", "half_out", "kind")),
    ]


@dataclass(frozen=True)
class Steps:
    """How a kernel goes over a map; padding is of zeros on every side."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1


class Convolution:
    """One convolution with its bias, what is added to it, and ReLU.

    weight: (N, C, k, l) float32, bias (N,). half_in, half_out: whether the maps are of bfloat16 (as uint16).
    precision: of the numbers that are multiplied, unless only a higher one is possible.
    Raises RuntimeError where the loops were not compiled.
    """

    def __init__(
        self,
        weight: np.ndarray,
        bias: np.ndarray,
        steps: Steps = Steps(),
        relu: bool = False,
        half_in: bool = False,
        half_out: bool = False,
        precision: Precision = "fp32",
    ) -> None:
        compiled = library()
        if compiled is None:
            raise RuntimeError("the compiled loops are missing")
        self.outputs, self.depth, *self.kernel = weight.shape
        self.steps, self.relu, self.half_in, self.half_out = steps, relu, half_in, half_out
        self.columns = -(-self.outputs // PANEL) * PANEL
        self.bias = np.zeros(self.columns, np.float32)
        self.bias[: self.outputs] = bias
        self.zeros = np.zeros(max(self.depth, PANEL), np.float32)
        offsets = np.mgrid[: self.kernel[0], : self.kernel[1]].reshape(2, -1) * steps.dilation - steps.padding
        self.taps = np.ascontiguousarray(offsets, np.int32)
        self.winograd = (self.kernel, steps, self.depth % 16) == ([3, 3], Steps(1, 1, 1), 0)
        self.loop = compiled.maskrcnn_winograd if self.winograd else compiled.maskrcnn_direct
        self.packed = self._packed(weight, precision)

    def _packed(self, weight: np.ndarray, precision: Precision) -> Packed:
        if self.winograd:
            # In bfloat16 Winograd's sums lose two bits more, which is what int8 has less.
            return in_points(weight, half=precision == "int8")
        if precision == "int8" and self.taps.shape[1] == 1 and self.depth % 16 == 0:
            return in_bytes(weight)
        return in_panels(weight, half=self.half_in)

    def __call__(
        self,
        cells: np.ndarray,
        threads: Threads,
        residual: np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """cells (B, H, W, C) -> (B, h, w, N), a view of whole panels.

        residual: (B, h, w, N), added before ReLU, or (B, h / 2, w / 2, N), which is doubled to the nearest.
        out: a part of the channels of a larger result, to be written there.
        """
        count, height, width, _ = cells.shape
        out_height, out_width = self.size(height, width)
        if out is None:
            out = np.empty((count, out_height, out_width, self.columns), VALUES[self.half_out])
        packed = self.packed
        # A cell of pairs is stepped over in pairs; Winograd and int8 read single values.
        pairs = 2 if packed.kind == HALVES and not self.winograd else 1
        depth = self.depth if self.winograd else -(-self.depth // packed.together)
        beside = residual.shape[1:3] if residual is not None else (0, 0)
        block = TILES if self.winograd else self._block()
        work = Map(
            *(address(each) for each in (cells, self.zeros, packed.weights, self.bias, residual, out)),
            *(address(each) for each in (*self.taps, packed.rates, packed.totals)),
            *(count, height, width, *(each // pairs for each in strides(cells))),
            *(out_height, out_width, self.columns, strides(out)[2]),
            *(strides(residual)[2] if residual is not None else 0, self.taps.shape[1]),
            *(depth, self.steps.stride, self.relu, *beside),
            *(beside not in ((0, 0), (out_height, out_width)), block),
            *(cells.itemsize * pairs, self.half_in, self.half_out, packed.kind),
        )
        threads.run(self.loop, work, self._room(block))
        return out[..., : self.outputs]

    def alone(self) -> "Convolution":
        """Its products at every cell, without bias and ReLU, on the same weights."""
        same = copy(self)
        same.steps, same.relu, same.bias = replace(self.steps, stride=1), False, np.zeros_like(self.bias)
        return same

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Cells of the result for a map of that many."""
        steps = self.steps
        reach = [steps.dilation * (side - 1) + 1 - 2 * steps.padding for side in self.kernel]
        return (height - reach[0]) // steps.stride + 1, (width - reach[1]) // steps.stride + 1

    def _block(self) -> int:
        # Weights that no cache holds, as those of the first fully connected layer, come from memory as seldom
        # as possible.
        return 512 if self.packed.weights.nbytes > 2**24 else CELLS

    def _room(self, block: int) -> int:
        """float32 values that a thread needs for a block, which is filled up to a whole register tile."""
        rows = block + 16
        if self.winograd:
            return rows * 36 * (self.depth + PANEL)
        return rows * (PANEL + 2 * self.taps.shape[1] + 2 + self.depth // 4)


def strides(cells: np.ndarray) -> tuple[int, int, int]:
    """Values from one image, row and cell to the next."""
    # numpy gives an array of no values steps of 0.
    assert cells.strides[3] == cells.itemsize or not cells.size
    image, row, cell, _ = (stride // cells.itemsize for stride in cells.strides)
    return image, row, cell
