"""The features of a box: its pyramid level, and RoIAlign there.

B images, L levels, R boxes per image, C channels, S bins per side.
"""

import torch
from torch import Tensor, nn

from maskrcnn.config import Conventions
from maskrcnn.ops.pool_levels import pool_levels

# Lin et al. 2017: a box of 224 x 224, the side of ImageNet crops, belongs to P4.
CANONICAL_SIDE = 224
CANONICAL_LEVEL = 4


class RoIFeatures(nn.Module):
    """Pools boxes from a pyramid P2, P3, ... or from a single level."""

    def __init__(self, strides: tuple[int, ...], conventions: Conventions) -> None:
        super().__init__()
        self.scales = [1 / stride for stride in strides]
        self.conventions = conventions

    def forward(self, levels: list[Tensor], boxes: Tensor, side: int) -> Tensor:
        """levels L x (B, C, H/s, W/s), boxes (B, R, 4) in network pixels -> (B * R, C, S, S) float32."""
        habits = self.conventions
        return pool_levels(
            levels, boxes, self.level_of(boxes), self.scales, side, habits.roi_samples, habits.roi_aligned
        )

    def level_of(self, boxes: Tensor) -> Tensor:
        """boxes (B, R, 4) -> index into the levels, int64 (B, R)."""
        habits = self.conventions
        sides = boxes[..., 2:] - boxes[..., :2] + (1.0 if habits.plus_one else 0.0)
        relative = sides.prod(-1).clamp(min=0).sqrt() / CANONICAL_SIDE + habits.level_eps_inside
        level = (CANONICAL_LEVEL + relative.log2() + habits.level_eps_outside).floor()
        return (level.clamp(2, 1 + len(self.scales)) - 2).to(torch.int64)
