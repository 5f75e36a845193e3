"""Which ground truth a box must learn, and which boxes of an image take part in a training step.

B images; of an image: G ground-truth boxes, N candidates (anchors or proposals), R sampled proposals.
All boxes are in network pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn.config import BoxHeadConfig, RPNConfig

BACKGROUND = -1
IGNORED = -2


@dataclass(frozen=True)
class Targets:
    """What one training image shows, in network pixels.

    boxes (G, 4) float32. labels (G,) int64. masks (G, H, W) uint8, 1 inside.
    crowd (G,) bool: regions whose instances were not told apart; nothing is learnt from what lies in them.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    crowd: Tensor

    def instances(self) -> "Targets":
        """Without the crowd regions."""
        single = ~self.crowd
        return Targets(self.boxes[single], self.labels[single], self.masks[single], self.crowd[single])


@dataclass(frozen=True)
class Sampled:
    """The proposals that train the heads: R rows an image, its positives first, unused rows last.

    boxes (B, R, 4). labels (B, R) int64, K for background.
    matched (B, R, 4): box to learn, zero for background.
    rows (B, R) int64: row of the image's Targets without crowd, 0 for background. used, positive (B, R) bool.
    """

    boxes: Tensor
    labels: Tensor
    matched: Tensor
    rows: Tensor
    used: Tensor
    positive: Tensor


def sample_anchors(
    anchors: Tensor, target: Targets, config: RPNConfig, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """anchors (N, 4) -> indices of positives (P,), of negatives, and boxes (P, 4) that positives learn."""
    truth = target.instances()
    iou = overlap(truth.boxes, anchors)
    matched = match(iou, config.foreground_iou, config.background_iou, keep_best=True)
    matched = without_crowd(matched, target.boxes[target.crowd], anchors)
    positive, negative = sample(matched, config.batch, config.positive_fraction, generator)
    return positive, negative, truth.boxes[matched[positive]]


def sample_proposals(
    proposals: Tensor,
    real: Tensor,
    targets: list[Targets],
    classes: int,
    config: BoxHeadConfig,
    generators: Sequence[torch.Generator | None],
) -> Sampled:
    """proposals (B, N, 4), real (B, N) -> R = config.batch rows; ground truth joins the proposals.

    generators: one for each image, so that its sample does not depend on the others of the batch.
    """
    count = config.batch
    boxes = proposals.new_zeros((len(targets), count, 4))
    matched_boxes = torch.zeros_like(boxes)
    labels = torch.full((len(targets), count), classes, dtype=torch.int64, device=boxes.device)
    rows = torch.zeros_like(labels)
    used, positives = torch.zeros_like(labels, dtype=torch.bool), torch.zeros_like(labels, dtype=torch.bool)
    for image, (target, generator) in enumerate(zip(targets, generators, strict=True)):
        truth = target.instances()
        candidates = torch.cat([proposals[image][real[image]], truth.boxes])
        matched = match(
            overlap(truth.boxes, candidates), config.foreground_iou, config.foreground_iou, keep_best=False
        )
        matched = without_crowd(matched, target.boxes[target.crowd], candidates)
        positive, negative = sample(matched, count, config.positive_fraction, generator)
        end, row = len(positive), matched[positive]
        boxes[image, : end + len(negative)] = candidates[torch.cat([positive, negative])]
        used[image, : end + len(negative)] = True
        positives[image, :end] = True
        rows[image, :end], labels[image, :end], matched_boxes[image, :end] = (
            row,
            truth.labels[row],
            truth.boxes[row],
        )
    return Sampled(boxes, labels, matched_boxes, rows, used, positives)


def area(boxes: Tensor) -> Tensor:
    """boxes (N, 4) -> (N,) square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def intersection(boxes: Tensor, candidates: Tensor) -> Tensor:
    """boxes (G, 4), candidates (N, 4) -> (G, N) square pixels."""
    low = torch.maximum(boxes[:, None, :2], candidates[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], candidates[None, :, 2:])
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def overlap(boxes: Tensor, candidates: Tensor) -> Tensor:
    """boxes (G, 4), candidates (N, 4) -> intersection over union (G, N)."""
    shared = intersection(boxes, candidates)
    return shared / (area(boxes)[:, None] + area(candidates)[None] - shared)


def match(iou: Tensor, foreground: float, background: float, keep_best: bool) -> Tensor:
    """iou (G, N) -> (N,) int64: row of the truth, BACKGROUND below `background`, IGNORED in between.

    keep_best: every ground truth also takes the candidates that overlap it most, however little (anchors need
    it: a small object may reach no anchor at 0.7).
    """
    if iou.shape[0] == 0:
        return torch.full((iou.shape[1],), BACKGROUND, dtype=torch.int64, device=iou.device)
    best, row = iou.max(dim=0)
    matched = torch.where(best >= foreground, row, torch.where(best < background, BACKGROUND, IGNORED))
    if keep_best:
        chosen = (iou == iou.amax(dim=1, keepdim=True)).any(dim=0)
        matched = torch.where(chosen, row, matched)
    return matched


def without_crowd(matched: Tensor, crowd: Tensor, candidates: Tensor) -> Tensor:
    """matched (N,), crowd (C, 4), candidates (N, 4) -> matched, background mostly in a crowd IGNORED."""
    if len(crowd) == 0:
        return matched
    inside = intersection(crowd, candidates).amax(dim=0) > 0.5 * area(candidates)
    return torch.where((matched == BACKGROUND) & inside, IGNORED, matched)


def sample(
    matched: Tensor, count: int, positive_fraction: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """matched (N,) -> indices of at most count * positive_fraction positives, of negatives up to `count`."""
    positive = _some(torch.where(matched >= 0)[0], int(count * positive_fraction), generator)
    negative = _some(torch.where(matched == BACKGROUND)[0], count - len(positive), generator)
    return positive, negative


def _some(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """At most `count` of the indices, any of them equally likely."""
    order = torch.randperm(len(indices), generator=generator, device=generator.device if generator else None)
    return indices[order[:count].to(indices.device)]
