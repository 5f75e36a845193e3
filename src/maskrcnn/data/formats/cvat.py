"""CVAT for images 1.1: one XML file with the polygons, boxes and brush masks of every picture."""

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from maskrcnn.data.content import Content, ContentBuilder, Picture
from maskrcnn.data.formats.outlines import ellipse
from maskrcnn.errors import UserError

WHAT = "an annotations.xml of `CVAT for images 1.1`"


def is_cvat(root: ElementTree.Element) -> bool:
    """Whether a parsed XML file looks like CVAT's."""
    return root.tag == "annotations" and (root.find("image") is not None or root.find("meta") is not None)


def parse_xml(path: Path, what: str) -> ElementTree.Element:
    """The root of an XML file. Raises UserError in words."""
    try:
        return ElementTree.parse(path).getroot()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", hint=f"name {what}") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path}: is not XML ({error})", hint=f"name {what}") from error


def read(path: Path, folder: Path | None = None) -> Content:
    """A CVAT file; pictures lie in `folder`, else in `images` beside the file, else beside it.

    Shapes of one picture, label and group_id are one instance; group 0 is none.
    """
    root = parse_xml(path, WHAT)
    beside = path.parent / "images"
    names = [name.text or "" for name in root.findall("./meta//labels/label/name")]
    builder = ContentBuilder(
        path, folder or (beside if beside.is_dir() else path.parent), "cvat", names=list(dict.fromkeys(names))
    )
    for image in root.findall("image"):
        try:
            size = (int(image.attrib["height"]), int(image.attrib["width"]))
            picture = builder.picture(image.attrib["name"], size)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{path}: image {image.get('id')} has no usable name, width and height", hint=f"name {WHAT}"
            ) from error
        _read_picture(builder, image, picture, path)
    return builder.done()


def _read_picture(builder: ContentBuilder, image: ElementTree.Element, picture: Picture, path: Path) -> None:
    groups: dict[tuple[str, str], list[list[float]]] = {}
    for number, shape in enumerate(image, start=1):
        place = f"{path}: {picture.file_name} shape {number}"
        label, group = shape.get("label", ""), shape.get("group_id") or "0"
        try:
            if shape.tag == "mask":
                crop, x, y = _bitmap(shape)
                builder.mask(picture, builder.category(label), crop, x, y, place)
                continue
            outline = _outline(shape)
        except (KeyError, ValueError) as error:
            raise UserError(f"{place} has no usable {shape.tag}", hint="export it again") from error
        if shape.tag == "box" and group == "0":
            x1, y1, _, _, x2, y2, _, _ = outline or [0.0] * 8
            builder.box(picture, builder.category(label), (x1, y1, x2, y2), place)
        elif outline is None:
            if shape.tag not in ("tag", "attribute"):
                builder.skipped.append(f"{place} is a {shape.tag}, which outlines nothing")
        elif group == "0":
            builder.polygons(picture, builder.category(label), [outline], place)
        else:
            groups.setdefault((label, group), []).append(outline)
    for (label, group), parts in groups.items():
        place = f"{path}: {picture.file_name} group {group}"
        builder.polygons(picture, builder.category(label), parts, place)


def _outline(shape: ElementTree.Element) -> list[float] | None:
    def numbers(*names: str) -> list[float]:
        return [float(shape.attrib[name]) for name in names]

    if shape.tag == "polygon":
        pairs = [point.split(",") for point in shape.attrib["points"].split(";")]
        return [float(value) for x, y in pairs for value in (x, y)]
    if shape.tag == "box":
        x1, y1, x2, y2 = numbers("xtl", "ytl", "xbr", "ybr")
        return [x1, y1, x2, y1, x2, y2, x1, y2]
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = numbers("cx", "cy", "rx", "ry")
        return ellipse(x, y, radius_x, radius_y, math.radians(float(shape.get("rotation", 0))))
    return None


def _bitmap(shape: ElementTree.Element) -> tuple[np.ndarray, int, int]:
    """A brush mask: run lengths along the rows of a crop, of background first."""
    left, top, width, height = (int(float(shape.attrib[name])) for name in ("left", "top", "width", "height"))
    lengths = np.array([int(run) for run in shape.attrib["rle"].replace(" ", "").split(",")], np.int64)
    if (lengths < 0).any() or lengths.sum() != width * height:
        raise ValueError("its runs do not fill the crop")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(height, width), left, top
