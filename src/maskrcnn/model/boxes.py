"""Boxes, the deltas that refine them (Girshick et al. 2014), and the pyramid level a box belongs to."""

import math

import torch
from torch import Tensor

# exp() of an untrained delta overflows; a 16 px anchor never needs to grow past 1000 px (Detectron's limit).
DELTA_LIMIT = math.log(1000 / 16)

# Lin et al. 2017: a box of 224 x 224, the side of ImageNet crops, belongs to P4; the pyramid begins with P2.
CANONICAL_SIDE = 224
CANONICAL_LEVEL = 4
FIRST_LEVEL = 2


def decode(
    deltas: Tensor,
    boxes: Tensor,
    weights: tuple[float, float, float, float],
    plus_one: bool = False,
    clamp_shrinking: bool = False,
    limit: float = DELTA_LIMIT,
) -> Tensor:
    """Move boxes by deltas. deltas (..., 4), boxes (..., 4), broadcast -> (..., 4).

    plus_one: widths are x2 - x1 + 1; limit: of the size deltas, with clamp_shrinking from below as well.
    """
    one = 1.0 if plus_one else 0.0
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1 + one, y2 - y1 + one
    dx, dy, dw, dh = (deltas / deltas.new_tensor(weights)).unbind(-1)
    lowest = -limit if clamp_shrinking else None
    centre_x, centre_y = dx * width + (x1 + 0.5 * width), dy * height + (y1 + 0.5 * height)
    half_width = 0.5 * (dw.clamp(lowest, limit).exp() * width)
    half_height = 0.5 * (dh.clamp(lowest, limit).exp() * height)
    return torch.stack(
        [
            centre_x - half_width,
            centre_y - half_height,
            centre_x + half_width - one,
            centre_y + half_height - one,
        ],
        -1,
    )


def encode(
    targets: Tensor, boxes: Tensor, weights: tuple[float, float, float, float], plus_one: bool = False
) -> Tensor:
    """The deltas with which decode moves boxes onto targets. targets (..., 4), boxes (..., 4) -> (..., 4)."""
    one = 1.0 if plus_one else 0.0
    sides, wanted = boxes[..., 2:] - boxes[..., :2] + one, targets[..., 2:] - targets[..., :2] + one
    shift = (targets[..., :2] + 0.5 * wanted - boxes[..., :2] - 0.5 * sides) / sides
    return torch.cat([shift, (wanted / sides).log()], -1) * boxes.new_tensor(weights)


def clip(boxes: Tensor, size: Tensor, plus_one: bool = False) -> Tensor:
    """boxes (B, ..., 4) into the image of size (B, 2); plus_one: its last pixel is width - 1."""
    limit = size.flip(1).repeat(1, 2).to(boxes.dtype) - (1.0 if plus_one else 0.0)
    limit = limit.reshape(size.shape[0], *[1] * (boxes.dim() - 2), 4)
    return boxes.clamp(min=0).minimum(limit)


def large_enough(boxes: Tensor, min_size: float, plus_one: bool = False) -> Tensor:
    """Both sides at least min_size, or above 0 where min_size is 0. boxes (..., 4) -> bool (...)."""
    sides = boxes[..., 2:] - boxes[..., :2] + (1.0 if plus_one else 0.0)
    return ((sides >= min_size) & (sides > 0)).all(-1)


def pyramid_level(boxes: Tensor, count: int, inside: float, outside: float, plus_one: bool = False) -> Tensor:
    """floor(4 + log2(sqrt(area) / 224 + inside) + outside) as an index into `count` levels from P2 on.

    boxes (..., 4) in network pixels -> int64 (...). inside, outside: what keeps a rounded 224 on its level.
    """
    sides = boxes[..., 2:] - boxes[..., :2] + (1.0 if plus_one else 0.0)
    relative = sides.prod(-1).clamp(min=0).sqrt() / CANONICAL_SIDE + inside
    level = (CANONICAL_LEVEL + relative.log2() + outside).floor()
    return (level - FIRST_LEVEL).clamp(0, count - 1).to(torch.int64)
