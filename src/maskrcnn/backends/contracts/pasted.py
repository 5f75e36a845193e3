"""From a mask that a graph has laid on its input back to the crop inside its box.

H, W size of the mask, h, w size of its window around the box, M side of the crop.
"""

import math

import cv2
import numpy as np

# Weight of the differences between cells against those of pixels: enough for cells that no pixel shows, and
# so little that a mask of float32 comes back within 1e-4 where all are shown.
EVENNESS = 1e-6


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


def unpasted(mask: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """mask (H, W), probabilities that torchvision pasted; box (4,) in its pixels -> float32 (M, M), 0..1.

    Pasting is linear along each axis, so the crop is its least squares solution: laid on the same pixels
    again it is the same mask. Cells that no pixel shows lie evenly between those that some do.
    """
    x1, y1, x2, y2 = np.asarray(box, np.float32)
    left, across = _shares(x1, x2, mask.shape[1], side)
    top, down = _shares(y1, y2, mask.shape[0], side)
    window = mask[top : top + len(down), left : left + len(across)].astype(np.float64)
    if not window.size:
        return np.zeros((side, side), np.float32)
    crop = _inverse(down) @ window @ _inverse(across).T
    return np.clip(crop, 0, 1).astype(np.float32)


def within(crop: np.ndarray, box: np.ndarray, part: np.ndarray) -> np.ndarray:
    """crop (M, M) of a box (4,) -> float32 (M, M) of a part (4,) of that box, linear between its cells."""
    if np.array_equal(box, part):
        return crop
    side = len(crop)
    x1, y1, x2, y2 = (
        (value - low) / max(high - low, np.float32(1e-6)) * side
        for value, (low, high) in zip(part, [(box[0], box[2]), (box[1], box[3])] * 2, strict=True)
    )
    centres = (np.arange(side) + 0.5) / side
    lines, columns = (
        np.clip(low + (high - low) * centres - 0.5, 0, side - 1) for low, high in ((y1, y2), (x1, x2))
    )
    return (_hat(lines, side) @ crop @ _hat(columns, side).T).astype(np.float32)


def _shares(low: np.float32, high: np.float32, count: int, side: int) -> tuple[int, np.ndarray]:
    """First pixel of the window, and what each cell adds to each of its pixels (n, M).

    In torchvision the mask gets a cell of nothing around it, the box grows as much, and its corners are cut
    to whole pixels.
    """
    half = (high - low) * np.float32(0.5) * np.float32((side + 2) / side)
    centre = (high + low) * np.float32(0.5)
    start, end = int(centre - half), int(centre + half)
    length = max(end - start + 1, 1)
    first, last = min(max(start, 0), count), min(end + 1, count)
    places = (np.arange(first - start, last - start) + 0.5) * (side + 2) / length - 1.5
    return first, _hat(places, side)


def _hat(places: np.ndarray, side: int) -> np.ndarray:
    """places (n,) in cells -> weights (n, M) of linear interpolation between cells, nothing beyond them."""
    return np.maximum(1 - np.abs(places[:, None] - np.arange(side)), 0)


def _inverse(shares: np.ndarray) -> np.ndarray:
    """shares (n, M) -> (M, n), from pixels to the cells that they show and, evenly, to those between them."""
    steps = np.diff(np.eye(shares.shape[1]), axis=0)
    return np.linalg.solve(shares.T @ shares + EVENNESS * steps.T @ steps, shares.T)
