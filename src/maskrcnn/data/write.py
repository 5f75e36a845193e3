"""Writes a data set in the formats that other programs train on."""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from maskrcnn.data.content import Content, Instance, Picture
from maskrcnn.data.dataset import outline
from maskrcnn.data.formats import coco
from maskrcnn.data.sample import bitmap
from maskrcnn.data.shapes import pack
from maskrcnn.errors import UserError
from maskrcnn.masks import tight
from maskrcnn.polygons import joined, outlines
from maskrcnn.results.files import png
from maskrcnn.results.labelme import shapes_of
from maskrcnn.results.yolo import data_yaml
from maskrcnn.whole_file import disk_errors_told, whole_file

TARGETS = ("coco", "yolo", "labelme", "masks")
MOST_OBJECTS = 65535


def write_content(content: Content, out: Path, target: str) -> None:
    """coco: the file `out`, whose file names are relative to content.folder. Others: a folder.

    A folder gets its pictures as hard links, as copies where the disk knows none, under their own names.
    """
    if target == "coco":
        return write_coco(content, out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists", hint="name a folder that does not")
    of_image: dict[int, list[Instance]] = defaultdict(list)
    for one in content.instances:
        of_image[one.image_id].append(one)
    with disk_errors_told(out):
        for picture in content.pictures:
            name = inside_name(picture.file_name)
            link(content.folder / picture.file_name, out / ("" if target == "labelme" else "images") / name)
            _WRITERS[target](out, name, picture, of_image[picture.id], content)
        if target == "yolo":
            with whole_file(out / "data.yaml") as temporary:
                temporary.write_text(data_yaml(content.classes.names), encoding="utf-8")
    return None


def write_coco(content: Content, out: Path) -> None:
    """One JSON file, whole or not at all."""
    with whole_file(out) as temporary:
        temporary.write_text(json.dumps(coco.content(content), separators=(",", ":")), encoding="utf-8")


def relative_to(content: Content, folder: Path) -> Content:
    """The same content with file names that lead from `folder` to the pictures."""

    def name(picture: Picture) -> str:
        return Path(os.path.relpath(content.folder / picture.file_name, folder)).as_posix()

    pictures = tuple(replace(picture, file_name=name(picture)) for picture in content.pictures)
    return replace(content, folder=folder, pictures=pictures)


def inside_name(file_name: str) -> str:
    """A file name without steps out of the folder that it will be put into."""
    parts = [part for part in PurePosixPath(file_name).parts if part not in ("/", "..", ".")]
    return "/".join(parts)


def link(source: Path, place: Path) -> None:
    """The same file at another place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), place)
    except FileExistsError as error:
        raise UserError(
            f"{place}: two pictures would have this name", hint="give them names of their own"
        ) from error
    except OSError:
        shutil.copyfile(source, place)


def crop_of(one: Instance, size: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """Its pixels: bool (h, w) and the column and row of the first."""
    return tight(bitmap(pack([outline(one)])[0], size).astype(bool), 0, 0)


def _write_yolo(
    out: Path, name: str, picture: Picture, instances: Iterable[Instance], content: Content
) -> None:
    """A line each; what one polygon cannot say becomes the outline of its pixels, joined by bridges."""
    labels = {number: label for label, number in enumerate(content.classes.ids)}
    height, width = picture.size
    lines = []
    for one in instances:
        whole = _one_ring(one, picture.size)
        if len(whole):
            numbers = (whole / (width, height)).clip(0, 1).ravel().tolist()
            lines.append(f"{labels[one.category_id]}" + " %.6f" * len(numbers) % tuple(numbers))
    place = (out / "labels" / name).with_suffix(".txt")
    with whole_file(place) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _one_ring(one: Instance, size: tuple[int, int]) -> np.ndarray:
    found = outline(one)
    if isinstance(found, list) and len(found) == 1:
        return np.array(found[0], float).reshape(-1, 2)
    parts = outlines(*crop_of(one, size))
    return joined(parts) if parts else np.zeros((0, 2))


def _write_labelme(
    out: Path, name: str, picture: Picture, instances: Iterable[Instance], content: Content
) -> None:
    shapes: list[dict[str, Any]] = []
    for number, one in enumerate(instances, start=1):
        shapes += [
            {"label": content.categories[one.category_id], "flags": {}, "description": "", **shape}
            for shape in _labelme_shapes(one, picture.size, number)
        ]
    values: dict[str, Any] = {
        "version": "5.0.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": Path(name).name,
        "imageData": None,
        "imageHeight": picture.size[0],
        "imageWidth": picture.size[1],
    }
    with whole_file((out / name).with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def _labelme_shapes(one: Instance, size: tuple[int, int], number: int) -> list[dict[str, Any]]:
    """Polygons stay as they are; of an RLE the outline, or labelme's `mask` where it has holes."""
    found = outline(one)
    if not isinstance(found, list):
        x, y, width, height = one.bbox
        return shapes_of(np.array([x, y, x + width, y + height]), *crop_of(one, size), number)
    rings = [np.array(part).reshape(-1, 2).tolist() for part in found]
    group = number if len(rings) > 1 else None
    return [{"points": ring, "group_id": group, "shape_type": "polygon"} for ring in rings]


def _write_masks(
    out: Path, name: str, picture: Picture, instances: Iterable[Instance], content: Content
) -> None:
    """uint16: 0, or 1 + the turn of the object, the small above the large; a JSON tells their names."""
    listed = list(instances)
    if len(listed) > MOST_OBJECTS:
        raise UserError(f"{name}: has {len(listed)} objects", hint=f"a label image holds {MOST_OBJECTS}")
    labels = np.zeros(picture.size, np.uint16)
    crops = [crop_of(one, picture.size) for one in listed]
    for index in sorted(range(len(listed)), key=lambda index: -int(crops[index][0].sum())):
        crop, x, y = crops[index]
        labels[y : y + crop.shape[0], x : x + crop.shape[1]][crop] = index + 1
    place = (out / "masks" / name).with_suffix(".png")
    names = [
        {"id": number, "name": content.categories[one.category_id], "category_id": one.category_id}
        for number, one in enumerate(listed, start=1)
    ]
    with whole_file(place) as temporary:
        temporary.write_bytes(png(labels))
    with whole_file(place.with_suffix(".json")) as temporary:
        values: dict[str, Any] = {"file_name": name, "instances": names}
        temporary.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


_WRITERS = {"yolo": _write_yolo, "labelme": _write_labelme, "masks": _write_masks}
