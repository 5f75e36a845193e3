"""Photographs of white rectangles, and engines that find these by their brightness."""

import json
from pathlib import Path

import cv2
import numpy as np

from maskrcnn.backends.contracts.ascend import CONTRACT, INPUT, mmdetection_spec
from maskrcnn.backends.foreign_graph import ForeignGraph
from maskrcnn.detections import Raw
from maskrcnn.predict import Predictor
from maskrcnn.spec import Exported, Spec

ROWS, CLASSES, SIDE = 100, 80, 28
WINDOW = (128, 192)
# Name: size (height, width), and the rectangle x1, y1, x2, y2 in it.
SCENES = {
    "000000000139.jpg": ((120, 160), (40, 30, 120, 90)),
    "000000100139.jpg": ((160, 100), (20, 40, 70, 140)),
    "000000000285.jpg": ((64, 64), (8, 16, 40, 56)),
}
LABEL, CATEGORY = 15, 17  # cat


def photographs(folder: Path) -> Path:
    """A folder with the scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (size, box) in SCENES.items():
        image = np.full((*size, 3), 60, np.uint8)
        x1, y1, x2, y2 = box
        image[y1:y2, x1:x2] = 255
        cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
    return folder


def annotations(path: Path) -> Path:
    """What is in them, with COCO's ids of images and of cats."""
    images, objects = [], []
    for name, ((height, width), (x1, y1, x2, y2)) in SCENES.items():
        number = int(Path(name).stem)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        outline = [x1, y1, x2, y1, x2, y2, x1, y2]
        bbox = [x1, y1, x2 - x1, y2 - y1]
        objects.append(
            {
                "id": len(objects) + 1,
                "image_id": number,
                "category_id": CATEGORY,
                "bbox": bbox,
                "area": bbox[2] * bbox[3],
                "iscrowd": 0,
                "segmentation": [outline],
            }
        )
    categories = [{"id": CATEGORY, "name": "cat"}, {"id": 1, "name": "person"}]
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return path


def brightest(planes: np.ndarray, least: float) -> np.ndarray:
    """planes (3, H, W) -> the box (4,) around what is brighter than that, zeros where nothing is."""
    rows, columns = np.nonzero((planes > least).all(0))
    if not len(rows):
        return np.zeros(4, np.float32)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)


class Ours:
    """A backend of ours: images in 0..255, masks of the labels alone."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.sizes: list[list[list[int]]] = []

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """One cat in each image."""
        self.sizes.append(size.tolist())
        count = len(image)
        raw = Raw(
            np.zeros((count, ROWS, 4), np.float32),
            np.zeros((count, ROWS), np.float32),
            np.zeros((count, ROWS), np.int64),
            np.zeros((count, ROWS, SIDE, SIDE), np.float32),
        )
        for row, planes in enumerate(image):
            raw.boxes[row, 0] = brightest(planes, 160)
            raw.scores[row, 0], raw.labels[row, 0], raw.masks[row, 0] = 0.9, LABEL, 1
        return raw


class Theirs:
    """A session with a graph of Ascend's layout: normalised planes, masks of all classes."""

    def __init__(self, spec: Spec) -> None:
        mean, std = np.array(spec.model.mean), np.array(spec.model.std)
        self.least = float(((160 - mean) / std).max())
        self.seen: list[np.ndarray] = []

    def __call__(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One cat in the image; every other class has a mask of one half."""
        planes = arrays[INPUT]
        assert planes.dtype == np.float32
        assert len(planes) == 1
        self.seen.append(planes[0])
        dets = np.zeros((ROWS, 5), np.float32)
        dets[0] = [*brightest(planes[0], self.least), 0.9]
        labels, masks = np.zeros(ROWS, np.int32), np.full((ROWS, CLASSES, SIDE, SIDE), 0.5, np.float32)
        labels[0] = LABEL
        masks[0, LABEL] = 1
        return {"dets": dets, "labels": labels, "masks": masks}


def their_model(size: tuple[int, int] = WINDOW) -> Predictor:
    """On a graph of their layout."""
    spec = mmdetection_spec(size)
    return Predictor(ForeignGraph(spec, Theirs(spec), CONTRACT))


def our_model(spec: Spec | None = None, exported: Exported | None = None) -> Predictor:
    """On a model of ours, of any size."""
    from dataclasses import replace

    spec = spec or replace(mmdetection_spec(WINDOW), exported=exported)
    return Predictor(Ours(spec))


def by_hand(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What `mmdet_preprocess.py` computes, step by step: image (h, w, 3) BGR -> float32 (3, H, W)."""
    (height, width), (h, w) = size, image.shape[:2]
    scale = min(width / w, height / h)
    resized = cv2.resize(
        image, (int(np.floor(w * scale)), int(np.floor(h * scale))), interpolation=cv2.INTER_LINEAR
    )
    rgb = resized[..., ::-1].astype(np.float32)
    rgb -= np.array([123.675, 116.28, 103.53], np.float32)
    rgb *= (1 / np.array([58.395, 57.12, 57.375])).astype(np.float32)
    left, top = (width - rgb.shape[1]) // 2, (height - rgb.shape[0]) // 2
    below, right = height - rgb.shape[0] - top, width - rgb.shape[1] - left
    padded = np.pad(rgb, ((top, below), (left, right), (0, 0)))
    return padded.transpose(2, 0, 1)
