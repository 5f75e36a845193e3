"""Detections of an upright picture in the pixels of its file, where annotations ignore the EXIF rotation."""

from dataclasses import replace

import numpy as np

from maskrcnn.detections import Detections

LYING = (5, 6, 7, 8)
MIRRORED = (2, 3, 6, 7)
UPSIDE_DOWN = (3, 4, 7, 8)


def to_stored_pixels(detections: Detections, orientation: int) -> Detections:
    """Undo what a reader did to the picture for its EXIF orientation (1 to 8).

    A reader swaps rows and columns if the orientation is 5 to 8, then turns left and right round if 2, 3, 6
    or 7, and top and bottom if 3, 4, 7 or 8; see tag 0x0112 in the EXIF standard (CIPA DC-008).
    """
    height, width = detections.size
    x1, y1, x2, y2 = detections.boxes.T
    masks = detections.roi_masks
    if orientation in MIRRORED:
        x1, x2, masks = width - x2, width - x1, masks[:, :, ::-1]
    if orientation in UPSIDE_DOWN:
        y1, y2, masks = height - y2, height - y1, masks[:, ::-1]
    if orientation in LYING:
        x1, y1, x2, y2, masks = y1, x1, y2, x2, masks.transpose(0, 2, 1)
        height, width = width, height
    return replace(
        detections,
        boxes=np.stack([x1, y1, x2, y2], axis=1).astype(np.float32),
        roi_masks=np.ascontiguousarray(masks),
        size=(height, width),
    )
