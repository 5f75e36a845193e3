"""Predicts a large image in overlapping tiles and makes one result of them, joining what a seam cut.

N detections, M side of a mask. A source is a tile or, last, the whole image resized.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, islice
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.masks import PasteRule, encode, paste_crop
from maskrcnn.predict import Predictor, Prepared
from maskrcnn.stream import in_order

Array = np.ndarray
Size = tuple[int, int]
Rle = dict[str, Any]

OVERLAP = 0.2
SMALLEST = 32
# Of an object with its repetition, of a part with the object that it belongs to.
INSIDE = 0.7
# What two tiles see of one object in the strip that both see: intersection over union of the masks.
AGREEMENT = 0.5
# A score of an object that a seam cut, against those of objects seen whole.
DOUBT = 0.5
# Cells of a joined mask for each cell of its parts: along three tiles nothing is lost. An odd number keeps
# the centres of the cells of what was not joined, and so every value between them.
FINER = 3


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image in whole pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: Array) -> Array:
        """Its pixels of image (H, W, 3), contiguous."""
        return np.ascontiguousarray(image[self.y : self.y + self.height, self.x : self.x + self.width])

    def shared(self, other: "Tile") -> "Tile | None":
        """What both cover; None for nothing."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        width = min(self.x + self.width, other.x + other.width) - x
        height = min(self.y + self.height, other.y + other.height) - y
        return Tile(x, y, width, height) if width > 0 and height > 0 else None


@dataclass(frozen=True)
class PreparedTiles(Prepared):
    """An image for several runs: planes and geometry of the whole; its tiles are resized in their turn."""

    whole: Prepared
    image: Array
    tiles: tuple[Tile, ...]


class Tiled(Predictor):
    """A predictor that sees a large image in square tiles, and an image that one tile holds as it is.

    predictor: any; its `batch` is the number of tiles that go through the network at once.
    side: of a tile, in image pixels. overlap: of neighbours, at least, as a share of the side.
    full_frame: also see the whole image, resized, for objects larger than the overlap.
    The number of detections is limited for each tile, not for the image.
    """

    def __init__(
        self, predictor: Predictor, side: int, overlap: float = OVERLAP, full_frame: bool = True
    ) -> None:
        # One image at a time: its tiles fill the network, and a second large image would only take memory.
        super().__init__(predictor.backend)
        if side < SMALLEST:
            raise UserError(f"a tile of {side} pixels", hint=f"use {SMALLEST} or more, such as 640")
        if not 0 <= overlap <= 0.75:
            raise UserError(f"an overlap of {overlap:g}", hint="it is a share of the tile, 0 to 0.75")
        self.predictor, self.most = predictor, None
        self.side, self.overlap, self.full_frame = side, overlap, full_frame

    def prepare(self, image: Array) -> Prepared:
        """image uint8 (H, W, 3) RGB -> the plan of its tiles; safe to call from several threads."""
        whole = self.predictor.prepare(image)
        height, width, _ = image.shape
        tiles = tiles_over((height, width), self.side, self.overlap)
        if len(tiles) == 1:
            return whole
        return PreparedTiles(whole.planes, whole.geometry, whole, image, tiles)

    def detect(self, prepared: Sequence[Prepared]) -> list[Detections]:
        """Several runs of the network for each image -> its Detections."""
        return [
            self._see(each) if isinstance(each, PreparedTiles) else self.predictor.detect([each])[0]
            for each in prepared
        ]

    def _see(self, prepared: PreparedTiles) -> Detections:
        frame = self.predictor.detect([prepared.whole])[0] if self.full_frame else None
        in_tiles = list(self._in_tiles(prepared))
        box_head = self.spec.model.box_head
        if frame is not None:
            sides = frame.boxes[:, 2:] - frame.boxes[:, :2]
            # Whatever fits into the overlap is whole in some tile, and finer there.
            frame = frame[(sides > round(self.side * self.overlap)).any(axis=1)]
        found = merge(prepared.geometry.size, prepared.tiles, in_tiles, frame, box_head.nms_iou)
        by_class = self.spec.model.conventions.detection_order == "class"
        return found[np.argsort(found.labels, kind="stable")] if by_class else found

    def _in_tiles(self, prepared: PreparedTiles) -> Iterator[Detections]:
        together = self.predictor.batch

        def resize(tile: Tile) -> Prepared:
            return self.predictor.prepare(tile.of(prepared.image))

        resized = in_order(resize, prepared.tiles, workers=2, window=together + 1)
        while group := list(islice(resized, together)):
            yield from self.predictor.detect(group)


