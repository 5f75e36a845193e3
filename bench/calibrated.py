"""A torchvision Mask R-CNN whose random weights behave like trained ones: full proposals, about fifty
detections.

Freshly initialised weights find nothing or everything, and then a comparison measures the wrong work.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d


def photograph_like(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 with structure at every scale: noise whose power falls as 1 / frequency, as in
    photographs."""
    generator = np.random.default_rng(0)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    spectrum = np.fft.fft2(generator.standard_normal((3, height, width))) / np.hypot(rows, columns).clip(1e-3)
    planes = np.fft.ifft2(spectrum).real
    planes = (planes - planes.mean((1, 2), keepdims=True)) / planes.std((1, 2), keepdims=True)
    return (planes.transpose(1, 2, 0) * 50 + 118).clip(0, 255).astype(np.uint8)


def calibrated_torchvision(image: Tensor, detections: int = 50) -> MaskRCNN:
    """R50-FPN with frozen batch norms as published; image (3, H, W) in 0..1, whose statistics the norms
    take over."""
    torch.manual_seed(0)
    trunk = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d)
    height, width = image.shape[1:]
    model = MaskRCNN(trunk, 91, min_size=min(height, width), max_size=max(height, width))
    with torch.no_grad():
        _take_statistics(model, image)
        _freeze_norms(model)
        model.eval()
        _standardise(model, image)
        _bisect_background(model, image, detections)
    return model


def _take_statistics(model: MaskRCNN, image: Tensor) -> None:
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
            # The last norm of a residual branch is small in trained nets; without it activations grow with
            # depth.
            nn.init.constant_(norm.weight, 0.3 if norm.num_features >= 256 else 1.0)
    model.backbone.train()
    model.backbone(model.transform([image])[0].tensors)


def _freeze_norms(model: MaskRCNN) -> None:
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(norm.num_features, eps=0.0)
                frozen.load_state_dict(norm.state_dict(), strict=False)
                setattr(parent, name, frozen)


def _standardise(model: MaskRCNN, image: Tensor) -> None:
    """Scale the predictors so that their outputs spread as those of a trained net do."""
    wanted = {
        "rpn.head.cls_logits": 2.0,
        "rpn.head.bbox_pred": 0.3,
        "roi_heads.box_predictor.cls_score": 1.2,
        "roi_heads.box_predictor.bbox_pred": 0.5,
        "roi_heads.mask_predictor.mask_fcn_logits": 2.0,
    }
    for name, spread in wanted.items():
        layer = model.get_submodule(name)
        outputs: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _m, _i, output, to=outputs: to.append(output))
        model([image])
        hook.remove()
        if outputs:
            values = torch.cat([output.flatten() for output in outputs])
            layer.weight *= spread / values.std()


def _bisect_background(model: MaskRCNN, image: Tensor, detections: int) -> None:
    bias = model.roi_heads.box_predictor.cls_score.bias
    low, high = 0.0, 20.0
    for _ in range(12):
        bias[0] = (low + high) / 2
        found = len(model([image])[0]["scores"])
        low, high = (low, float(bias[0])) if found < detections else (float(bias[0]), high)
