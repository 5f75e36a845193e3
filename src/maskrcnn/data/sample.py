"""One training image with its instances as bitmaps.

G instances.
"""

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle

from maskrcnn.data.dataset import Dataset
from maskrcnn.data.shapes import Segmentation
from maskrcnn.errors import UserError
from maskrcnn.images import read_image

Array = np.ndarray


@dataclass(frozen=True)
class Sample:
    """image (H, W, 3) uint8 RGB. boxes (G, 4) float32 in image pixels, labels (G,) int64, crowd (G,) bool.

    masks (G, H, W) uint8, 1 inside.
    """

    image: Array
    boxes: Array
    labels: Array
    crowd: Array
    masks: Array


def load(dataset: Dataset, index: int) -> Sample:
    """Read one image with its instances. Raises UserError where the file and the annotations disagree."""
    path, size = dataset.files[index], tuple(int(side) for side in dataset.sizes[index])
    image = read_image(path)
    if image.shape[:2] != size:
        raise UserError(
            f"{path}: is {image.shape[1]} x {image.shape[0]} pixels, "
            f"its annotations say {size[1]} x {size[0]}",
            hint="correct width and height in the annotations, or restore the photograph they were made for",
        )
    rows = dataset.rows(index)
    masks = np.zeros((rows.stop - rows.start, *size), np.uint8)
    for row, mask in zip(range(rows.start, rows.stop), masks, strict=True):
        mask[:] = bitmap(dataset.segmentations[row], (size[0], size[1]))
    return Sample(image, dataset.boxes[rows], dataset.labels[rows], dataset.crowd[rows], masks)


def bitmap(segmentation: Segmentation, size: tuple[int, int]) -> Array:
    """Polygons in image pixels, or RLE, as (H, W) uint8, 1 inside."""
    if isinstance(segmentation, tuple):
        polygons = [polygon.ravel().tolist() for polygon in segmentation]
        if not polygons:
            return np.zeros(size, np.uint8)
        counts = rle.merge(rle.frPyObjects(polygons, *size))["counts"]
    else:
        counts = segmentation["counts"]
    lengths = run_lengths(counts) if isinstance(counts, str | bytes) else np.array(counts, np.int64)
    if lengths.sum() != size[0] * size[1]:
        raise UserError(
            f"an RLE mask covers {lengths.sum()} pixels, its image has {size[1]} x {size[0]}",
            hint="correct the annotations, or restore the photograph they were made for",
        )
    inside = np.arange(len(lengths), dtype=np.uint8) % 2
    return np.repeat(inside, lengths).reshape(size[1], size[0]).T


def run_lengths(counts: str | bytes) -> Array:
    """The run lengths (int64) in COCO's text form.

    A character from chr(48) on carries 5 bits, its bit 5 says that more follow, the last one's bit 4 is the
    sign; from the fourth on a length is the difference to the one before the last. pycocotools' own decoder
    warns under numpy 2.
    """
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = (codes & 32) == 0
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    lengths = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = (codes[last] & 16) != 0
    lengths -= np.where(negative, np.int64(1) << (5 * (place[last] + 1)), 0)
    lengths[1::2] = lengths[1::2].cumsum()
    lengths[2::2] = lengths[2::2].cumsum()
    return lengths
