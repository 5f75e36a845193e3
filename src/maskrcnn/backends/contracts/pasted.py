"""From a mask that a graph has laid on its input back to the crop inside its box.

H, W size of the mask, h, w size of its window around the box, M side of the crop.
"""

import math

import cv2
import numpy as np


def cropped(mask: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """mask (H, W) bool, float, or bytes 0..1 or 0..255; box (4,) in its pixels -> float32 (M, M), 0..1.

    Each cell is the mean of the mask over it, so that its edge lies where it was, between pixels as well.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    top, bottom = _window(y1, y2, mask.shape[0])
    left, right = _window(x1, x2, mask.shape[1])
    if top >= bottom or left >= right:
        return np.zeros((side, side), np.float32)
    window = mask[top:bottom, left:right]
    # (h + 1, w + 1): the sum over everything above and left of each corner of a pixel.
    sums = cv2.integral(probabilities(window), sdepth=cv2.CV_64F)
    sums = _at(sums, _edges(y1, y2, side) - top)
    sums = _at(sums.T, _edges(x1, x2, side) - left).T
    cell = (y2 - y1) * (x2 - x1) / side**2
    return (np.diff(np.diff(sums, axis=0), axis=1) / cell).astype(np.float32)


def probabilities(mask: np.ndarray) -> np.ndarray:
    """A mask of any type as float32, 0..1; graphs write bytes as 0 and 1, or as 0 to 255."""
    values = mask.astype(np.float32)
    return values / 255 if mask.dtype == np.uint8 and mask.max(initial=0) > 1 else values


def _window(low: float, high: float, count: int) -> tuple[int, int]:
    return max(math.floor(low), 0), min(math.ceil(high), count)


def _edges(low: float, high: float, side: int) -> np.ndarray:
    """Where the M cells of an axis begin and end (M + 1,)."""
    return low + (high - low) * np.arange(side + 1) / side


def _at(sums: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows of sums (n + 1, m) at places between them; beyond the window nothing is added."""
    places = np.clip(places, 0, len(sums) - 1)
    above = np.minimum(places.astype(np.int64), len(sums) - 2)
    part = (places - above)[:, None]
    return sums[above] * (1 - part) + sums[above + 1] * part
