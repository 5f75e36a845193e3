"""What each stage of a model in parts computes for one image, for comparisons with other models.

P proposals, N detections, A anchors per cell.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from maskrcnn.host.detect import Found, detect, masks_of
from maskrcnn.host.normalise import normalised

if TYPE_CHECKING:
    from maskrcnn.backends.parts import Maps, PartsBackend

PYRAMID = ("p2", "p3", "p4", "p5", "p6")


def stages_given(
    backend: "PartsBackend", image: np.ndarray, size: np.ndarray, given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """image (1, 3, H, W), size (1, 2) -> arrays by the names and shapes that `maskrcnn.stages` lists.

    given: what a stage reads in place of what the stages before it computed. What the dense graph does
    inside, from `normalised` to `deltas`, is one stage to that, and so is a head of C4, which begins with
    res5.
    """
    seen, model = _Seen(given), backend.spec.model
    maps = _maps(backend, seen("normalised", normalised(image, size, model)), seen)
    proposals = backend.proposer(maps.objectness, maps.deltas, size[0], image.shape[2:])
    proposals = _real(seen("proposals", proposals[None])[0])
    logits, deltas = _classified(backend, maps, proposals, seen)
    found = _found(backend, detect(logits, deltas, proposals, size[0], model), seen)
    seen("masks", _segmented(backend, maps, found, seen)[None])
    return seen.kept


class _Seen:
    """Keeps the values that pass by name, and passes on what is given in their place."""

    def __init__(self, given: Mapping[str, np.ndarray]) -> None:
        self.given = given
        self.kept: dict[str, np.ndarray] = {}

    def __call__(self, name: str, value: np.ndarray) -> np.ndarray:
        self.kept[name] = np.array(value, order="C")
        if name not in self.given:
            return value
        other = self.given[name]
        if name.startswith(("proposals", "detections")):
            return other
        # A network with a fixed number of rows has more of them than are real, at the end.
        other = other[: len(value)]
        return other if other.shape == value.shape else value


def _maps(backend: "PartsBackend", planes: np.ndarray, seen: _Seen) -> "Maps":
    from maskrcnn.backends.parts import Maps

    maps = next(backend.maps(planes))
    names = PYRAMID if len(maps.objectness) > 1 else ("res4" if backend.spec.model.neck == "c4" else "res5",)
    levels = [seen(name, level) for name, level in zip(names, maps.levels, strict=False)]
    objectness = [
        seen(f"objectness.{name}", each[None])[0] for name, each in zip(names, maps.objectness, strict=True)
    ]
    deltas = [seen(f"deltas.{name}", each[None])[0] for name, each in zip(names, maps.deltas, strict=True)]
    return Maps(levels, objectness, deltas)


def _classified(
    backend: "PartsBackend", maps: "Maps", proposals: np.ndarray, seen: _Seen
) -> tuple[np.ndarray, np.ndarray]:
    """proposals (P, 4) -> logits (P, K + 1), deltas (P, 4 or 4 K)."""
    model = backend.spec.model
    if model.neck == "c4":
        logits, deltas = backend.classify(maps.levels, proposals)
    else:
        pooled = seen("box_pool", backend.pool(maps.levels, proposals, model.box_head.pool_side))
        outputs = backend.graphs.box_head({"features": pooled})
        logits, deltas = outputs["logits"], outputs["deltas"]
    logits = seen("class_logits", logits)
    moves = seen("box_deltas", deltas.reshape(len(deltas), deltas.shape[1] // 4, 4))
    return logits, moves.reshape(deltas.shape)


def _segmented(backend: "PartsBackend", maps: "Maps", found: Found, seen: _Seen) -> np.ndarray:
    """Detections -> masks (N, M, M)."""
    if backend.spec.model.neck == "c4" or len(found) == 0:
        return backend.segment(maps.levels, found)
    side = backend.spec.model.mask_head.pool_side
    pooled = seen("mask_pool", backend.pool(maps.levels, found.boxes, side))
    return masks_of(backend.graphs.mask_head({"features": pooled})["masks"], found.labels)


def _found(backend: "PartsBackend", found: Found, seen: _Seen) -> Found:
    """The detections that the mask head reads."""
    raw = backend.rows([found], [backend.no_masks(len(found))])
    boxes, scores, labels = (
        seen(f"detections.{name}", part)[0]
        for name, part in zip(("boxes", "scores", "labels"), raw[:3], strict=True)
    )
    real = scores > 0
    return Found(boxes[real], scores[real], labels[real])


def _real(boxes: np.ndarray) -> np.ndarray:
    return boxes[(boxes != 0).any(1)]
