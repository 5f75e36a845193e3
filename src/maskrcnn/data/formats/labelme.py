"""labelme: a JSON file for each picture, beside it."""

import base64
import binascii
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn.data.content import Content, ContentBuilder, Picture, read_json
from maskrcnn.data.formats.outlines import circle
from maskrcnn.errors import UserError

WHAT = "a file that labelme wrote"


def is_labelme(values: Any) -> bool:
    """Whether parsed JSON looks like labelme's."""
    return isinstance(values, dict) and isinstance(values.get("shapes"), list) and "imagePath" in values


def read(folder: Path) -> Content:
    """All labelme files of a folder; shapes of one label and group_id are one instance."""
    builder = ContentBuilder(folder, folder, "labelme")
    for path in sorted(folder.rglob("*.json")):
        values = read_json(path, WHAT)
        if is_labelme(values):
            _read_picture(builder, path, values)
    return builder.done()


def _read_picture(builder: ContentBuilder, path: Path, values: dict[str, Any]) -> None:
    try:
        size = (int(values["imageHeight"]), int(values["imageWidth"]))
        # labelme on Windows writes backslashes
        image = (path.parent / str(values["imagePath"]).replace("\\", "/")).resolve()
        shapes = [(str(shape["label"]), shape.get("group_id"), shape) for shape in values["shapes"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: lacks imagePath, imageHeight, imageWidth or a label", hint=f"name {WHAT}"
        ) from error
    folder = builder.folder.resolve()
    name = image.relative_to(folder).as_posix() if image.is_relative_to(folder) else str(image)
    picture = builder.picture(name, size)
    groups: dict[tuple[str, Any], list[list[float]]] = {}
    for number, (label, group, shape) in enumerate(shapes, start=1):
        place = f"{path}: shape {number}"
        if shape.get("shape_type") == "mask":
            crop, x, y = _bitmap(shape, place)
            builder.mask(picture, builder.category(label), crop, x, y, place)
            continue
        outline = _outline(shape, place)
        if outline is None:
            builder.skipped.append(f"{place} is a {shape.get('shape_type')}, which outlines nothing")
        elif group is None:
            builder.polygons(picture, builder.category(label), [outline], place)
        else:
            groups.setdefault((label, group), []).append(outline)
    _add_groups(builder, picture, groups.items(), path)


def _add_groups(
    builder: ContentBuilder,
    picture: Picture,
    groups: Iterable[tuple[tuple[str, Any], list[list[float]]]],
    path: Path,
) -> None:
    for (label, group), parts in groups:
        builder.polygons(picture, builder.category(label), parts, f"{path}: group {group}")


def _outline(shape: dict[str, Any], place: str) -> list[float] | None:
    kind = shape.get("shape_type", "polygon")
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
        if kind == "polygon":
            return [value for point in points for value in point]
        if kind == "rectangle":
            (x1, y1), (x2, y2) = points
            return [x1, y1, x2, y1, x2, y2, x1, y2]
        if kind == "circle":
            (x, y), (edge_x, edge_y) = points
            return circle(x, y, math.hypot(edge_x - x, edge_y - y))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place}: has no usable points", hint="draw it again in labelme") from error
    return None


def _bitmap(shape: dict[str, Any], place: str) -> tuple[np.ndarray, int, int]:
    """A `mask` shape: a PNG in base64 whose corners are the two points."""
    try:
        (x, y), _ = shape["points"]
        contents = np.frombuffer(base64.b64decode(shape["mask"]), np.uint8)
        crop = cv2.imdecode(contents, cv2.IMREAD_UNCHANGED)
        if crop is None or crop.ndim != 2:
            raise ValueError("no grey picture")
        return crop > 0, round(float(x)), round(float(y))
    except (KeyError, TypeError, ValueError, binascii.Error, cv2.error) as error:
        raise UserError(f"{place}: its mask is no PNG in base64", hint="draw it again in labelme") from error
