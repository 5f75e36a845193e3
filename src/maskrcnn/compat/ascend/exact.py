"""The roundings of Ascend's `mmdet_postprocess.py`, where old figures are to be compared.

H, W size of the network's input, h, w size of an image inside it, N detections.
"""

from typing import Any

import cv2
import numpy as np

from maskrcnn.compat.ascend.bins import Size
from maskrcnn.detections import Raw
from maskrcnn.masks import encode, paste_crop
from maskrcnn.preprocess import Geometry


def exact_geometry(size: Size, window: Size) -> Geometry:
    """As theirs has it: one scale for both axes, and borders of the size before it was rounded down.

    Up to one pixel from where `mmdet_preprocess.py` puts the image. size, window: (height, width).
    """
    scale = min(window[0] / size[0], window[1] / size[1])
    height, width = (side * scale for side in size)
    offset = int((window[0] - height) // 2), int((window[1] - width) // 2)
    return Geometry(size, (int(height), int(width)), offset, scale)


def exact_rles(raw: Raw, size: Size, window: Size) -> list[dict[str, Any]]:
    """COCO RLE of the masks of all rows with a score, by way of the network's input.

    Each is pasted there, cut out, resized to the image with linear interpolation and cut to whole numbers,
    so that a pixel remains only where all that it was made of was inside.
    """
    lies = exact_geometry(size, window)
    (top, left), (height, width) = lies.offset_net, lies.size_net
    rles = []
    for box, mask in zip(raw.boxes[0][raw.scores[0] > 0], raw.masks[0][raw.scores[0] > 0], strict=True):
        crop, x, y = paste_crop(mask, box, window, "expanded")
        pasted = np.zeros(window, np.float32)
        pasted[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        inside = pasted[top : top + height, left : left + width]
        resized = cv2.resize(inside, size[::-1], interpolation=cv2.INTER_LINEAR)
        rles.append(encode(resized.astype(np.uint8).astype(bool), 0, 0, size))
    return rles
