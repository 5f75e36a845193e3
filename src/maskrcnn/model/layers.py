"""Convolutions with an optional norm, the one building block of trunk, pyramid and heads."""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from maskrcnn.config import Norm


class FrozenBatchNorm(nn.Module):
    """BatchNorm whose numbers are all constants; eps is 0 in torchvision's published v1 weights."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The norm of x is x * scale + shift, both (C,)."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


def make_norm(norm: Norm, channels: int, eps: float) -> nn.Module | None:
    """The norm layer of that name; GroupNorm has 32 groups (Wu and He 2018)."""
    if norm == "none":
        return None
    if norm == "frozen_bn":
        return FrozenBatchNorm(channels, eps)
    return nn.BatchNorm2d(channels, eps) if norm == "bn" else nn.GroupNorm(32, channels, eps)


class ConvNorm(nn.Conv2d):
    """A square convolution that keeps the size at stride 1, then its norm; biased if it has none."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        side: int,
        norm: Norm = "none",
        norm_eps: float = 1e-5,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        bias: bool | None = None,
    ) -> None:
        super().__init__(
            channels_in,
            channels_out,
            side,
            stride=stride,
            padding=dilation * (side // 2),
            dilation=dilation,
            groups=groups,
            bias=norm == "none" if bias is None else bias,
        )
        self.norm = make_norm(norm, channels_out, norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C', H / stride, W / stride)."""
        if isinstance(self.norm, FrozenBatchNorm):
            # In the weights its constants cost nothing, on the features two passes over memory each way.
            scale, shift = self.norm.scale_and_shift()
            bias = shift if self.bias is None else shift + self.bias * scale
            return self._conv_forward(x, self.weight * scale[:, None, None, None], bias)
        x = super().forward(x)
        return x if self.norm is None else self.norm(x)

    def fold_norm(self) -> None:
        """Multiply a batch norm into weight and bias: the same function with one pass over memory less."""
        norm = self.norm
        if not isinstance(norm, FrozenBatchNorm | nn.BatchNorm2d):
            return
        assert norm.running_mean is not None and norm.running_var is not None
        with torch.no_grad():
            scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
            bias = torch.zeros_like(scale) if self.bias is None else self.bias.double()
            shift = norm.bias.double() + (bias - norm.running_mean.double()) * scale
            self.weight = nn.Parameter(
                (self.weight.double() * scale[:, None, None, None]).to(self.weight.dtype)
            )
            self.bias = nn.Parameter(shift.to(self.weight.dtype))
        self.norm = None


class PooledLinear(nn.Linear):
    """The first fully connected layer after pooling: (R, C, S, S) -> (R, features)."""

    def forward(self, x: Tensor) -> Tensor:
        """x (R, C, S, S) -> (R, features)."""
        return super().forward(x.flatten(1))

    def as_convolution(self, side: int) -> nn.Sequential:
        """The same function as an S x S convolution, which reads channels-last features as they lie.

        On a CPU it is 2.5x faster than the matrix product: 110 ms for 278 ms at 1000 x 12544 x 1024 (one
        AVX-512 core).
        """
        weight = self.weight.detach().unflatten(1, (-1, side, side))
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], side)
        conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        conv.bias = nn.Parameter(self.bias.detach())
        return nn.Sequential(conv, nn.Flatten())


class LargestOfLevels(nn.Module):
    """A layer for each of L levels that RoIs are pooled from, and the largest of what they return (PANet)."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        for number, layer in enumerate(layers, start=2):
            self.add_module(f"level{number}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """x (R, L * C, S, S), level after level -> what one layer returns for (R, C, S, S)."""
        layers = list(self.children())
        found = [layer(part) for layer, part in zip(layers, x.chunk(len(layers), 1), strict=True)]
        return reduce(torch.maximum, found)


def first_layer(levels: int, make: Callable[[], nn.Module]) -> nn.Module:
    """What a head begins with: one layer, or LargestOfLevels of as many as there are levels."""
    return make() if levels == 1 else LargestOfLevels([make() for _ in range(levels)])
