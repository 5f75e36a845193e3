"""What a network returns and what a user gets: Raw rows in network pixels, Detections in image pixels.

B images, D rows (fixed), N detections of one image, M side of a mask, H, W size of the image, K classes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.masks import PasteRule, encode, paste, paste_crop
from maskrcnn.preprocess import Geometry
from maskrcnn.spec import Classes, Spec

if TYPE_CHECKING:
    from maskrcnn.polygons import Part


class Raw(NamedTuple):
    """What every engine returns; rows without a detection have score 0 and stand at the end.

    Fields are numpy arrays at an engine's border and torch tensors inside the model.
    boxes: (B, D, 4) float32 in network pixels. scores: (B, D) float32. labels: (B, D) int64.
    masks: (B, D, M, M) float32 probabilities of each row's own class.
    """

    boxes: Any
    scores: Any
    labels: Any
    masks: Any


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects of one image; masks stay as crops and are pasted or encoded when asked.

    Best first, or class by class where the model's conventions.detection_order says so.
    boxes: (N, 4) float32 x1, y1, x2, y2 in image pixels. scores: (N,) float32. labels: (N,) int64 in 0..K-1.
    roi_masks: (N, M, M) float32, probability inside each box. size: (height, width) of the image.
    classes: names and original ids by label; may be empty. mask_paste: how a mask is laid on the image.
    tracks: (N,) int64, numbers of the objects of a video, -1 for an object without; None for an image.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    roi_masks: np.ndarray
    size: tuple[int, int]
    classes: Classes = field(default_factory=Classes)
    mask_paste: PasteRule = "pixel_centres"
    tracks: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        side = self.roi_masks.shape[-1]
        for name, shape, dtype in (
            ("boxes", (count, 4), np.float32),
            ("scores", (count,), np.float32),
            ("labels", (count,), np.int64),
            ("roi_masks", (count, side, side), np.float32),
        ):
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                expected = f"{np.dtype(dtype).name} {shape}"
                raise ValueError(
                    f"{name} is {array.dtype} {array.shape}, with {count} boxes it must be {expected}"
                )

    @classmethod
    def from_raw(cls, raw: Raw, row: int, geometry: Geometry, spec: Spec) -> "Detections":
        """Image `row` of a batch, in image pixels, without the empty rows."""
        conventions = spec.model.conventions
        found = np.asarray(raw.scores[row]) > 0
        boxes = geometry.to_image(np.asarray(raw.boxes[row], np.float32)[found])
        if conventions.clip_to_image:
            boxes = _clip(boxes, geometry.size)
        detections = cls(
            boxes=boxes,
            scores=np.asarray(raw.scores[row], np.float32)[found],
            labels=np.asarray(raw.labels[row], np.int64)[found],
            roi_masks=np.asarray(raw.masks[row], np.float32)[found],
            size=geometry.size,
            classes=spec.classes,
            mask_paste=conventions.mask_paste,
        )
        if conventions.clip_to_image:
            detections = detections[_not_empty(boxes)]
        if conventions.detection_order == "class":
            detections = detections[np.argsort(detections.labels, kind="stable")]
        return detections

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.names()).items())
        return f"Detections({counts or 'nothing'} in {self.size[0]} x {self.size[1]})"

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator["Detections"]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, rows: int | slice | np.ndarray | list[int]) -> "Detections":
        """The detections of an index, a slice, a bool mask (N,) or an index array; always a Detections."""
        chosen = [rows] if isinstance(rows, int | np.integer) else rows
        if isinstance(chosen, list):
            chosen = np.asarray(chosen, np.int64)
        return replace(
            self,
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            roi_masks=self.roi_masks[chosen],
            tracks=None if self.tracks is None else self.tracks[chosen],
        )

    def above(self, score: float) -> "Detections":
        """Those with at least that score."""
        return self[self.scores >= np.float32(score)]

    def track_ids(self) -> list[int | None]:
        """The number of each object of a video; None for one that has none."""
        numbers = [-1] * len(self) if self.tracks is None else self.tracks.tolist()
        return [None if number < 0 else number for number in numbers]

    def names(self) -> list[str]:
        """The class name of each; `class 17` (its id) where the model has no name for it."""
        return [self.class_name(label) for label in self.labels.tolist()]

    def category_ids(self) -> list[int]:
        """The data set's own id of each; label + 1 where the model has none, as COCO counts from 1."""
        return [self.category_id(label) for label in self.labels.tolist()]

    def class_name(self, label: int) -> str:
        """The name of one label, as in names()."""
        known = self.classes.names
        return (known[label] if label < len(known) else "") or f"class {self.category_id(label)}"

    def category_id(self, label: int) -> int:
        """The data set's own id of one label, as in category_ids()."""
        known = self.classes.ids
        return known[label] if label < len(known) else label + 1

    def masks(self) -> np.ndarray:
        """Full-size masks, bool (N, H, W): N x H x W bytes; rles() needs a thousandth of it."""
        return paste(self.roi_masks, self.boxes, self.size, self.mask_paste)

    def crops(self) -> Iterator[tuple[np.ndarray, int, int]]:
        """Each mask in a window of the image: bool (h, w), and the window's first column x and row y."""
        for roi_mask, box in zip(self.roi_masks, self.boxes, strict=True):
            yield paste_crop(roi_mask, box, self.size, self.mask_paste)

    def rles(self) -> list[dict[str, Any]]:
        """COCO compressed RLE of each mask, {"size": [H, W], "counts": str}."""
        return [encode(crop, x, y, self.size) for crop, x, y in self.crops()]

    def polygons(self) -> "list[tuple[Part, ...]]":
        """The exact outlines of each mask in image pixels: its parts, with their holes."""
        from maskrcnn.polygons import outlines

        return [outlines(*crop) for crop in self.crops()]

    def to_coco(self, image_id: int | None = None, file_name: str | None = None) -> list[dict[str, Any]]:
        """Items of a COCO results list: original category ids, bbox x, y, width, height in pixels, RLE."""
        place: dict[str, Any] = {}
        if image_id is not None:
            place["image_id"] = image_id
        if file_name is not None:
            place["file_name"] = file_name
        x1, y1, x2, y2 = self.boxes.astype(np.float64).T
        bboxes = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)
        items = [
            {**place, "category_id": category, "bbox": bbox, "score": score, "segmentation": rle}
            for category, bbox, score, rle in zip(
                self.category_ids(), _rounded(bboxes), self.scores.tolist(), self.rles(), strict=True
            )
        ]
        return self._with_tracks(items)

    def to_json(self) -> dict[str, Any]:
        """Each detection's name, category_id, score, box x1, y1, x2, y2 in pixels, mask as COCO RLE."""
        items: list[dict[str, Any]] = [
            {"name": name, "category_id": category, "score": round(score, 5), "box": box, "mask": rle}
            for name, category, score, box, rle in zip(
                self.names(),
                self.category_ids(),
                self.scores.tolist(),
                _rounded(self.boxes.astype(np.float64)),
                self.rles(),
                strict=True,
            )
        ]
        return {"size": [int(side) for side in self.size], "detections": self._with_tracks(items)}

    def _with_tracks(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same with track_id, if it is a frame of a video."""
        if self.tracks is None:
            return items
        return [{**item, "track_id": number} for item, number in zip(items, self.track_ids(), strict=True)]

    def to_labelme(self, image_path: str) -> dict[str, Any]:
        """The contents of a labelme file. image_path: from its folder to the image, with `/`."""
        from maskrcnn.results.labelme import labelme

        return labelme(self, image_path)

    def to_geojson(self, file_name: str | None = None) -> dict[str, Any]:
        """A GeoJSON FeatureCollection in image pixels, y downwards; exact, with holes and several parts."""
        from maskrcnn.results.geojson import geojson

        return geojson(self, file_name)

    def to_png(self) -> bytes:
        """A 16-bit PNG (H, W): 0 where there is nothing, else 1 + the index of the best detection there."""
        from maskrcnn.results.files import label_image, png

        return png(label_image(self))

    def to_supervision(self) -> Any:
        """supervision.Detections with full-size masks and data["class_name"]. Raises UserError without it."""
        try:
            supervision = import_module("supervision")
        except ModuleNotFoundError as error:
            if error.name != "supervision":
                raise
            raise UserError(
                "the package supervision is not installed", hint="install it with `pip install supervision`"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            mask=self.masks(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            data={"class_name": np.array(self.names(), str)},
        )


def _rounded(boxes: np.ndarray) -> list[list[float]]:
    # a thousandth of a pixel: far below what any metric sees, and a third of the text
    return boxes.round(3).tolist()


def _clip(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.clip(boxes, np.float32(0), np.array([width, height, width, height], np.float32))


def _not_empty(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
