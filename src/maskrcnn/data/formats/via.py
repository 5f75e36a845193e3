"""VGG Image Annotator: one JSON file of regions by picture, of VIA 1 and 2 (projects and exports)."""

from pathlib import Path
from typing import Any

from maskrcnn.data.content import Content, ContentBuilder, Picture, read_json
from maskrcnn.data.formats.outlines import circle, ellipse
from maskrcnn.data.pictures import measure
from maskrcnn.errors import UserError

WHAT = "a JSON export or project of VIA"


def is_via(values: Any) -> bool:
    """Whether parsed JSON looks like VIA's."""
    entries = _entries(values)
    return bool(entries) and all(
        isinstance(one, dict) and {"filename", "regions"} <= set(one) for one in entries
    )


def read(path: Path, folder: Path | None = None) -> Content:
    """A VIA file; pictures lie in `folder`, else in `images` beside the file, else beside it."""
    entries = _entries(read_json(path, WHAT))
    beside = path.parent / "images"
    builder = ContentBuilder(path, folder or (beside if beside.is_dir() else path.parent), "via")
    for entry in entries:
        name = str(entry.get("filename"))
        measured = measure(builder.folder / name)
        if measured is None:
            raise UserError(
                f"{builder.folder / name}: is missing or no picture, and VIA keeps no sizes",
                hint="add --images with the folder of the pictures",
            )
        picture = builder.picture(name, measured.upright)
        regions = entry.get("regions") or []
        for number, region in enumerate(regions.values() if isinstance(regions, dict) else regions):
            _region(builder, picture, region, f"{path}: {name} region {number}")
    return builder.done()


def _entries(values: Any) -> list[Any]:
    if not isinstance(values, dict):
        return []
    inner = values.get("_via_img_metadata", values)
    return list(inner.values()) if isinstance(inner, dict) else []


def _region(builder: ContentBuilder, picture: Picture, region: Any, place: str) -> None:
    try:
        shape = region["shape_attributes"]
        kind = shape["name"]
        outline = _outline(kind, shape)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place} has no usable shape", hint="draw it again in VIA") from error
    name = _label(region.get("region_attributes"))
    if outline is None:
        builder.skipped.append(f"{place} is a {kind}, which outlines nothing")
    else:
        builder.polygons(picture, builder.category(name), [outline], place)


def _outline(kind: str, shape: dict[str, Any]) -> list[float] | None:
    def numbers(*names: str) -> list[float]:
        return [float(shape[name]) for name in names]

    if kind == "polygon":
        pairs = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
        return [float(value) for pair in pairs for value in pair]
    if kind == "rect":
        x, y, width, height = numbers("x", "y", "width", "height")
        return [x, y, x + width, y, x + width, y + height, x, y + height]
    if kind == "circle":
        x, y, radius = numbers("cx", "cy", "r")
        return circle(x, y, radius)
    if kind == "ellipse":
        x, y, radius_x, radius_y = numbers("cx", "cy", "rx", "ry")
        return ellipse(x, y, radius_x, radius_y, float(shape.get("theta", 0)))
    return None


def _label(attributes: Any) -> str:
    """The value of the first attribute that names something; `object` where regions are not named."""
    for value in attributes.values() if isinstance(attributes, dict) else ():
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, dict) and any(value.values()):
            return next(str(key) for key, chosen in value.items() if chosen)
    return "object"
