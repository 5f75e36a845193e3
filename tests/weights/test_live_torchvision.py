"""Models that the installed torchvision builds, converted, give what torchvision gives."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import detection, resnet18, resnext50_32x4d
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d, box_iou

from maskrcnn.backends.pytorch import open_pytorch
from maskrcnn.detections import Detections
from maskrcnn.preprocess import batch, prepare
from maskrcnn.weights.convert import convert

SIZE = {"min_size": 160, "max_size": 266}
SETTINGS = (
    "preprocess.short=160",
    "preprocess.long=266",
    "model.box_head.score_over=0.011",
    "model.rpn.post_nms=100",
)


def on_trunk(trunk: torch.nn.Module, channels: int) -> detection.MaskRCNN:
    """torchvision's Mask R-CNN for 90 classes on a ResNet."""
    stages = {f"layer{number}": str(number - 1) for number in (1, 2, 3, 4)}
    body = BackboneWithFPN(trunk, stages, [channels * 2**index for index in range(4)], 256)
    return detection.MaskRCNN(body, 91, **SIZE)


def build(name: str) -> detection.MaskRCNN:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's notes about its own arguments
        if name == "v1":
            return detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, **SIZE)
        if name == "v2":
            return detection.maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, **SIZE)
        if name == "frozen r18":
            return on_trunk(resnet18(norm_layer=FrozenBatchNorm2d), 64)
        return on_trunk(resnext50_32x4d(), 256)


def lively(model: detection.MaskRCNN) -> detection.MaskRCNN:
    """Untrained heads say the same everywhere; larger weights make detections differ from one another."""
    model.rpn._post_nms_top_n = {"training": 100, "testing": 100}
    model.roi_heads.score_thresh = 0.011
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(0.1 * torch.rand_like(buffer))
        model.rpn.head.cls_logits.weight.mul_(20)
        model.roi_heads.box_predictor.cls_score.weight.mul_(4)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(4)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("v1", "R50-FPN bn"),
        ("v2", "R50-FPN 4conv1fc bn"),
        ("frozen r18", "R18-FPN"),
        ("x50", "X50-32x4d-FPN bn"),
    ],
)
def test_a_converted_model_detects_what_torchvision_detects(
    tmp_path: Path, name: str, architecture: str
) -> None:
    theirs = lively(build(name))
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    report = convert(tmp_path / "x.pth", tmp_path / "x.safetensors", settings=SETTINGS)
    assert report.architecture == architecture
    image = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8).repeat(9, 0).repeat(9, 1)
    with torch.inference_mode():
        expected = theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
    ours = open_pytorch(tmp_path / "x.safetensors", device="cpu")
    planes, geometry = prepare(image, ours.spec.preprocess)
    found = Detections.from_raw(ours.run(*batch([planes], ours.spec.preprocess)), 0, geometry, ours.spec)
    assert len(found) == len(expected["boxes"]) > 10
    same = torch.from_numpy(found.labels)[:, None] == expected["labels"] - 1
    overlap = box_iou(torch.from_numpy(found.boxes), expected["boxes"]) * same
    partner = overlap.argmax(dim=1)
    assert overlap.max(dim=1).values.min() > 0.999
    np.testing.assert_allclose(found.boxes, expected["boxes"][partner], atol=2e-2)
    np.testing.assert_allclose(found.scores, expected["scores"][partner], atol=1e-5)
    different = (torch.from_numpy(found.masks()) != (expected["masks"][partner, 0] > 0.5)).float().mean()
    assert different < 1e-4
