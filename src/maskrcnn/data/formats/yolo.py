"""YOLO: a text file for each picture, `class x y x y ...` in parts of width and height, and a data.yaml."""

from pathlib import Path
from typing import Any

import yaml

from maskrcnn.data.content import Content, ContentBuilder, Picture
from maskrcnn.data.pictures import measure, pictures_below
from maskrcnn.errors import UserError

SPLITS = ("train", "val", "test")
BOX_NUMBERS = 4


def read(path: Path, split: str | None = None) -> Content:
    """A data.yaml, or the folder that holds it; split: train, val or test, or all of them."""
    path = path / "data.yaml" if path.is_dir() else path
    values = _settings(path)
    names = _names(values, path)
    root = (path.parent / str(values.get("path") or ".")).resolve()
    if not root.is_dir():
        root = path.parent.resolve()  # `path` is often where the set once was trained
    builder = ContentBuilder(path, root, "yolo", first_id=0, names=names)
    chosen: dict[Path, None] = {}
    wanted = [split] if split else [name for name in SPLITS if values.get(name)]
    for name in wanted:
        listed = values.get(name)
        if not listed:
            raise UserError(
                f"{path}: has no {name}", hint=f"it has {', '.join(k for k in SPLITS if k in values)}"
            )
        for part in listed if isinstance(listed, list) else [listed]:
            # A set without validation pictures of its own names the same ones twice.
            chosen |= dict.fromkeys(_images(root, str(part), path))
    for image in chosen:
        _read_picture(builder, image, root, len(names))
    return builder.done()


def _settings(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as YAML", hint="name the data.yaml of a YOLO set") from error
    if not isinstance(values, dict) or "names" not in values:
        raise UserError(f"{path}: has no `names`", hint="name the data.yaml of a YOLO set")
    return values


def _names(values: dict[str, Any], path: Path) -> list[str]:
    names = values["names"]
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        return [str(names[number]) for number in range(len(names))]
    if isinstance(names, list):
        return [str(name) for name in names]
    raise UserError(f"{path}: `names` is no list", hint="number the classes from 0 on, without gaps")


def _images(root: Path, part: str, path: Path) -> list[Path]:
    place = root / part if (root / part).exists() else root / part.removeprefix("../")
    if place.is_dir():
        return list(pictures_below(place).values())
    if place.is_file():
        lines = place.read_text(encoding="utf-8").splitlines()
        return [(place.parent / line.strip()).resolve() for line in lines if line.strip()]
    raise UserError(f"{place}: there is no such folder or list", hint=f"correct {path}")


def _read_picture(builder: ContentBuilder, image: Path, root: Path, classes: int) -> None:
    measured = measure(image)
    if measured is None:
        raise UserError(f"{image}: is missing or no picture", hint="remove it or restore it")
    name = image.relative_to(root).as_posix() if image.is_relative_to(root) else str(image)
    picture = builder.picture(name, measured.upright)
    labels = _label_file(image)
    if labels is None:
        return
    for number, line in enumerate(labels.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            _read_line(builder, picture, line, classes, f"{labels}: line {number}")


def _label_file(image: Path) -> Path | None:
    """`labels` in place of the last folder `images`, as every YOLO does it; else beside the picture."""
    parts = list(image.parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    for path in (Path(*parts).with_suffix(".txt"), image.with_suffix(".txt")):
        if path.is_file():
            return path
    return None


def _read_line(builder: ContentBuilder, picture: Picture, line: str, classes: int, place: str) -> None:
    try:
        first, *numbers = line.split()
        label, values = int(first), [float(number) for number in numbers]
        if len(values) < BOX_NUMBERS or len(values) % 2:
            raise ValueError(f"{len(values)} numbers")
    except ValueError as error:
        raise UserError(
            f"{place} is not `class x y x y ...` ({line[:40]!r})", hint="export it again"
        ) from error
    if not 0 <= label < classes:
        raise UserError(f"{place} has class {label} of {classes}", hint="correct it, or `names` in data.yaml")
    height, width = picture.size
    if len(values) == BOX_NUMBERS:
        x, y, w, h = (value * side for value, side in zip(values, (width, height) * 2, strict=True))
        builder.box(picture, label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), place)
    else:
        scaled = [value * (height if index % 2 else width) for index, value in enumerate(values)]
        builder.polygons(picture, label, [scaled], place)
