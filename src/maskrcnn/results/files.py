"""The files of one image: each is written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.images import ImageFile
from maskrcnn.whole_file import whole_file

LONGEST_JPEG_SIDE = 65500


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
        return write_whole(with_suffix(stem, ".png"), png(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)))
    jpeg = suffix if suffix.lower() in (".jpg", ".jpeg") else ".jpg"
    # Full colour resolution: thin coloured lines and letters smear at half.
    flags = [cv2.IMWRITE_JPEG_QUALITY, 92]
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, contents = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    return write_whole(with_suffix(stem, jpeg), contents.tobytes())


def way_to(file: ImageFile, folder: Path) -> str:
    """How a result in that folder names its image, with `/`; by name alone where no file can be named."""
    try:
        return Path(os.path.relpath(file.path, folder)).as_posix() if file.path.is_file() else file.name
    except (OSError, ValueError):  # a name that is too long; another drive
        return file.name


def label_image(detections: Detections) -> np.ndarray:
    """uint16 (H, W): 0 where there is nothing, else 1 + the index of the best detection there."""
    labels = np.zeros(detections.size, np.uint16)
    numbered = list(enumerate(detections.crops(), start=1))
    for number, (crop, x, y) in reversed(numbered):
        labels[y : y + crop.shape[0], x : x + crop.shape[1]][crop] = number
    return labels


def mask_names(file_name: str, detections: Detections) -> dict[str, Any]:
    """What the numbers in a label image are."""
    rows = zip(detections.names(), detections.category_ids(), detections.scores.tolist(), strict=True)
    instances: list[dict[str, Any]] = [
        {"id": number, "name": name, "category_id": category, "score": round(score, 5)}
        for number, (name, category, score) in enumerate(rows, start=1)
    ]
    if detections.tracks is not None:
        for instance, track in zip(instances, detections.track_ids(), strict=True):
            instance["track_id"] = track
    return {"file_name": file_name, "instances": instances}


def png(image: np.ndarray) -> bytes:
    """A PNG of uint8 or uint16 (H, W), or of uint8 (H, W, 3) in OpenCV's order BGR."""
    _, contents = cv2.imencode(".png", image)
    return contents.tobytes()


def with_suffix(stem: Path, suffix: str) -> Path:
    """Path.with_suffix would cut a stem such as `photo.2024` at its last dot."""
    return stem.with_name(stem.name + suffix)