def tiled(predictor: Predictor, text: str) -> Tiled:
    """The predictor in tiles of `SIDE` or `SIDE,OVERLAP`, as a user writes them: 640 or 640,0.3."""
    side, _, overlap = text.partition(",")
    try:
        return Tiled(predictor, int(side), float(overlap) if overlap else OVERLAP)
    except ValueError:
        raise UserError(
            f"tiles of {text!r}: is no side and overlap", hint="write pixels and a share, as 640,0.2"
        ) from None


def tiles_over(size: Size, side: int, overlap: float) -> tuple[Tile, ...]:
    """Tiles over an image of (height, width), row by row, evenly apart, overlapping by that share or more.

    All have the same size: side x side, or what the image has of it.
    """
    height, width = size
    return tuple(
        Tile(x, y, min(side, width), min(side, height))
        for y in _starts(height, side, overlap)
        for x in _starts(width, side, overlap)
    )


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    # Rounding the starts can take one pixel from an overlap.
    step = max(side - round(side * overlap), 1)
    last = math.ceil((length - side) / step)
    return [round(number * (length - side) / last) for number in range(last + 1)]


def merge(
    size: Size, tiles: Sequence[Tile], in_tiles: Sequence[Detections], frame: Detections | None, iou: float
) -> Detections:
    """What was found in each tile, in its pixels, and in the whole image, as one result, best first.

    Detections of a class that agree where two tiles overlap are one object: the one that is whole, else the
    union with the best score. Of objects whose masks overlap by more than iou, and of a cut part with the
    object around it, the better stays. What one tile sees as two stays two.
    """
    sources = [*zip(tiles, in_tiles, strict=True)]
    parts = [_parts(number, *source, size) for number, source in enumerate(sources)]
    objects = [_object(group) for group in _groups(parts, tiles, size)]
    if frame is not None:
        whole = Tile(0, 0, size[1], size[0])
        objects += [_object([part]) for part in _parts(len(tiles), whole, frame, size)]
    return _as_detections(_without_repetitions(objects, iou), in_tiles[0], size)


@dataclass(frozen=True, eq=False)
class _Part:
    """A detection of one source. cut: its box ends at a border of the tile that is none of the image.

    box (4,) in image pixels; roi_mask (M, M) with own_box (4,) in pixels of the tile.
    """

    source: int
    tile: Tile
    size: Size
    box: Array
    own_box: Array
    roi_mask: Array
    rule: PasteRule
    score: float
    label: int
    cut: bool

    @cached_property
    def rle(self) -> Rle:
        """Its mask in the image."""
        crop, x, y = paste_crop(self.roi_mask, self.own_box, (self.tile.height, self.tile.width), self.rule)
        return encode(crop, x + self.tile.x, y + self.tile.y, self.size)


def _parts(source: int, tile: Tile, found: Detections, size: Size) -> list[_Part]:
    offset = np.array([tile.x, tile.y, tile.x, tile.y], np.float32)
    boxes = found.boxes + offset
    return [
        _Part(source, tile, size, box, own_box, roi_mask, found.mask_paste, score, label, cut)
        for box, own_box, roi_mask, score, label, cut in zip(
            boxes,
            found.boxes,
            found.roi_masks,
            found.scores.tolist(),
            found.labels.tolist(),
            _cut(boxes, tile, size).tolist(),
            strict=True,
        )
    ]


