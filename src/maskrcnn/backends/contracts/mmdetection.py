"""ONNX as mmdetection's pytorch2onnx and mmdeploy write it: a normalised `input` to boxes, labels and masks.

N detections, H, W size of the network's input, D rows of Raw, M side of a mask, K classes.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from maskrcnn import presets
from maskrcnn.backends.contracts.class_count import class_count
from maskrcnn.backends.contracts.pasted import cropped, probabilities
from maskrcnn.backends.foreign_graph import Arrays, Contract, Interface, check_count, filled
from maskrcnn.config import ModelConfig
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.host.normalise import normalised
from maskrcnn.spec import Classes, Exported, Origin, Spec
from maskrcnn.weights.source import default_classes

INPUT = "input"
BOXES = ("dets", "boxes")  # mmdetection before 2.8 said boxes
# The layer whose outputs are the classes and the background.
CLASSIFIER = "bbox_head.fc_cls.bias"
# Cells of a mask that the graph has pasted. Laid on 800 x 1200 pixels again its IoU with what the graph wrote
# is 0.9994 in the mean of 398 masks and 0.991 at least; 28 cells give 0.991 and 0.927.
PASTED_SIDE = 112


def fits(interface: Interface) -> bool:
    """One normalised image in; boxes with their scores in a fifth column, labels and masks out."""
    boxes = next((name for name in BOXES if name in interface.outputs), None)
    if set(interface.inputs) != {INPUT} or boxes is None or not {"labels", "masks"} <= set(interface.outputs):
        return False
    image, rows = interface.inputs[INPUT], interface.outputs[boxes]
    is_image = len(image) == 4 and image[0] in (0, 1) and image[1] in (0, 3)
    return is_image and (not rows or rows[-1] in (0, 5))


def describe(path: Path, interface: Interface) -> Spec:
    """What mmdetection exports by default: ImageNet's mean, RGB, COCO if the graph has 80 classes.

    A graph of one size is fed as mmdetection's own check of it does, stretched to that size. Classes have no
    names where the graph does not tell how many there are.
    """
    batch, _, height, width = interface.inputs[INPUT]
    fixed = height > 0 and width > 0
    preprocess = presets.MMDETECTION_INPUT
    if fixed:
        preprocess = replace(preprocess, resize="stretch", short=height, long=width, pad_multiple=1)
    count = class_count(path, CLASSIFIER)
    return Spec(
        model=ModelConfig(classes=count or len(presets.COCO), conventions=presets.MMDETECTION),
        preprocess=preprocess,
        classes=default_classes(count) if count else Classes(),
        origin=Origin(source="mmdetection", file=path.name),
        exported=Exported(batch=batch, height=height, width=width, contract="mmdetection"),
    )


def feed(spec: Spec, image: np.ndarray, size: np.ndarray) -> Arrays:
    """image (1, 3, H, W) in 0..255, size (1, 2) -> the normalised image."""
    return {INPUT: normalised(image, size, spec.model)}


def read(spec: Spec, arrays: Arrays, size: np.ndarray) -> Raw:
    """Rows as the graph has them, best first; masks of the whole input become crops.

    Raises UserError for masks that belong to other boxes, and for more boxes than the description allows.
    """
    rows = arrays[next(name for name in BOXES if name in arrays)].reshape(-1, 5).astype(np.float32)
    labels = arrays["labels"].reshape(-1).astype(np.int64)
    masks = _by_row(arrays["masks"], len(rows))
    # Exports of fixed length fill up with rows of score 0.
    chosen = [row for row in np.argsort(-rows[:, 4], kind="stable") if rows[row, 4] > 0 and labels[row] >= 0]
    check_count(spec, len(chosen))
    most = spec.model.box_head.detections
    boxes, scores, labels = rows[chosen, :4], rows[chosen, 4], labels[chosen]
    found = [
        masks[row, label if masks.shape[1] > 1 else 0] for row, label in zip(chosen, labels, strict=True)
    ]
    height, width = (int(side) for side in size[0])
    if masks.shape[2] < height or masks.shape[3] < width:
        return filled(
            boxes, scores, labels, _stacked([probabilities(m) for m in found], masks.shape[3]), most
        )
    # The graph clips to its input, which may be larger than the image in it.
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    crops = [cropped(mask, box, PASTED_SIDE) for mask, box in zip(found, boxes, strict=True)]
    return filled(boxes, scores, labels, _stacked(crops, PASTED_SIDE), most)


def _by_row(masks: np.ndarray, count: int) -> np.ndarray:
    """Masks of any layout -> (N, 1 or K, h, w)."""
    height, width = masks.shape[-2:]
    if count == 0:
        return np.zeros((0, 1, height, width), masks.dtype)
    if masks.size % (count * height * width):
        raise UserError(
            f"masks of shape {masks.shape} do not belong to {count} boxes", hint="export the model again"
        )
    return masks.reshape(count, -1, height, width)


def _stacked(crops: list[np.ndarray], side: int) -> np.ndarray:
    """N x (M, M) -> (N, M, M), of none as well."""
    return np.stack(crops) if crops else np.zeros((0, side, side), np.float32)


CONTRACT = Contract("mmdetection", fits, describe, feed, read)
