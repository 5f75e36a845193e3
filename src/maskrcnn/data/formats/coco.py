"""COCO instances: one JSON file with images, annotations and categories."""

from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.data.content import Content, Instance, Picture, Segmentation, bounds, read_json
from maskrcnn.errors import UserError
from maskrcnn.polygons import area as ring_area

LISTS = ("images", "annotations", "categories")
WHAT = "a COCO file, which has images, annotations and categories"


def is_coco(values: Any) -> bool:
    """Whether parsed JSON looks like COCO."""
    return isinstance(values, dict) and all(isinstance(values.get(name), list) for name in LISTS)


def read(path: Path, folder: Path | None = None) -> Content:
    """A COCO file; pictures lie in `folder`, else in `images` beside the file, else beside it."""
    values = read_json(path, WHAT)
    missing = [
        name for name in LISTS if not isinstance(values, dict) or not isinstance(values.get(name), list)
    ]
    if missing:
        raise UserError(
            f"{path}: lacks the list{'s' * (len(missing) > 1)} {', '.join(missing)}", hint=f"name {WHAT}"
        )
    beside = path.parent / "images"
    found = [_instance(entry, index, path) for index, entry in enumerate(values["annotations"])]
    return Content(
        path,
        folder or (beside if beside.is_dir() else path.parent),
        "coco",
        tuple(_picture(entry, f"{path}: image {index}") for index, entry in enumerate(values["images"])),
        tuple(one for one in found if isinstance(one, Instance)),
        _categories(values["categories"], path),
        tuple(words for words in found if isinstance(words, str)),
    )


def content(data: Content) -> dict[str, Any]:
    """What `json.dump` writes as a COCO file; an object of only a box gets no segmentation."""
    return {
        "images": [
            {"id": one.id, "file_name": one.file_name, "height": one.size[0], "width": one.size[1]}
            for one in data.pictures
        ],
        "annotations": [_entry(one) for one in data.instances],
        "categories": [{"id": number, "name": name} for number, name in sorted(data.categories.items())],
    }


def _entry(one: Instance) -> dict[str, Any]:
    entry = {
        "id": one.id,
        "image_id": one.image_id,
        "category_id": one.category_id,
        "bbox": list(one.bbox),
        "area": area(one),
        "iscrowd": int(one.crowd),
    }
    return entry if one.segmentation is None else entry | {"segmentation": one.segmentation}


def area(one: Instance) -> float:
    """Of polygons by the shoelace formula, of RLE its pixels, of a box its sides' product."""
    if one.segmentation is None:
        return float(one.bbox[2] * one.bbox[3])
    if isinstance(one.segmentation, dict):
        from maskrcnn.data.sample import run_lengths

        counts = one.segmentation["counts"]
        lengths = run_lengths(counts) if isinstance(counts, str | bytes) else counts
        return float(sum(int(length) for length in lengths[1::2]))
    return sum(abs(ring_area(np.array(part).reshape(-1, 2))) for part in one.segmentation)


def _picture(entry: Any, place: str) -> Picture:
    try:
        return Picture(int(entry["id"]), str(entry["file_name"]), (int(entry["height"]), int(entry["width"])))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{place} of the list has no usable {_key(error, 'id, file_name, height and width')}",
            hint="an image has id, file_name, height and width",
        ) from error


def _instance(entry: Any, index: int, path: Path) -> Instance | str:
    """An annotation, or a sentence on why it cannot be used."""
    place = f"{path}: annotation {entry.get('id', index) if isinstance(entry, dict) else index}"
    try:
        segmentation = _segmentation(entry.get("segmentation"))
        boxed = entry.get("bbox")
        if boxed is None and isinstance(segmentation, list):
            boxed = bounds(segmentation)
        x, y, width, height = (float(value) for value in boxed)
        return Instance(
            int(entry.get("id", index + 1)),
            int(entry["image_id"]),
            int(entry["category_id"]),
            (x, y, width, height),
            segmentation,
            bool(entry.get("iscrowd", 0)),
            place,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return f"{place} has no usable {_key(error, 'image_id, category_id, bbox or segmentation')}"


def _segmentation(value: Any) -> Segmentation | None:
    if value in (None, [], {}):
        return None
    if isinstance(value, dict):
        counts, (height, width) = value["counts"], value["size"]
        if not isinstance(counts, str | list):
            raise TypeError("counts")
        return {"size": [int(height), int(width)], "counts": counts}
    parts = value if isinstance(value[0], list) else [value]
    return [[float(number) for number in part] for part in parts]


def _categories(entries: list[Any], path: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for entry in entries:
        try:
            number, name = int(entry["id"]), str(entry["name"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: a category lacks id or name", hint="each category has both") from error
        if number in found and found[number] != name:
            raise UserError(
                f"{path}: category id {number} is both {found[number]} and {name}",
                hint="give each category an id of its own",
            )
        found[number] = name
    return found


def _key(error: Exception, otherwise: str) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else otherwise
