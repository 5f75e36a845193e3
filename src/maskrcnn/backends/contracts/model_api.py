"""Graphs for OpenVINO Model API: a window with one image in it, and detections with a mask for every class.

N detections, K classes, M side of a mask, D rows, H, W size of the window.
"""

from pathlib import Path

import numpy as np

from maskrcnn.backends.foreign_graph import Arrays, Contract, Interface, filled
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.spec import Spec

INPUTS = ("image", "image_info")
OUTPUTS = ("boxes", "classes", "scores", "raw_masks")
# Third value of `image_info`: Model API has always 1 there, and the window's sides before it, so that the
# graph itself looks where the image ends. With 0 the first two are the width and height of the image.
UNKNOWN, KNOWN = 1.0, 0.0


def fits(interface: Interface) -> bool:
    """Whether the names are those that `maskrcnn export --contract model-api` writes."""
    return set(interface.inputs) == set(INPUTS) and set(interface.outputs) == set(OUTPUTS)


def describe(path: Path, interface: Interface) -> Spec:
    """Refuses a graph whose description was taken out: no other tool writes this one."""
    raise UserError(
        f"{path}: has lost its maskrcnn description, so its classes and its input are not known",
        hint="export it again with `maskrcnn export --contract model-api`",
    )


def feed(spec: Spec, image: np.ndarray, size: np.ndarray) -> Arrays:
    """image (1, 3, H, W) in 0..255 and size int64 (1, 2) -> `image` float32 and `image_info` (1, 3)."""
    height, width = size[0]
    return {
        "image": np.ascontiguousarray(image, np.float32),
        "image_info": np.array([[width, height, KNOWN]], np.float32),
    }


def read(spec: Spec, arrays: Arrays, size: np.ndarray) -> Raw:
    """boxes (N, 4) in the window, classes (N,) from 1 on, scores (N,), raw_masks (N, K + 1, M, M) -> Raw of
    one image.
    """
    classes = arrays["classes"].astype(np.int64)
    masks = arrays["raw_masks"][np.arange(len(classes)), classes]
    return filled(arrays["boxes"], arrays["scores"], classes - 1, masks, spec.model.box_head.detections)


CONTRACT = Contract("model-api", fits, describe, feed, read)
