"""RPN, box head and mask head as the compiled loops compute them.

B images, H, W cells of a map, C channels, A anchors per cell, R boxes, S bins per side, K classes. Maps are
(B, H, W, C).
"""

import numpy as np

from maskrcnn.config import ModelConfig
from maskrcnn.host.native.convolution import Convolution, Steps
from maskrcnn.host.native.library import Threads
from maskrcnn.host.native.network import Layer, Weights
from maskrcnn.host.native.regions import mean, own_class
from maskrcnn.host.proposals import sigmoid


class RPNHead:
    """Scores the anchors of each cell and says how they should move."""

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        self.convs = [
            Layer(weights, f"rpn.conv{number}", 0.0, Steps(1, 1), relu=True)
            for number in range(1, config.rpn.convs + 1)
        ]
        self.anchors = len(weights["rpn.objectness.weight"])
        self.both = _together(weights, "rpn.objectness", "rpn.deltas")

    def __call__(self, level: np.ndarray, threads: Threads) -> tuple[np.ndarray, np.ndarray]:
        """level (B, H, W, C) -> logits (B, H, W, A), deltas (B, H, W, 4 A)."""
        for conv in self.convs:
            level = conv(level, threads)
        both = self.both(level, threads)
        return both[..., : self.anchors], both[..., self.anchors :]


class BoxHead:
    """Convolutions and fully connected layers, or res5 on every box (C4)."""

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        head = config.box_head
        self.convs = [
            Layer(weights, f"box_head.conv{number}", head.norm_eps, Steps(1, 1), relu=True)
            for number in range(1, head.convs + 1)
        ]
        self.layers: list[Convolution] = []
        kinds = (Steps(), True, weights.half, weights.half, weights.precision)
        if head.kind == "fc":
            for number in range(1, head.fcs + 1):
                name = f"box_head.fc{number}"
                # The first reads a box's bins one after the other, with their channels together.
                side = head.pool_side if number == 1 else 1
                weight = weights[f"{name}.weight"]
                weight = weight.reshape(len(weight), -1, side * side).swapaxes(1, 2)
                weight = weight.reshape(len(weight), -1, 1, 1)
                self.layers.append(Convolution(weight, weights[f"{name}.bias"], *kinds))
        self.pooled = head.kind == "res5"
        self.classes = config.classes
        self.both = _together(weights, "box_head.scores", "box_head.deltas")

    def __call__(self, cells: np.ndarray, threads: Threads) -> tuple[np.ndarray, np.ndarray]:
        """cells (R, S, S, C) -> class logits (R, K + 1), background last, and deltas (R, 4 or 4 K)."""
        for conv in self.convs:
            cells = conv(cells, threads)
        if self.pooled:
            cells = mean(cells)
        elif self.layers:
            cells = np.ascontiguousarray(cells).reshape(len(cells), 1, 1, -1)
        for layer in self.layers:
            cells = layer(cells, threads)
        both = self.both(cells, threads)[:, 0, 0]
        return both[:, : self.classes + 1], both[:, self.classes + 1 :]


class MaskHead:
    """3 x 3 convolutions, a doubling and the mask of each box's own class."""

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        head = config.mask_head
        self.convs = [
            Layer(weights, f"mask_head.conv{number}", head.norm_eps, Steps(1, 1), relu=True)
            for number in range(1, head.convs + 1)
        ]
        # Each cell becomes 2 x 2 by itself: four outputs of a 1 x 1 convolution.
        weight = weights["mask_head.upsample.weight"].transpose(2, 3, 1, 0)
        self.channels = weight.shape[2]
        weight = weight.reshape(4 * self.channels, -1, 1, 1)
        bias = np.tile(weights["mask_head.upsample.bias"], 4)
        kinds = (Steps(), True, weights.half, weights.half, weights.precision)
        self.upsample = Convolution(weight, bias, *kinds)
        self.weight, self.bias = (
            weights["mask_head.logits.weight"][:, :, 0, 0],
            weights["mask_head.logits.bias"],
        )
        self.agnostic = head.class_agnostic

    def __call__(self, cells: np.ndarray, labels: np.ndarray, threads: Threads) -> np.ndarray:
        """cells (R, S, S, C), labels int64 (R,) -> mask probabilities of those classes (R, 2 S, 2 S)."""
        for conv in self.convs:
            cells = conv(cells, threads)
        count, side = cells.shape[:2]
        quarters = self.upsample(cells, threads).reshape(count, 4 * side**2, self.channels)
        row = np.zeros_like(labels) if self.agnostic else labels
        logits = own_class(quarters, self.weight, self.bias, row).reshape(count, side, side, 2, 2)
        return sigmoid(logits.transpose(0, 1, 3, 2, 4).reshape(count, 2 * side, 2 * side))


def _together(weights: Weights, *names: str) -> Convolution:
    """Layers on the same values as one, whose results are float32."""
    parts = [weights[f"{name}.weight"].reshape(len(weights[f"{name}.bias"]), -1, 1, 1) for name in names]
    biases = [weights[f"{name}.bias"] for name in names]
    return Convolution(np.concatenate(parts), np.concatenate(biases), half_in=weights.half)
