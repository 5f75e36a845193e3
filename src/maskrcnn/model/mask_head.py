"""Predicts a mask inside each box (He et al. 2017).

R boxes, L levels that they are pooled from at once, C channels, S bins per side, M = 2 S mask pixels per
side, K classes.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import MaskHeadConfig
from maskrcnn.model.layers import ConvNorm, first_layer


class MaskHead(nn.Module):
    """3x3 convolutions, a doubling and a 1x1 convolution to one mask per class, or one for all.

    With fully connected fusion (PANet) two more convolutions and a linear layer make one mask of the
    foreground, which is added to all of them.
    """

    def __init__(self, channels: int, classes: int, config: MaskHeadConfig, levels: int = 1) -> None:
        """channels: C of one level. levels: L."""
        super().__init__()
        self.config = config
        width, bias = config.channels, True if config.conv_bias else None
        layer = partial(ConvNorm, side=3, norm=config.norm, norm_eps=config.norm_eps, bias=bias)
        for number in range(1, config.convs + 1):
            conv = partial(layer, channels, width)
            self.add_module(f"conv{number}", first_layer(levels if number == 1 else 1, conv))
            channels = width
        if config.fully_connected:
            cells = config.pool_side**2
            self.fc_conv1 = layer(width, width)
            self.fc_conv2 = layer(width, width // 2)
            self.foreground = nn.Linear(width // 2 * cells, 4 * cells)
        self.upsample = nn.ConvTranspose2d(channels, width, 2, stride=2)
        self.logits = nn.Conv2d(width, 1 if config.class_agnostic else classes, 1)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """features (R, L * C, S, S), labels (R,) -> mask logits of that class alone (R, M, M)."""
        x, foreground = self._pixels(features)
        assert self.logits.bias is not None
        row = torch.zeros_like(labels) if self.config.class_agnostic else labels
        weight, bias = self.logits.weight[row, :, 0, 0], self.logits.bias[row]
        logits = torch.bmm(weight[:, None].to(x.dtype), x.flatten(2)).float() + bias[:, None, None]
        logits = logits.reshape(-1, *x.shape[2:])
        return logits if foreground is None else logits + foreground

    def every(self, features: Tensor) -> Tensor:
        """features (R, L * C, S, S) -> mask logits of every class, or one for all (R, K or 1, M, M)."""
        x, foreground = self._pixels(features)
        return self.logits(x) if foreground is None else self.logits(x) + foreground[:, None]

    def _pixels(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """features (R, L * C, S, S) -> what `logits` reads (R, C', M, M), logits to be added (R, M, M)."""
        x, foreground = features, None
        for number in range(1, self.config.convs + 1):
            if self.config.fully_connected and number == self.config.convs:
                foreground = self._foreground(x)
            x = F.relu(getattr(self, f"conv{number}")(x), inplace=True)
        return F.relu(self.upsample(x), inplace=True), foreground

    def _foreground(self, x: Tensor) -> Tensor:
        """x (R, C', S, S) -> what is added to the logits of every class (R, M, M)."""
        x = F.relu(self.fc_conv1(x), inplace=True)
        x = F.relu(self.fc_conv2(x), inplace=True)
        side = 2 * self.config.pool_side
        return F.relu(self.foreground(x.flatten(1))).reshape(-1, side, side).float()
