"""Says in words what a number does not say: why it is 0, why it is undefined, what was left out."""

from collections.abc import Iterator, Sequence

import numpy as np

from maskrcnn.evaluation.ground_truth import GroundTruth
from maskrcnn.evaluation.metrics import KindMetrics
from maskrcnn.evaluation.result_list import ResultList
from maskrcnn.whole_file import shown

# How many names a note lists.
LISTED = 8
AREA_NAMES = {"s": "small (up to 32 x 32 pixels)", "m": "medium", "l": "large (96 x 96 pixels and more)"}


def explain(
    truth: GroundTruth,
    results: ResultList,
    metrics: Sequence[KindMetrics],
    kinds: Sequence[str],
    max_detections: int,
) -> Iterator[str]:
    """Notes on an evaluation, a sentence each."""
    yield from truth.notes
    yield from results.notes
    for kind in kinds:
        if kind not in [each.kind for each in metrics]:
            side = truth.place if truth.masks is None else results.place
            yield f"there are no masks in {side}: only boxes are scored"
    yield from _of_classes(truth, results)
    yield from _of_areas(metrics)
    yield from _of_most(results, len(truth.category_ids), max_detections)
    if any(each.numbers["AP50"] < 0.01 for each in metrics):
        yield from _of_nothing(truth, results, metrics)


def _of_classes(truth: GroundTruth, results: ResultList) -> Iterator[str]:
    objects = np.bincount(truth.labels[~truth.crowd], minlength=len(truth.category_ids))
    found = np.bincount(results.labels, minlength=len(truth.category_ids))
    count = len(objects)
    if not objects.any():
        yield f"there are no objects in {truth.place}, so average precision is undefined (n/a)"
        return
    absent = np.flatnonzero(objects == 0)
    if len(absent):
        yield f"{len(absent)} of {count} classes have no objects and are left out of the means (n/a)"
    silent = np.flatnonzero((objects > 0) & (found == 0))
    if len(silent) and len(results):
        listed = [
            shown(truth.names[label] or str(truth.category_ids[label])) for label in silent[:LISTED].tolist()
        ]
        more = ", ..." if len(silent) > LISTED else ""
        yield f"{len(silent)} of {count} classes have objects and no detection: {', '.join(listed)}{more}"


def _of_areas(metrics: Sequence[KindMetrics]) -> Iterator[str]:
    for letter, name in AREA_NAMES.items():
        if all(np.isnan(each.numbers[f"AR{letter}"]) for each in metrics) and not all(
            np.isnan(each.numbers["AP"]) for each in metrics
        ):
            yield f"no object is {name}, so AP{letter} and AR{letter} are undefined (n/a)"


def _of_most(results: ResultList, classes: int, most: int) -> Iterator[str]:
    of_pair = np.unique(results.images * classes + results.labels, return_counts=True)[1]
    over = int((of_pair > most).sum())
    if over:
        yield (
            f"{over} times an image has more than {most} detections of a class (up to {of_pair.max()}), of "
            f"which the best {most} count; --max-detections lifts that"
        )


def _of_nothing(truth: GroundTruth, results: ResultList, metrics: Sequence[KindMetrics]) -> Iterator[str]:
    """Why next to nothing is right."""
    if not len(results):
        yield f"there are no detections in {results.place}"
        return
    confusion = metrics[0].confusion[:-1, :-1]
    right, wrong = int(np.trace(confusion)), int(confusion.sum() - np.trace(confusion))
    if wrong > 10 * right:
        yield (
            f"{wrong} detections lie on objects of another class and {right} on one of their own: are "
            "categories counted differently (from 0 and from 1, or 80 and 90)?"
        )
    elif results.bboxes.max() <= 1.5:
        yield "no detection's bbox has a value above 1.5: COCO's are in pixels, not in parts of the image"
    elif _fits_better_as_corners(truth, results):
        yield "the bboxes look like two corners: COCO's are x, y, width, height"
    elif right + wrong == 0:
        yield "no detection at the score lies on an object: are the boxes those of these images and sizes?"


def _fits_better_as_corners(truth: GroundTruth, results: ResultList) -> bool:
    """Whether most boxes leave their image if they are x, y, width, height, and none if they are corners."""
    sides = truth.sizes[results.images][:, ::-1]
    first, second = results.bboxes[:, :2], results.bboxes[:, 2:]
    leave = (first + second > sides + 1).any(axis=1).mean()
    return bool(leave > 0.3 and (second >= first).all() and (second <= sides + 1).all())
