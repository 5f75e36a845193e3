"""The names that results get from their images, and the image ids that data sets give to them."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from maskrcnn.errors import UserError
from maskrcnn.images import ImageFile

# COCO 2014 and 2015 put the split before the twelve digits of the id.
COCO_NAME = re.compile(r"(?:COCO_[a-z]+[0-9]{4}_)?([0-9]{1,18})")


def stems_of(images: Sequence[ImageFile], taken: Sequence[str] = ()) -> dict[Path, str]:
    """A name without suffix for the results of each image: its own name, longer where two would share it.

    Images of the same name in two folders get the folders' names before them, `a.jpg` beside `a.png` becomes
    `a_jpg` and `a_png`. Capitals do not tell names apart, since some file systems ignore them.
    """
    paths = [Path(os.path.abspath(image.path)) for image in images]
    stems = [str(Path(image.name).with_suffix("")) for image in images]
    top = os.path.commonpath([path.parent for path in paths]) if paths else ""
    longer = [str(path.relative_to(top).with_suffix("")) for path in paths]
    longest = [stem + path.suffix.replace(".", "_") for stem, path in zip(longer, paths, strict=True)]
    for choice in (longer, longest):
        count = Counter(stem.casefold() for stem in stems)
        stems = [
            other if count[stem.casefold()] > 1 else stem for stem, other in zip(stems, choice, strict=True)
        ]
    used = {stem.casefold() for stem in taken}
    unique = {}
    for image, stem in zip(images, stems, strict=True):
        number, name = 2, stem
        while used & _claimed(name):
            name, number = f"{stem}-{number}", number + 1
        used |= _claimed(name)
        unique[image.path] = name
    return unique


def _claimed(stem: str) -> set[str]:
    """The stems of all JSON files of one image."""
    return {claim.casefold() for claim in (stem, f"{stem}.masks", f"labelme/{stem}")}


def ids_from_names(images: Sequence[ImageFile]) -> dict[Path, int]:
    """COCO image ids of files named by them, such as 000000000139.jpg; none at all if two would share one."""
    matches = {image.path: COCO_NAME.fullmatch(Path(image.name).stem) for image in images}
    ids = {path: int(match[1]) for path, match in matches.items() if match}
    return ids if len(set(ids.values())) == len(ids) else {}


def ids_from_annotations(images: Sequence[ImageFile], annotations: Path) -> dict[Path, int]:
    """Image ids by `file_name` in a COCO annotation file; the bare name does where it is clear."""
    try:
        listed = json.loads(annotations.read_bytes())["images"]
        by_name = {str(entry["file_name"]): int(entry["id"]) for entry in listed}
    except OSError as error:
        raise UserError(f"{annotations}: cannot be read ({error.strerror})", hint="check the path") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{annotations}: has no list `images` with `id` and `file_name`",
            hint="name a COCO annotation file",
        ) from error
    count = Counter(Path(name).name for name in by_name)
    bare = {Path(name).name: number for name, number in by_name.items() if count[Path(name).name] == 1}
    found = {image.path: by_name.get(image.name, bare.get(Path(image.name).name)) for image in images}
    return {path: number for path, number in found.items() if number is not None}
