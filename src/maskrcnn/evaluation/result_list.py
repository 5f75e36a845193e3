"""The detections of a COCO results list, of any program, as columns.

N detections.
"""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.evaluation.ground_truth import DatasetId, GroundTruth
from maskrcnn.evaluation.rle import Rle, as_rle, empty_rle, rle_area, rle_bbox
from maskrcnn.whole_file import shown

Array = np.ndarray
BETWEEN = re.compile(r"[\s,]*")
# How many ids an error shows.
SHOWN = 5


@dataclass(frozen=True, eq=False)
class ResultList:
    """Detections on the images of a GroundTruth, in the order of the list, which settles equal scores.

    place: names the list in messages.
    images, labels (N,) int64: rows of the ground truth's image_ids and category_ids.
    bboxes (N, 4) float64: x, y, width, height in image pixels. scores (N,) float64.
    areas (N,) float64: square pixels of the bbox, where the list has none of the mask.
    masks: N compressed RLE strings, None where the list or the ground truth has none.
    notes: what was left out, in words.
    """

    place: str
    images: Array
    labels: Array
    bboxes: Array
    scores: Array
    areas: Array
    masks: tuple[Rle, ...] | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scores)


def read_results(path: str | Path, truth: GroundTruth) -> ResultList:
    """Read a COCO results file: a JSON list of image_id, category_id, score, and bbox or segmentation.

    An item without image_id is placed by its file_name. Raises UserError for a file that is none, and where
    no image or no category of it is in the ground truth.
    """
    return results_of(_items(Path(path)), truth, shown(path))


def results_of(items: Iterable[dict[str, Any]], truth: GroundTruth, place: str = "the results") -> ResultList:
    """The items of a COCO results list as columns, one at a time: 400,000 with masks take 100 MB.

    Raises UserError as `read_results`.
    """
    columns = _Columns(truth, place)
    for number, item in enumerate(items):
        try:
            columns.add(item)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            lacks = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be used: {error}"
            raise UserError(
                f"{place}: detection {number} (counted from 0) {lacks}",
                hint="a detection has image_id, category_id, score, and bbox (x, y, width, height in pixels) "
                "or segmentation (RLE or polygons)",
            ) from error
    return columns.finished()


