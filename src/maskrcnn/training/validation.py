"""Average precision of the weights of a run, on pictures that it does not learn from."""

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn.agreement import box_iou
from maskrcnn.backends.pytorch import PyTorchBackend
from maskrcnn.data.content import Content, Instance
from maskrcnn.data.formats import coco
from maskrcnn.detections import Detections
from maskrcnn.drawing import draw
from maskrcnn.evaluation.coco_metrics import evaluate
from maskrcnn.evaluation.ground_truth import GroundTruth, ground_truth_of
from maskrcnn.evaluation.metrics import Metrics
from maskrcnn.evaluation.result_list import results_of
from maskrcnn.images import read_image
from maskrcnn.predict import Predictor
from maskrcnn.spec import Spec
from maskrcnn.training.finish import frozen, with_constant_norms
from maskrcnn.training.processes import Processes

Array = np.ndarray

PICTURES = 8
SURE = 0.5


@dataclass(frozen=True, eq=False)
class Validation:
    """What a run is measured on: annotations, and the same as the evaluator wants them."""

    content: Content
    truth: GroundTruth


@dataclass(frozen=True, eq=False)
class Judged:
    """metrics: of all pictures. items: the COCO results list.

    counts: name -> right detections, wrong ones and missed objects of a picture, at a score of 0.5 and a box
    IoU of 0.5. pictures: name -> drawn uint8 RGB, of the best and the worst.
    """

    metrics: Metrics
    items: list[dict[str, Any]]
    counts: dict[str, tuple[int, int, int]]
    pictures: dict[str, np.ndarray]


def validation_of(content: Content) -> Validation:
    """Annotations made ready once for a run. Raises UserError where they cannot be evaluated."""
    values = coco.content(content)
    truth = ground_truth_of(values["images"], values["annotations"], values["categories"], str(content.path))
    return Validation(content, truth)


def judge(
    spec: Spec, state: dict[str, Tensor], validation: Validation, device: torch.device, processes: Processes
) -> Judged | None:
    """Detect in every picture, shared among the processes; only the first gets the figures."""
    predictor, content = predictor_of(spec, state, device), validation.content
    items: list[dict[str, Any]] = []
    counts: dict[str, tuple[int, int, int]] = {}
    wanted = _boxes_of(content)
    for picture in islice(content.pictures, processes.rank, None, processes.count):
        (found,) = predictor([read_image(content.folder / picture.file_name)])
        items += found.to_coco(image_id=picture.id)
        counts[picture.file_name] = count_right(found.above(SURE), *wanted[picture.id])
    gathered = processes.gathered((items, counts))
    if not processes.is_first:
        return None
    items = [item for part, _ in gathered for item in part]
    counts = {name: numbers for _, part in gathered for name, numbers in part.items()}
    metrics = evaluate(validation.truth, results_of(items, validation.truth, "the network"))
    return Judged(metrics, items, counts, _drawn(predictor, content, counts))


def count_right(found: Detections, boxes: Array, categories: Array) -> tuple[int, int, int]:
    """Detections, and boxes (A, 4) with category ids (A,) of the objects -> right, wrong, missed.

    Best first, each takes the free object of its class that it overlaps most, from an IoU of 0.5 on.
    """
    free, right = np.ones(len(boxes), bool), 0
    for box, category in zip(found.boxes, found.category_ids(), strict=True):
        overlaps = np.where(free & (categories == category), box_iou(box[None], boxes)[0], 0.0)
        if len(overlaps) and overlaps.max() >= SURE:
            free[overlaps.argmax()] = False
            right += 1
    return right, len(found) - right, int(free.sum())


def _boxes_of(content: Content) -> dict[int, tuple[Array, Array]]:
    """Boxes (A, 4) and category ids (A,) of each picture's objects that are not crowds, by its id."""
    of_image: dict[int, list[Instance]] = {picture.id: [] for picture in content.pictures}
    for one in content.instances:
        if not one.crowd and one.image_id in of_image:
            of_image[one.image_id].append(one)
    found = {}
    for image, instances in of_image.items():
        boxes = np.array([one.bbox for one in instances], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found[image] = boxes, np.array([one.category_id for one in instances], np.int64)
    return found


def _drawn(
    predictor: Predictor, content: Content, counts: dict[str, tuple[int, int, int]]
) -> dict[str, Array]:
    """The pictures with the most right and with the most wrong or missed, with their detections."""
    order = sorted(counts, key=lambda name: (counts[name][0] - counts[name][1] - counts[name][2], name))
    chosen = dict.fromkeys([*order[::-1][: PICTURES // 2], *order[: PICTURES // 2]])
    found = {}
    for name in chosen:
        image = read_image(content.folder / name)
        (detections,) = predictor([image])
        found[name] = draw(image, detections.above(SURE))
    return found


def predictor_of(spec: Spec, state: dict[str, Tensor], device: torch.device) -> Predictor:
    """The network of a run as it predicts, with its norms constant and in float32."""
    model = frozen(spec.model)
    own = replace(spec, model=model, precision="fp32")
    constant = {name: values.float() for name, values in with_constant_norms(spec.model, state).items()}
    return Predictor(PyTorchBackend(own, constant, device))


def precision_of(metrics: Metrics) -> float:
    """The number by which a run is judged: AP of masks, of boxes where there are no masks; 0 if undefined."""
    numbers = metrics.numbers()
    return float(np.nan_to_num(numbers.get("segm/AP", numbers.get("bbox/AP", 0.0))))
