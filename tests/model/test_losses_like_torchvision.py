"""The five losses and their gradients equal torchvision's on the same weights, images and samples."""

import itertools

import pytest
import torch
from torch import Tensor, nn, tensor
from torchvision.models.detection import MaskRCNN as Theirs
from torchvision.models.detection import _utils, roi_heads, rpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from maskrcnn.config import BackboneConfig, BoxHeadConfig, Conventions, ModelConfig, RPNConfig
from maskrcnn.model import matching
from maskrcnn.model.losses import Losses
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.model.matching import Targets

Both = tuple[nn.Module, MaskRCNN, dict[str, Tensor], Losses]

CLASSES = 5
SIZE = (128, 160)


class FirstSamples:
    """torchvision's sampler without chance: the first candidates, as many of each kind as it would take."""

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        self.batch, self.fraction = batch_size_per_image, positive_fraction

    def __call__(self, matched: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        positives, negatives = [], []
        for row in matched:
            positive = torch.where(row >= 1)[0][: int(self.batch * self.fraction)]
            negative = torch.where(row == 0)[0][: self.batch - len(positive)]
            positives.append(torch.zeros(len(row), dtype=torch.uint8).index_fill(0, positive, 1))
            negatives.append(torch.zeros(len(row), dtype=torch.uint8).index_fill(0, negative, 1))
        return positives, negatives


def make_theirs() -> nn.Module:
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    model = Theirs(backbone, num_classes=CLASSES + 1, min_size=SIZE[0], max_size=SIZE[1])
    model.rpn._pre_nms_top_n = model.rpn._post_nms_top_n = {"training": 200, "testing": 200}
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            spread = 0.05 if "predictor" in name or "rpn" in name else (2 / parameter[0].numel()) ** 0.5
            parameter.data.normal_(0, spread, generator=generator)
    return model


def make_ours(theirs: nn.Module) -> MaskRCNN:
    habits = Conventions(
        anchor_cell="rounded",
        anchor_order="ratio_first",
        anchor_stride="from_size",
        rpn_min_size=1e-3,
        level_eps_inside=0.0,
        level_eps_outside=1e-6,
        roi_aligned=False,
        roi_samples=2,
    )
    config = ModelConfig(
        classes=CLASSES,
        backbone=BackboneConfig(depth=18, norm="frozen_bn"),
        rpn=RPNConfig(pre_nms_training=200, post_nms_training=200, smooth_l1_beta=1 / 9),
        box_head=BoxHeadConfig(smooth_l1_beta=1 / 9),
        conventions=habits,
    )
    ours = MaskRCNN(config)
    state = dict(itertools.starmap(renamed, theirs.state_dict().items()))
    ours.load_state_dict(state)
    return ours


def renamed(name: str, values: Tensor) -> tuple[str, Tensor]:
    """torchvision's name and rows as ours, for this one architecture."""
    for stage in (1, 2, 3, 4):
        name = name.replace(f"backbone.body.layer{stage}.", f"backbone.res{stage + 1}.")
        name = name.replace(f"backbone.fpn.inner_blocks.{stage - 1}.0", f"fpn.lateral{stage + 1}")
        name = name.replace(f"backbone.fpn.layer_blocks.{stage - 1}.0", f"fpn.output{stage + 1}")
        name = name.replace(f"roi_heads.mask_head.{stage - 1}.0", f"mask_head.conv{stage}")
    pairs = {
        "backbone.body.conv1.": "backbone.stem.conv.",
        "backbone.body.bn1.": "backbone.stem.conv.norm.",
        "downsample.0.": "shortcut.",
        "downsample.1.": "shortcut.norm.",
        ".bn1.": ".conv1.norm.",
        ".bn2.": ".conv2.norm.",
        "rpn.head.conv.0.0.": "rpn.conv1.",
        "rpn.head.cls_logits": "rpn.objectness",
        "rpn.head.bbox_pred": "rpn.deltas",
        "roi_heads.box_head.fc6": "box_head.fc1",
        "roi_heads.box_head.fc7": "box_head.fc2",
        "roi_heads.box_predictor.cls_score": "box_head.scores",
        "roi_heads.box_predictor.bbox_pred": "box_head.deltas",
        "roi_heads.mask_predictor.conv5_mask": "mask_head.upsample",
        "roi_heads.mask_predictor.mask_fcn_logits": "mask_head.logits",
    }
    for theirs, ours in pairs.items():
        name = name.replace(theirs, ours)
    if name.startswith("box_head.scores"):
        values = torch.cat([values[1:], values[:1]])
    if name.startswith("box_head.deltas"):
        values = values[4:]
    if name.startswith("mask_head.logits"):
        values = values[1:]
    return name, values


def scene() -> tuple[Tensor, list[Targets]]:
    generator = torch.Generator().manual_seed(2)
    image = torch.rand((2, 3, *SIZE), generator=generator)
    boxes = [
        tensor([[10.0, 12, 60, 100], [70, 20, 150, 120], [65, 60, 100, 90]]),
        tensor([[30.0, 30, 140, 110]]),
    ]
    targets = []
    for of_image in boxes:
        masks = torch.zeros((len(of_image), *SIZE), dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, of_image.int().tolist(), strict=True):
            mask[y1 : (y1 + y2) // 2, x1:x2] = 1
            mask[y1:y2, x1 : (x1 + x2) // 2] = 1
        labels = torch.arange(len(of_image)) % CLASSES
        targets.append(Targets(of_image, labels, masks, torch.zeros(len(of_image), dtype=torch.bool)))
    return image, targets


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Both:
    """Their network, ours with its weights, and the losses of both on the same scene and samples."""
    monkeypatch.setattr(_utils, "BalancedPositiveNegativeSampler", FirstSamples)
    monkeypatch.setattr(matching, "_some", lambda indices, count, generator: indices[:count])
    assert rpn.det_utils is _utils and roi_heads.det_utils is _utils
    theirs = make_theirs().train()
    ours = make_ours(theirs).train()
    image, targets = scene()
    expected = theirs(
        list(image), [{"boxes": t.boxes, "labels": t.labels + 1, "masks": t.masks} for t in targets]
    )
    return theirs, ours, expected, ours.losses(image * 255, tensor([SIZE, SIZE]), targets)


def test_the_five_losses_equal_torchvisions(both: Both) -> None:
    _, _, expected, found = both
    pairs = {
        "loss_objectness": found.rpn_objectness,
        "loss_rpn_box_reg": found.rpn_deltas,
        "loss_classifier": found.box_classes,
        "loss_box_reg": found.box_deltas,
        "loss_mask": found.mask,
    }
    for name, value in pairs.items():
        torch.testing.assert_close(
            value, expected[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert expected["loss_mask"] > 0 and expected["loss_rpn_box_reg"] > 0


def test_the_gradients_of_all_parameters_equal_torchvisions(both: Both) -> None:
    theirs, ours, expected, found = both
    sum(expected.values(), tensor(0.0)).backward()
    found.total.backward()
    own = {name: parameter.grad for name, parameter in ours.named_parameters() if parameter.grad is not None}
    for name, parameter in theirs.named_parameters():
        if parameter.grad is None:
            continue
        mine, wanted = renamed(name, parameter.grad)
        # by the largest of the tensor: single numbers near zero are rounding
        difference = (own.pop(mine) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)
        assert difference < 1e-3, f"{mine}: {difference:.1e}"
    assert own == {}
