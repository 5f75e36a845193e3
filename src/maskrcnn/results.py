"""Writes what was found in image files: pictures, JSON, label images and a COCO results list."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.draw import draw
from maskrcnn.errors import UserError
from maskrcnn.images import ImageFile
from maskrcnn.masks import paste_crop
from maskrcnn.stream import Found
from maskrcnn.whole_file import disk_errors_told, shown, temporary_path, whole_file

KINDS = ("image", "json", "coco", "masks")
COCO_FILE = "predictions.json"
LONGEST_JPEG_SIDE = 65500
# COCO 2014 and 2015 put the split before the twelve digits of the id.
COCO_NAME = re.compile(r"(?:COCO_[a-z]+[0-9]{4}_)?([0-9]{1,18})")


@dataclass(frozen=True)
class Written:
    """paths: the files written for one image, the picture first. coco: its items of the COCO results list."""

    paths: tuple[Path, ...]
    coco: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Output:
    """Where and what to write for each image.

    kinds: some of KINDS. score: the least for pictures, JSON and label images.
    coco_score: the least for the COCO list, whose average precision needs the low ones as well.
    stems: by image path, names of the files to write without suffix. image_ids: by image path, for the list.
    """

    folder: Path
    kinds: tuple[str, ...]
    score: float
    coco_score: float
    stems: dict[Path, str]
    image_ids: dict[Path, int]

    def check_folder(self, images: Sequence[ImageFile]) -> None:
        """Make the folder. Raises UserError if that fails, or if a picture would replace its source."""
        with disk_errors_told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for image in images:
            stem = self.folder / self.stems[image.path]
            if stem.resolve() == image.path.with_suffix("").resolve():
                raise UserError(
                    f"--out {shown(self.folder)}: the results would take the place of {shown(image.path)}",
                    hint="choose another folder",
                )

    def write(self, found: Found) -> Written:
        """Write the files of one image, each whole or not at all. Raises UserError if the disk refuses."""
        stem = self.folder / self.stems[found.file.path]
        good = found.detections.above(self.score)
        name = found.file.name
        paths = []
        if "image" in self.kinds and found.image is not None:
            paths.append(write_picture(stem, found.file.path.suffix, draw(found.image, good)))
        if "json" in self.kinds:
            paths.append(write_json(_with_suffix(stem, ".json"), {"file_name": name, **good.to_json()}))
        if "masks" in self.kinds:
            paths.append(write_whole(_with_suffix(stem, ".masks.png"), _png(label_image(good))))
            paths.append(write_json(_with_suffix(stem, ".masks.json"), mask_names(name, good)))
        coco: list[dict[str, Any]] = []
        if "coco" in self.kinds:
            kept = found.detections.above(self.coco_score)
            coco = kept.to_coco(image_id=self.image_ids.get(found.file.path), file_name=name)
        return Written(tuple(paths), tuple(coco))


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
        while used & {name.casefold(), f"{name}.masks".casefold()}:
            name, number = f"{stem}-{number}", number + 1
        used |= {name.casefold(), f"{name}.masks".casefold()}
        unique[image.path] = name
    return unique


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


class GrowingList:
    """A JSON list in a file, written as it grows under a temporary name; use it in a `with`.

    On leaving, also through an interruption, the list is ended after the last complete addition and takes its
    name. If nothing was added, or the disk refuses, an older file of that name stays. Raises UserError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = temporary_path(path)
        self._end = 0
        with disk_errors_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._temporary, "wb")  # noqa: SIM115 (closed on leaving)

    def add(self, items: Sequence[dict[str, Any]]) -> None:
        """Append items; none still makes the file a list."""
        text = ",\n".join(json.dumps(item, separators=(",", ":")) for item in items)
        opening = "[\n" if self._end == 0 else ",\n" if text and self._end > 2 else ""
        with disk_errors_told(self.path):
            self._file.write((opening + text).encode())
            self._file.flush()
        self._end = self._file.tell()

    def __enter__(self) -> "GrowingList":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with disk_errors_told(self.path), self._file:
                self._file.truncate(self._end)
                self._file.seek(self._end)
                self._file.write(b"\n]\n")
            if self._end:
                with disk_errors_told(self.path):
                    os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def write_whole(path: Path, contents: bytes) -> Path:
    """Write under a temporary name beside it and rename: the file is whole or absent. Makes the folder."""
    with whole_file(path) as temporary:
        temporary.write_bytes(contents)
    return path


def write_json(path: Path, contents: dict[str, Any]) -> Path:
    """Write a JSON object, whole or not at all; the items of a list in it stand on lines of their own."""
    entries = []
    for key, value in contents.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"
        entries.append(f" {json.dumps(key)}: {text}")
    return write_whole(path, ("{\n" + ",\n".join(entries) + "\n}\n").encode())


def write_picture(stem: Path, suffix: str, image: np.ndarray) -> Path:
    """Write uint8 (H, W, 3) RGB as the PNG or JPEG that its source was, and as JPEG for every other
    source.
    """
    if suffix.lower() == ".png" or max(image.shape[:2]) > LONGEST_JPEG_SIDE:
        return write_whole(_with_suffix(stem, ".png"), _png(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)))
    jpeg = suffix if suffix.lower() in (".jpg", ".jpeg") else ".jpg"
    # Full colour resolution: thin coloured lines and letters smear at half.
    flags = [cv2.IMWRITE_JPEG_QUALITY, 92]
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, contents = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    return write_whole(_with_suffix(stem, jpeg), contents.tobytes())


def label_image(detections: Detections) -> np.ndarray:
    """uint16 (H, W): 0 where there is nothing, else 1 + the index of the best detection there."""
    labels = np.zeros(detections.size, np.uint16)
    for index in reversed(range(len(detections))):
        box = detections.boxes[index]
        crop, x, y = paste_crop(detections.roi_masks[index], box, detections.size, detections.mask_paste)
        labels[y : y + crop.shape[0], x : x + crop.shape[1]][crop] = index + 1
    return labels


def mask_names(file_name: str, detections: Detections) -> dict[str, Any]:
    """What the numbers in a label image are."""
    rows = zip(detections.names(), detections.category_ids(), detections.scores.tolist(), strict=True)
    return {
        "file_name": file_name,
        "instances": [
            {"id": number, "name": name, "category_id": category, "score": round(score, 5)}
            for number, (name, category, score) in enumerate(rows, start=1)
        ],
    }


def _png(image: np.ndarray) -> bytes:
    _, contents = cv2.imencode(".png", image)
    return contents.tobytes()


def _with_suffix(stem: Path, suffix: str) -> Path:
    """Path.with_suffix would cut a stem such as `photo.2024` at its last dot."""
    return stem.with_name(stem.name + suffix)
