"""Pascal VOC: JPEGImages with SegmentationObject and SegmentationClass, or with boxes in Annotations."""

from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn.data.content import Content, ContentBuilder, Picture
from maskrcnn.data.formats.cvat import parse_xml
from maskrcnn.data.formats.label_images import add_label_image
from maskrcnn.data.pictures import measure
from maskrcnn.errors import UserError

# Everingham et al. 2010, in the order of the numbers in SegmentationClass.
NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOID = 255
WHAT = "a VOC folder with JPEGImages and SegmentationObject or Annotations"


def is_voc(folder: Path) -> bool:
    """Whether a folder looks like VOC."""
    parts = ("SegmentationObject", "Annotations")
    return (folder / "JPEGImages").is_dir() and any((folder / part).is_dir() for part in parts)


def read(folder: Path, split: str | None = None) -> Content:
    """Pictures with a SegmentationObject; without that folder those with boxes in Annotations.

    split: a list in ImageSets, such as train. Names are those of VOC, or of a `labelmap.txt`.
    """
    masks = folder / "SegmentationObject"
    segmented = masks.is_dir()
    suffix, listed = (".png", masks) if segmented else (".xml", folder / "Annotations")
    stems = sorted(path.stem for path in listed.glob(f"*{suffix}"))
    if split:
        kind = "Segmentation" if segmented else "Main"
        wanted = set(_list(folder / "ImageSets" / kind / f"{split}.txt"))
        stems = [stem for stem in stems if stem in wanted]
    names = _names(folder)
    builder = ContentBuilder(folder, folder / "JPEGImages", "voc", names=names if segmented else ())
    for stem in stems:
        image = folder / "JPEGImages" / f"{stem}.jpg"
        measured = measure(image)
        if measured is None:
            raise UserError(f"{image}: is missing or no picture", hint=f"name {WHAT}")
        picture = builder.picture(image.name, measured.upright)
        if segmented:
            _read_masks(builder, folder, stem, picture, names)
        else:
            _read_boxes(builder, listed / f"{stem}.xml", picture)
    return builder.done()


def _names(folder: Path) -> list[str]:
    """CVAT writes labelmap.txt, `name:r,g,b:parts:actions` a line with `background` first."""
    path = folder / "labelmap.txt"
    if not path.is_file():
        return list(NAMES)
    names = [line.split(":")[0] for line in _list(path) if not line.startswith("#")]
    return [name for name in names if name != "background"]


def _list(path: Path) -> list[str]:
    try:
        return [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", hint=f"name {WHAT}") from error


def _read_masks(builder: ContentBuilder, folder: Path, stem: str, picture: Picture, names: list[str]) -> None:
    place = folder / "SegmentationObject" / f"{stem}.png"
    objects, classes = (
        _palette(folder / part / f"{stem}.png") for part in (place.parent.name, "SegmentationClass")
    )
    if objects.shape != picture.size or classes.shape != picture.size:
        raise UserError(f"{place}: is not as large as {picture.file_name}", hint=f"name {WHAT}")
    objects = np.where(objects == VOID, 0, objects)
    named = {}
    for number in np.unique(objects[objects > 0]).tolist():
        votes = np.bincount(classes[objects == number], minlength=1)
        label = int(votes[1 : len(names) + 1].argmax()) if len(votes) > 1 else 0
        named[number] = names[label]
    add_label_image(builder, picture, objects, place, named, "object")


def _palette(path: Path) -> np.ndarray:
    """The numbers of a PNG with a palette, not its colours."""
    try:
        with Image.open(path) as picture:
            values = np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: is missing or no PNG", hint=f"name {WHAT}") from error
    if values.ndim != 2:
        raise UserError(f"{path}: has colours without a palette", hint="save it with the palette of VOC")
    return values


def _read_boxes(builder: ContentBuilder, path: Path, picture: Picture) -> None:
    for number, item in enumerate(parse_xml(path, WHAT).findall("object"), start=1):
        place = f"{path}: object {number}"
        try:
            x1, y1, x2, y2 = (
                float(item.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError as error:
            raise UserError(f"{place} has no usable bndbox", hint=f"name {WHAT}") from error
        # VOC counts pixels from 1 and includes both ends.
        name = item.findtext("name") or "object"
        builder.box(picture, builder.category(name), (x1 - 1, y1 - 1, x2, y2), place)
