"""The objects that a COCO annotation file asks for, as columns.

I images, A annotations, K categories.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.evaluation.rle import Rle, as_rle, rectangle_rle, rle_area, rle_bbox
from maskrcnn.whole_file import shown

Array = np.ndarray
DatasetId = int | str
# Above COCO's largest range nothing is counted.
MOST_AREA = 1e10


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What is to be found in a data set; images and categories ascend by id, which settles equal scores.

    place: names the data set in messages.
    image_ids: I original ids. file_names: I, "" where the file has none. sizes (I, 2) int64: height, width.
    category_ids, names: K original ids and names; labels 0..K-1 count in this order.
    images, labels (A,) int64: each annotation's row in image_ids and in category_ids.
    bboxes (A, 4) float64: x, y, width, height in image pixels, as COCO has them.
    areas (A,) float64: square pixels, of the mask where the annotator gave one. crowd (A,) bool.
    masks: A compressed RLE strings, None where no annotation has a mask.
    notes: what was taken for granted, in words.
    """

    place: str
    image_ids: tuple[DatasetId, ...]
    file_names: tuple[str, ...]
    sizes: Array
    category_ids: tuple[DatasetId, ...]
    names: tuple[str, ...]
    images: Array
    labels: Array
    bboxes: Array
    areas: Array
    crowd: Array
    masks: tuple[Rle, ...] | None
    notes: tuple[str, ...] = ()


def read_ground_truth(path: str | Path) -> GroundTruth:
    """Read a COCO annotation file. Ids may be numbers or strings; `area`, `iscrowd` and `segmentation` may
    be missing.

    Raises UserError for a file that is none, with the annotation's id where one is at fault.
    """
    content = _parse(Path(path))
    return ground_truth_of(content["images"], content["annotations"], content["categories"], shown(path))


def ground_truth_of(
    images: Sequence[dict[str, Any]],
    annotations: Sequence[dict[str, Any]],
    categories: Sequence[dict[str, Any]],
    place: str = "the annotations",
) -> GroundTruth:
    """The three lists of a COCO annotation file as columns. Raises UserError as `read_ground_truth`."""
    try:
        images, row_of = _by_id(images, "image", place)
        categories, label_of = _by_id(categories, "category", place)
        known = [row for row in annotations if row["image_id"] in row_of and row["category_id"] in label_of]
        sizes = np.array([(int(row.get("height", 0)), int(row.get("width", 0))) for row in images], np.int64)
        rows = np.array([row_of[row["image_id"]] for row in known], np.int64)
        labels = np.array([label_of[row["category_id"]] for row in known], np.int64)
        crowd = np.array([bool(row.get("iscrowd", 0)) for row in known], bool)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{place}: images need `id`, categories `id` and `name`, annotations `image_id` and "
            f"`category_id`, and one of them lacks it ({type(error).__name__}: {error})",
            hint="name a COCO annotation file",
        ) from error
    sizes = sizes.reshape(-1, 2)
    masks = _masks(known, sizes[rows], place)
    bboxes = _bboxes(known, masks, sizes[rows], place)
    return GroundTruth(
        place=place,
        image_ids=tuple(row["id"] for row in images),
        file_names=tuple(str(row.get("file_name", "")) for row in images),
        sizes=sizes,
        category_ids=tuple(row["id"] for row in categories),
        names=tuple(str(row.get("name", "")) for row in categories),
        images=rows,
        labels=labels,
        bboxes=bboxes,
        areas=_areas(known, masks, bboxes, sizes[rows], place),
        crowd=crowd,
        masks=masks,
        notes=tuple(_notes(annotations, known, row_of)),
    )


def _parse(path: Path) -> dict[str, Any]:
    place = shown(path)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{place}: cannot be read ({error.strerror})", hint="name a COCO JSON file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: is not JSON ({error})", hint="name a COCO JSON file") from error
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise UserError(
            f"{place}: lacks the list{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            hint="a COCO annotation file has images, annotations and categories",
        )
    return content


