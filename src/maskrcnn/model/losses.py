"""The five losses of Mask R-CNN (Ren et al. 2015, He et al. 2017) as functions of tensors.

B images, N sampled boxes over the whole batch, P of them positive, K classes, M mask side. Sums are float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from maskrcnn.config import RPNConfig
from maskrcnn.model.boxes import encode
from maskrcnn.model.matching import Sampled, Targets, sample_anchors

LOSS_NAMES = ("rpn_objectness", "rpn_deltas", "box_classes", "box_deltas", "mask", "total")


@dataclass(frozen=True)
class Losses:
    """Five scalars; `total` is what is minimised.

    counts (3,) float32: sampled anchors, sampled boxes and masks, over which the first two losses, the next
    two and the last are means: with them the losses of parts of a batch add up to those of the whole.
    """

    rpn_objectness: Tensor
    rpn_deltas: Tensor
    box_classes: Tensor
    box_deltas: Tensor
    mask: Tensor
    counts: Tensor

    @property
    def total(self) -> Tensor:
        """Their plain sum."""
        return self.rpn_objectness + self.rpn_deltas + self.box_classes + self.box_deltas + self.mask

    def weighted(self, shares: Tensor) -> Tensor:
        """The total with a factor (3,) for each of `counts`."""
        anchors, boxes, masks = shares
        return (
            anchors * (self.rpn_objectness + self.rpn_deltas)
            + boxes * (self.box_classes + self.box_deltas)
            + masks * self.mask
        )

    def detached(self) -> Tensor:
        """(6,) in the order of LOSS_NAMES, without gradients."""
        return torch.stack([getattr(self, name).detach() for name in LOSS_NAMES])


def rpn_losses(
    objectness: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    targets: list[Targets],
    config: RPNConfig,
    plus_one: bool,
    generators: Sequence[torch.Generator | None],
) -> tuple[Tensor, Tensor, int]:
    """objectness (B, A), deltas (B, A, 4), anchors (A, 4), Targets and a generator an image

    -> objectness loss, delta loss, number of sampled anchors.
    """
    positive_logits, negative_logits, moved, wanted = [], [], [], []
    for image, (target, generator) in enumerate(zip(targets, generators, strict=True)):
        positive, negative, boxes = sample_anchors(anchors, target, config, generator)
        positive_logits.append(objectness[image, positive])
        negative_logits.append(objectness[image, negative])
        moved.append(deltas[image, positive])
        wanted.append(encode(boxes, anchors[positive], (1.0, 1.0, 1.0, 1.0), plus_one))
    logits = torch.cat(positive_logits + negative_logits)
    target_deltas = torch.cat(wanted)
    return (
        objectness_loss(logits, len(target_deltas)),
        deltas_loss(torch.cat(moved), target_deltas, len(logits), config.smooth_l1_beta),
        len(logits),
    )


def box_losses(
    logits: Tensor,
    deltas: Tensor,
    sampled: Sampled,
    weights: tuple[float, float, float, float],
    plus_one: bool,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """logits (B * R, K + 1), deltas (B * R, 1 or K, 4) of all rows -> class, delta loss of the used ones."""
    used, positive = sampled.used.flatten(), sampled.positive.flatten()
    labels = sampled.labels.flatten()
    wanted = encode(sampled.matched[sampled.positive], sampled.boxes[sampled.positive], weights, plus_one)
    moved = of_class(deltas[positive], labels[positive])
    return (
        classes_loss(logits[used], labels[used]),
        deltas_loss(moved, wanted, int(used.sum()), beta),
    )


def objectness_loss(logits: Tensor, positives: int) -> Tensor:
    """logits (N,), the first `positives` of objects, the others of background -> mean cross-entropy."""
    target = (torch.arange(len(logits), device=logits.device) < positives).float()
    return F.binary_cross_entropy_with_logits(logits.float(), target, reduction="sum") / max(1, len(logits))


def deltas_loss(deltas: Tensor, target: Tensor, sampled: int, beta: float) -> Tensor:
    """deltas (P, 4), target (P, 4) -> smooth L1 summed over positives, by the number of all sampled boxes.

    beta: below it the loss is quadratic; 0 is plain L1.
    """
    return F.smooth_l1_loss(deltas.float(), target, beta=beta, reduction="sum") / max(1, sampled)


def classes_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """logits (N, K + 1), background last, labels (N,) -> mean cross-entropy; 0 for no boxes."""
    return F.cross_entropy(logits.float(), labels, reduction="sum") / max(1, len(labels))


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """logits (P, M, M) of the true class, target (P, M, M) -> mean binary cross-entropy; 0 for no masks."""
    return F.binary_cross_entropy_with_logits(logits.float(), target, reduction="sum") / max(
        1, target.numel()
    )


def of_class(rows: Tensor, labels: Tensor) -> Tensor:
    """rows (P, K, ...), labels (P,) -> (P, ...); the only entry where K is 1."""
    index = labels if rows.shape[1] > 1 else torch.zeros_like(labels)
    return rows[torch.arange(len(rows), device=rows.device), index]


def mask_targets(masks: Tensor, rows: Tensor, boxes: Tensor, side: int, aligned: bool) -> Tensor:
    """masks (G, H, W) uint8, rows (P,) into them, boxes (P, 4) in network pixels -> (P, side, side) in 0..1.

    Averages the bitmap over every bin, as RoIAlign averages features, so that a bin half covered learns 0.5.
    """
    if len(rows) == 0:
        return masks.new_zeros((0, side, side), dtype=torch.float32)
    kept, rows = rows.unique(return_inverse=True)
    rois = torch.cat([rows[:, None].to(boxes.dtype), boxes], dim=1)
    return roi_align(masks[kept, None].to(boxes.dtype), rois, side, aligned=aligned)[:, 0]
