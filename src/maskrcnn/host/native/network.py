"""The network's convolutions, named after a model's parameters, as the compiled loops compute them.

B images, H, W cells of a map, C channels, R boxes, S bins per side, K classes. Maps are (B, H, W, C).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from maskrcnn.config import BackboneConfig, ModelConfig
from maskrcnn.host.native.convolution import VALUES, Convolution, Steps
from maskrcnn.host.native.library import Threads
from maskrcnn.host.native.packing import PANEL, Precision, to_float, to_half
from maskrcnn.host.native.regions import max_pool

ONCE = Steps()
NORM_GROUPS = 32  # of GroupNorm (Wu and He 2018)


@dataclass(frozen=True)
class Weights:
    """The float32 tensors of a model file by name; precision: of the arithmetic with them."""

    tensors: Mapping[str, np.ndarray]
    precision: Precision = "fp32"

    @property
    def half(self) -> bool:
        """Whether the maps between the layers are of bfloat16."""
        return self.precision != "fp32"

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors


class Layer:
    """A convolution of a model file, the norm behind it, what is added then, and ReLU."""

    def __init__(
        self,
        weights: Weights,
        name: str,
        eps: float,
        steps: Steps = ONCE,
        groups: int = 1,
        relu: bool = False,
        half_in: bool | None = None,
    ) -> None:
        weight, bias = _folded(weights, name, eps)
        self.group_norm = None
        if f"{name}.norm.weight" in weights and f"{name}.norm.running_var" not in weights:
            self.group_norm = (weights[f"{name}.norm.weight"], weights[f"{name}.norm.bias"])
        self.eps, self.relu, self.outputs, self.half = eps, relu, len(weight), weights.half
        kinds = (weights.half if half_in is None else half_in, weights.half)
        within = relu and self.group_norm is None
        self.parts = [
            Convolution(*part, steps, within, *kinds, weights.precision)
            for part in _chunks(weight, bias, groups)
        ]

    def __call__(self, cells: np.ndarray, threads: Threads, residual: np.ndarray | None = None) -> np.ndarray:
        """cells (B, H, W, C) -> (B, h, w, N); residual: added before ReLU, doubled if half as large."""
        if self.group_norm is not None:
            return self.normalised(self._convolved(cells, threads), residual)
        if len(self.parts) > 1:
            return self._convolved(cells, threads)
        return self.parts[0](cells, threads, residual)

    def _convolved(self, cells: np.ndarray, threads: Threads) -> np.ndarray:
        if len(self.parts) == 1:
            return self.parts[0](cells, threads)
        depth, width = self.parts[0].depth, self.parts[0].outputs
        size = self.parts[0].size(cells.shape[1], cells.shape[2])
        out = np.empty((len(cells), *size, self.outputs), VALUES[self.half])
        for number, part in enumerate(self.parts):
            channels = cells[..., number * depth : (number + 1) * depth]
            part(channels, threads, out=out[..., number * width : (number + 1) * width])
        return out

    def normalised(self, cells: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
        """cells (B, h, w, N) of the convolution -> after the group norm, what is added and ReLU."""
        assert self.group_norm is not None
        weight, bias = self.group_norm
        cells = to_float(cells) if self.half else cells
        groups = cells.reshape(*cells.shape[:3], NORM_GROUPS, -1)
        mean = groups.mean((1, 2, 4), keepdims=True, dtype=np.float64)
        variance = groups.var((1, 2, 4), keepdims=True, dtype=np.float64)
        groups = (groups - mean.astype(np.float32)) / np.sqrt(variance + self.eps).astype(np.float32)
        out = groups.reshape(cells.shape) * weight + bias
        if residual is not None:
            grown = residual.repeat(2, 1).repeat(2, 2) if residual.shape != out.shape else residual
            grown = grown[:, : out.shape[1], : out.shape[2]]
            out += to_float(grown) if self.half else grown
        out = np.maximum(out, 0, out=out) if self.relu else out
        return to_half(out) if self.half else out


def _folded(weights: Weights, name: str, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a convolution, times the batch norm behind it."""
    weight = weights[f"{name}.weight"]
    bias = weights[f"{name}.bias"] if f"{name}.bias" in weights else np.zeros(len(weight), np.float32)
    if f"{name}.norm.running_var" not in weights:
        return weight, bias
    norm = {part: weights[f"{name}.norm.{part}"].astype(np.float64) for part in ("weight", "bias")}
    mean, variance = (weights[f"{name}.norm.running_{part}"].astype(np.float64) for part in ("mean", "var"))
    scale = norm["weight"] / np.sqrt(variance + eps)
    shift = norm["bias"] + (bias - mean) * scale
    return (weight * scale[:, None, None, None]).astype(np.float32), shift.astype(np.float32)


