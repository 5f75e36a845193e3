"""Predicts a mask inside each box (He et al. 2017).

R boxes, C channels, S bins per side, M = 2 S mask pixels per side, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import MaskHeadConfig
from maskrcnn.model.layers import ConvNorm


class MaskHead(nn.Module):
    """3x3 convolutions, a doubling and a 1x1 convolution to one mask per class, or one for all."""

    def __init__(self, channels: int, classes: int, config: MaskHeadConfig) -> None:
        super().__init__()
        self.config = config
        for number in range(1, config.convs + 1):
            bias = True if config.conv_bias else None
            conv = ConvNorm(channels, config.channels, 3, config.norm, config.norm_eps, bias=bias)
            self.add_module(f"conv{number}", conv)
            channels = config.channels
        self.upsample = nn.ConvTranspose2d(channels, config.channels, 2, stride=2)
        self.logits = nn.Conv2d(config.channels, 1 if config.class_agnostic else classes, 1)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """features (R, C, S, S), labels (R,) -> mask logits of that class alone (R, M, M)."""
        x = features
        for number in range(1, self.config.convs + 1):
            x = F.relu_(getattr(self, f"conv{number}")(x))
        x = F.relu_(self.upsample(x))
        assert self.logits.bias is not None
        row = torch.zeros_like(labels) if self.config.class_agnostic else labels
        weight, bias = self.logits.weight[row, :, 0, 0], self.logits.bias[row]
        logits = torch.bmm(weight[:, None].to(x.dtype), x.flatten(2)).float() + bias[:, None, None]
        return logits.reshape(-1, *x.shape[2:])