def _cut(boxes: Array, tile: Tile, size: Size) -> Array:
    """boxes (N, 4) in image pixels -> bool (N,)."""
    # The network's boxes end up to a twentieth of their side off.
    near = 2 + 0.05 * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    borders = np.array([tile.x, tile.y, tile.x + tile.width, tile.y + tile.height])
    inner = borders != np.array([0, 0, size[1], size[0]])
    return ((np.abs(boxes - borders) <= near) & inner).any(axis=1)


def _groups(parts: list[list[_Part]], tiles: Sequence[Tile], size: Size) -> list[list[_Part]]:
    """Parts of one object each, at most one of each tile; the clearest agreement decides first."""
    group_of = {id(part): [part] for of_tile in parts for part in of_tile}
    links = [
        link
        for first, second in combinations(range(len(tiles)), 2)
        if (zone := tiles[first].shared(tiles[second])) is not None
        for link in _links(parts[first], parts[second], zone, size)
    ]
    for _, first, second in sorted(links, key=lambda link: -link[0]):
        ours, theirs = group_of[id(first)], group_of[id(second)]
        if not {part.source for part in ours} & {part.source for part in theirs}:
            ours += theirs
            group_of |= {id(part): ours for part in theirs}
    return list({id(group): group for group in group_of.values()}.values())


def _links(
    first: list[_Part], second: list[_Part], zone: Tile, size: Size
) -> Iterator[tuple[float, _Part, _Part]]:
    """Pairs of one class that agree in the zone that both tiles see, with how much."""
    near = _touching(_boxes(first)[:, None], _boxes(second))
    near &= np.equal.outer(_labels(first), _labels(second))
    in_zone = encode(np.ones((zone.height, zone.width), bool), zone.x, zone.y, size) if near.any() else {}
    for row, column in np.argwhere(near).tolist():
        one, other = first[row], second[column]
        both = _shared(one.rle, other.rle)
        either = _shared(one.rle, in_zone) + _shared(other.rle, in_zone) - both
        if both > AGREEMENT * either:
            yield both / either, one, other


def _boxes(parts: "Sequence[_Part | _Object]") -> Array:
    return np.array([part.box for part in parts], np.float32).reshape(-1, 4)


def _labels(parts: "Sequence[_Part | _Object]") -> Array:
    return np.array([part.label for part in parts], np.int64)


def _touching(boxes: Array, others: Array) -> Array:
    """Whether boxes share pixels, by row, or for each pair if an axis is added to the first."""
    low = np.maximum(boxes[..., :2], others[..., :2])
    return (np.minimum(boxes[..., 2:], others[..., 2:]) > low).all(axis=-1)


def _area(rle: Rle) -> int:
    return int(coco_mask.area(rle))


def _shared(rle: Rle, other: Rle) -> int:
    """Pixels of both masks."""
    return _area(coco_mask.merge([rle, other], intersect=True))


@dataclass(frozen=True, eq=False)
class _Object:
    """The union of parts. sources: all that saw it. whole: one of them saw it whole. box: in image pixels."""

    parts: tuple[_Part, ...]
    sources: frozenset[int]
    whole: bool
    score: float

    @property
    def label(self) -> int:
        return self.parts[0].label

    @property
    def weight(self) -> float:
        return self.score if self.whole else DOUBT * self.score

    @cached_property
    def box(self) -> Array:
        boxes = _boxes(self.parts)
        return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])

    @cached_property
    def rle(self) -> Rle:
        return coco_mask.merge([part.rle for part in self.parts]) if self.parts[1:] else self.parts[0].rle


