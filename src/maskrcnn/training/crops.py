"""Labelled crops for teaching a trunk to name objects: cut once, augmented on every use.

B crops in a batch, S side of a crop.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from maskrcnn.data.dataset import Dataset
from maskrcnn.errors import UserError
from maskrcnn.images import read_image

Array = np.ndarray

CONTEXT = 1.3


@dataclass(frozen=True)
class Crops:
    """pixels (N, S, S, 3) uint8 RGB, labels (N,) int64."""

    pixels: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)


def cut(dataset: Dataset, indices: Array, side: int, smallest: float) -> Crops:
    """Square crops around the instances of these images that are at least `smallest` pixels long."""
    pixels, labels = [], []
    for index in indices:
        rows = dataset.rows(int(index))
        boxes, crowd = dataset.boxes[rows], dataset.crowd[rows]
        large = ((boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) >= smallest) & ~crowd
        if not large.any():
            continue
        image = read_image(dataset.files[int(index)])
        pixels += [_square(image, box, side) for box in boxes[large]]
        labels.append(dataset.labels[rows][large])
    if not pixels:
        raise UserError(
            f"{dataset.files[0].parent}: has no instance of {smallest:g} pixels or more",
            hint="use larger photographs, or a smaller limit",
        )
    return Crops(np.stack(pixels), np.concatenate(labels))


def draw(crops: Crops, size: int, side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """An augmented batch (B, 3, side, side) float32 in 0..255 with labels (B,); rare classes come more often.

    A class is drawn in proportion to the square root of its number of crops.
    """
    weights = 1 / np.sqrt(np.bincount(crops.labels)[crops.labels])
    rows = rng.choice(len(crops), size, p=weights / weights.sum())
    pixels = np.stack([_random_view(crops.pixels[row], side, rng) for row in rows])
    return _jitter(torch.from_numpy(pixels).permute(0, 3, 1, 2), rng), torch.from_numpy(crops.labels[rows])


def _square(image: Array, box: Array, side: int) -> Array:
    half = CONTEXT * (box[2:] - box[:2]).max() / 2
    centre = (box[:2] + box[2:]) / 2
    scale = side / (2 * half)
    if scale < 1:  # average before sampling, bilinear alone would skip pixels
        x1, y1 = np.floor(np.maximum(centre - half, 0)).astype(int)
        x2, y2 = np.ceil(centre + half).astype(int)
        region = image[y1:y2, x1:x2]
        height, width = (max(1, round(n * scale)) for n in region.shape[:2])
        image = cv2.resize(region, (width, height), interpolation=cv2.INTER_AREA)
        centre, half, scale = (centre - (x1, y1)) * scale, half * scale, 1.0
    shift = side / 2 - centre * scale
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
    return cv2.warpAffine(
        image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _random_view(pixels: Array, side: int, rng: np.random.Generator) -> Array:
    """A random part of 30 % to 100 % of the area; half of them mirrored, a quarter with a part erased."""
    full = len(pixels)
    area, ratio = rng.uniform(0.3, 1.0), np.exp(rng.uniform(-0.3, 0.3))
    width, height = (min(1.0, np.sqrt(area * r)) * full for r in (ratio, 1 / ratio))
    left, top = rng.uniform(0, full - width), rng.uniform(0, full - height)
    sx, sy = side / width, side / height
    mirror = rng.random() < 0.5
    row_x = [-sx, 0, side + left * sx - 1] if mirror else [sx, 0, -left * sx]
    matrix = np.array([row_x, [0, sy, -top * sy]], np.float32)
    view = cv2.warpAffine(
        pixels, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if rng.random() < 0.25:
        h, w = rng.integers(side // 8, side // 2, 2)
        y, x = rng.integers(0, side - h), rng.integers(0, side - w)
        view[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return view


def _jitter(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast and saturation by up to 40 % each, by crop."""
    x = pixels.to(torch.float32, memory_format=torch.channels_last)
    factors = torch.from_numpy(rng.uniform(0.6, 1.4, (3, len(x), 1, 1, 1)).astype(np.float32))
    x = x.mean(1, keepdim=True).lerp(x, factors[0])
    x = x.mean((1, 2, 3), keepdim=True).lerp(x, factors[1])
    return (x * factors[2]).clamp_(0, 255)