def _chunks(weight: np.ndarray, bias: np.ndarray, groups: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A grouped convolution as ordinary ones of whole panels: a few groups each, zeros between them."""
    outputs, depth = len(weight) // groups, weight.shape[1]
    together = max(1, PANEL // outputs)
    if groups % together or together * outputs % PANEL:
        together = groups
    for first in range(0, groups, together):
        dense = np.zeros((together * outputs, together * depth, *weight.shape[2:]), np.float32)
        for number in range(together):
            rows = slice((first + number) * outputs, (first + number + 1) * outputs)
            place = slice(number * outputs, (number + 1) * outputs)
            dense[place, number * depth : (number + 1) * depth] = weight[rows]
        yield dense, bias[first * outputs : (first + together) * outputs]


class Stem:
    """The 7 x 7 convolution and the pooling, both of stride 2."""

    def __init__(self, weights: Weights, config: BackboneConfig) -> None:
        name = "backbone.stem.conv"
        weight = weights[f"{name}.weight"]
        # Seven cells beside each other are 21 values in a row, so that this is a 7 x 1 kernel on 21 channels.
        lines = weight.transpose(0, 3, 1, 2).reshape(len(weight), 21, 7, 1)
        turned = replace(weights, tensors={**weights.tensors, f"{name}.weight": lines})
        self.conv = Layer(turned, name, config.norm_eps, Steps(2), relu=True, half_in=False)
        self.first = 0 if config.stem_pool == "same" else -1

    def __call__(self, bordered: np.ndarray, threads: Threads) -> np.ndarray:
        """bordered (B, H + 6, W + 6, 3), zeros around the image -> (B, H / 4, W / 4, C)."""
        count, height, width, _ = bordered.shape
        lines = np.lib.stride_tricks.as_strided(bordered, (count, height, width - 6, 21), bordered.strides)
        return max_pool(self.conv(lines, threads), self.first, threads)


class Block:
    """Two 3 x 3 convolutions, or 1 x 1, 3 x 3 and 1 x 1, beside a shortcut (He et al. 2016)."""

    def __init__(
        self, weights: Weights, name: str, stride: int, dilation: int, config: BackboneConfig
    ) -> None:
        eps, wide = config.norm_eps, Steps(1, dilation, dilation)
        self.shortcut = None
        if f"{name}.shortcut.weight" in weights:
            self.shortcut = Layer(weights, f"{name}.shortcut", eps, Steps(stride))
        if f"{name}.conv3.weight" in weights:
            first, second = (stride, 1) if config.stride_in_1x1 else (1, stride)
            steps = [Steps(first), Steps(second, dilation, dilation), Steps()]
        else:
            steps = [Steps(stride, dilation, dilation), wide]
        groups = [1, config.groups, 1] if len(steps) == 3 else [1, 1]
        self.layers = [
            Layer(weights, f"{name}.conv{number}", eps, step, count, relu=True)
            for number, (step, count) in enumerate(zip(steps, groups, strict=True), start=1)
        ]

    def __call__(self, cells: np.ndarray, threads: Threads) -> np.ndarray:
        """cells (B, H, W, C) -> (B, H / stride, W / stride, C')."""
        beside = cells if self.shortcut is None else self.shortcut(cells, threads)
        return self.after_first(self.layers[0](cells, threads), beside, threads)

    def after_first(self, cells: np.ndarray, beside: np.ndarray, threads: Threads) -> np.ndarray:
        """cells of the first convolution (B, h, w, C), beside: of the shortcut -> as the block itself."""
        for layer in self.layers[1:-1]:
            cells = layer(cells, threads)
        return self.layers[-1](cells, threads, beside)


class Stage:
    """One of res2..res5; a dilated one keeps the size of its input."""

    def __init__(
        self, weights: Weights, name: str, stride: int, dilation: int, config: BackboneConfig
    ) -> None:
        self.blocks: list[Block] = []
        while f"{name}.{len(self.blocks)}.conv1.weight" in weights:
            place = f"{name}.{len(self.blocks)}"
            self.blocks.append(Block(weights, place, 1 if self.blocks else stride, dilation, config))

    def __call__(self, cells: np.ndarray, threads: Threads) -> np.ndarray:
        """cells (B, H, W, C) -> (B, H / stride, W / stride, C')."""
        for block in self.blocks:
            cells = block(cells, threads)
        return cells


class Trunk:
    """ResNet and ResNeXt, and the pyramid where there is one (Lin et al. 2017)."""

    def __init__(self, weights: Weights, config: ModelConfig) -> None:
        self.stem = Stem(weights, config.backbone)
        numbers = (2, 3, 4) if config.neck == "c4" else (2, 3, 4, 5)
        self.stages = [
            Stage(weights, f"backbone.res{number}", *_steps(number, config), config.backbone)
            for number in numbers
        ]
        eps, self.upsample = config.fpn.norm_eps, config.fpn.upsample
        named = numbers if config.neck == "fpn" else ()
        self.laterals = [Layer(weights, f"fpn.lateral{number}", eps) for number in named]
        self.outputs = [Layer(weights, f"fpn.output{number}", eps, Steps(1, 1)) for number in named]

    def __call__(self, bordered: np.ndarray, threads: Threads) -> list[np.ndarray]:
        """bordered (B, H + 6, W + 6, 3), zeros around the image -> levels P2..P6, or the one of stride 16."""
        cells, stages = self.stem(bordered, threads), []
        for stage in self.stages:
            cells = stage(cells, threads)
            stages.append(cells)
        return self._pyramid(stages, threads) if self.laterals else stages[-1:]

    def _pyramid(self, stages: list[np.ndarray], threads: Threads) -> list[np.ndarray]:
        levels: list[np.ndarray] = []
        top: np.ndarray | None = None
        for stage, lateral, output in zip(stages[::-1], self.laterals[::-1], self.outputs[::-1], strict=True):
            if top is not None and self.upsample != "nearest":
                top = doubled(top, stage.shape[1:3], self.upsample == "bilinear_corners")
            top = lateral(stage, threads, top)
            levels.insert(0, output(top, threads))
        return [*levels, np.ascontiguousarray(levels[-1][:, ::2, ::2])]


def _steps(number: int, config: ModelConfig) -> tuple[int, int]:
    """Stride and dilation of stage res2..res5."""
    if number == 5 and config.neck == "dc5":
        return 1, 2
    return (1 if number == 2 else 2), 1


def doubled(cells: np.ndarray, size: tuple[int, int], corners: bool) -> np.ndarray:
    """cells (B, h, w, C) -> (B, H, W, C), linear between cells' centres or their top left corners."""
    half = cells.dtype == np.uint16
    cells = to_float(cells) if half else cells
    for axis, count in enumerate(size, start=1):
        limit = cells.shape[axis] - 1
        places = np.arange(count, dtype=np.float32)
        at = places / 2 if corners else np.maximum((places + 0.5) * (cells.shape[axis] / count) - 0.5, 0)
        low = np.minimum(at.astype(np.int64), limit)
        beyond = (at - low).astype(np.float32).reshape(-1, *[1] * (3 - axis))
        high = np.minimum(low + 1, limit)
        cells = cells.take(low, axis) * (1 - beyond) + cells.take(high, axis) * beyond
    return to_half(cells) if half else cells
