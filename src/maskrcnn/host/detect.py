"""From the box head's numbers to the best detections of one image (Girshick 2015).

P proposals, K classes, N candidates, D detections at most.
"""

from dataclasses import dataclass

import numpy as np

from maskrcnn.config import ModelConfig
from maskrcnn.host.boxes import clip, decode, large_enough
from maskrcnn.host.nms import nms, soft_nms


@dataclass(frozen=True)
class Found:
    """Boxes (N, 4) float32 in network pixels, scores float32 (N,), labels int64 (N,), best first."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


def detect(
    logits: np.ndarray, deltas: np.ndarray, proposals: np.ndarray, size: np.ndarray, config: ModelConfig
) -> Found:
    """logits (P, K + 1), background last, deltas (P, 4 or 4 K), proposals (P, 4), size (2,) -> at most D."""
    habits, head = config.conventions, config.box_head
    plus_one = habits.plus_one and habits.plus_one_overlaps
    scores = softmax(logits)[:, :-1]
    row, label = np.nonzero(scores > np.float32(head.score_over))
    moves = deltas.reshape(len(deltas), deltas.shape[1] // 4, 4)[row, 0 if head.class_agnostic else label]
    moved = decode(
        moves,
        proposals[row],
        head.delta_weights,
        habits.plus_one,
        habits.clamp_shrinking,
        habits.delta_limit,
    )
    found = Found(clip(moved, size, plus_one), scores[row, label], label)
    if habits.detection_min_size > 0:
        large = large_enough(found.boxes, habits.detection_min_size, plus_one)
        found = Found(found.boxes[large], found.scores[large], found.labels[large])
    return _without_overlaps(found, config)


def _without_overlaps(found: Found, config: ModelConfig) -> Found:
    """The best D of N candidates."""
    head, habits = config.box_head, config.conventions
    soft, keep = head.soft_nms, head.detections
    plus_one = habits.plus_one and habits.plus_one_overlaps
    boxes, scores, labels = found.boxes, found.scores, found.labels
    if soft.method == "none":
        limits = (head.nms_iou, head.score_over, keep, plus_one, habits.nms_inclusive)
        rows = nms(boxes, scores, labels, *limits)
        return Found(boxes[rows], scores[rows], labels[rows])
    linear = soft.method == "linear"
    decay = (head.nms_iou, head.score_over, keep, linear, soft.sigma, soft.min_score, plus_one)
    rows, decayed = soft_nms(boxes, scores, labels, *decay)
    return Found(boxes[rows], decayed, labels[rows])


def softmax(logits: np.ndarray) -> np.ndarray:
    """logits (R, K) -> probabilities float32 (R, K)."""
    x = logits.astype(np.float32)
    x -= x.max(1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(1, keepdims=True)
    return x


def masks_of(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """probabilities (R, K or 1, M, M), labels (R,) -> of each row the mask of its class, (R, M, M)."""
    return probabilities[np.arange(len(labels)), labels if probabilities.shape[1] > 1 else 0]
