"""Reads annotations of any format that is known by its content."""

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

from maskrcnn.data.content import Content, Picture, read_json
from maskrcnn.data.formats import coco, cvat, label_images, labelme, via, voc, yolo
from maskrcnn.data.pictures import by_last_part, pictures_below
from maskrcnn.errors import UserError

FORMATS = ("coco", "labelme", "via", "yolo", "voc", "cvat", "masks")
HINT = (
    "known are a COCO or VIA .json, a folder of labelme files, a YOLO data.yaml, a VOC folder, a CVAT .xml, "
    "and `images` beside `masks`"
)


def read_annotations(path: Path, images: Path | None = None, split: str | None = None) -> Content:
    """A file or folder of annotations in whichever of FORMATS it is.

    images: folder of the pictures where it is not the usual one; names that begin elsewhere are looked for
    below it by their last part, where that is clear. split: of a YOLO or VOC set.
    """
    content = _read(path, images, split)
    return content if _begins_at(content, content.folder) else _found(content, images is not None)


def _begins_at(content: Content, folder: Path) -> bool:
    """Whether names of pictures are relative to this folder, by the first."""
    return not content.pictures or (folder / content.pictures[0].file_name).is_file()


def _found(content: Content, named: bool) -> Content:
    """With the folder or the names by which pictures are there; as it is where they are not.

    named: the folder was given, and is no guess.
    """
    beside = content.path.parent
    if not named:
        return replace(content, folder=beside) if _begins_at(content, beside) else content
    below = pictures_below(content.folder)
    clear = by_last_part(below)

    def name(picture: Picture) -> str:
        listed = picture.file_name
        return listed if listed in below else clear.get(PurePosixPath(listed).name, listed)

    pictures = tuple(replace(picture, file_name=name(picture)) for picture in content.pictures)
    return replace(content, pictures=pictures)


def _read(path: Path, images: Path | None, split: str | None) -> Content:
    if not path.exists():
        raise UserError(f"{path}: no such file or folder", hint="check the path")
    if path.is_dir():
        return _read_folder(path, images, split)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return yolo.read(path, split)
    if suffix == ".xml":
        if cvat.is_cvat(cvat.parse_xml(path, cvat.WHAT)):
            return cvat.read(path, images)
        raise UserError(f"{path}: is XML, but not of `CVAT for images`", hint=HINT)
    values = read_json(path, "annotations")
    if coco.is_coco(values):
        return coco.read(path, images)
    if via.is_via(values):
        return via.read(path, images)
    if labelme.is_labelme(values):
        return labelme.read(path.parent)
    raise UserError(f"{path}: holds annotations of no known format", hint=HINT)


def _read_folder(folder: Path, images: Path | None, split: str | None) -> Content:
    if (folder / "data.yaml").is_file():
        return yolo.read(folder, split)
    if voc.is_voc(folder):
        return voc.read(folder, split)
    for name in ("instances.json", "annotations.json", "_annotations.coco.json", "annotations.xml"):
        if (folder / name).is_file():
            return _read(folder / name, images, None)
    lone = _lone_file(folder)
    if lone is not None:
        return _read(lone, images, None)
    if label_images.folders_of(folder):
        return label_images.read(folder)
    if any(_is_labelme(path) for path in sorted(folder.rglob("*.json"))[:20]):
        return labelme.read(folder)
    raise UserError(f"{folder}: holds annotations of no known format", hint=HINT)


def _lone_file(folder: Path) -> Path | None:
    """The only COCO or VIA file in a folder. Raises UserError where there are several."""
    found = []
    for path in sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json")]):
        values = _parsed(path)
        if coco.is_coco(values) or via.is_via(values):
            found.append(path)
    if len(found) > 1:
        raise UserError(
            f"{folder}: holds {len(found)} annotation files, {found[0].name} and {found[1].name} among them",
            hint="name the file",
        )
    return found[0] if found else None


def _is_labelme(path: Path) -> bool:
    return labelme.is_labelme(_parsed(path))


def _parsed(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
