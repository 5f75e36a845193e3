"""ResNet and ResNeXt trunks (He et al. 2016, Xie et al. 2017).

B images, C channels, H, W size of the network input.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import BackboneConfig
from maskrcnn.model.layers import ConvNorm

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Stem(nn.Module):
    """A 7x7 convolution and a pooling, both of stride 2."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.centred = config.stem_pool == "centred"
        self.conv = ConvNorm(3, config.width, 7, config.norm, config.norm_eps, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) -> (B, C, H/4, W/4)."""
        x = F.relu_(self.conv(x))
        if self.centred:
            return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        # Nothing is below 0 after ReLU, so that zeros beside it are never the largest.
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1)), kernel_size=3, stride=2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: ResNet-18 and -34."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, dilation: int, config: BackboneConfig
    ) -> None:
        super().__init__()
        norm, eps = config.norm, config.norm_eps
        self.shortcut = (
            None
            if stride == 1 and channels_in == channels_out
            else ConvNorm(channels_in, channels_out, 1, norm, eps, stride=stride)
        )
        self.conv1 = ConvNorm(channels_in, channels_out, 3, norm, eps, stride=stride, dilation=dilation)
        self.conv2 = ConvNorm(channels_out, channels_out, 3, norm, eps, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) -> (B, C', h / stride, w / stride)."""
        y = self.conv2(F.relu_(self.conv1(x)))
        y += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(y)


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped in ResNeXt), 1x1 beside a shortcut: ResNet-50, -101 and -152."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        middle: int,
        stride: int,
        dilation: int,
        config: BackboneConfig,
    ) -> None:
        super().__init__()
        norm, eps = config.norm, config.norm_eps
        stride1, stride3 = (stride, 1) if config.stride_in_1x1 else (1, stride)
        self.shortcut = (
            None
            if stride == 1 and channels_in == channels_out
            else ConvNorm(channels_in, channels_out, 1, norm, eps, stride=stride)
        )
        self.conv1 = ConvNorm(channels_in, middle, 1, norm, eps, stride=stride1)
        self.conv2 = ConvNorm(
            middle, middle, 3, norm, eps, stride=stride3, groups=config.groups, dilation=dilation
        )
        self.conv3 = ConvNorm(middle, channels_out, 1, norm, eps)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) -> (B, C', h / stride, w / stride)."""
        y = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))
        y += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(y)


def make_stage(
    config: BackboneConfig, number: int, dilation: int = 1, on_rois: bool = False
) -> nn.Sequential:
    """Stage res2..res5 by number; a dilated stage keeps the size of its input (DC5).

    on_rois: res5 of C4, in detectron2 three bottlenecks whatever the trunk is made of.
    """
    basic = config.depth < 50 and not on_rois
    channels_out = stage_channels(config, number)
    middle = config.groups * config.group_width * 2 ** (number - 2)
    channels_in = stage_channels(config, number - 1) if number > 2 else config.width
    blocks: list[nn.Module] = []
    for index in range(3 if on_rois else BLOCKS[config.depth][number - 2]):
        stride = 2 if index == 0 and number > 2 and dilation == 1 else 1
        block = (
            BasicBlock(channels_in, channels_out, stride, dilation, config)
            if basic
            else Bottleneck(channels_in, channels_out, middle, stride, dilation, config)
        )
        blocks.append(block)
        channels_in = channels_out
    return nn.Sequential(*blocks)


def stage_channels(config: BackboneConfig, number: int) -> int:
    """Output channels of stage res2..res5."""
    return (1 if config.depth < 50 else 4) * config.width * 2 ** (number - 2)


class ResNet(nn.Module):
    """Stem and stages up to `last` (4 for C4, whose res5 belongs to the heads)."""

    def __init__(self, config: BackboneConfig, last: int = 5, dilate_res5: bool = False) -> None:
        super().__init__()
        self.stem = Stem(config)
        self.res2 = make_stage(config, 2)
        self.res3 = make_stage(config, 3)
        self.res4 = make_stage(config, 4)
        self.res5 = make_stage(config, 5, dilation=2 if dilate_res5 else 1) if last == 5 else None

    def forward(self, image: Tensor) -> list[Tensor]:
        """image (B, 3, H, W), normalised -> each stage's output, strides 4, 8, 16 (and 32; 16 if dilated)."""
        res2 = self.res2(self.stem(image))
        res3 = self.res3(res2)
        res4 = self.res4(res3)
        return [res2, res3, res4] if self.res5 is None else [res2, res3, res4, self.res5(res4)]
