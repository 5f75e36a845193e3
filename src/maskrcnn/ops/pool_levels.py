"""RoIAlign over the levels of a pyramid as one operation that an exporter can translate, with its gradient.

B images, L levels, R boxes (per image, or of all images once they carry its number), C channels, H, W cells
of a level, S bins per side. On accelerators RoIAlign is torchvision's kernel, on CPUs a faster one.
"""

# torch 2.6 reads an operation's signature and knows only typing's own names.
from typing import Any, Iterator, List, Sequence  # noqa: UP035

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
        of_level = roi_align_gradient(gradient[here], rois[here], level.shape, scale, samples, aligned)
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
    pooled = level.new_empty((len(rois), side, side, level.shape[1])).permute(0, 3, 1, 2)
    table = level.permute(0, 2, 3, 1).reshape(-1, level.shape[1])
    for here, cells, weights in _bins(rois, level.shape, scale, side, samples, aligned):
        if cells is None:
            pooled[here] = 0
        else:
            sums = F.embedding_bag(cells, table, mode="sum", per_sample_weights=weights)
            pooled[here] = sums.unflatten(0, (-1, side, side)).permute(0, 3, 1, 2)
    return pooled


def roi_align_gradient(
    gradient: Tensor, rois: Tensor, shape: torch.Size, scale: float, samples: int, aligned: bool
) -> Tensor:
    """gradient (R, C, S, S) of what roi_align returned -> that of its level, of this shape (B, C, H, W).

    On CPUs the same weighted sums the other way round: sorted by cells, each cell's gradient is a sum over
    bins. One thread needs 15 ms where torchvision's kernel needs 415 (700 boxes of 7 x 7 bins, 256 channels).
    """
    count, channels, height, width = shape
    side = gradient.shape[-1]
    if gradient.device.type != "cpu":
        backward = torch.ops.torchvision._roi_align_backward
        return backward(gradient.contiguous(), rois, scale, side, side, *shape, samples, aligned)
    table = gradient.float().permute(0, 2, 3, 1).reshape(-1, channels)
    parts = [
        (cells, weights, _rows_of_bins(here, side).repeat_interleave(cells.shape[1]))
        for here, cells, weights in _bins(rois, shape, scale, side, samples, aligned)
        if cells is not None
    ]
    if not parts:
        return table.new_zeros(shape)
    cells, weights, rows = (torch.cat([part[i].flatten() for part in parts]) for i in range(3))
    order = cells.argsort()
    met = torch.bincount(cells, minlength=count * height * width)
    starts = (met.cumsum(0) - met).to(torch.int32)
    sums = F.embedding_bag(rows[order], table, starts, mode="sum", per_sample_weights=weights[order])
    return sums.view(count, height, width, channels).permute(0, 3, 1, 2)


def _rows_of_bins(here: Tensor, side: int) -> Tensor:
    """here (r,) numbers of RoIs -> int32 (r * S * S,) numbers of their bins."""
    return (here[:, None] * side**2 + torch.arange(side**2)).flatten().to(torch.int32)


def _bins(
    rois: Tensor, shape: torch.Size, scale: float, side: int, samples: int, aligned: bool
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """RoIs that are sampled alike: their numbers (r,), and cells int32 and weights (r * S * S, k) of bins.

    A bin is a weighted sum of cells, and embedding_bag sums rows of C numbers at the speed of memory. cells
    is None for boxes without a sample.
    """
    _, _, height, width = shape
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    sides = corners[:, 2:] - corners[:, :2]
    sides = sides if aligned else sides.clamp(min=1)
    points = torch.full_like(sides, samples) if samples > 0 else (sides / side).ceil().clamp(min=0)
    for across, down in torch.unique(points.to(torch.int64), dim=0).tolist():
        here = ((points[:, 0] == across) & (points[:, 1] == down)).nonzero()[:, 0]
        if across == 0 or down == 0:
            yield here, None, sides
            continue
        start, length = corners[here, :2], sides[here]
        columns = _axis(start[:, 0], length[:, 0], side, across, width, samples == 0)
        rows = _axis(start[:, 1], length[:, 1], side, down, height, samples == 0)
        terms = rows[0].shape[2] * columns[0].shape[2]
        lines = (rows[0] + (rois[here, 0].to(torch.int32) * height)[:, None, None]) * width
        cells = lines[:, :, None, :, None] + columns[0][:, None, :, None, :]
        weights = rows[1][:, :, None, :, None] * columns[1][:, None, :, None, :]
        yield here, cells.reshape(-1, terms), weights.reshape(-1, terms)


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
