"""Deformable convolutions as the operator that OpenVINO has from segmentoly.

B images, C channels, H, W cells of the map, h, w cells of the result.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.export.parts import plain
from maskrcnn.model.fpn import DeformablePathConv
from maskrcnn.model.mask_rcnn import MaskRCNN

OPERATOR = "org.openvinotoolkit::DeformableConv2D"


def with_operators(model: MaskRCNN) -> MaskRCNN:
    """Change the model in place: its group norms as every engine has them, its deformable convolutions as the
    operator.
    """
    plain(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, DeformablePathConv):
            model.set_submodule(name, DeformableOperator(module))
    return model


class DeformableOperator(nn.Module):
    """A DeformablePathConv whose sampling an exporter sees as one operator."""

    def __init__(self, conv: DeformablePathConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, h, w)."""
        conv = self.conv
        offsets = conv.offset(x)
        shape = [*map(int, (x.shape[0], conv.out_channels, *offsets.shape[2:]))]
        y = DeformableConv2D.apply(x, offsets, conv.weight, shape, conv.stride[0], conv.held)
        y = y if conv.bias is None else y + conv.bias[:, None, None]
        return F.relu(y if conv.norm is None else conv.norm(y))


class DeformableConv2D(torch.autograd.Function):
    """A deformable convolution of 3 x 3; the operator reads outside the map as segmentoly does."""

    @staticmethod
    def symbolic(
        g: Any, x: Any, offsets: Any, weight: Any, shape: Sequence[int], stride: int, held: bool
    ) -> Any:
        """The operator. shape: (B, C', h, w) of what it returns, which the exporter cannot know."""
        if not held:
            # With zeros around the map its edge is one of zeros, and what lies beyond is zero either way.
            sides = g.op("Constant", value_t=torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]))
            x = g.op("Pad", x, sides)
        found = g.op(
            OPERATOR,
            x,
            offsets,
            weight,
            kernel_shape_i=[3, 3],
            strides_i=[stride] * 2,
            pads_i=[1 if held else 0] * 4,
            dilations_i=[1, 1],
            group_i=1,
            deformable_groups_i=1,
        )
        found.setType(weight.type().with_sizes(shape))
        return found

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, offsets: Tensor, weight: Tensor, shape: Sequence[int], stride: int, held: bool
    ) -> Tensor:
        """x (B, C, H, W), offsets (B, 18, h, w), weight (C', C, 3, 3) -> zeros (B, C', h, w), for a trace."""
        return x.new_zeros(shape)
