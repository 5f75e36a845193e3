"""Writes what was found in image files: pictures, label images, and the formats of labelling tools."""

from maskrcnn.results.files import label_image, write_json, write_picture, write_whole
from maskrcnn.results.growing import GrowingList, GrowingText
from maskrcnn.results.names import ids_from_annotations, ids_from_names, stems_of
from maskrcnn.results.output import COCO_FILE, KINDS, Output, Written

__all__ = [
    "COCO_FILE",
    "KINDS",
    "GrowingList",
    "GrowingText",
    "Output",
    "Written",
    "ids_from_annotations",
    "ids_from_names",
    "label_image",
    "stems_of",
    "write_json",
    "write_picture",
    "write_whole",
]