def _by_id(
    entries: Sequence[dict[str, Any]], what: str, place: str
) -> tuple[list[dict[str, Any]], dict[DatasetId, int]]:
    """The entries by ascending id, and the row of each id; strings come after numbers."""
    ordered = sorted(entries, key=lambda entry: (isinstance(entry["id"], str), entry["id"]))
    rows = {entry["id"]: row for row, entry in enumerate(ordered)}
    if len(rows) < len(ordered):
        again = next(a["id"] for a, b in zip(ordered, ordered[1:], strict=False) if a["id"] == b["id"])
        raise UserError(
            f"{place}: two entries have the {what} id {again!r}", hint="give each an id of its own"
        )
    return ordered, rows


def _masks(annotations: Sequence[dict[str, Any]], sizes: Array, place: str) -> tuple[Rle, ...] | None:
    """Every annotation's mask, its box's rectangle where it has none; None where none has one."""
    if not any(annotation.get("segmentation") for annotation in annotations):
        return None
    masks = []
    for annotation, (height, width) in zip(annotations, sizes.tolist(), strict=True):
        try:
            size = (height, width)
            if min(size) < 1:
                raise ValueError("its image has no height and width")
            mask = as_rle(annotation.get("segmentation"), size)
            masks.append(rectangle_rle(annotation["bbox"], size) if mask is None else mask)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{place}: annotation {annotation.get('id')!r} has no usable mask ({error})",
                hint="segmentation is a list of polygons or an RLE of the image's height and width",
            ) from error
    return tuple(masks)


def _bboxes(
    annotations: Sequence[dict[str, Any]], masks: tuple[Rle, ...] | None, sizes: Array, place: str
) -> Array:
    bboxes = np.zeros((len(annotations), 4))
    for row, annotation in enumerate(annotations):
        try:
            given = annotation.get("bbox")
            if given is None and masks is None:
                raise ValueError("it has neither bbox nor segmentation")
            bboxes[row] = rle_bbox(masks[row], sizes[row]) if given is None and masks else given
            if not np.isfinite(bboxes[row]).all():
                raise ValueError("not finite")
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{place}: annotation {annotation.get('id')!r} has the bbox {annotation.get('bbox')!r} "
                f"({error})",
                hint="a bbox is x, y, width, height in pixels",
            ) from error
    return bboxes


def _areas(
    annotations: Sequence[dict[str, Any]],
    masks: tuple[Rle, ...] | None,
    bboxes: Array,
    sizes: Array,
    place: str,
) -> Array:
    areas = np.zeros(len(annotations))
    for row, annotation in enumerate(annotations):
        given = annotation.get("area")
        if isinstance(given, int | float) and abs(given) < MOST_AREA:
            areas[row] = given
        elif given is not None:
            raise UserError(
                f"{place}: annotation {annotation.get('id')!r} has the area {given!r}",
                hint="an area is a number of square pixels",
            )
        elif masks is not None:
            areas[row] = rle_area(masks[row], sizes[row])
        else:
            areas[row] = bboxes[row, 2] * bboxes[row, 3]
    return areas


def _notes(
    annotations: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]], row_of: dict[DatasetId, int]
) -> list[str]:
    notes = []
    strangers = sum(row["image_id"] not in row_of for row in annotations)
    if strangers:
        notes.append(f"{strangers} annotations belong to images that are not listed, and are left out")
    nameless = len(annotations) - len(known) - strangers
    if nameless:
        notes.append(f"{nameless} annotations have a category that is not listed, and are left out")
    masked = sum(bool(row.get("segmentation")) for row in known)
    if 0 < masked < len(known):
        notes.append(f"{len(known) - masked} of {len(known)} annotations have no mask: their box is taken")
    without = sum(row.get("area") is None for row in known)
    if without:
        notes.append(f"{without} annotations have no area: that of the mask, else of the box, is taken")
    return notes
