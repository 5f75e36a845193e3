"""COCO average precision of boxes and masks, by hotcoco, which agrees with pycocotools to the last bit.

K classes, T IoU thresholds, R recall levels.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import hotcoco
import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.evaluation.explain import explain
from maskrcnn.evaluation.ground_truth import GroundTruth
from maskrcnn.evaluation.matching import match
from maskrcnn.evaluation.metrics import ClassMetrics, KindMetrics, Metrics, Operating, coco_names
from maskrcnn.evaluation.operating import operate
from maskrcnn.evaluation.result_list import ResultList
from maskrcnn.evaluation.rle import Rle, areas_of, as_dict

Array = np.ndarray
Kind = Literal["bbox", "segm"]

# The area ranges of COCO in square pixels, both ends included: below 32**2 is small, above 96**2 large.
AREAS = {"all": [0.0, 1e10], "small": [0.0, 32.0**2], "medium": [32.0**2, 96.0**2], "large": [96.0**2, 1e10]}
MAX_DETECTIONS = 100
SCORE = 0.5


def evaluate(
    ground_truth: GroundTruth,
    results: ResultList,
    kinds: Sequence[Kind] = ("bbox", "segm"),
    max_detections: int = MAX_DETECTIONS,
    score: float = SCORE,
    mask_areas: bool = False,
) -> Metrics:
    """Score detections against annotations. Masks are scored where both sides have them.

    AP is the mean over IoU .50:.05:.95 of the precision interpolated at 101 recall levels, and over the
    classes that have objects; AR the mean over the same IoU thresholds of the recall at 1, 10 and the most
    detections; APs, APm, APl and ARs, ARm, ARl take objects and unmatched detections of one area range only.
    Detections of an image and class are matched best score first; what matches a crowd region is left out.
    All as in COCOeval of https://github.com/cocodataset/cocoapi.

    max_detections: of an image and class, best first; COCO has 100. With another number its name replaces
        the 100 of `AR100`. score: the one of precision, recall, F1 and confusion, where a detection is right
        at an IoU of at least 0.5.
    mask_areas: a detection's area range is that of its mask when masks are scored, as in the evaluators of
        detectron2 and mmdetection; else that of its box where it has one, as in COCOeval.
    Raises UserError for fewer than 100 max_detections and for no kind that both sides have.
    """
    if max_detections < MAX_DETECTIONS:
        raise UserError(
            f"at most {max_detections} detections an image and class", hint=f"use {MAX_DETECTIONS} or more"
        )
    both_have_masks = ground_truth.masks is not None and results.masks is not None
    scored = [kind for kind in kinds if kind == "bbox" or both_have_masks]
    if not scored:
        side = results.place if ground_truth.masks is not None else ground_truth.place
        raise UserError(f"there are no masks in {side}", hint="score boxes")
    metrics = [_of_kind(ground_truth, results, kind, max_detections, score, mask_areas) for kind in scored]
    return Metrics(
        kinds=tuple(metrics),
        images=len(ground_truth.image_ids),
        objects=int((~ground_truth.crowd).sum()),
        detections=len(results),
        max_detections=max_detections,
        score=score,
        notes=tuple(explain(ground_truth, results, metrics, kinds, max_detections)),
    )


def _of_kind(
    truth: GroundTruth, results: ResultList, kind: Kind, max_detections: int, score: float, mask_areas: bool
) -> KindMetrics:
    precision, recall = _curves(truth, results, kind, [1, 10, max_detections], mask_areas)
    matching = match(truth, results, kind, score, max_detections)
    objects = np.bincount(truth.labels[~truth.crowd], minlength=len(truth.category_ids)).tolist()

    def operating(rows: Array, wanted: int) -> Operating:
        rows = rows[~matching.ignored[rows]]
        return operate(results.scores[rows], matching.right[rows], wanted, score)

    return KindMetrics(
        kind=kind,
        numbers=_twelve(precision, recall, max_detections),
        operating=operating(np.arange(len(results)), sum(objects)),
        classes=tuple(
            ClassMetrics(
                category_id=category_id,
                name=name,
                objects=objects[label],
                ap=_mean(precision[:, :, label, 0, -1]),
                ap50=_mean(precision[0, :, label, 0, -1]),
                operating=operating(np.flatnonzero(results.labels == label), objects[label]),
            )
            for label, (category_id, name) in enumerate(zip(truth.category_ids, truth.names, strict=True))
        ),
        confusion=matching.confusion,
    )


def _curves(
    truth: GroundTruth, results: ResultList, kind: Kind, most: list[int], mask_areas: bool
) -> tuple[Array, Array]:
    """precision (T, R, K, area range, most) and recall (T, K, area range, most); NaN where undefined."""
    wanted, found = _both_sides(truth, results, kind, mask_areas)
    run = hotcoco.COCOeval(wanted, found, kind)
    run.params.max_dets = most
    run.params.area_rng = list(AREAS.values())
    run.params.area_rng_lbl = list(AREAS)
    run.evaluate()
    run.accumulate()
    curves = run.eval
    assert curves is not None
    precision, recall = (np.asarray(curves[name]) for name in ("precision", "recall"))
    return np.where(precision < 0, np.nan, precision), np.where(recall < 0, np.nan, recall)


def _both_sides(
    truth: GroundTruth, results: ResultList, kind: Kind, mask_areas: bool
) -> tuple[hotcoco.COCO, hotcoco.COCO]:
    """As hotcoco holds them; ids are rows + 1, since it takes a matched id of 0 for no match."""
    sizes = truth.sizes.tolist()
    images = [
        {"id": row + 1, "height": max(size[0], 1), "width": max(size[1], 1)} for row, size in enumerate(sizes)
    ]
    wanted = hotcoco.COCO.from_arrays(
        images,
        [{"id": row + 1, "name": str(row)} for row in range(len(truth.category_ids))],
        truth.images + 1,
        truth.labels + 1,
        truth.bboxes,
        ids=np.arange(len(truth.images)) + 1,
        area=truth.areas,
        iscrowd=truth.crowd.astype(np.int64),
        segmentation=_dicts(truth.masks, truth.images, sizes) if kind == "segm" else None,
    )
    columns = (results.images + 1, results.bboxes, results.scores, results.labels + 1)
    masks = _dicts(results.masks, results.images, sizes) if kind == "segm" else None
    found = wanted.load_res(np.column_stack(columns), segmentation=masks)
    areas = areas_of(masks) if masks and mask_areas else results.areas
    found.update_anns(ids=np.arange(len(areas)) + 1, area=areas)
    return wanted, found


def _dicts(masks: tuple[Rle, ...] | None, images: Array, sizes: list[list[int]]) -> list[Any]:
    assert masks is not None
    return [as_dict(mask, sizes[image]) for mask, image in zip(masks, images.tolist(), strict=True)]


def _twelve(precision: Array, recall: Array, max_detections: int) -> dict[str, float]:
    """By name, in COCO's order. Rows 0 and 5 of the thresholds are IoU .5 and .75."""
    values = [
        *(
            _mean(part)
            for part in (precision[..., 0, -1], precision[0, ..., 0, -1], precision[5, ..., 0, -1])
        ),
        *(_mean(precision[..., area, -1]) for area in (1, 2, 3)),
        *(_mean(recall[..., 0, most]) for most in (0, 1, 2)),
        *(_mean(recall[..., area, -1]) for area in (1, 2, 3)),
    ]
    return dict(zip(coco_names(max_detections), values, strict=True))


def _mean(values: Array) -> float:
    """The mean of what is defined; NaN where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
