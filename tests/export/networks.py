"""Small random networks that find as much as trained ones, in every shape that a preset has."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from maskrcnn.config import (
    AnchorConfig,
    BackboneConfig,
    BoxHeadConfig,
    Conventions,
    FPNConfig,
    MaskHeadConfig,
    ModelConfig,
    RPNConfig,
)
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.spec import Classes, Preprocess, Spec
from maskrcnn.weights.model_file import write_model_file

CLASSES = Classes(("one", "two", "three"), (1, 2, 3))
INPUT = Preprocess(short=96, long=192)
ONE_LEVEL = AnchorConfig(sizes=((32.0, 64.0, 128.0),))
RPN = RPNConfig(pre_nms=60, post_nms=30)
SMALL = {
    "fpn": ModelConfig(
        classes=3,
        backbone=BackboneConfig(18, width=8),
        fpn=FPNConfig(16),
        anchors=AnchorConfig(sizes=((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))),
        rpn=RPN,
        box_head=BoxHeadConfig(fc_channels=32, detections=12),
        mask_head=MaskHeadConfig(convs=1, channels=16),
    ),
    "c4": ModelConfig(
        classes=3,
        neck="c4",
        backbone=BackboneConfig(50, width=8, group_width=8, stride_in_1x1=True),
        anchors=ONE_LEVEL,
        rpn=RPN,
        box_head=BoxHeadConfig(kind="res5", pool_side=14, detections=12),
        mask_head=MaskHeadConfig(convs=0, channels=16),
    ),
    "dc5": ModelConfig(
        classes=3,
        neck="dc5",
        backbone=BackboneConfig(50, width=8, group_width=8),
        anchors=ONE_LEVEL,
        rpn=RPN,
        box_head=BoxHeadConfig(fc_channels=32, detections=12),
        mask_head=MaskHeadConfig(convs=1, channels=16),
    ),
}
# Standard deviations of what trained predictors return, by their names.
SPREADS = {
    "rpn.objectness": 2.0,
    "rpn.deltas": 0.3,
    "box_head.scores": 1.5,
    "box_head.deltas": 0.5,
    "mask_head.logits": 2.0,
}

# Where features are zero, as those of an image of the mean colour, every class is below the least score.
BACKGROUND = 3.0


def model_file(
    path: Path, config: ModelConfig, preprocess: Preprocess = INPUT, conventions: Conventions | None = None
) -> Path:
    """Write a network of that config and, if given, of these conventions."""
    if conventions is not None:
        config = replace(config, conventions=conventions)
    spec = Spec(
        config, preprocess, Classes(*(each[: config.classes] for each in (CLASSES.names, CLASSES.ids)))
    )
    state = {name: values.numpy() for name, values in lively(config).state_dict().items()}
    write_model_file(path, spec, state)
    return path


def lively(config: ModelConfig) -> MaskRCNN:
    """A random network whose predictors spread as those of a trained one do."""
    torch.manual_seed(0)
    model = MaskRCNN(config).eval().requires_grad_(False)
    image, size = scene(128, 160), torch.tensor([[128, 160]])
    for name, spread in SPREADS.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        seen: list[torch.Tensor] = []
        if name == "mask_head.logits":  # its weight is read, and it is never called
            layer.weight *= spread / 0.05
            continue
        hook = layer.register_forward_hook(lambda _m, _i, output, to=seen: to.append(output))
        model(torch.from_numpy(image), size)
        hook.remove()
        layer.weight *= spread / torch.cat([each.flatten() for each in seen]).std()
    assert model.box_head.scores.bias is not None
    model.box_head.scores.bias[-1] = BACKGROUND
    return model


def scene(height: int, width: int, count: int = 1, seed: int = 0) -> np.ndarray:
    """(B, 3, H, W) float32 of whole values in 0..255: blocks of colour under noise."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 200, (count, 3, -(-height // 16), -(-width // 16)))
    image = blocks.repeat(16, 2).repeat(16, 3)[:, :, :height, :width]
    return (image + generator.integers(0, 55, image.shape)).astype(np.float32)
