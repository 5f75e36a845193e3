"""RoIAlign over the levels of a pyramid as one operation that an exporter can translate, with its gradient.

B images, L levels, R boxes per image, C channels, S bins per side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align


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

    levels L x (B, C, H/s, W/s), boxes (B, R, 4) in network pixels, level_of int64 (B, R), scales 1/s of each level
    -> (B * R, C, S, S). samples: points per bin and side, 0 for ceil(box side in cells / S).
    aligned: the half pixel is subtracted; otherwise boxes are at least one cell wide.
    """
    rois, owner = _rois(boxes), level_of.flatten()
    pooled = levels[0].new_empty((len(rois), levels[0].shape[1], side, side), dtype=torch.float32)
    for number, (level, scale) in enumerate(zip(levels, scales, strict=True)):
        here = (owner == number).nonzero()[:, 0]
        if len(here):
            pooled[here] = roi_align(level.float(), rois[here], side, scale, samples, aligned)
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
    shape = (boxes.shape[0] * boxes.shape[1], levels[0].shape[1], side, side)
    return levels[0].new_empty(shape, dtype=torch.float32)


def _remember(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    levels, boxes, level_of, scales, side, samples, aligned = inputs
    ctx.save_for_backward(boxes, level_of)
    ctx.shapes = [(level.shape, level.dtype) for level in levels]  # type: ignore[attr-defined]
    ctx.settings = (scales, side, samples, aligned)  # type: ignore[attr-defined]


def _gradient(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple:
    boxes, level_of = context.saved_tensors  # type: ignore[attr-defined]
    scales, side, samples, aligned = context.settings  # type: ignore[attr-defined]
    rois, owner = _rois(boxes), level_of.flatten()
    gradients = []
    for number, ((shape, dtype), scale) in enumerate(zip(context.shapes, scales, strict=True)):  # type: ignore[attr-defined]
        here = (owner == number).nonzero()[:, 0]
        if len(here):
            backward = torch.ops.torchvision._roi_align_backward
            level = backward(gradient[here].contiguous(), rois[here], scale, side, side, *shape, samples, aligned)
            gradients.append(level.to(dtype))
        else:
            gradients.append(gradient.new_zeros(shape, dtype=dtype))
    return gradients, None, None, None, None, None, None


pool_levels.register_autograd(_gradient, setup_context=_remember)


def _rois(boxes: Tensor) -> Tensor:
    """boxes (B, R, 4) -> (B * R, 5) with the image number in front, as torchvision wants them."""
    count, rows = boxes.shape[:2]
    owner = torch.arange(count, device=boxes.device, dtype=torch.float32)[:, None, None].expand(count, rows, 1)
    return torch.cat([owner, boxes.float()], 2).reshape(-1, 5)
