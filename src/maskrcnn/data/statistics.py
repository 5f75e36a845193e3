"""What a data set is like: counts, sizes of pictures and objects, and whether anchors fit them.

A annotations, N anchors.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from maskrcnn.config import AnchorConfig
from maskrcnn.data.content import Content
from maskrcnn.data.dataset import Dataset, dataset_of
from maskrcnn.preprocess import resized_size
from maskrcnn.spec import Preprocess

Array = np.ndarray

# Areas in image pixels that COCO calls small and medium.
SMALL, MEDIUM = 32**2, 96**2
# An anchor learns a box from this IoU on, anchors below are background (Ren et al. 2015).
MATCHES = 0.5


@dataclass(frozen=True)
class ClassCount:
    """Of one class: instances, and pictures that hold at least one."""

    name: str
    instances: int
    pictures: int


@dataclass(frozen=True)
class Statistics:
    """Sizes in image pixels are (height, width); sides are square roots of box areas.

    sides: 5, 25, 50, 75 and 95 percentiles of objects in image pixels; sides_net: the same in network pixels.
    per_picture: least, median and most instances of a picture. anchors_fit: share of objects for which some
    anchor could have an IoU of 0.5. tiny_net: share of objects under 16 network pixels.
    """

    pictures: int
    empty: int
    instances: int
    crowds: int
    classes: tuple[ClassCount, ...]
    sizes: tuple[tuple[tuple[int, int], int], ...]
    per_picture: tuple[int, int, int]
    small: float
    medium: float
    large: float
    sides: tuple[float, ...]
    sides_net: tuple[float, ...]
    anchors_fit: float
    tiny_net: float
    suggestion: str


def describe(content: Content, preprocess: Preprocess, anchors: AnchorConfig) -> Statistics:
    """Figures of a data set, as a network with this input and these anchors would see it."""
    data = dataset_of(content)
    counts = np.diff(data.first)
    sides = np.sqrt((data.boxes[:, 2:] - data.boxes[:, :2]).prod(1)) if len(data.boxes) else np.zeros(1)
    net = boxes_net(data, preprocess)
    sides_net = np.sqrt(net.prod(1)) if len(net) else np.zeros(1)
    areas = sides**2
    fit = fitting(net, anchors)
    return Statistics(
        pictures=len(data),
        empty=int((counts == 0).sum()),
        instances=len(data.labels),
        crowds=int(data.crowd.sum()),
        classes=_classes(data),
        sizes=tuple(Counter(map(tuple, data.sizes.tolist())).most_common(5)),
        per_picture=(int(counts.min()), int(np.median(counts)), int(counts.max()))
        if len(counts)
        else (0, 0, 0),
        small=float((areas < SMALL).mean()),
        medium=float(((areas >= SMALL) & (areas < MEDIUM)).mean()),
        large=float((areas >= MEDIUM).mean()),
        sides=_percentiles(sides),
        sides_net=_percentiles(sides_net),
        anchors_fit=float(fit.mean()) if len(fit) else 1.0,
        tiny_net=float((sides_net < 16).mean()),
        suggestion=_suggestion(net, sides_net, anchors),
    )


def boxes_net(data: Dataset, preprocess: Preprocess) -> Array:
    """Widths and heights of all boxes in network pixels (A, 2)."""
    scales = np.zeros((len(data), 2))
    for index, (height, width) in enumerate(data.sizes.tolist()):
        resized = resized_size((height, width), preprocess)
        scales[index] = resized[1] / width, resized[0] / height
    found: Array = (data.boxes[:, 2:] - data.boxes[:, :2]) * np.repeat(scales, np.diff(data.first), axis=0)
    return found


def fitting(sides: Array, anchors: AnchorConfig) -> Array:
    """sides (A, 2) width, height -> (A,) whether an anchor centred on the box would have an IoU of 0.5."""
    return best_iou(sides, anchor_sides(anchors)) >= MATCHES


def anchor_sides(anchors: AnchorConfig) -> Array:
    """Width and height of every anchor (N, 2): those given, or w = s / sqrt(r), h = s sqrt(r)."""
    if anchors.cells:
        boxes = np.array([box for level in anchors.cells for box in level], np.float64)
        given: Array = boxes[:, 2:] - boxes[:, :2]
        return given
    sizes = np.array([size for level in anchors.sizes for size in level])
    roots = np.sqrt(np.array(anchors.ratios))
    found: Array = np.stack([np.outer(sizes, 1 / roots), np.outer(sizes, roots)], -1).reshape(-1, 2)
    return found


def best_iou(sides: Array, anchors: Array) -> Array:
    """sides (A, 2), anchors (N, 2) -> (A,) the best IoU of a box with an anchor of the same centre."""
    if len(sides) == 0:
        return np.zeros(0)
    shared = np.minimum(sides[:, None], anchors).prod(-1)
    found: Array = (shared / (sides.prod(1)[:, None] + anchors.prod(1) - shared)).max(1)
    return found


def _classes(data: Dataset) -> tuple[ClassCount, ...]:
    picture = np.repeat(np.arange(len(data)), np.diff(data.first))
    return tuple(
        ClassCount(name, int((data.labels == label).sum()), len(np.unique(picture[data.labels == label])))
        for label, name in enumerate(data.classes.names)
    )


def _percentiles(values: Array) -> tuple[float, ...]:
    return tuple(round(float(value), 1) for value in np.percentile(values, (5, 25, 50, 75, 95)))


def _suggestion(sides: Array, roots: Array, anchors: AnchorConfig) -> str:
    """What to change where more than one object in twenty has no anchor."""
    if len(sides) == 0 or fitting(sides, anchors).mean() >= 0.95:
        return ""
    smallest = min(size for level in anchors.sizes for size in level)
    if np.percentile(roots, 5) < smallest * 0.7:
        scale = float(np.clip(np.percentile(roots, 5) / smallest, 0.25, 1.0))
        finer = [[round(size * scale) for size in level] for level in anchors.sizes]
        return (
            f"small objects: a short side {1 / scale:.1f} times as large, tiles, "
            f"or --set model.anchors.sizes={finer}"
        )
    ratios = np.percentile(sides[:, 1] / sides[:, 0], (5, 50, 95)).round(2).tolist()
    return f"thin objects: --set model.anchors.ratios={ratios}"
