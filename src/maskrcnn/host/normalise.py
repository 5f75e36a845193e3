"""From planes in 0..255 to what the first convolution reads."""

import numpy as np

from maskrcnn.config import ModelConfig


def normalised(image: np.ndarray, size: np.ndarray, config: ModelConfig) -> np.ndarray:
    """(image - mean) / std inside each image, padding by convention.

    image (B, 3, H, W) uint8 or float32 in 0..255, size (B, 2) without the padding -> float32 (B, 3, H, W).
    """
    return normalise(image.astype(np.float32), size, config)


def normalise(planes: np.ndarray, size: np.ndarray, config: ModelConfig) -> np.ndarray:
    """The same of float32 planes (B, 3, H, W), which are changed and returned."""
    black = config.conventions.padding == "black"
    if black:
        _blank_outside(planes, size)
    planes -= np.array(config.mean, np.float32)[:, None, None]
    planes /= np.array(config.std, np.float32)[:, None, None]
    if not black:
        _blank_outside(planes, size)
    return planes


def _blank_outside(planes: np.ndarray, size: np.ndarray) -> None:
    for each, (height, width) in zip(planes, size, strict=True):
        each[:, height:] = 0
        each[:, :, width:] = 0
