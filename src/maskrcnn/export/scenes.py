"""Images to check a model on where none are given: coloured shapes on noise like that of photographs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import cv2
import numpy as np

Size = tuple[int, int]

# More than the 100 objects that a model usually returns.
CROWD = 240
GREY = 128


@dataclass(frozen=True)
class Scene:
    """An image to compare two models on. load: gives it, uint8 (H, W, 3) RGB.

    kind: `photograph` of the user's, `scene` drawn here, or the hard case that it stands for.
    place: how a command line names it, "" for one that is drawn.
    """

    name: str
    load: Callable[[], np.ndarray]
    kind: Literal["photograph", "scene", "blank", "pixel", "crowd"] = "photograph"
    place: str = ""

    @property
    def even(self) -> bool:
        """Whether nearly all of its pixels are equal."""
        return self.kind in ("blank", "pixel")


def drawn_scenes() -> list[Scene]:
    """A landscape, a portrait and a small square picture with a few shapes each."""
    sizes = {"landscape": (360, 540), "portrait": (540, 360), "small": (96, 96)}
    return [
        Scene(f"drawn {name}", partial(_scene, size, shapes=6, seed=seed), "scene")
        for seed, (name, size) in enumerate(sizes.items())
    ]


def hard_cases() -> list[Scene]:
    """Nothing to see, a single bright pixel, and more objects than a model returns."""
    return [
        Scene("drawn blank", partial(_grey, pixel=False), "blank"),
        Scene("drawn pixel", partial(_grey, pixel=True), "pixel"),
        Scene("drawn crowd", partial(_scene, (480, 640), shapes=CROWD, seed=7, side=32), "crowd"),
    ]


def _grey(pixel: bool) -> np.ndarray:
    """A grey picture uint8 (240, 320, 3), with one white pixel or without."""
    image = np.full((240, 320, 3), GREY, np.uint8)
    if pixel:
        image[120, 160] = 255
    return image


def _scene(size: Size, shapes: int, seed: int, side: int | None = None) -> np.ndarray:
    """uint8 (H, W, 3); side: pixels of the largest shape, half of the image's short side if left out."""
    random = np.random.default_rng(seed)
    image = _noise(size, random)
    largest = side or min(size) // 2
    for _ in range(shapes):
        _draw(image, random, largest)
    return image


def _noise(size: Size, random: np.random.Generator) -> np.ndarray:
    """Noise whose power falls as 1 / frequency, as that of photographs does: uint8 (H, W, 3)."""
    height, width = size
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(rows, columns).clip(1 / max(size))
    spectrum = np.fft.rfft2(random.standard_normal((3, height, width))) / frequency
    planes = np.fft.irfft2(spectrum, s=size)
    planes = planes / planes.std((1, 2), keepdims=True) * 40 + 118
    return np.ascontiguousarray(planes.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def _draw(image: np.ndarray, random: np.random.Generator, largest: int) -> None:
    """One ellipse, box or star of a random colour with a darker outline."""
    height, width = image.shape[:2]
    centre = (int(random.integers(width)), int(random.integers(height)))
    radii = random.uniform(largest / 6, largest / 2, 2)
    turn, corners = random.uniform(0, math.tau), (40, 4, 5)[int(random.integers(3))]
    angles = turn + np.arange(corners * 2) * math.pi / corners
    lengths = np.where((corners == 5) & (np.arange(corners * 2) % 2 == 1), 0.45, 1.0)
    points = np.stack([np.cos(angles) * radii[0], np.sin(angles) * radii[1]], 1) * lengths[:, None]
    outline = np.round(points + centre).astype(np.int32)
    colour = random.integers(40, 256, 3)
    cv2.fillPoly(image, [outline], colour.tolist())
    cv2.polylines(image, [outline], True, (colour // 2).tolist(), max(1, largest // 40), cv2.LINE_AA)
