"""Masks as the compressed RLE strings that COCO files hold; sizes are kept by their images.

N masks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hotcoco import mask as coco_mask

Rle = bytes
Size = Sequence[int] | np.ndarray


def as_rle(segmentation: Any, size: Size) -> Rle | None:
    """The `segmentation` of a COCO file, polygons or RLE with text or numbers, as one string.

    size: (height, width) of its image. None where there is no mask: nothing, or polygons below three points.
    Raises ValueError or TypeError for what is none of these, and for an RLE of another size.
    """
    height, width = int(size[0]), int(size[1])
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        given = tuple(segmentation.get("size", ()))
        if given != (height, width):
            raise ValueError(f"an RLE of size {list(given)} in an image of {[height, width]}")
        counts = segmentation.get("counts")
        if isinstance(counts, str):
            return counts.encode("ascii")
        if isinstance(counts, bytes):
            return counts
        return _numbers_as_rle(counts, height, width)
    polygons = [part for part in segmentation if len(part) >= 6]
    if not polygons:
        return None
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))["counts"]


def rectangle_rle(bbox: Sequence[float], size: Size) -> Rle:
    """The mask of a box x, y, width, height."""
    x, y, width, height = (float(value) for value in bbox)
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return coco_mask.frPyObjects([corners], int(size[0]), int(size[1]))[0]["counts"]


def empty_rle(size: Size) -> Rle:
    """A mask without a pixel."""
    return _numbers_as_rle([int(size[0]) * int(size[1])], int(size[0]), int(size[1]))


def rle_area(rle: Rle, size: Size) -> int:
    """Pixels of a mask."""
    return int(coco_mask.area(as_dict(rle, size)))


def areas_of(masks: list[dict[str, Any]]) -> np.ndarray:
    """Pixels float64 (N,) of each of N masks from `as_dict`."""
    return np.asarray(coco_mask.area(masks), np.float64)


def rle_bbox(rle: Rle, size: Size) -> np.ndarray:
    """x, y, width, height float64 (4,) of a mask's pixels."""
    return coco_mask.toBbox(as_dict(rle, size))


def as_dict(rle: Rle, size: Size) -> dict[str, Any]:
    """A mask in the form that the COCO libraries take."""
    return {"size": size if isinstance(size, list) else [int(size[0]), int(size[1])], "counts": rle}


def _numbers_as_rle(counts: Any, height: int, width: int) -> Rle:
    lengths = [int(count) for count in counts]
    if any(length < 0 for length in lengths) or sum(lengths) != height * width:
        raise ValueError(f"an RLE of {sum(lengths)} pixels in an image of {height} x {width}")
    return coco_mask.frPyObjects({"size": [height, width], "counts": lengths}, height, width)["counts"]
