"""How many steps mindspore-lab's RCNN takes for a pass over a data set: more than there are batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Of their loader: sides of an image, and of a box.
SMALLEST_IMAGE, SMALLEST_BOX = 32, 0.5


@dataclass(frozen=True)
class Pass:
    """length: batches of the data set, by which their milestones count. steps: of their loop, always more."""

    length: int
    steps: int


def pass_of(annotations: Path, batch: int, processes: int, interval: int) -> Pass | None:
    """That of COCO annotations; None for others, and for less than a batch. batch: images of each process.

    Raises UserError for a file that cannot be read.
    """
    from maskrcnn.data.content import read_json

    if annotations.suffix != ".json" or not annotations.is_file():
        return None
    values = read_json(annotations, "annotations")
    if not isinstance(values, dict) or not isinstance(values.get("images"), list):
        return None
    # Each process has as many images as the others, some of them twice.
    length = -(-_learnt(values) // processes) // batch
    return Pass(length, (length // interval + 1) * interval) if length else None


def _learnt(values: dict[str, Any]) -> int:
    """Images that their loader keeps: with an object that is no crowd and has an area."""
    rows = values.get("annotations") or []
    with_objects = {row.get("image_id") for row in rows if isinstance(row, dict) and _is_learnt(row)}
    return sum(
        min(row.get("width", 0), row.get("height", 0)) >= SMALLEST_IMAGE and row.get("id") in with_objects
        for row in values["images"]
        if isinstance(row, dict)
    )


def _is_learnt(row: dict[str, Any]) -> bool:
    box = row.get("bbox") or []
    sized = len(box) == 4 and min(box[2:]) >= SMALLEST_BOX and row.get("area", 0) > 0
    return sized and not row.get("iscrowd") and not row.get("ignore")