class _Columns:
    """Detections that were added so far."""

    def __init__(self, truth: GroundTruth, place: str) -> None:
        self.truth, self.place = truth, place
        self.with_masks = truth.masks is not None
        self.sizes = truth.sizes.tolist()
        self.row_of = _with_text(truth.image_ids)
        self.label_of = _with_text(truth.category_ids)
        self.row_of_name = _by_name(truth.file_names)
        self.images, self.labels = array("q"), array("q")
        self.scores, self.bboxes, self.areas = array("d"), array("d"), array("d")
        self.masks: list[Rle | None] = []
        self.strange_images: dict[Any, int] = {}
        self.strange_categories: dict[Any, int] = {}

    def add(self, item: dict[str, Any]) -> None:
        if "image_id" in item or "file_name" not in item:
            image = _row(self.row_of, item["image_id"])
        else:
            name = str(item["file_name"])
            image = self.row_of_name.get(name, self.row_of_name.get(PurePosixPath(name).name))
        label = _row(self.label_of, item["category_id"])
        if image is None:
            _count(self.strange_images, item.get("image_id", item.get("file_name")))
        if label is None:
            _count(self.strange_categories, item["category_id"])
        if image is None or label is None:
            return
        size = self.sizes[image]
        bbox: Any = item.get("bbox")
        mask = as_rle(item.get("segmentation"), size) if self.with_masks or bbox is None else None
        area = None
        if bbox is None:
            if mask is None:
                raise KeyError("bbox")
            bbox, area = rle_bbox(mask, size), rle_area(mask, size)
        x, y, width, height = bbox
        score = float(item["score"])
        # Infinite and NaN values give NaN here.
        if not (x + y + width + height + score) * 0 == 0:
            raise ValueError(f"bbox {list(bbox)}, score {score}")
        self.images.append(image)
        self.labels.append(label)
        self.scores.append(score)
        self.bboxes.extend((x, y, width, height))
        self.areas.append(width * height if area is None else area)
        self.masks.append(mask)

    def finished(self) -> ResultList:
        self._check_overlap("image", self.strange_images, self.truth.image_ids)
        self._check_overlap("category", self.strange_categories, self.truth.category_ids)
        self.empty = self.masks.count(None)
        return ResultList(
            place=self.place,
            images=np.array(self.images, np.int64),
            labels=np.array(self.labels, np.int64),
            bboxes=np.array(self.bboxes, np.float64).reshape(-1, 4),
            scores=np.array(self.scores, np.float64),
            areas=np.array(self.areas, np.float64),
            masks=self._whole_masks(),
            notes=tuple(self._notes()),
        )

    def _whole_masks(self) -> tuple[Rle, ...] | None:
        """A mask for every detection, empty where it has none; None where no detection has one."""
        if not self.with_masks or (self.masks and self.empty == len(self.masks)):
            return None
        sizes = (self.sizes[image] for image in self.images)
        return tuple(
            empty_rle(size) if mask is None else mask for mask, size in zip(self.masks, sizes, strict=True)
        )

    def _check_overlap(self, what: str, strange: dict[Any, int], known: tuple[DatasetId, ...]) -> None:
        if len(self.scores) or not strange:
            return
        plural = {"image": "images", "category": "categories"}[what]
        raise UserError(
            f"{self.place}: 0 of {len(strange)} {what} ids overlap: the detections have {_some(strange)}, "
            f"the {len(known)} {plural} of {self.truth.place} have {_some(known)}",
            hint="score the detections against the annotations of their own data set"
            + (", and count categories as it does (COCO's run from 1 to 90)" if what == "category" else ""),
        )

    def _notes(self) -> Iterator[str]:
        if self.with_masks and 0 < self.empty < len(self.masks):
            total = len(self.masks)
            yield f"{self.empty} of {total} detections of {self.place} have no mask and count as empty"
        for what, strange in (("images", self.strange_images), ("categories", self.strange_categories)):
            if strange:
                yield (
                    f"{sum(strange.values())} detections of {self.place} are on {what} that "
                    f"{self.truth.place} lacks (ids {_some(strange)}), and are left out"
                )


def _with_text(ids: tuple[DatasetId, ...]) -> dict[Any, int]:
    """The row of each id; programs write 139 also as "139"."""
    texts = {str(each): row for row, each in enumerate(ids)}
    return texts | {each: row for row, each in enumerate(ids)}


def _row(rows: dict[Any, int], given: Any) -> int | None:
    found = rows.get(given)
    return rows.get(str(given)) if found is None else found


def _by_name(file_names: tuple[str, ...]) -> dict[str, int]:
    """The row of each file name, and of its last part where that is clear."""
    parts = [PurePosixPath(name).name for name in file_names]
    count = Counter(parts)
    last = {part: row for row, part in enumerate(parts) if part and count[part] == 1}
    return last | {name: row for row, name in enumerate(file_names) if name}


def _count(strange: dict[Any, int], given: Any) -> None:
    strange[given] = strange.get(given, 0) + 1


def _some(ids: Iterable[Any]) -> str:
    listed = list(ids)
    return ", ".join(repr(each) for each in listed[:SHOWN]) + (", ..." if len(listed) > SHOWN else "")


def _items(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list one by one: all at once they would take five times their text."""
    place = shown(path)
    hint = "a results file is a JSON list with one object a detection"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error.strerror})", hint=hint) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: is not text ({error.reason})", hint=hint) from error
    at = _next(text, 0)
    if text[at : at + 1] != "[":
        raise UserError(f"{place}: is not a JSON list (it begins with {text[at : at + 20]!r})", hint=hint)
    at += 1
    read_one = json.JSONDecoder().raw_decode
    while True:
        at = _next(text, at)
        if text[at : at + 1] == "]":
            return
        try:
            item, at = read_one(text, at)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: is not JSON ({error})", hint=hint) from error
        if not isinstance(item, dict):
            raise UserError(f"{place}: holds {str(item)[:20]!r} where a detection should be", hint=hint)
        yield item


def _next(text: str, at: int) -> int:
    """Where the next value begins, or the list ends."""
    found = BETWEEN.match(text, at)
    return found.end() if found else at
