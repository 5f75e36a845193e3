"""C4's last stage of the trunk on every box, its first 1 x 1 convolutions on the whole map.

B images, R boxes (of all images), H, W cells of the map, S bins per side, C channels.
"""

from collections.abc import Callable, Sequence

import numpy as np

from maskrcnn.config import ModelConfig
from maskrcnn.host.native.library import Threads
from maskrcnn.host.native.network import Layer, Stage, Weights
from maskrcnn.host.native.regions import Finish

# `pool_levels` for the boxes in hand.
Pool = Callable[..., np.ndarray]


class Res5:
    """A stage of bottlenecks on boxes.

    A 1 x 1 convolution and RoIAlign are both linear, so that either may come first: on the map the first
    block's two have fifty times fewer cells to do than on a thousand boxes. Bias and ReLU stay behind.
    """

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        self.first, *self.others = Stage(weights, "res5", 2, 1, config.backbone).blocks
        assert self.first.shortcut is not None
        self.early = [_Early(self.first.layers[0]), _Early(self.first.shortcut)]

    def maps(self, level: np.ndarray, threads: Threads) -> list[np.ndarray]:
        """level (B, H, W, C) -> what boxes are pooled from: of the first convolution and of the shortcut."""
        return [early.products(level, threads) for early in self.early]

    def __call__(self, maps: Sequence[np.ndarray], pool: Pool, threads: Threads) -> np.ndarray:
        """maps as above -> (R, S / 2, S / 2, C')."""
        cells, beside = (early.pooled(each, pool) for early, each in zip(self.early, maps, strict=True))
        cells = self.first.after_first(cells, beside, threads)
        for block in self.others:
            cells = block(cells, threads)
        return cells


class _Early:
    """A 1 x 1 convolution before RoIAlign, and what of it comes after."""

    def __init__(self, layer: Layer) -> None:
        (conv,) = layer.parts
        self.layer, self.products = layer, conv.alone()
        self.finish = Finish(conv.steps.stride, conv.bias, conv.relu)

    def pooled(self, cells: np.ndarray, pool: Pool) -> np.ndarray:
        """cells (B, H, W, C) -> (R, s, s, C)."""
        cells = pool([cells], finish=self.finish)
        return cells if self.layer.group_norm is None else self.layer.normalised(cells)
