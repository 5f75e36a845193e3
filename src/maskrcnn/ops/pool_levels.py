"""RoIAlign over the levels of a pyramid as one operation that an exporter can translate, with its gradient.

B images, L levels, R boxes (per image, or of all images once they carry its number), C channels, H, W cells
of a level, S bins per side. On accelerators RoIAlign is torchvision's kernel, on CPUs a faster one.
"""

# torch 2.6 reads an operation's signature and knows only typing's own names.
from typing import Any, List, Sequence  # noqa: UP035

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor


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

    levels L x (B, C, H, W), boxes (B, R, 4) in network pixels, level_of int64 (B, R), scales cells per pixel
    of each level -> (B * R, C, S, S). samples: points per bin and side, 0 for ceil(box side in cells / S).
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
    """gradient (B * R, C, S, S) of what pool_levels returned -> those of the levels, L x (B, C, H, W)."""
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
    """Room for (rows, C, S, S), channels last: RoIAlign writes it and convolutions read it fastest so."""
    pooled = levels[0].new_empty((rows, side, side, levels[0].shape[1]), dtype=torch.float32)
    return pooled.permute(0, 3, 1, 2)


def _rois(boxes: Tensor) -> Tensor:
    """boxes (B, R, 4) -> (B * R, 5) with the image number in front, as torchvision wants them."""
    count, rows = boxes.shape[:2]
    owner = torch.arange(count, device=boxes.device, dtype=torch.float32)[:, None, None]
    return torch.cat([owner.expand(count, rows, 1), boxes.float()], 2).reshape(-1, 5)


def roi_align(level: Tensor, rois: Tensor, scale: float, side: int, samples: int, aligned: bool) -> Tensor:
    """level (B, C, H, W) float32, rois (R, 5): image number and box in network pixels -> (R, C, S, S).

    samples: points per bin and side, 0 for ceil(box side in cells / S). aligned: half a pixel is subtracted;
    otherwise boxes are at least one cell wide. Equal to torchvision.ops.roi_align up to rounding.
    """
    if level.device.type != "cpu":
        return torchvision.ops.roi_align(level, rois, side, scale, samples, aligned)
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    sides = corners[:, 2:] - corners[:, :2]
    sides = sides if aligned else sides.clamp(min=1)
    points = torch.full_like(sides, samples) if samples > 0 else (sides / side).ceil().clamp(min=0)
    pooled = level.new_empty((len(rois), side, side, level.shape[1])).permute(0, 3, 1, 2)
    for across, down in torch.unique(points.to(torch.int64), dim=0).tolist():
        here = ((points[:, 0] == across) & (points[:, 1] == down)).nonzero()[:, 0]
        if across == 0 or down == 0:
            pooled[here] = 0
            continue
        start, length = corners[here, :2], sides[here]
        columns = _axis(start[:, 0], length[:, 0], side, across, level.shape[3], samples == 0)
        rows = _axis(start[:, 1], length[:, 1], side, down, level.shape[2], samples == 0)
        pooled[here] = _weighted_sums(level, rois[here, 0], rows, columns)
    return pooled


def _weighted_sums(
    level: Tensor, owner: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]
) -> Tensor:
    """A bin is a weighted sum of cells, and embedding_bag sums rows of C numbers at the speed of memory.

    owner (R,) image numbers, rows and columns: cells and weights (R, S, k) -> (R, C, S, S).
    """
    channels, height, width = level.shape[1:]
    side, terms = rows[0].shape[1], rows[0].shape[2] * columns[0].shape[2]
    lines = (rows[0] + (owner.to(torch.int32) * height)[:, None, None]) * width
    cells = lines[:, :, None, :, None] + columns[0][:, None, :, None, :]
    weights = rows[1][:, :, None, :, None] * columns[1][:, None, :, None, :]
    table = level.permute(0, 2, 3, 1).reshape(-1, channels)
    sums = F.embedding_bag(
        cells.reshape(-1, terms), table, mode="sum", per_sample_weights=weights.reshape(-1, terms)
    )
    return sums.reshape(-1, side, side, channels).permute(0, 3, 1, 2)


def _axis(
    start: Tensor, length: Tensor, side: int, samples: int, limit: int, dense: bool
) -> tuple[Tensor, Tensor]:
    """The cells that a bin's samples lie between along one axis, and their shares of the bin's mean.

    start, length (R,) in cells -> cells int32 and weights (R, S, k). Samples further than a cell outside
    count zero.
    dense: samples are at most a cell apart, so that n of them lie between n + 1 cells in a row, and not 2 n.
    """
    step = (length / side)[:, None, None]
    bins = torch.arange(side, dtype=start.dtype)[:, None]
    points = (torch.arange(samples, dtype=start.dtype) + 0.5)[None]
    at = start[:, None, None] + bins * step + points * step / samples
    share = ((at >= -1) & (at <= limit)) / samples
    at = at.clamp(min=0, max=limit - 1)
    if dense:
        cells = at[:, :, :1].floor() + torch.arange(samples + 1, dtype=start.dtype)
        tents = (1 - (at[:, :, :, None] - cells[:, :, None, :]).abs()).clamp(min=0)
        weights = (tents * share[..., None]).sum(2)
    else:
        low = at.floor()
        beyond = at - low
        cells = torch.stack([low, low + 1], -1).flatten(2)
        weights = (torch.stack([1 - beyond, beyond], -1) * share[..., None]).flatten(2)
    return cells.clamp(max=limit - 1).to(torch.int32), weights
