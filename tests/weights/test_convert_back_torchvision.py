"""The installed torchvision loads what was written for it, strictly, and computes the same bits."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frameworks import filled
from torchvision.models import detection

from maskrcnn import presets
from maskrcnn.config import (
    BackboneConfig,
    BoxHeadConfig,
    FPNConfig,
    MaskHeadConfig,
    ModelConfig,
    Norm,
    RPNConfig,
)
from maskrcnn.spec import Spec
from maskrcnn.weights.architecture import parameter_shapes
from maskrcnn.weights.convert import convert
from maskrcnn.weights.convert_back import convert_back
from maskrcnn.weights.model_file import write_model_file


def built(config: str) -> torch.nn.Module:
    """What the program in a report builds."""
    names: dict[str, Any] = {}
    exec(config, names)
    model = names["model"]
    assert isinstance(model, detection.MaskRCNN)
    return model.eval()


def there_and_back(theirs: torch.nn.Module, folder: Path, *settings: str) -> torch.nn.Module:
    """Saved, converted, written again, and loaded into a model that was built anew."""
    torch.save(theirs.state_dict(), folder / "x.pth")
    convert(folder / "x.pth", folder / "x.safetensors", settings=settings)
    report = convert_back(folder / "x.safetensors", folder / "y.pth", "torchvision")
    assert report.differences == ()
    again = built(report.config)
    again.load_state_dict(torch.load(folder / "y.pth", weights_only=True), strict=True)
    return again


def assert_same_bits(first: torch.nn.Module, second: torch.nn.Module) -> None:
    image = torch.from_numpy(np.random.default_rng(1).random((3, 120, 160), np.float32))
    with torch.inference_mode():
        expected, found = first.eval()([image])[0], second([image])[0]
    assert len(expected["boxes"]) > 10
    for name, values in expected.items():
        assert torch.equal(found[name], values), name


def small(norm: Norm, head_norm: Norm, convs: int, fc: int = 40, mask: int = 32, **trunk: Any) -> ModelConfig:
    """As torchvision can build it: 64 channels first, but narrow behind."""
    return ModelConfig(
        classes=4,
        backbone=BackboneConfig(norm=norm, **trunk),
        fpn=FPNConfig(channels=32, norm=head_norm),
        rpn=RPNConfig(convs=2 if convs else 1, post_nms=40),
        box_head=BoxHeadConfig(
            convs=convs, channels=32, fcs=1 if convs else 2, fc_channels=fc, norm=head_norm, score_over=0.1
        ),
        mask_head=MaskHeadConfig(channels=mask, norm=head_norm),
        conventions=presets.TORCHVISION,
    )


@pytest.mark.parametrize(
    "model",
    [
        small("frozen_bn", "none", 0, fc=1024, mask=256, depth=18),
        small("bn", "bn", 4, depth=18),
        small("gn", "gn", 4, depth=18),
        pytest.param(small("bn", "none", 0, depth=50, groups=32, group_width=4), marks=pytest.mark.slow),
    ],
    ids=["frozen R18", "R18 as v2", "R18 with group norm", "X50"],
)
def test_a_program_in_the_report_builds_the_model_that_loads_the_file(
    tmp_path: Path, model: ModelConfig
) -> None:
    spec = Spec(model, presets.TORCHVISION_INPUT)
    write_model_file(tmp_path / "x.safetensors", spec, filled(parameter_shapes(model)))
    report = convert_back(tmp_path / "x.safetensors", tmp_path / "y.pth", "torchvision")
    assert report.differences == ()
    theirs = built(report.config)
    theirs.load_state_dict(torch.load(tmp_path / "y.pth", weights_only=True), strict=True)
    settings = (f"model.backbone.norm_eps={model.backbone.norm_eps}",)
    thresholds = ("model.rpn.post_nms=40", "model.box_head.score_over=0.1")
    assert_same_bits(theirs, there_and_back(theirs, tmp_path, *settings, *thresholds))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes"), [("maskrcnn_resnet50_fpn", 91), ("maskrcnn_resnet50_fpn_v2", 5)]
)
def test_its_own_models_come_back_to_the_same_bits(tmp_path: Path, name: str, classes: int) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's notes about its own arguments
        make = getattr(detection, name)
        models = [make(weights=None, weights_backbone=None, num_classes=classes) for _ in range(2)]
    theirs, other = (model.eval() for model in models)
    with torch.no_grad():  # untrained, every class scores the same
        theirs.roi_heads.box_predictor.cls_score.weight.mul_(20)
    assert_same_bits(theirs, there_and_back(theirs, tmp_path))
    other.load_state_dict(torch.load(tmp_path / "y.pth", weights_only=True), strict=True)
    assert_same_bits(theirs, other)
    # Nothing but the background's own box and mask rows, which nothing reads, has changed.
    for key, values in theirs.state_dict().items():
        rows = 4 if "bbox_pred" in key and "rpn" not in key else 1 if "mask_fcn_logits" in key else 0
        assert torch.equal(
            other.state_dict()[key][rows:] if rows else other.state_dict()[key],
            values[rows:] if rows else values,
        )
