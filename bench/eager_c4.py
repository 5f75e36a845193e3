"""A random R50-C4 that finds as much as a trained one, run as detectron2 runs it: every layer by itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torchvision
from torch import Tensor

from maskrcnn.detections import Detections, Raw
from maskrcnn.model.layers import ConvNorm, FrozenBatchNorm
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.ops import pool_levels as pooling
from maskrcnn.predict import Predictor
from maskrcnn.presets import ARCHITECTURES
from maskrcnn.spec import Preprocess, Spec
from maskrcnn.weights.model_file import write_model_file

# Standard deviations of what trained predictors return.
SPREADS = {"rpn.objectness": 2.0, "rpn.deltas": 0.3, "box_head.scores": 1.2, "box_head.deltas": 0.5}
DETECTIONS = 50


@dataclass(frozen=True)
class Eager:
    """A network as it was trained: channels first, norms by themselves, and torchvision's RoIAlign."""

    spec: Spec
    model: MaskRCNN

    def detect(self, image: np.ndarray) -> Detections:
        """image (H, W, 3) uint8 RGB -> what is found in it."""
        return Predictor(self)([image])[0]

    @torch.inference_mode()
    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """image (1, 3, H, W) in 0..255, size int64 (1, 2) -> Raw of numpy arrays."""
        planes, sizes = torch.from_numpy(image).float(), torch.from_numpy(size)
        with (
            patch.object(pooling, "roi_align", _torchvision_roi_align),
            patch.object(pooling, "_empty", _channels_first),
            patch.object(ConvNorm, "forward", _layer_by_layer),
        ):
            levels = self.model.features(planes, sizes)
            proposals, real = self.model.propose(levels, sizes, (image.shape[2], image.shape[3]))
            found = self.model.detect(levels, proposals, real, sizes)
            count = int((found.scores > 0).sum())
            masks = self.model.segment(levels, found.boxes[:, :count], found.labels[:, :count])
        missing = found.scores.shape[1] - count
        raw = Raw(*found, torch.nn.functional.pad(masks, (0, 0, 0, 0, 0, missing)))
        return Raw(*(part.numpy() for part in raw))

    def write(self, path: Path) -> None:
        """As a model file."""
        write_model_file(
            path, self.spec, {name: each.numpy() for name, each in self.model.state_dict().items()}
        )


def calibrated_c4(image: np.ndarray) -> Eager:
    """image (H, W, 3) uint8, of which the network makes a thousand proposals and about fifty detections."""
    torch.manual_seed(0)
    short, long = sorted(image.shape[:2])
    spec = Spec(ARCHITECTURES["r50-c4"], Preprocess(short=short, long=long))
    model = MaskRCNN(spec.model).eval().requires_grad_(False)
    eager = Eager(spec, model)
    seen: list[Tensor] = []
    for name, spread in SPREADS.items():
        layer = model.get_submodule(name)
        seen.clear()
        hook = layer.register_forward_hook(lambda _m, _i, output: seen.append(output))
        eager.detect(image)
        hook.remove()
        layer.weight *= spread / seen[0].std()
    every = replace(spec.model.box_head, score_over=0.0)
    model.box_head.config = every
    over = float(eager.detect(image).scores[DETECTIONS])
    model.box_head.config = head = replace(every, score_over=over)
    return Eager(replace(spec, model=replace(spec.model, box_head=head)), model)


def _torchvision_roi_align(
    level: Tensor, rois: Tensor, scale: float, side: int, samples: int, aligned: bool
) -> Tensor:
    return torchvision.ops.roi_align(level, rois, side, scale, samples, aligned)


def _channels_first(levels: Sequence[Tensor], rows: int, side: int) -> Tensor:
    return levels[0].new_empty((rows, levels[0].shape[1], side, side))


def _layer_by_layer(conv: ConvNorm, x: Tensor) -> Tensor:
    x = torch.nn.functional.conv2d(
        x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
    )
    norm = conv.norm
    if norm is None:
        return x
    assert isinstance(norm, FrozenBatchNorm)
    numbers = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return torch.nn.functional.batch_norm(x, *numbers, training=False, eps=norm.eps)