def _object(group: list[_Part]) -> _Object:
    sources = frozenset(part.source for part in group)
    if whole := [part for part in group if not part.cut and _holds(part, group)]:
        best = max(whole, key=lambda part: part.score)
        return _Object((best,), sources, True, best.score)
    return _Object(tuple(group), sources, False, max(part.score for part in group))


def _holds(part: _Part, group: list[_Part]) -> bool:
    """Whether it has most of what every other part shows: if not, the object goes on elsewhere."""
    return all(
        _shared(part.rle, other.rle) >= INSIDE * _area(other.rle) for other in group if other is not part
    )


def _without_repetitions(objects: list[_Object], iou: float) -> list[_Object]:
    """Best first. What stays takes the score of a better repetition."""
    order = sorted(objects, key=lambda each: -each.weight)
    boxes = _boxes(order)
    labels = _labels(order)
    kept = np.zeros(len(order), bool)
    for row, each in enumerate(order):
        near = kept[:row] & (labels[:row] == each.label) & _touching(boxes[:row], boxes[row])
        kept[row] = True
        for other in np.flatnonzero(near).tolist():
            better = order[other]
            if not each.sources & better.sources and (overlap := _repeats(each, better, iou)):
                kept[row] = False
                if overlap > iou and each.score > better.score:
                    order[other] = replace(better, score=each.score)
                break
    stay = [each for each, stays in zip(order, kept.tolist(), strict=True) if stays]
    return sorted(stay, key=lambda each: -each.score)


def _repeats(each: _Object, better: _Object, iou: float) -> float:
    """The IoU of an object with a better one of which it shows nothing else; 0 if it does."""
    shared, area = _shared(each.rle, better.rle), _area(each.rle)
    overlap = shared / max(area + _area(better.rle) - shared, 1)
    belongs = not each.whole and shared > INSIDE * area
    return overlap if overlap > iou or belongs else 0.0


def _as_detections(objects: list[_Object], like: Detections, size: Size) -> Detections:
    """All with masks of one side: that of the network, or a finer one if some were joined."""
    joined = any(len(each.parts) > 1 for each in objects)
    side = like.roi_masks.shape[-1] * (FINER if joined else 1)
    masks = np.empty((len(objects), side, side), np.float32)
    for row, each in enumerate(objects):
        masks[row] = _resampled(each, side) if joined else each.parts[0].roi_mask
    return replace(
        like,
        boxes=_boxes(objects),
        scores=np.array([each.score for each in objects], np.float32),
        labels=_labels(objects),
        roi_masks=masks,
        size=size,
        mask_paste="pixel_centres" if joined else like.mask_paste,
    )


def _resampled(each: _Object, side: int) -> Array:
    """The largest probability (side, side) that any part has at the cells' centres of the object's box."""
    x1, y1, x2, y2 = each.box.astype(np.float64)
    middles = (np.arange(side) + 0.5) / side
    masks = []
    for part in each.parts:
        across = x1 + middles * (x2 - x1) - part.tile.x
        down = y1 + middles * (y2 - y1) - part.tile.y
        left, top, right, bottom = part.own_box.tolist()
        cells = len(part.roi_mask)
        columns = _weights(across, left, right, cells, part.rule)
        rows = _weights(down, top, bottom, cells, part.rule)
        masks.append(rows @ part.roi_mask @ columns.T)
    return np.max(masks, axis=0)


def _weights(points: Array, low: float, high: float, side: int, rule: PasteRule) -> Array:
    """Weights (n, M) of a mask's cells at points (n,) in pixels along an axis, as `paste_crop` has them."""
    if rule == "pixel_centres":
        places = (points - low) / max(high - low, 1e-6) * side - 0.5
    else:
        half = (high - low) * 0.5 * (side + 2) / side
        start, end = int((low + high) / 2 - half), int((low + high) / 2 + half)
        places = (side + 2) / max(end - start + 1, 1) * (points - start) - 1.5
    return np.maximum(1 - np.abs(places[:, None] - np.arange(side)), 0)
