"""Graphs of segmentoly, in OpenVINO training extensions: one image and its size in, boxes and all masks out.

H, W size of the network's input, N rows, K classes, M side of a mask. Inputs are `im_data` (1, 3, H, W) and
`im_info` (1, 3): height and width without the padding, and 1. Outputs are `boxes` (N, 4) in network pixels,
`classes` (N,) with 0 for a row without a detection and 1 for the first class, `scores` (N,), `raw_masks`
(N, K + 1, M, M) with the background's first, and in older files `batch_ids` (N,), which are 0.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from maskrcnn import presets
from maskrcnn.backends.foreign_graph import Arrays, Contract, Interface, filled
from maskrcnn.config import BoxHeadConfig, ModelConfig
from maskrcnn.detections import Raw
from maskrcnn.host.normalise import normalised
from maskrcnn.spec import Classes, Exported, Origin, Preprocess, Spec

IMAGE, IMAGE_INFO = "im_data", "im_info"
BOXES, CLASSES, SCORES, BATCH, MASKS = OUTPUTS = ("boxes", "classes", "scores", "batch_ids", "raw_masks")
NOTHING = (0.0, 0.0, 0.0)
ONE = (1.0, 1.0, 1.0)
# What a mean that Model Optimizer put into a network is there.
_SHIFTS = {"Add", "Subtract", "ScaleShift", "Eltwise"}


def _fits(interface: Interface) -> bool:
    return set(interface.inputs) == {IMAGE, IMAGE_INFO} and set(OUTPUTS) - {BATCH} <= set(
        _known(interface.outputs)
    )


def _known(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """By the names that they should have; networks of version 10 may have `LAYER.0` and so on instead."""
    ports = {f".{number}": name for number, name in enumerate(OUTPUTS[:-1])}
    return {ports.get(name[name.rfind(".") :], name): value for name, value in outputs.items()}


def _describe(path: Path, interface: Interface) -> Spec:
    """Of a graph without a description: its size, its classes, and whether it takes the mean away itself."""
    _, _, height, width = interface.inputs[IMAGE]
    outputs = _known(interface.outputs)
    rows = outputs[BOXES][0] or BoxHeadConfig.detections
    channels = outputs[MASKS][1] if len(outputs[MASKS]) == 4 else 0
    classes = channels - 1 if channels > 1 else len(presets.COCO)
    model = ModelConfig(
        classes=classes,
        mean=NOTHING if _has_mean(path) else presets.MEAN_CAFFE2,
        std=ONE,
        box_head=BoxHeadConfig(detections=rows),
        conventions=presets.SEGMENTOLY,
    )
    return Spec(
        model,
        _fitted(presets.SEGMENTOLY_INPUT, height, width),
        presets.COCO if classes == len(presets.COCO) else _numbered(classes),
        origin=Origin("segmentoly", path.name),
        exported=Exported(batch=1, height=height, width=width, contract="segmentoly"),
    )


def _fitted(preprocess: Preprocess, height: int, width: int) -> Preprocess:
    if not (height and width):
        return preprocess
    return replace(preprocess, resize="fit_window", short=height, long=width, pad_to_window=True)


def _numbered(count: int) -> Classes:
    return Classes(tuple(f"class {number}" for number in range(1, count + 1)), tuple(range(1, count + 1)))


def _has_mean(path: Path) -> bool:
    """Whether the first layer that an OpenVINO network puts its image into adds a constant."""
    if path.suffix.lower() != ".xml":
        return False
    root = ElementTree.parse(path).getroot()
    kinds = {layer.get("id"): layer.get("type") for layer in root.iter("layer")}
    image = next((layer.get("id") for layer in root.iter("layer") if layer.get("name") == IMAGE), None)
    readers = [edge.get("to-layer") for edge in root.iter("edge") if edge.get("from-layer") == image]
    return any(kinds.get(reader) in _SHIFTS for reader in readers)


def _feed(spec: Spec, image: np.ndarray, size: np.ndarray) -> Arrays:
    height, width = (float(side) for side in size[0])
    return {
        IMAGE: normalised(image, size, spec.model),
        IMAGE_INFO: np.array([[height, width, 1.0]], np.float32),
    }


def _read(spec: Spec, found: Arrays, size: np.ndarray) -> Raw:
    """Rows best first; those without a detection are zero, whatever the graph has there."""
    found = _known(found)
    scores, classes = found[SCORES].reshape(-1), found[CLASSES].reshape(-1).astype(np.int64)
    real = np.flatnonzero((classes > 0) & (scores > 0))
    rows = real[np.argsort(-scores[real], kind="stable")][: spec.model.box_head.detections]
    masks = found[MASKS][rows]
    if masks.ndim == 4:
        masks = masks[np.arange(len(rows)), classes[rows]]
    boxes = found[BOXES].reshape(-1, 4)[rows]
    return filled(boxes, scores[rows], classes[rows] - 1, masks, spec.model.box_head.detections)


def mended(path: Path) -> bytes | None:
    """A graph of segmentoly's own .onnx file as OpenVINO has its operators; None for any other file.

    There detections have a fourth output, the numbers of the images, and 0 of int64 is added to each output
    for Model Optimizer, also to `classes`, which are int32. Needs the package onnx, None without it.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        return None
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's own errors for what is no message
        return None
    graph = model.graph
    detections = [node for node in graph.node if node.op_type == "ExperimentalDetectronDetectionOutput"]
    ends = [node for node in graph.node if node.op_type == "Add" and set(node.output) & set(OUTPUTS)]
    if not (detections and ends):
        return None
    for node in detections:
        del node.output[3:]
    for node in ends:
        node.op_type = "Identity"
        del node.input[1:]
        if node.output[0] == BATCH:
            graph.node.remove(node)
    outputs = [value for value in graph.output if value.name != BATCH]
    del graph.output[:]
    graph.output.extend(outputs)
    return model.SerializeToString()


CONTRACT = Contract("segmentoly", _fits, _describe, _feed, _read)
