"""Graphs as Ascend's ModelZoo makes them of mmdetection: normalised planes in, all classes' masks out.

D rows, K classes, M side of a mask, H, W size of the network's input.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from maskrcnn import presets
from maskrcnn.backends.foreign_graph import Contract, Interface
from maskrcnn.config import BoxHeadConfig, ModelConfig
from maskrcnn.detections import Raw
from maskrcnn.host.normalise import normalised
from maskrcnn.spec import Classes, Exported, Origin, Preprocess, Spec

INPUT = "input"
# By their order, which is also the number in the names of their files: (D, 5) float32 x1, y1, x2, y2, score;
# (D,) int32; (D, K, M, M) float32 probabilities. mmdetection's names; others are known by their ranks.
OUTPUTS = ("dets", "labels", "masks")
RANKS = (2, 1, 4)
SIZE = (1216, 1216)
ROWS, CLASSES = 100, 80


def letterbox(preprocess: Preprocess, size: tuple[int, int], mean: tuple[float, float, float]) -> Preprocess:
    """The same, but centred in a window of size (height, width), sides rounded down, as theirs is.

    mean: of the network; around the image it is filled in, so that zeros are there after normalisation.
    """
    height, width = size
    return replace(
        preprocess,
        resize="letterbox",
        short=height,
        long=width,
        size_rule="torchvision",
        pad_to_window=False,
        pad_value=mean,
    )


def mmdetection_spec(
    size: tuple[int, int] = SIZE, classes: int = CLASSES, rows: int = ROWS, file: str = ""
) -> Spec:
    """What their published Mask R-CNN R50-FPN is fed, for a window of size (height, width)."""
    model = ModelConfig(
        classes=classes, conventions=presets.MMDETECTION, box_head=BoxHeadConfig(detections=rows)
    )
    return Spec(
        model,
        replace(letterbox(presets.MMDETECTION_INPUT, size, model.mean), pad_multiple=1),
        presets.COCO if classes == CLASSES else Classes(),
        origin=Origin("mmdetection", file),
        exported=Exported(batch=1, height=size[0], width=size[1], contract="ascend"),
    )


def raw_of(dets: np.ndarray, labels: np.ndarray, masks: np.ndarray) -> Raw:
    """dets (D, 5), labels (D,), masks (D, K, M, M), or (D, 1, M, M) of the labels alone -> Raw of one image.

    Of masks only those of the labels are touched, so that they may be a file. Rows are put best first.
    """
    order = np.argsort(-dets[:, 4], kind="stable")
    scores = np.maximum(dets[order, 4], 0).astype(np.float32)
    found = scores > 0
    own = np.where(found, labels.reshape(-1)[order], 0).astype(np.int64)
    channel = np.minimum(own, masks.shape[1] - 1) if masks.shape[1] > 1 else np.zeros_like(own)
    of_label = np.asarray(masks[order, channel], np.float32) * found[:, None, None]
    boxes = dets[order, :4].astype(np.float32) * found[:, None]
    return Raw(boxes[None], scores[None], own[None], of_label[None])


def _fits(interface: Interface) -> bool:
    if set(interface.inputs) != {INPUT}:
        return False
    shape, outputs = interface.inputs[INPUT], list(interface.outputs.values())
    if len(shape) != 4 or shape[:2] != (1, 3) or 0 in shape or tuple(map(len, outputs)) != RANKS:
        return False
    (rows, columns), _, (*_, height, width) = outputs
    return rows > 0 and columns == 5 and 0 < height == width < min(shape[2:])


def _describe(path: Path, interface: Interface) -> Spec:
    dets, _, masks = interface.outputs.values()
    height, width = interface.inputs[INPUT][2:]
    return mmdetection_spec((height, width), masks[1] or CLASSES, dets[0] or ROWS, path.name)


def _feed(spec: Spec, image: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    return {INPUT: normalised(image, size, spec.model)}


def in_their_order(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs by name -> dets, labels, masks, whatever they are called."""
    by_rank = {array.ndim: array for array in arrays.values()}
    dets, labels, masks = (by_rank[rank] for rank in RANKS)
    return dets, labels, masks


def _read(spec: Spec, arrays: dict[str, np.ndarray], size: np.ndarray) -> Raw:
    return raw_of(*in_their_order(arrays))


CONTRACT = Contract("ascend", _fits, _describe, _feed, _read)
