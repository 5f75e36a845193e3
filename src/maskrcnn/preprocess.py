"""From an image to the network's input and back, one arithmetic for training, prediction and export.

H, W size of the image, h, w size of the resized image, B images of a batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from maskrcnn.errors import UserError
from maskrcnn.spec import Preprocess

BLOCK = 32  # rows at a time, so that they stay in the processor's cache


@dataclass(frozen=True)
class Geometry:
    """How an image lies in the network's input.

    size: (height, width) of the image. size_net: of the resized image, without padding.
    offset_net: (y, x) of its top left corner in the network's input; not (0, 0) only in a letterbox.
    scale_net: network pixels per image pixel where the source has one number for both axes (Caffe2);
        otherwise boxes are scaled by the ratio of the two sizes, per axis.
    """

    size: tuple[int, int]
    size_net: tuple[int, int]
    offset_net: tuple[int, int] = (0, 0)
    scale_net: float | None = None

    def to_image(self, boxes_net: np.ndarray) -> np.ndarray:
        """boxes_net (..., 4) in network pixels -> float32 (..., 4) in image pixels, not clipped."""
        return (np.asarray(boxes_net, np.float32) - self._offsets()) * self._pixels_per_net()

    def to_net(self, boxes: np.ndarray) -> np.ndarray:
        """boxes (..., 4) in image pixels -> float32 (..., 4) in network pixels."""
        return np.asarray(boxes, np.float32) / self._pixels_per_net() + self._offsets()

    def _offsets(self) -> np.ndarray:
        y, x = self.offset_net
        return np.array([x, y, x, y], np.float32)

    def _pixels_per_net(self) -> np.ndarray:
        if self.scale_net is not None:
            return np.full(4, 1 / self.scale_net, np.float32)
        y, x = (original / resized for original, resized in zip(self.size, self.size_net, strict=True))
        return np.array([x, y, x, y], np.float32)


def resized_size(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """The (height, width) that an image of that size is resized to, before padding; sides are at least 1."""
    if preprocess.resize == "stretch":
        return preprocess.short, preprocess.long
    if preprocess.resize == "shortest_edge":
        height, width = _shortest_edge(size, preprocess)
    else:
        height, width = _rounded(size, _scale(size, preprocess), preprocess.size_rule)
    return max(height, 1), max(width, 1)


def prepare(image: np.ndarray, preprocess: Preprocess) -> tuple[np.ndarray, Geometry]:
    """image (H, W, 3) uint8 RGB -> planes (3, h, w) in the network's channel order, 0..255, and the way back.

    Planes are contiguous; uint8, or float32 where the filter does not round to whole values.
    A letterbox is returned with its filling, float32 where that has fractions.
    """
    _check(image)
    height, width, _ = image.shape
    size_net = resized_size((height, width), preprocess)
    exact = preprocess.size_rule == "caffe2" and preprocess.resize != "stretch"
    scale = _scale((height, width), preprocess) if exact else None
    planes = _resize(image, size_net, scale, preprocess)
    if preprocess.resize != "letterbox":
        return planes, Geometry((height, width), size_net, scale_net=scale)
    offset = ((preprocess.short - size_net[0]) // 2, (preprocess.long - size_net[1]) // 2)
    window = _filled(preprocess, planes.dtype)
    window[:, offset[0] : offset[0] + size_net[0], offset[1] : offset[1] + size_net[1]] = planes
    return window, Geometry((height, width), size_net, offset, scale)


def batch(planes: Sequence[np.ndarray], preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """planes B x (3, h, w) -> image (B, 3, H, W), zero right and below of each, and size (B, 2) int64 (h, w).

    H and W are the joint maximum, rounded up to the padding multiple. uint8 if every plane is, else float32.
    """
    size = np.array([each.shape[1:] for each in planes], np.int64)
    height, width = padded_size((int(size[:, 0].max()), int(size[:, 1].max())), preprocess)
    if len(planes) == 1 and planes[0].shape[1:] == (height, width):
        return planes[0][None], size
    dtype = np.uint8 if all(each.dtype == np.uint8 for each in planes) else np.float32
    image = np.zeros((len(planes), 3, height, width), dtype)
    for row, each in enumerate(planes):
        image[row, :, : each.shape[1], : each.shape[2]] = each
    return image, size


def padded_size(size_net: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """The (height, width) of the network's input for resized images of at most size_net (height, width)."""
    multiple = preprocess.pad_multiple
    height, width = (-(-side // multiple) * multiple for side in size_net)
    if preprocess.resize == "fit_window" and preprocess.pad_to_window:
        return max(height, preprocess.short), max(width, preprocess.long)
    return height, width


def _filled(preprocess: Preprocess, dtype: np.dtype) -> np.ndarray:
    """A letterbox (3, short, long) without its image."""
    whole = all(float(value).is_integer() for value in preprocess.fill)
    window = np.empty((3, preprocess.short, preprocess.long), dtype if whole else np.float32)
    for plane, value in zip(window, preprocess.fill, strict=True):
        plane.fill(value)
    return window


def _check(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray):
        raise UserError(
            f"an image is a {type(image).__name__}", hint="pass a numpy array, (H, W, 3) uint8 RGB"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UserError(
            f"an image is an array of {image.dtype} {image.shape}",
            hint="pass (height, width, 3) uint8, RGB, 0..255",
        )


def _shortest_edge(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    if preprocess.size_rule == "detectron2":
        return _detectron2_size(size, preprocess.short, preprocess.long)
    if preprocess.size_rule == "maskrcnn_benchmark":
        return _maskrcnn_benchmark_size(size, preprocess.short, preprocess.long)
    return _rounded(size, _scale(size, preprocess), preprocess.size_rule)


def _scale(size: tuple[int, int], preprocess: Preprocess) -> float:
    """Network pixels per image pixel, before any side is rounded to whole pixels."""
    height, width = size
    if preprocess.resize != "shortest_edge":
        return min(preprocess.short / height, preprocess.long / width)
    short, long = min(size), max(size)
    if preprocess.size_rule == "caffe2":
        scale = preprocess.short / short
        return preprocess.long / long if round(scale * long) > preprocess.long else scale
    return min(preprocess.short / short, preprocess.long / long)


def _rounded(size: tuple[int, int], scale: float, size_rule: str) -> tuple[int, int]:
    height, width = (side * scale for side in size)
    if size_rule in ("torchvision", "maskrcnn_benchmark"):
        return math.floor(height), math.floor(width)
    if size_rule == "caffe2":
        return round(height), round(width)  # half to even, like cvRound
    return int(height + 0.5), int(width + 0.5)


def _detectron2_size(size: tuple[int, int], short: int, long: int) -> tuple[int, int]:
    scale = short / min(size)
    height, width = (float(short) if side == min(size) else side * scale for side in size)
    if max(height, width) > long:
        shrink = long / max(height, width)
        height, width = height * shrink, width * shrink
    return int(height + 0.5), int(width + 0.5)


def _maskrcnn_benchmark_size(size: tuple[int, int], short: int, long: int) -> tuple[int, int]:
    if max(size) / min(size) * short > long:
        short = max(round(long * min(size) / max(size)), 1)
    height, width = (short if side == min(size) else int(short * side / min(size)) for side in size)
    return height, width


def _resize(
    image: np.ndarray, size_net: tuple[int, int], scale: float | None, preprocess: Preprocess
) -> np.ndarray:
    """image (H, W, 3) uint8 RGB -> planes (3, h, w), uint8 or float32 by the filter."""
    height, width = size_net
    if image.shape[:2] == size_net:
        return _planes(image, preprocess.channels)
    if preprocess.filter == "pillow":
        resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    elif preprocess.filter == "opencv":
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    elif preprocess.filter == "area":
        resized = _resize_by_area(image, size_net, scale)
    elif scale is not None:
        whole = image.astype(np.float32)
        resized = cv2.resize(whole, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    else:
        resized = np.empty((3, *size_net), np.float32)
        for plane, out in zip(_planes(image, preprocess.channels), resized, strict=True):
            _bilinear(plane, out)
        return resized
    return _planes(resized, preprocess.channels)


def _resize_by_area(image: np.ndarray, size_net: tuple[int, int], scale: float | None) -> np.ndarray:
    """With a scale OpenCV's cells are 1 / scale wide, without one the ratio of the two sizes."""
    height, width = size_net
    shrinks = height < image.shape[0] or width < image.shape[1]
    kernel = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    if scale is None:
        return cv2.resize(image, (width, height), interpolation=kernel)
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=kernel)


def _planes(image: np.ndarray, channels: str) -> np.ndarray:
    """image (h, w, 3) RGB -> (3, h, w), contiguous; cv2.split is three times faster than a transpose."""
    planes = cv2.split(image)
    return np.stack(planes if channels == "rgb" else planes[::-1])


def _bilinear(plane: np.ndarray, out: np.ndarray) -> None:
    """plane (H, W) uint8 -> out (h, w) float32: no antialiasing or rounding, torch's arithmetic.

    OpenCV's float resize rounds source coordinates elsewhere, which moves values by up to 0.01 of 255.
    """
    above, below, weight_y = _neighbours(plane.shape[0], out.shape[0])
    left, right, weight_x = _neighbours(plane.shape[1], out.shape[1])
    used, places = np.unique(np.concatenate([above, below]), return_inverse=True)
    columns = cv2.transpose(plane[used])
    lines = columns[left] * (1 - weight_x)
    lines += columns[right] * weight_x
    lines = cv2.transpose(lines)
    upper, lower = np.split(places, 2)
    for start in range(0, len(out), BLOCK):
        rows = slice(start, start + BLOCK)
        np.multiply(lines[upper[rows]], 1 - weight_y[rows], out=out[rows])
        out[rows] += lines[lower[rows]] * weight_y[rows]


def _neighbours(count: int, count_net: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For n pixels of a resized side: the two of `count` around each (n,), the second's weight (n, 1)."""
    step = np.float64(np.float32(count) / np.float32(count_net))
    # Rounded to float32 once, like the fused multiply-add of torch on one thread. On two threads torch
    # rounds twice, which moves values by up to 0.007 of 255.
    places = np.maximum(step * (np.arange(count_net) + 0.5) - 0.5, 0).astype(np.float32)
    first = np.minimum(places.astype(np.int64), count - 1)
    weight = np.clip(places - first.astype(np.float32), 0, 1)
    return first, np.minimum(first + 1, count - 1), weight[:, None]
