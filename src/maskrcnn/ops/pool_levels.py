"""RoIAlign over the levels of a pyramid as one operation that an exporter can translate, with its gradient.

B images, L levels, R boxes per image, C channels, S bins per side.
"""

# torch 2.6 reads an operation's signature and knows only typing's own names.
from typing import Any, List, Sequence  # noqa: UP035

import torch
from torch import Tensor

from maskrcnn.ops.roi_align import roi_align


@torch.library.custom_op("maskrcnn::pool_levels", mutates_args=())
def pool_levels(
    levels: Sequence[Tensor],
    boxes: Tensor,
    level_of: Tensor,
    scales: Sequence[float],
    side: int,
    samples: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign (He et al. 2017) of each box on its own level, in float32 whatever the levels are.

    levels L x (B, C, H/s, W/s), boxes (B, R, 4) in network pixels, level_of int64 (B, R), scales 1/s of
    each level
    -> (B * R, C, S, S). samples: points per bin and side, 0 for ceil(box side in cells / S).
    aligned: the half pixel is subtracted; otherwise boxes are at least one cell wide.
    """
    rois, owner = _rois(boxes), level_of.flatten()
    pooled = _empty(levels, len(rois), side)
    for number, (level, scale) in enumerate(zip(levels, scales, strict=True)):
        here = (owner == number).nonzero()[:, 0]
        if len(here):
            pooled[here] = roi_align(level.float(), rois[here], scale, side, samples, aligned)
    return pooled


@pool_levels.register_fake
def _(
    levels: Sequence[Tensor],
    boxes: Tensor,
    level_of: Tensor,
    scales: Sequence[float],
    side: int,
    samples: int,
    aligned: bool,
) -> Tensor:
    return _empty(levels, boxes.shape[0] * boxes.shape[1], side)


@torch.library.custom_op("maskrcnn::pool_levels_gradient", mutates_args=())
def pool_levels_gradient(
    gradient: Tensor,
    levels: Sequence[Tensor],
    boxes: Tensor,
    level_of: Tensor,
    scales: Sequence[float],
    side: int,
    samples: int,
    aligned: bool,
) -> List[Tensor]:  # noqa: UP006
    """gradient (B * R, C, S, S) of what pool_levels returned -> the gradients of the levels, L x (B, C,
    H/s, W/s)."""
    rois, owner = _rois(boxes), level_of.flatten()
    gradients = []
    for number, (level, scale) in enumerate(zip(levels, scales, strict=True)):
        here = (owner == number).nonzero()[:, 0]
        backward = torch.ops.torchvision._roi_align_backward
        rows = gradient[here].contiguous()
        of_level = backward(rows, rois[here], scale, side, side, *level.shape, samples, aligned)
        gradients.append(of_level.to(level.dtype))
    return gradients


@pool_levels_gradient.register_fake
def _(
    gradient: Tensor,
    levels: Sequence[Tensor],
    boxes: Tensor,
    level_of: Tensor,
    scales: Sequence[float],
    side: int,
    samples: int,
    aligned: bool,
) -> List[Tensor]:  # noqa: UP006
    return [level.new_empty(level.shape) for level in levels]


def _remember(ctx: Any, inputs: tuple, output: Tensor) -> None:
    levels, boxes, level_of, *ctx.settings = inputs
    ctx.save_for_backward(boxes, level_of, *levels)


def _gradient(ctx: Any, gradient: Tensor) -> tuple:
    boxes, level_of, *levels = ctx.saved_tensors
    of_levels = pool_levels_gradient(gradient, levels, boxes, level_of, *ctx.settings)
    return of_levels, None, None, None, None, None, None


pool_levels.register_autograd(_gradient, setup_context=_remember)


def _empty(levels: Sequence[Tensor], rows: int, side: int) -> Tensor:
    """Room for (rows, C, S, S) in channels-last order, in which RoIAlign writes and convolutions read
    fastest."""
    pooled = levels[0].new_empty((rows, side, side, levels[0].shape[1]), dtype=torch.float32)
    return pooled.permute(0, 3, 1, 2)


def _rois(boxes: Tensor) -> Tensor:
    """boxes (B, R, 4) -> (B * R, 5) with the image number in front, as torchvision wants them."""
    count, rows = boxes.shape[:2]
    owner = torch.arange(count, device=boxes.device, dtype=torch.float32)[:, None, None].expand(
        count, rows, 1
    )
    return torch.cat([owner, boxes.float()], 2).reshape(-1, 5)
