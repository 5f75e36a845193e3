"""Feature pyramid (Lin et al. 2017): P2..P6 from res2..res5."""

import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import FPNConfig, Norm
from maskrcnn.model.layers import ConvNorm
from maskrcnn.ops.deform_conv import deform_conv


class PathConv(ConvNorm):
    """A convolution of the bottom-up path, with its norm and ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) -> (B, C, h / stride, w / stride)."""
        return F.relu(super().forward(x))


class DeformablePathConv(PathConv):
    """The same where each tap of the kernel reads at an offset that a convolution of its own predicts."""

    def __init__(self, width: int, norm: Norm, norm_eps: float, stride: int, held: bool) -> None:
        super().__init__(width, width, 3, norm, norm_eps, stride=stride)
        self.held = held
        self.offset = nn.Conv2d(width, 2 * 3 * 3, 3, stride=stride, padding=1, bias=False)
        nn.init.zeros_(self.offset.weight)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return deform_conv(x, self.offset(x), weight, bias, self.stride[0], self.held)


class FPN(nn.Module):
    """A 1x1 lateral and a 3x3 output convolution a level, and the coarser level added to the finer one.

    With a bottom-up path two 3x3 convolutions a level more, and the finer level added to the coarser one.
    """

    def __init__(self, channels: list[int], config: FPNConfig) -> None:
        super().__init__()
        self.upsample = config.upsample
        norm, eps, width = config.norm, config.norm_eps, config.channels
        bias = True if config.conv_bias else None
        for number, channels_in in enumerate(channels, start=2):
            self.add_module(f"lateral{number}", ConvNorm(channels_in, width, 1, norm, eps, bias=bias))
            self.add_module(f"output{number}", ConvNorm(width, width, 3, norm, eps, bias=bias))
        self.upwards = () if config.bottom_up is None else range(3, len(channels) + 2)
        for number in self.upwards:
            self.add_module(f"shrink{number}", _path_conv(config, stride=2))
            self.add_module(f"joined{number}", _path_conv(config, stride=1))

    def forward(self, stages: list[Tensor]) -> list[Tensor]:
        """stages 4 x (B, C, H/s, W/s), s = 4..32 -> levels 5 x (B, C', H/s, W/s), s = 4..64, finest first."""
        top_down: Tensor | None = None
        levels: list[Tensor] = []
        for number in range(len(stages) + 1, 1, -1):
            lateral = getattr(self, f"lateral{number}")(stages[number - 2])
            if top_down is not None:
                lateral = lateral + grown(top_down, (lateral.shape[-2], lateral.shape[-1]), self.upsample)
            top_down = lateral
            levels.insert(0, getattr(self, f"output{number}")(lateral))
        for number in self.upwards:
            shrunk = getattr(self, f"shrink{number}")(levels[number - 3])
            levels[number - 2] = getattr(self, f"joined{number}")(shrunk + levels[number - 2])
        # A max-pool of kernel 1 and stride 2; as one, torch 2.11 exports it for odd sizes or even ones only.
        return [*levels, levels[-1][:, :, ::2, ::2]]


def _path_conv(config: FPNConfig, stride: int) -> PathConv:
    assert config.bottom_up is not None
    width, norm, eps = config.channels, config.bottom_up, config.norm_eps
    if config.deformable == "none":
        return PathConv(width, width, 3, norm, eps, stride=stride)
    return DeformablePathConv(width, norm, eps, stride, held=config.deformable == "held")


def grown(level: Tensor, size: tuple[int, int], upsample: str) -> Tensor:
    """level (B, C, h, w) -> (B, C, H, W) of that size, which is at most twice (h, w)."""
    if upsample == "nearest":
        return F.interpolate(level, size=size, mode="nearest")
    if upsample == "bilinear":
        return F.interpolate(level, size=size, mode="bilinear", align_corners=False)
    # Every second value of the double is a value of the level, the others lie half way to the next one.
    height, width = level.shape[-2:]
    edged = F.pad(level, (0, 1, 0, 1), mode="replicate")
    double = F.interpolate(edged, size=(2 * height + 1, 2 * width + 1), mode="bilinear", align_corners=True)
    return double[..., : size[0], : size[1]]
