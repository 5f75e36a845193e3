"""Counts the parameters and operations of a model, layer by layer, from the shapes of its tensors."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from maskrcnn.config import ModelConfig

STAGES = ("backbone", "fpn", "rpn", "box_head", "mask_head")
# Running statistics are measured, not learned.
NOT_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked")
# What follows the name of a layer in the names of its tensors and those of its norm.
OF_LAYER = re.compile(r"(\.norm)?\.[a-z_]+$")

Shape = tuple[int, ...]
Size = tuple[int, int]


@dataclass(frozen=True)
class Stage:
    """parameters: learned numbers. gflops: 10^9 operations of one image, two for a multiply-add."""

    name: str
    parameters: int
    gflops: float


@dataclass(frozen=True)
class LayerCost:
    """One convolution or linear layer, with its norm.

    stage: one of STAGES. outputs: shapes of what it returns for one image, channels first; one for each level
    of the pyramid where it sees them all, and beginning with the number of RoIs in a head. parameters,
    gflops: as Stage's.
    """

    stage: str
    name: str
    outputs: tuple[Shape, ...]
    parameters: int
    gflops: float


def count_stages(
    config: ModelConfig, shapes: Mapping[str, Shape], size_net: Size, proposals: int, detections: int
) -> list[Stage]:
    """The sums of count_layers, stage by stage."""
    layers = count_layers(config, shapes, size_net, proposals, detections)
    stages = []
    for name in STAGES:
        own = [layer for layer in layers if layer.stage == name]
        parameters = sum(layer.parameters for layer in own)
        if parameters:
            stages.append(Stage(name, parameters, math.fsum(layer.gflops for layer in own)))
    return stages


def count_layers(
    config: ModelConfig, shapes: Mapping[str, Shape], size_net: Size, proposals: int, detections: int
) -> list[LayerCost]:
    """Convolutions and linear layers of one image of size_net (height, width), padding included, in order.

    shapes: of the model's tensors by name. With C4, the res5 that both heads share counts for the box head's
    parameters and for the operations of both, in rows of their own.
    """
    parameters: dict[str, int] = {}
    for name, shape in shapes.items():
        if not name.endswith(NOT_PARAMETERS):
            layer = OF_LAYER.sub("", name)
            parameters[layer] = parameters.get(layer, 0) + math.prod(shape)
    rois = {"box_head": proposals, "mask_head": detections}
    layers = []
    for name, shape in shapes.items():
        if name.endswith(".weight") and len(shape) in (2, 4):
            layer = OF_LAYER.sub("", name)
            stage = layer.split(".")[0]
            for user in rois if stage == "res5" else (stage,):
                places, outputs = _evaluated(config, layer, shape, size_net, rois.get(user))
                gflops = 2e-9 * math.prod(shape) * places
                layers.append(LayerCost(user, layer, outputs, parameters.pop(layer, 0), gflops))
    return sorted(layers, key=_turn)


def _turn(layer: LayerCost) -> tuple[int, int, str]:
    """Where it comes in the network: files list tensors by name."""
    part = layer.name.split(".")[1]
    later = ("stem", "", "objectness", "scores", "upsample", "deltas", "logits")
    return STAGES.index(layer.stage), later.index(part) if part in later else 1, layer.name


def _evaluated(
    config: ModelConfig, layer: str, shape: Shape, size_net: Size, rois: int | None
) -> tuple[int, tuple[Shape, ...]]:
    """At how many places a layer multiplies its weights, and the shapes of what it returns.

    rois: of the head that it belongs to; None for a layer that sees the whole image.
    """
    if rois is None:
        sizes = _image_sizes(config, layer, size_net)
        return sum(math.prod(size) for size in sizes), tuple((shape[0], *size) for size in sizes)
    if len(shape) == 2:
        return rois, ((rois, shape[0]),)
    side = _roi_side(config, layer)
    if layer == "mask_head.upsample":  # its 2 x 2 kernel is applied once at each of the smaller cells
        return rois * side**2, ((rois, shape[1], 2 * side, 2 * side),)
    return rois * side**2, ((rois, shape[0], side, side),)


def _image_sizes(config: ModelConfig, layer: str, size_net: Size) -> list[Size]:
    """The (height, width) of what a convolution over the whole image returns, for each level that it sees."""
    if layer.startswith("rpn."):
        strides = (4, 8, 16, 32, 64) if config.neck == "fpn" else (16,)
        return [_size(size_net, stride) for stride in strides]
    if layer.startswith("backbone.stem"):
        return [_size(size_net, 2)]
    match = re.match(r"(?:backbone\.res|fpn\.(?:lateral|output|shrink|joined))(\d)", layer)
    assert match, layer
    stride = 2 ** int(match[1])
    if _runs_before_the_stride(config, layer) and stride > 4:
        stride //= 2
    if config.neck == "dc5":
        stride = min(stride, 16)  # its res5 is dilated
    return [_size(size_net, stride)]


def _roi_side(config: ModelConfig, layer: str) -> int:
    """Side of the square of one RoI over which a convolution of a head is evaluated."""
    if layer.startswith("res5.") or config.neck == "c4":
        side = config.box_head.pool_side
        half = -(-side // 2)  # res5 halves the RoI
        if layer.startswith("res5."):
            return side if _runs_before_the_stride(config, layer) else half
        return 2 * half if layer == "mask_head.logits" else half
    if layer.startswith("box_head."):
        return config.box_head.pool_side
    return config.mask_head.pool_side * (2 if layer == "mask_head.logits" else 1)


def _runs_before_the_stride(config: ModelConfig, layer: str) -> bool:
    """Whether it is the first 1x1 of a stage's first bottleneck whose stride stands in the 3x3."""
    bottlenecks = config.backbone.depth >= 50 or layer.startswith("res5.")
    in_3x3 = bottlenecks and not config.backbone.stride_in_1x1
    return in_3x3 and re.search(r"res\d\.0\.conv1$", layer) is not None


def _size(size_net: Size, stride: int) -> Size:
    return -(-size_net[0] // stride), -(-size_net[1] // stride)
