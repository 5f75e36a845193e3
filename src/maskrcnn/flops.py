"""Counts the parameters and operations of a model, stage by stage, from the shapes of its tensors."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from maskrcnn.config import ModelConfig

STAGES = ("backbone", "fpn", "rpn", "box_head", "mask_head")
# Running statistics are measured, not learned.
NOT_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked")

Shape = tuple[int, ...]
Size = tuple[int, int]


@dataclass(frozen=True)
class Stage:
    """parameters: learned numbers. gflops: 10^9 operations of one image, two for a multiply-add."""

    name: str
    parameters: int
    gflops: float


def count_stages(
    config: ModelConfig, shapes: Mapping[str, Shape], size_net: Size, proposals: int, detections: int
) -> list[Stage]:
    """Convolutions and linear layers of one image of size_net (height, width), padding included.

    shapes: of the model's tensors by name. With C4, the res5 that both heads share counts for the box head's
    parameters and for the operations of both.
    """
    parameters = dict.fromkeys(STAGES, 0)
    macs = dict.fromkeys(STAGES, 0)
    for name, shape in shapes.items():
        stage = name.split(".")[0]
        if not name.endswith(NOT_PARAMETERS):
            parameters["box_head" if stage == "res5" else stage] += math.prod(shape)
        if not name.endswith(".weight") or len(shape) not in (2, 4):
            continue
        if stage in ("box_head", "res5"):
            macs["box_head"] += math.prod(shape) * proposals * _roi_cells(config, name, len(shape))
        if stage in ("mask_head", "res5"):
            macs["mask_head"] += math.prod(shape) * detections * _roi_cells(config, name, len(shape))
        if stage in ("backbone", "fpn", "rpn"):
            macs[stage] += math.prod(shape) * _image_cells(config, name, size_net)
    return [Stage(name, parameters[name], 2e-9 * macs[name]) for name in STAGES if parameters[name]]


def _image_cells(config: ModelConfig, name: str, size_net: Size) -> int:
    """Places at which a convolution over the whole image is evaluated."""
    if name.startswith("rpn."):
        strides = (4, 8, 16, 32, 64) if config.neck == "fpn" else (16,)
        return sum(_cells(size_net, stride) for stride in strides)
    if name.startswith("backbone.stem"):
        return _cells(size_net, 2)
    match = re.match(r"(?:backbone\.res|fpn\.(?:lateral|output))(\d)", name)
    assert match, name
    stride = 2 ** int(match[1])
    if _runs_before_the_stride(config, name) and stride > 4:
        stride //= 2
    if config.neck == "dc5":
        stride = min(stride, 16)  # its res5 is dilated
    return _cells(size_net, stride)


def _roi_cells(config: ModelConfig, name: str, dimensions: int) -> int:
    """Places in one RoI at which a layer of a head is evaluated; 1 for a linear layer."""
    if dimensions == 2:
        return 1
    if name.startswith("res5.") or config.neck == "c4":
        side = config.box_head.pool_side
        half = -(-side // 2)  # res5 halves the RoI
        if name.startswith("res5."):
            return side**2 if _runs_before_the_stride(config, name) else half**2
        return (2 * half) ** 2 if name.startswith("mask_head.logits") else half**2
    if name.startswith("box_head."):
        return config.box_head.pool_side**2
    # The upsampling's 2 x 2 kernel is applied once at each of the smaller cells.
    return config.mask_head.pool_side**2 * (4 if name.startswith("mask_head.logits") else 1)


def _runs_before_the_stride(config: ModelConfig, name: str) -> bool:
    """Whether it is the first 1x1 of a stage's first bottleneck whose stride stands in the 3x3."""
    bottlenecks = config.backbone.depth >= 50 or name.startswith("res5.")
    in_3x3 = bottlenecks and not config.backbone.stride_in_1x1
    return in_3x3 and re.search(r"res\d\.0\.conv1\.", name) is not None


def _cells(size_net: Size, stride: int) -> int:
    return math.prod(-(-side // stride) for side in size_net)
