"""A clip whose objects are known: shapes that cross, hide each other and leave, seen imperfectly."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.spec import Classes

SIZE = (240, 320)
FRAMES = 200
CLASSES = Classes(("disc", "block"), (1, 2))
CELLS = 28


@dataclass(frozen=True)
class Shape:
    """A disc (label 0) or a block (label 1); radius in pixels, start x, y and velocity in pixels a frame.

    sway: pixels to and fro across its way, every `period` frames. Later shapes hide earlier ones.
    """

    label: int
    radius: float
    start: tuple[float, float]
    velocity: tuple[float, float]
    sway: float = 0.0
    period: float = 40.0

    def at(self, frame: int) -> np.ndarray:
        """x, y of its middle."""
        swing = self.sway * np.sin(2 * np.pi * frame / self.period)
        x, y = np.array(self.start) + frame * np.array(self.velocity)
        return np.array([x, y + swing])

    def mask(self, frame: int) -> np.ndarray:
        """Its pixels, bool (H, W), whether or not something is before it."""
        x, y = self.at(frame)
        rows, columns = np.arange(SIZE[0])[:, None] + 0.5, np.arange(SIZE[1]) + 0.5
        if self.label == 0:
            return (rows - y) ** 2 + (columns - x) ** 2 < self.radius**2
        return (np.abs(rows - y) < 0.8 * self.radius) & (np.abs(columns - x) < self.radius)


SHAPES = (
    # two discs that meet in the middle, and meet again on their way back
    Shape(0, 22, (20, 100), (1.4, 0)),
    Shape(0, 20, (300, 112), (-1.4, 0)),
    # a fast small one, faster than its width
    Shape(0, 7, (-60, 30), (9, 0.2)),
    # two blocks side by side that pass a third
    Shape(1, 24, (30, 190), (1.2, 0), sway=6),
    Shape(1, 24, (90, 196), (1.2, 0), sway=-6),
    Shape(1, 26, (290, 200), (-1.5, 0)),
    # swaying across everything
    Shape(0, 16, (160, 120), (0, 0), sway=100, period=90),
    Shape(0, 12, (60, 60), (0.9, 0.1), sway=25, period=24),
    Shape(0, 12, (250, 60), (-0.9, 0.1), sway=25, period=24),
)


@dataclass(frozen=True)
class Seen:
    """One frame. detections: best first. truth: which of SHAPES each is, -1 for what is not there."""

    detections: Detections
    truth: np.ndarray


def clip(seed: int, noise: float = 1.0, missed: float = 0.1, invented: float = 0.1) -> Iterator[Seen]:
    """FRAMES frames. noise: pixels by which boxes are off. missed, invented: shares of detections."""
    rng = np.random.default_rng(seed)
    for frame in range(FRAMES):
        found = []
        hidden = np.zeros(SIZE, bool)
        for index in range(len(SHAPES) - 1, -1, -1):
            whole = SHAPES[index].mask(frame)
            visible = whole & ~hidden
            hidden |= whole
            if visible.sum() > 0.2 * np.pi * SHAPES[index].radius ** 2 and rng.random() >= missed:
                found.append((index, SHAPES[index].label, *_box_and_mask(visible, noise, rng)))
        if rng.random() < invented * len(found):
            box = np.tile(rng.uniform(20, 200, 2), 2) + np.array([0, 0, *rng.uniform(8, 40, 2)])
            found.append((-1, int(rng.integers(2)), box, np.ones((CELLS, CELLS))))
        yield _seen(found, rng)


def _box_and_mask(
    visible: np.ndarray, noise: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A box beside the true one, and the pixels' share in each of its cells."""
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) + rng.normal(0, noise, 4)
    x = np.clip((box[0] + (np.arange(CELLS) + 0.5) * (box[2] - box[0]) / CELLS).astype(int), 0, SIZE[1] - 1)
    y = np.clip((box[1] + (np.arange(CELLS) + 0.5) * (box[3] - box[1]) / CELLS).astype(int), 0, SIZE[0] - 1)
    return box, np.clip(visible[np.ix_(y, x)] + rng.normal(0, 0.2, (CELLS, CELLS)), 0, 1)


def _seen(found: list, rng: np.random.Generator) -> Seen:
    """Scores are those of a model that is often unsure: a sixth of what is there is below one half."""
    truth = np.array([each[0] for each in found], np.int64)
    scores = np.where(truth >= 0, rng.uniform(0.4, 1.0, len(found)), rng.uniform(0.05, 0.6, len(found)))
    order = np.argsort(-scores, kind="stable")
    rows = [found[place] for place in order]
    detections = Detections(
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        scores[order].astype(np.float32),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.float32).reshape(-1, CELLS, CELLS),
        SIZE,
        CLASSES,
    )
    return Seen(detections, truth[order])
