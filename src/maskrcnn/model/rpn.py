"""Region proposal network (Ren et al. 2015).

B images, L levels, A anchors per cell, N anchors of a level, P proposals per image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import Conventions, RPNConfig
from maskrcnn.model.boxes import clip, decode, large_enough
from maskrcnn.model.layers import ConvNorm
from maskrcnn.ops.nms import nms

UNIT_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


class RPN(nn.Module):
    """Scores and refines the anchors, and keeps the best that do not overlap."""

    def __init__(self, channels: int, per_cell: int, config: RPNConfig, conventions: Conventions) -> None:
        super().__init__()
        self.config = config
        self.conventions = conventions
        for number in range(1, config.convs + 1):
            self.add_module(f"conv{number}", ConvNorm(channels, channels, config.conv_side))
        self.objectness = nn.Conv2d(channels, per_cell, 1)
        self.deltas = nn.Conv2d(channels, 4 * per_cell, 1)

    def predict(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """levels L x (B, C, h, w) -> logits L x (B, N), deltas L x (B, N, 4); anchors in order y, x, a."""
        objectness, deltas = [], []
        for level in levels:
            x = level
            for number in range(1, self.config.convs + 1):
                x = F.relu_(getattr(self, f"conv{number}")(x))
            objectness.append(self.objectness(x).permute(0, 2, 3, 1).flatten(1))
            delta = self.deltas(x)
            delta = delta.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2)
            deltas.append(delta.reshape(x.shape[0], -1, 4))
        return objectness, deltas

    def propose(
        self,
        objectness: list[Tensor],
        deltas: list[Tensor],
        anchors: list[Tensor],
        size: Tensor,
        pre_nms: int,
        post_nms: int,
    ) -> tuple[Tensor, Tensor]:
        """objectness L x (B, N), deltas L x (B, N, 4), anchors L x (N, 4), size (B, 2) to clip to
        -> proposals (B, P, 4) in network pixels, best first, zero rows at the end, and which rows are real
        (B, P).
        """
        boxes, scores, groups = self._best_per_level(objectness, deltas, anchors, size, pre_nms)
        rows = nms(
            boxes,
            scores,
            groups,
            self.config.nms_iou,
            float("-inf"),
            post_nms,
            self.conventions.plus_one and self.conventions.plus_one_overlaps,
            self.conventions.nms_inclusive,
        )
        if self.conventions.rpn_nms_again:
            rows = self._nms_over_levels(boxes, scores, rows)
        real = rows >= 0
        proposals = boxes.gather(1, rows.clamp(min=0)[:, :, None].expand(-1, -1, 4))
        return proposals * real[:, :, None], real

    def _nms_over_levels(self, boxes: Tensor, scores: Tensor, rows: Tensor) -> Tensor:
        """boxes (B, N, 4), scores (B, N) -> of rows (B, P), -1 where there is none, those that remain."""
        found = rows.clamp(min=0)
        chosen = boxes.gather(1, found[:, :, None].expand(-1, -1, 4))
        score = scores.gather(1, found).masked_fill(rows < 0, float("-inf"))
        plus_one = self.conventions.plus_one and self.conventions.plus_one_overlaps
        inclusive, together = self.conventions.nms_inclusive, torch.zeros_like(rows)
        iou, count = self.config.nms_iou, rows.shape[1]
        kept = nms(chosen, score, together, iou, float("-inf"), count, plus_one, inclusive)
        return torch.where(kept >= 0, rows.gather(1, kept.clamp(min=0)), -1)

    def _best_per_level(
        self,
        objectness: list[Tensor],
        deltas: list[Tensor],
        anchors: list[Tensor],
        size: Tensor,
        pre_nms: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> clipped boxes (B, L * pre_nms, 4), scores (-inf where there is none) and level numbers."""
        habits = self.conventions
        boxes, scores, groups = [], [], []
        for number, (logits, delta, anchor) in enumerate(zip(objectness, deltas, anchors, strict=True)):
            score = logits.float().sigmoid() if habits.rpn_scores == "sigmoid" else logits.float()
            # A level may have fewer than pre_nms anchors; filling up keeps the number of rows fixed for
            # every input size.
            score, index = F.pad(score, (0, pre_nms), value=float("-inf")).topk(pre_nms)
            index = index.clamp(max=anchor.shape[0] - 1)
            moved = decode(
                delta.float().gather(1, index[:, :, None].expand(-1, -1, 4)),
                anchor[index],
                UNIT_WEIGHTS,
                habits.plus_one,
                habits.clamp_shrinking,
                habits.delta_limit,
            )
            plus_one = habits.plus_one and habits.plus_one_overlaps
            box = clip(moved, size, plus_one)
            usable = large_enough(box, habits.rpn_min_size, plus_one)
            boxes.append(box)
            scores.append(score.masked_fill(~usable, float("-inf")))
            groups.append(torch.full_like(index, number))
        return torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(groups, 1)
