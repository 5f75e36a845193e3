"""Detections whose masks are known pixel by pixel."""

from pathlib import Path

import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.images import ImageFile
from maskrcnn.results import Output, Written
from maskrcnn.spec import Classes
from maskrcnn.stream import Found

SIDE = 28
SIZE = (64, 96)
CLASSES = Classes(("cat", "", "a<b & 'c', \"d\"; é\n"), (17, 12, 3))


def drawn(*masks: np.ndarray, classes: Classes = CLASSES, labels: tuple[int, ...] = ()) -> Detections:
    """Each mask (28, 28) at its own place of an image of 64 x 96, its pixels as they are."""
    corners = np.array([[3 + 5 * n % 60, 2 + 7 * n % 30] for n in range(len(masks))]).reshape(-1, 2)
    return Detections(
        boxes=np.concatenate([corners, corners + SIDE], axis=1).astype(np.float32),
        scores=np.linspace(0.9, 0.6, len(masks), dtype=np.float32),
        labels=np.array(labels or [n % 3 for n in range(len(masks))], np.int64),
        roi_masks=np.array(masks, np.float32).reshape(-1, SIDE, SIDE),
        size=SIZE,
        classes=classes,
    )


def block() -> np.ndarray:
    """A solid L."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:20, 3:9] = mask[14:20, 3:25] = True
    return mask


def ring() -> np.ndarray:
    """A frame around a hole."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[1:27, 2:22] = True
    mask[8:15, 7:12] = False
    return mask


def two() -> np.ndarray:
    """Two parts that touch by a corner."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[0:10, 0:10] = mask[10:28, 10:20] = True
    return mask


def empty() -> np.ndarray:
    """No pixel."""
    return np.zeros((SIDE, SIDE), bool)


def speckle(seed: int) -> np.ndarray:
    """Noise: many parts and holes."""
    return np.random.default_rng(seed).random((SIDE, SIDE)) < 0.6


def everything() -> Detections:
    """One of each."""
    return drawn(block(), ring(), two(), empty(), speckle(0), speckle(1))


def write(
    folder: Path, *kinds: str, detections: Detections | None = None, name: str = "street.jpg"
) -> tuple[Output, Written]:
    """What an Output made of one image, folder/in/NAME."""
    file = ImageFile(folder / "in" / name, name)
    output = Output(
        folder / "out", kinds, 0.5, 0.0, {file.path: str(Path(name).with_suffix(""))}, {file.path: 7}
    )
    return output, output.write(
        Found(file, None, everything() if detections is None else detections, milliseconds=1.0)
    )
