"""Anchor boxes of every cell of every level (Ren et al. 2015), as each public implementation rounds and
orders them.

L levels, A anchors per cell, h, w cells of a level.
"""

import torch
from torch import Tensor, nn

from maskrcnn.config import AnchorConfig, Conventions


class Anchors(nn.Module):
    """Makes the anchors for any input size."""

    def __init__(self, config: AnchorConfig, strides: tuple[int, ...], conventions: Conventions) -> None:
        super().__init__()
        self.strides = strides
        self.from_size = conventions.anchor_stride == "from_size"
        self.per_cell = len(config.sizes[0]) * len(config.ratios)
        for number, (sizes, stride) in enumerate(zip(config.sizes, strides, strict=True)):
            explicit = torch.tensor(config.cells[number]) if config.cells else None
            cell = cell_anchors(sizes, config.ratios, stride, conventions) if explicit is None else explicit
            self.register_buffer(f"cell{number}", cell, persistent=False)

    def forward(self, levels: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """levels L x (B, C, h, w), size of the padded input -> L x (h * w * A, 4) in network pixels."""
        anchors = []
        for number, (level, stride) in enumerate(zip(levels, self.strides, strict=True)):
            h, w = level.shape[-2:]
            step_y, step_x = (size[0] // h, size[1] // w) if self.from_size else (stride, stride)
            cell = getattr(self, f"cell{number}")
            y = torch.arange(h, device=cell.device, dtype=cell.dtype) * step_y
            x = torch.arange(w, device=cell.device, dtype=cell.dtype) * step_x
            corner = torch.stack([x[None, :].expand(h, w), y[:, None].expand(h, w)], -1).repeat(1, 1, 2)
            anchors.append((corner[:, :, None] + cell).reshape(-1, 4))
        return anchors


def cell_anchors(
    sizes: tuple[float, ...], ratios: tuple[float, ...], stride: int, conventions: Conventions
) -> Tensor:
    """The A anchors around the cell at (0, 0), (A, 4) float32 in network pixels."""
    if conventions.anchor_order == "size_first":
        pairs = [(size, ratio) for size in sizes for ratio in ratios]
    else:
        pairs = [(size, ratio) for ratio in ratios for size in sizes]
    if conventions.anchor_cell == "legacy":
        return torch.tensor([_legacy_anchor(size, ratio, stride) for size, ratio in pairs])
    side, ratio = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    half = torch.stack([side / ratio.sqrt(), side * ratio.sqrt()], 1) / 2
    cell = torch.cat([-half, half], 1).float()
    return cell.round() if conventions.anchor_cell == "rounded" else cell


def _legacy_anchor(size: float, ratio: float, stride: int) -> list[float]:
    """Detectron: a stride-sized box of inclusive corners, its sides rounded for the ratio and then scaled."""
    width = float(round((stride * stride / ratio) ** 0.5))
    height = float(round(width * ratio))
    centre, scale = (stride - 1) / 2, size / stride
    half_width, half_height = (width * scale - 1) / 2, (height * scale - 1) / 2
    return [centre - half_width, centre - half_height, centre + half_width, centre + half_height]
