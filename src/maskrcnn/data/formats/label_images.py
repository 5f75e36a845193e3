"""Label images: beside each picture a PNG of its size in which a pixel has the number of its object."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn.data.content import Content, ContentBuilder, Picture, read_json
from maskrcnn.data.pictures import measure, pictures_below
from maskrcnn.errors import UserError

FOLDERS = ("masks", "labels", "annotations", "gt")
GREY, COLOURED = 2, 3
WHAT = "a folder with `images` and `masks`"


def folders_of(folder: Path) -> tuple[Path, Path] | None:
    """The folders of pictures and of label images below `folder`; None where there are none."""
    for name in FOLDERS:
        if (folder / "images").is_dir() and (folder / name).is_dir():
            return folder / "images", folder / name
    return None


def read(folder: Path, name: str = "object") -> Content:
    """Every picture of `images` with its label image of the same stem; 0 is background.

    Objects are all of the category `name`, unless a JSON of that stem lists `instances` with id and name, as
    `maskrcnn predict --save masks` writes beside its label images.
    """
    found = folders_of(folder)
    if found is None:
        raise UserError(f"{folder}: has no label images", hint=f"name {WHAT}")
    pictures, masks = found
    builder = ContentBuilder(folder, pictures, "masks")
    by_stem = {Path(key).with_suffix("").as_posix(): path for key, path in pictures_below(masks).items()}
    for key, path in pictures_below(pictures).items():
        measured = measure(path)
        if measured is None:
            raise UserError(f"{path}: is no readable picture", hint="remove it or restore it")
        picture = builder.picture(key, measured.upright)
        stem = Path(key).with_suffix("").as_posix()
        labels = by_stem.get(stem) or by_stem.get(f"{stem}.masks")
        if labels is not None:
            add_label_image(builder, picture, read_labels(labels, picture), labels, _names(labels), name)
    return builder.done()


def read_labels(path: Path, picture: Picture) -> np.ndarray:
    """A label image as integers (H, W); a coloured one counts its colours. Raises UserError in words."""
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if labels is None:
        raise UserError(f"{path}: is no readable picture", hint="give a PNG of 8 or 16 bits")
    if labels.shape[:2] != picture.size:
        raise UserError(
            f"{path}: is {labels.shape[1]} x {labels.shape[0]} pixels, {picture.file_name} is "
            f"{picture.size[1]} x {picture.size[0]}",
            hint="a label image is as large as its picture",
        )
    if labels.ndim == COLOURED:
        labels = (
            labels[..., 0] + labels[..., 1].astype(np.int64) * 256 + labels[..., 2].astype(np.int64) * 65536
        )
    return labels


def add_label_image(
    builder: ContentBuilder,
    picture: Picture,
    labels: np.ndarray,
    place: Path,
    names: dict[int, str],
    otherwise: str,
) -> None:
    """Each number above 0 becomes an instance, cut out of the rows and columns that it reaches."""
    numbers, flat = np.unique(labels, return_inverse=True)
    flat = flat.reshape(labels.shape)
    for index, number in enumerate(numbers.tolist()):
        if number == 0:
            continue
        inside = flat == index
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        crop = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        category = builder.category(names.get(number, otherwise))
        builder.mask(picture, category, crop, int(columns[0]), int(rows[0]), f"{place}: object {number}")


def _names(labels: Path) -> dict[int, str]:
    path = labels.with_suffix(".json")
    if not path.is_file():
        return {}
    values: Any = read_json(path, "what `maskrcnn predict --save masks` wrote")
    try:
        return {int(one["id"]): str(one["name"]) for one in values["instances"]}
    except (KeyError, TypeError, ValueError):
        return {}
