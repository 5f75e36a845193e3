"""Draws annotations over their pictures, as detections are drawn."""

import cv2
import numpy as np

from maskrcnn.data.content import Content, Instance, Picture
from maskrcnn.data.write import crop_of
from maskrcnn.detections import Detections
from maskrcnn.drawing import draw
from maskrcnn.images import read_image

# Finer than an outline's wobble on a picture of a megapixel.
SIDE = 112


def drawn(content: Content, picture: Picture, instances: list[Instance]) -> np.ndarray:
    """A picture uint8 (H, W, 3) RGB with its instances; crowds have boxes as well."""
    image = read_image(content.folder / picture.file_name)
    return draw(image, as_detections(content, picture, instances), scores=False)


def as_detections(content: Content, picture: Picture, instances: list[Instance]) -> Detections:
    """Annotations as if they had been found, with score 1; those without a pixel are left out."""
    labels = {number: label for label, number in enumerate(content.classes.ids)}
    boxes, masks, kept = [], [], []
    for one in instances:
        crop, x, y = crop_of(one, picture.size)
        if crop.size and one.category_id in labels:
            boxes.append((x, y, x + crop.shape[1], y + crop.shape[0]))
            masks.append(cv2.resize(crop.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            kept.append(labels[one.category_id])
    count = len(kept)
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(count, 4),
        scores=np.ones(count, np.float32),
        labels=np.array(kept, np.int64),
        roi_masks=np.array(masks, np.float32).reshape(count, SIDE, SIDE),
        size=picture.size,
        classes=content.classes,
        mask_paste="pixel_centres",
    )
