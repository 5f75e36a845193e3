"""Detections come best first, or class by class where a model's conventions say so."""

from dataclasses import replace

import numpy as np
import pytest

from maskrcnn.config import Conventions, ModelConfig
from maskrcnn.detections import Detections, Raw
from maskrcnn.preprocess import Geometry
from maskrcnn.spec import Spec


def found(clip_to_image: bool, **conventions: str) -> Detections:
    """Five rows of a network, best first, the last one empty; the third lies beside the image."""
    boxes = np.float32([[0, 0, 4, 4], [1, 1, 5, 5], [90, 90, 95, 95], [2, 2, 6, 6], [0, 0, 0, 0]])
    scores, labels = np.float32([0.9, 0.8, 0.7, 0.6, 0.0]), np.int64([2, 1, 1, 2, 0])
    raw = Raw(boxes[None], scores[None], labels[None], np.zeros((1, 5, 2, 2), np.float32))
    habits = Conventions(clip_to_image=clip_to_image, **conventions)  # type: ignore[arg-type]
    spec = Spec(model=replace(ModelConfig(), conventions=habits))
    return Detections.from_raw(raw, 0, Geometry((20, 20), (20, 20)), spec)


def test_the_best_comes_first() -> None:
    assert found(clip_to_image=False).labels.tolist() == [2, 1, 1, 2]


@pytest.mark.parametrize(
    ("clip_to_image", "labels", "scores"),
    [(False, [1, 1, 2, 2], [0.8, 0.7, 0.9, 0.6]), (True, [1, 2, 2], [0.8, 0.9, 0.6])],
)
def test_grouped_by_class_the_best_of_each_class_comes_first(
    clip_to_image: bool, labels: list[int], scores: list[float]
) -> None:
    detections = found(clip_to_image, detection_order="class")
    assert detections.labels.tolist() == labels
    assert detections.scores.tolist() == pytest.approx(scores)
    # Boxes go with their rows.
    assert detections.boxes[detections.scores.argmax()].tolist() == [0, 0, 4, 4]
