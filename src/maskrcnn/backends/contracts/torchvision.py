"""ONNX as torch.onnx.export makes it of torchvision's own detectors: an image in 0..1 to pasted masks.

N detections, H, W size of the graph's input, K classes, M side of a mask. The input is (3, H, W) or, of those
who gave it a batch of one, (1, 3, H, W). Outputs have any names: boxes (N, 4), labels int64 (N,) with 0 for
the background, scores (N,), masks (N, 1, H, W), probabilities laid on the input. The graph normalises and
resizes.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from maskrcnn import presets
from maskrcnn.backends.contracts.class_count import class_count
from maskrcnn.backends.contracts.own_resize import own_resize
from maskrcnn.backends.contracts.pasted import unpasted, within
from maskrcnn.backends.foreign_graph import Arrays, Contract, Interface, check_count, filled
from maskrcnn.backends.whole_graph import Session
from maskrcnn.config import ModelConfig
from maskrcnn.detections import Raw
from maskrcnn.spec import Classes, Exported, Origin, Preprocess, Spec
from maskrcnn.weights.source import default_classes

IMAGE = "image"
BOXES, LABELS, SCORES, MASKS = OUTPUTS = ("boxes", "labels", "scores", "masks")
RANKS = [1, 1, 2, 4]
# The layer whose outputs are the background and the classes.
CLASSIFIER = "box_predictor.cls_score.bias"
SIDE = 28
# Of images of any size. What is resized as the graph would do it, the graph leaves as it is.
ANY_SIZE = replace(presets.TORCHVISION_INPUT, pad_multiple=1)


def fits(interface: Interface) -> bool:
    """One image in; boxes, two numbers for each and its mask out."""
    if len(interface.inputs) != 1 or sorted(map(len, interface.outputs.values())) != RANKS:
        return False
    (image,) = interface.inputs.values()
    by_rank = {len(shape): shape for shape in interface.outputs.values()}
    is_image = len(image) in (3, 4) and image[-3] in (0, 3) and image[:-3] in ((), (0,), (1,))
    return is_image and by_rank[2][1] in (0, 4) and by_rank[4][1] in (0, 1)


def describe(path: Path, interface: Interface) -> Spec:
    """torchvision's numbers, and COCO with its gaps where the graph has 91 outputs.

    A graph of one size is fed with the image fitted into it, one of any size with what it would resize the
    image to. Classes have no names where the graph does not tell how many there are.
    """
    (image,) = interface.inputs.values()
    height, width = image[-2:]
    count = class_count(path, CLASSIFIER)
    return Spec(
        model=ModelConfig(classes=count or len(presets.COCO_90), conventions=presets.TORCHVISION),
        preprocess=_fitted(height, width) if height and width else _resized(path),
        classes=_classes(count),
        origin=Origin(source="torchvision", file=path.name),
        exported=Exported(batch=1, height=height, width=width, contract="torchvision"),
    )


def _fitted(height: int, width: int) -> Preprocess:
    return replace(
        presets.TORCHVISION_INPUT,
        resize="fit_window",
        short=height,
        long=width,
        pad_multiple=1,
        pad_to_window=True,
    )


def _resized(path: Path) -> Preprocess:
    sizes = own_resize(path) if path.suffix.lower() == ".onnx" else None
    return replace(ANY_SIZE, short=sizes[0], long=sizes[1]) if sizes else ANY_SIZE


def _classes(count: int | None) -> Classes:
    if count is None:
        return Classes()
    return presets.COCO_90 if count == len(presets.COCO_90) else default_classes(count)


def named(session: Session, interface: Interface) -> Session:
    """A graph's session, with IMAGE (1, 3, H, W) and OUTPUTS whatever their names and ranks in the graph."""
    ((name, shape),) = interface.inputs.items()
    ranks = {key: len(value) for key, value in interface.outputs.items()}

    def run(arrays: Arrays) -> Arrays:
        image = arrays[IMAGE]
        found = session({name: image if len(shape) == 4 else image[0]})
        boxes, masks = (next(found[key] for key in ranks if ranks[key] == rank) for rank in (2, 4))
        # Labels come before scores in torchvision, and are whole numbers.
        labels, scores = sorted((found[key] for key in ranks if ranks[key] == 1), key=_is_float)
        return dict(zip(OUTPUTS, (boxes, labels, scores, masks), strict=True))

    return run


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"


def feed(spec: Spec, image: np.ndarray, size: np.ndarray) -> Arrays:
    """image (1, 3, H, W) in 0..255, size (1, 2) -> the image in 0..1.

    Where the graph takes more than the image the rest has the mean colour, which is nought once it is
    normalised, as torchvision's own padding is.
    """
    height, width = (int(side) for side in size[0])
    exported = spec.exported or Exported()
    fixed = exported.height and exported.width
    full = (exported.height, exported.width) if fixed else _whole((height, width), spec.preprocess)
    planes = np.empty((1, 3, *full), np.float32)
    planes[:] = np.array(spec.model.mean, np.float32)[:, None, None]
    planes[:, :, :height, :width] = image[:, :, :height, :width]
    planes /= np.float32(255)
    return {IMAGE: planes}


def _whole(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """A side of 799 that was meant to be 800 and rounded down is 800, so that it is not resized once more."""
    if min(size) == preprocess.short or max(size) == preprocess.long:
        return size
    low = preprocess.short - 1 if min(size) == preprocess.short - 1 else preprocess.long - 1
    height, width = (side + (side == low) for side in size)
    return height, width


def read(spec: Spec, arrays: Arrays, size: np.ndarray) -> Raw:
    """Rows best first, as the graph has them; the crops that the masks were pasted from.

    Raises UserError for more boxes than the description allows.
    """
    scores = arrays[SCORES].reshape(-1).astype(np.float32)
    chosen = np.argsort(-scores, kind="stable")
    check_count(spec, len(chosen))
    boxes = arrays[BOXES].reshape(-1, 4).astype(np.float32)[chosen]
    height, width = (int(side) for side in size[0])
    inside = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    crops = np.zeros((len(chosen), SIDE, SIDE), np.float32)
    for crop, row, box, part in zip(crops, chosen, boxes, inside, strict=True):
        crop[:] = within(unpasted(arrays[MASKS][row, 0], box, SIDE), box, part)
    labels = arrays[LABELS].reshape(-1).astype(np.int64)[chosen] - 1
    return filled(inside, scores[chosen], labels, crops, spec.model.box_head.detections)


# Measured with OpenVINO 2026.4: of no boxes the suppression keeps one, and what is read there is a score
# of the image before.
REFUSED = {"OpenVINO": "finds one object in every image that has none"}
CONTRACT = Contract("torchvision", fits, describe, feed, read, named, REFUSED)
