"""The JSON file that labelme keeps for an image."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.masks import tight
from maskrcnn.polygons import outlines
from maskrcnn.results.files import png

# Whose reader the files were tried with; labelme stores it and does not look at it.
VERSION = "6.3.1"


def labelme(detections: Detections, image_path: str) -> dict[str, Any]:
    """Shapes in image pixels. image_path: from the folder of this file to the image, with `/`.

    An object is a polygon, or several of one `group_id`; with a hole, which labelme's polygons cannot have,
    its shape `mask`; without a pixel, its box. The `group_id` of an object of a video is its number there.
    """
    shapes = []
    tracks = detections.track_ids()
    free = max((track for track in tracks if track is not None), default=0)
    rows = zip(
        detections.names(),
        detections.scores.tolist(),
        detections.boxes,
        detections.crops(),
        tracks,
        strict=True,
    )
    for number, (name, score, box, crop, track) in enumerate(rows, start=free + 1):
        for shape in shapes_of(box, *tight(*crop), number, track):
            shapes.append({"label": name, **shape, "flags": {}, "description": "", "score": round(score, 5)})
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": int(detections.size[0]),
        "imageWidth": int(detections.size[1]),
    }


def shapes_of(
    box: np.ndarray, crop: np.ndarray, x: int, y: int, number: int, track: int | None = None
) -> list[dict[str, Any]]:
    """The shapes of one object: its box (4,), its mask bool (h, w) from column x and row y on, its number.

    track: its number in a video, which all of its shapes have for a group.
    """
    parts = outlines(crop, x, y)
    if not parts:
        return [_shape("rectangle", box.reshape(2, 2).astype(np.float64).round(3).tolist(), track)]
    if any(part.holes for part in parts):
        height, width = crop.shape
        mask = base64.b64encode(png(crop.astype(np.uint8))).decode("ascii")
        # Its last pixel, not its end.
        corners = [[x, y], [x + width - 1, y + height - 1]]
        return [{**_shape("mask", corners, track), "mask": mask}]
    group = track if track is not None else number if len(parts) > 1 else None
    return [_shape("polygon", part.outer.tolist(), group) for part in parts]


def _shape(kind: str, points: Sequence[Sequence[float]], group: int | None = None) -> dict[str, Any]:
    return {"points": points, "group_id": group, "shape_type": kind}
