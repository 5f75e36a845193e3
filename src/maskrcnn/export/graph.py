"""The network as engines get it: one graph from image to rows that computes masks for real rows only.

B images, D detections per image, M mask pixels per side.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.export.form import Form
from maskrcnn.model.mask_rcnn import MaskRCNN

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


# Longer sides than this many times the padding multiple, 16384 at 32, are refused by a graph's ranges.
MOST = 512


def free_side(name: str, multiple: int) -> Any:
    """The height or width of an input of any size, in a trace."""
    if multiple == 1:
        return torch.export.Dim(name, min=64, max=MOST * 32)
    return torch.export.Dim(f"{name}_cells", min=2, max=MOST) * multiple


@torch.library.custom_op("maskrcnn::leading_rows", mutates_args=())
def leading_rows(boxes: Tensor, labels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """boxes (B, D, 4), labels (B, D), scores (B, D) best first -> the first n rows of boxes and labels.

    n is the number of rows with a score in the image that has most of them, or 1.
    """
    count = max(1, int((scores > 0).sum(1).max()))
    return boxes[:, :count].clone(), labels[:, :count].clone()


@leading_rows.register_fake
def _(boxes: Tensor, labels: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size(min=1, max=None)
    return boxes.new_empty((boxes.shape[0], count, 4)), labels.new_empty((labels.shape[0], count))


class WholeGraph(nn.Module):
    """A model as one graph of plain tensors; the model is changed in place."""

    def __init__(self, model: MaskRCNN, form: Form) -> None:
        super().__init__()
        self.model = model
        self.counted = form.counted
        _compute_in(model, DTYPES[form.precision])

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """image (B, 3, H, W) in 0..255, size int64 (B, 2) -> boxes (B, D, 4), scores, labels (B, D), masks
        (B, D, M, M), and num_detections (B,) if counted. Rows without a detection are zero.
        """
        model = self.model
        levels = model.features(image, size)
        proposals, real = model.propose(levels, size, (image.shape[2], image.shape[3]))
        boxes, scores, labels = model.detect(levels, proposals, real, size)
        masks = model.segment(levels, *leading_rows(boxes, labels, scores))
        missing = scores.shape[1] - masks.shape[1]
        masks = F.pad(masks, (0, 0, 0, 0, 0, missing)) * (scores > 0)[:, :, None, None]
        found = (boxes, scores, labels, masks)
        return (*found, (scores > 0).sum(1)) if self.counted else found


def _compute_in(model: MaskRCNN, dtype: torch.dtype) -> None:
    """Convolutions and linear layers in dtype; what is between them, normalisation and boxes, in float32."""
    if dtype == torch.float32:
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.GroupNorm):
            module.to(dtype)
            module.register_forward_pre_hook(lambda _, inputs: tuple(each.to(dtype) for each in inputs))
