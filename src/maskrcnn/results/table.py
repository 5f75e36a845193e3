"""A table with a row for each detection, as CSV (RFC 4180)."""

import csv
import io
import json

import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.masks import encode

COLUMNS = (
    *("file_name", "image_id", "label", "category_id", "score"),
    *("x1", "y1", "x2", "y2", "area", "rle", "track_id"),
)
HEAD = ",".join(COLUMNS) + "\r\n"
# Spreadsheets take a cell that begins so for a formula, which can open programs and web pages.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def rows(detections: Detections, file_name: str, image_id: int | None = None) -> str:
    """Lines for one image: boxes in pixels, area in pixels of the mask, the mask as COCO RLE in JSON.

    track_id: the number of an object of a video. Text that a spreadsheet would take for a formula has a `'`
    before it.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text)
    numbers = detections.track_ids()
    for name, category, score, box, crop in zip(
        detections.names(),
        detections.category_ids(),
        detections.scores.tolist(),
        detections.boxes.astype(np.float64).round(3).tolist(),
        detections.crops(),
        strict=True,
    ):
        place = (_harmless(file_name), image_id, _harmless(name), category, round(score, 5))
        rle = json.dumps(encode(*crop, detections.size), separators=(",", ":"))
        table.writerow((*place, *box, np.count_nonzero(crop[0]), rle, numbers.pop(0)))
    return text.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
