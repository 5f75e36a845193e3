"""Random views of a training image, all in image pixels; resizing is the model's own preprocessing, later."""

from dataclasses import dataclass, replace

import numpy as np

from maskrcnn.data.sample import Sample
from maskrcnn.errors import UserError
from maskrcnn.spec import Preprocess

Array = np.ndarray


@dataclass(frozen=True)
class Augment:
    """Random views.

    flip: probability of a mirror image.
    crop: probability of cutting out a part.
    crop_area: smallest part, as a share of the image.
    jitter: brightness, contrast and saturation change by up to this share, each on its own.
    visible: an instance of which a cut leaves a smaller share becomes a crowd region, which teaches nothing.
    zoom: least and greatest scale of large-scale jitter (Ghiasi et al. 2021: 0.1 to 2): above 1 a part is cut
        out and fills the network's size, below 1 the image is as much smaller than it.
    sides: heights and widths in network pixels of which each image is given one of each; only for images
        that are stretched (preprocess.resize=stretch).
    """

    flip: float = 0.5
    crop: float = 0.0
    crop_area: float = 0.25
    jitter: float = 0.0
    visible: float = 0.25
    zoom: tuple[float, float] | None = None
    sides: tuple[tuple[int, ...], tuple[int, ...]] | None = None


def augment(sample: Sample, config: Augment, rng: np.random.Generator) -> Sample:
    """A random view of the sample."""
    if rng.random() < config.crop:
        sample = cut_out(sample, *_window(sample.image.shape[:2], config.crop_area, rng), config.visible)
    if rng.random() < config.flip:
        sample = mirror(sample)
    if config.jitter:
        sample = Sample(
            jitter(sample.image, *rng.uniform(1 - config.jitter, 1 + config.jitter, 3)),
            sample.boxes,
            sample.labels,
            sample.crowd,
            sample.masks,
        )
    return sample


def zoomed(
    sample: Sample, preprocess: Preprocess, zoom: tuple[float, float], rng: np.random.Generator
) -> tuple[Sample, Preprocess]:
    """A sample at a random scale of its size in the network: what is left of it, and how it is resized."""
    scale = rng.uniform(*zoom)
    if scale <= 1:
        short, long = (max(1, round(side * scale)) for side in (preprocess.short, preprocess.long))
        return sample, replace(preprocess, short=short, long=long)
    height, width = (max(1, round(side / scale)) for side in sample.image.shape[:2])
    y = int(rng.integers(0, sample.image.shape[0] - height + 1))
    x = int(rng.integers(0, sample.image.shape[1] - width + 1))
    return cut_out(sample, x, y, x + width, y + height, visible=0.0), preprocess


def stretched(
    preprocess: Preprocess, sides: tuple[tuple[int, ...], tuple[int, ...]], rng: np.random.Generator
) -> Preprocess:
    """Stretching to one of the heights and, drawn on its own, one of the widths. Raises UserError."""
    if preprocess.resize != "stretch" or not all(sides):
        raise UserError(
            f"training.augment.sides={sides}: heights and widths are for images that are stretched",
            hint="use preprocess.resize=stretch, or training.shorts",
        )
    height, width = (int(rng.choice(side)) for side in sides)
    return replace(preprocess, short=height, long=width)


def mirror(sample: Sample) -> Sample:
    """Left and right exchanged."""
    width = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    image, masks = np.ascontiguousarray(sample.image[:, ::-1]), np.ascontiguousarray(sample.masks[:, :, ::-1])
    return Sample(image, boxes, sample.labels, sample.crowd, masks)


def cut_out(sample: Sample, x1: int, y1: int, x2: int, y2: int, visible: float) -> Sample:
    """The part x1..x2, y1..y2; boxes shrink to what is left of their masks, vanished instances go."""
    masks = sample.masks[:, y1:y2, x1:x2]
    before, after = (np.count_nonzero(m, axis=(1, 2)) for m in (sample.masks, masks))
    kept = after > 0
    masks = np.ascontiguousarray(masks[kept])
    crowd = sample.crowd[kept] | (after[kept] < visible * before[kept])
    corner = np.array([x1, y1, x1, y1], np.float32)
    limit = np.array([x2 - x1, y2 - y1] * 2, np.float32)
    clipped = np.clip(sample.boxes[kept] - corner, 0, limit)
    touched = np.any(clipped != sample.boxes[kept] - corner, axis=1, keepdims=True)
    boxes = np.where(touched, tight_boxes(masks), clipped).astype(np.float32)
    return Sample(np.ascontiguousarray(sample.image[y1:y2, x1:x2]), boxes, sample.labels[kept], crowd, masks)


def tight_boxes(masks: Array) -> Array:
    """masks (G, H, W), none empty -> the smallest boxes (G, 4) float32 around them."""
    if len(masks) == 0:
        return np.zeros((0, 4), np.float32)
    columns, rows = np.any(masks, axis=1), np.any(masks, axis=2)
    left, right = columns.argmax(1), columns.shape[1] - columns[:, ::-1].argmax(1)
    top, bottom = rows.argmax(1), rows.shape[1] - rows[:, ::-1].argmax(1)
    return np.stack([left, top, right, bottom], 1).astype(np.float32)


def jitter(image: Array, brightness: float, contrast: float, saturation: float) -> Array:
    """Each factor 1 leaves the image as it is; saturation 0 is grey, contrast 0 the mean colour."""
    x = image.astype(np.float32)
    grey = x.mean(2, keepdims=True)
    x = grey + (x - grey) * np.float32(saturation)
    mean = grey.mean()
    x = (mean + (x - mean) * np.float32(contrast)) * np.float32(brightness)
    return np.clip(x + 0.5, 0, 255).astype(np.uint8)


def _window(size: tuple[int, int], smallest: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of a random part: `smallest` to all of the area, nearly the shape of the image."""
    share, shape = rng.uniform(smallest, 1.0), np.exp(rng.uniform(-0.2, 0.2))
    height, width = (
        max(1, min(full, round(full * np.sqrt(share * ratio))))
        for full, ratio in zip(size, (shape, 1 / shape), strict=True)
    )
    y, x = rng.integers(0, size[0] - height + 1), rng.integers(0, size[1] - width + 1)
    return int(x), int(y), int(x + width), int(y + height)
