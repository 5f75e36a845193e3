"""Which detection found which object at an IoU of 0.5: within classes, and across them for the confusion.

K classes, N detections and A annotations, of one image in the private functions.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from hotcoco import primitives

from maskrcnn.evaluation.ground_truth import GroundTruth
from maskrcnn.evaluation.result_list import ResultList
from maskrcnn.evaluation.rle import as_dict

Array = np.ndarray
IOU = 0.5


@dataclass(frozen=True, eq=False)
class Matching:
    """right (N,) bool: a detection found an object of its class, as COCOeval matches at an IoU of 0.5.

    ignored (N,) bool: it found none and half of it lies in a crowd region of its class, or there are more
        than the most detections of its image and class with better scores.
    confusion (K + 1, K + 1) int64: objects of class i (rows) found as class j (columns); the last column
        counts objects that were missed, the last row detections where there is no object. Here detections at
        or above the score take objects of any class, and one in any crowd region is left out.
    """

    right: Array
    ignored: Array
    confusion: Array


def match(
    truth: GroundTruth,
    results: ResultList,
    kind: Literal["bbox", "segm"],
    score: float,
    max_detections: int,
) -> Matching:
    """Best score first, each detection takes the free object that it overlaps most, at an IoU of 0.5 or more.

    Of objects that it overlaps equally it takes one of its class. score: the least for the confusion.
    """
    right, ignored = np.zeros(len(results), bool), _beyond(results, max_detections)
    classes = len(truth.category_ids)
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    detections = _by_image(results.images, len(truth.image_ids))
    annotations = _by_image(truth.images, len(truth.image_ids))
    for all_rows, columns in zip(detections, annotations, strict=True):
        wanted, crowd = truth.labels[columns], truth.crowd[columns]
        # Others can neither be right nor be confused: half of all, whose overlap need not be known.
        some = np.isin(results.labels[all_rows], wanted) | (results.scores[all_rows] >= score)
        rows = all_rows[some][np.argsort(-results.scores[all_rows[some]], kind="stable")]
        found = results.labels[rows]
        overlaps = _overlaps(truth, results, kind, rows, columns)
        same = found[:, None] == wanted
        counted = ~ignored[rows]
        taken, in_crowd = _pairs(np.where(same, overlaps, 0)[counted], found[counted], wanted, crowd)
        right[rows[counted]] = taken >= 0
        ignored[rows[counted]] = in_crowd
        confused = results.scores[rows] >= score
        taken, in_crowd = _pairs(overlaps[confused], found[confused], wanted, crowd)
        _add_confusion(confusion, taken, in_crowd, found[confused], wanted, crowd)
    return Matching(right, ignored, confusion)


def _beyond(results: ResultList, most: int) -> Array:
    """(N,) bool: there are `most` others with better scores in its image and class."""
    order = np.lexsort((-results.scores, results.labels, results.images))
    images, labels = results.images[order], results.labels[order]
    first = np.append(True, (images[1:] != images[:-1]) | (labels[1:] != labels[:-1]))[: len(order)]
    places = np.arange(len(order))
    beyond = np.zeros(len(order), bool)
    beyond[order] = places - np.maximum.accumulate(np.where(first, places, 0)) >= most
    return beyond


def _by_image(images: Array, count: int) -> list[Array]:
    """The rows of each image, in their order."""
    order = np.argsort(images, kind="stable")
    return np.split(order, np.searchsorted(images[order], np.arange(1, count)))[:count]


def _overlaps(
    truth: GroundTruth, results: ResultList, kind: Literal["bbox", "segm"], rows: Array, columns: Array
) -> Array:
    """(N, A) IoU; of a crowd region the part of the detection that lies in it."""
    if not len(rows) or not len(columns):
        return np.zeros((len(rows), len(columns)))
    crowd = truth.crowd[columns].astype(np.int64)
    if kind == "bbox":
        return primitives.bbox_iou(results.bboxes[rows], truth.bboxes[columns], crowd)
    assert results.masks is not None and truth.masks is not None
    size = truth.sizes[truth.images[columns[0]]].tolist()
    found = [as_dict(results.masks[row], size) for row in rows.tolist()]
    wanted = [as_dict(truth.masks[column], size) for column in columns.tolist()]
    return primitives.mask_iou(found, wanted, crowd)


def _pairs(overlaps: Array, found: Array, wanted: Array, crowd: Array) -> tuple[Array, Array]:
    """For each detection, best score first, the object it takes, -1 for none; and whether a crowd has it."""
    taken = np.full(len(found), -1, np.int64)
    free = ~crowd
    for row in np.flatnonzero((overlaps[:, free] >= IOU).any(axis=1)).tolist():
        overlap = np.where(free, overlaps[row], 0)
        best = int(np.lexsort((wanted == found[row], overlap))[-1])
        if overlap[best] >= IOU:
            taken[row], free[best] = best, False
    return taken, (taken < 0) & (overlaps[:, crowd] >= IOU).any(axis=1)


def _add_confusion(
    confusion: Array, taken: Array, in_crowd: Array, found: Array, wanted: Array, crowd: Array
) -> None:
    background = len(confusion) - 1
    matched, missed = taken >= 0, ~crowd
    missed[taken[matched]] = False
    np.add.at(confusion, (wanted[taken[matched]], found[matched]), 1)
    np.add.at(confusion, (background, found[~matched & ~in_crowd]), 1)
    np.add.at(confusion, (wanted[missed], background), 1)
