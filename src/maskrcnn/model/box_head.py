"""Classifies and refines proposals (Girshick 2015), and keeps the best detections.

B images, L levels that RoIs are pooled from at once, P proposals per image, K classes, C channels, S bins per
side, D detections per image.
"""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import BoxHeadConfig, Conventions
from maskrcnn.model.boxes import clip, decode, large_enough
from maskrcnn.model.layers import ConvNorm, PooledLinear, first_layer
from maskrcnn.ops.nms import nms, soft_nms


class Found(NamedTuple):
    """Boxes (B, D, 4) in network pixels, scores (B, D), labels (B, D); rows without a detection are zero."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class BoxHead(nn.Module):
    """Convolutions and fully connected layers on pooled features; after res5 (C4) only the two predictors."""

    def __init__(
        self, channels: int, classes: int, config: BoxHeadConfig, conventions: Conventions, levels: int = 1
    ) -> None:
        """channels: C of one level. levels: L."""
        super().__init__()
        self.config = config
        self.classes = classes
        self.conventions = conventions
        self.convs, self.fcs = (config.convs, config.fcs) if config.kind == "fc" else (0, 0)
        for number in range(1, self.convs + 1):
            conv = partial(ConvNorm, channels, config.channels, 3, config.norm, config.norm_eps)
            self.add_module(f"conv{number}", first_layer(levels if number == 1 else 1, conv))
            channels = config.channels
        features = channels * config.pool_side**2
        for number in range(1, self.fcs + 1):
            fc = partial(PooledLinear if number == 1 else nn.Linear, features, config.fc_channels)
            pooled = number == 1 and self.convs == 0
            self.add_module(f"fc{number}", first_layer(levels if pooled else 1, fc))
            features = config.fc_channels
        if config.kind == "res5":
            features = channels
        self.scores = nn.Linear(features, classes + 1)
        self.deltas = nn.Linear(features, 4 if config.class_agnostic else 4 * classes)

    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features (R, L * C, S, S) -> class logits (R, K + 1), background last, deltas (R, 1 or K, 4)."""
        x = features
        for number in range(1, self.convs + 1):
            x = F.relu_(getattr(self, f"conv{number}")(x))
        if self.config.kind == "res5":
            x = x.mean((2, 3))
        for number in range(1, self.fcs + 1):
            x = getattr(self, f"fc{number}")(x)
            x = F.relu_(x) if number > 1 or self.config.fc1_relu else x
        return self.scores(x), self.deltas(x).unflatten(1, (-1, 4))

    def detect(self, logits: Tensor, deltas: Tensor, proposals: Tensor, real: Tensor, size: Tensor) -> Found:
        """logits (B * P, K + 1), deltas (B * P, 1 or K, 4), proposals (B, P, 4), real (B, P), size (B, 2)."""
        habits = self.conventions
        rows = proposals.shape[:2]
        scores = logits.float().softmax(1)[:, :-1].unflatten(0, rows) * real[:, :, None]
        moved = decode(
            deltas.float().unflatten(0, rows),
            proposals[:, :, None],
            self.config.delta_weights,
            habits.plus_one,
            habits.clamp_shrinking,
            habits.delta_limit,
        )
        plus_one = habits.plus_one and habits.plus_one_overlaps
        boxes = clip(moved, size, plus_one).expand(-1, -1, self.classes, -1)
        if habits.detection_min_size > 0:
            scores = scores * large_enough(boxes, habits.detection_min_size, plus_one)
        labels = torch.arange(self.classes, device=boxes.device).expand(scores.shape)
        return self._without_overlaps(boxes.flatten(1, 2), scores.flatten(1), labels.flatten(1))

    def _without_overlaps(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Found:
        """boxes (B, P * K, 4), scores and labels (B, P * K) -> the best D of each image."""
        config, soft = self.config, self.config.soft_nms
        plus_one = self.conventions.plus_one and self.conventions.plus_one_overlaps
        keep = config.detections
        if soft.method == "none":
            inclusive = self.conventions.nms_inclusive
            rows = nms(boxes, scores, labels, config.nms_iou, config.score_over, keep, plus_one, inclusive)
            kept = scores.gather(1, rows.clamp(min=0)) * (rows >= 0)
        else:
            linear = soft.method == "linear"
            limits = (config.nms_iou, config.score_over, keep, linear, soft.sigma, soft.min_score, plus_one)
            rows, kept = soft_nms(boxes, scores, labels, *limits)
        real, rows = rows >= 0, rows.clamp(min=0)
        found = boxes.gather(1, rows[:, :, None].expand(-1, -1, 4)) * real[:, :, None]
        return Found(found, kept, labels.gather(1, rows) * real)
