"""Behind res5 the mask head learns from what the box head sees."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from maskrcnn.config import BackboneConfig
from maskrcnn.model.losses import Losses
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.model.matching import Sampled, Targets
from maskrcnn.presets import ARCHITECTURES


def tiny_c4() -> MaskRCNN:
    base = ARCHITECTURES["r50-c4"]
    config = replace(
        base,
        classes=3,
        backbone=BackboneConfig(18, width=8, group_width=8),
        rpn=replace(base.rpn, batch=32, post_nms_training=50),
        box_head=replace(base.box_head, batch=16),
        mask_head=replace(base.mask_head, channels=8),
    )
    torch.manual_seed(0)
    return MaskRCNN(config)


def learn(model: MaskRCNN) -> Losses:
    torch.manual_seed(1)
    image = torch.rand(2, 3, 64, 96) * 255
    targets = []
    for left in (8.0, 20.0):
        masks = torch.zeros(1, 64, 96, dtype=torch.uint8)
        masks[:, 10:50, int(left) : int(left) + 40] = 1
        box = torch.tensor([[left, 10.0, left + 40, 50.0]])
        targets.append(Targets(box, torch.tensor([1]), masks, torch.tensor([False])))
    drawn = [torch.Generator().manual_seed(number) for number in range(2)]
    return model.losses(image, torch.tensor([[64, 96], [64, 90]]), targets, drawn)


def test_res5_runs_once_and_the_losses_are_those_of_pooling_the_positives_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_c4()
    assert model.res5 is not None
    runs: list[int] = []
    model.res5.register_forward_hook(lambda module, given, made: runs.append(len(made)))
    once = learn(model)
    assert runs == [32]

    def pooled_again(levels: list[Tensor], features: Tensor, sampled: Sampled) -> Tensor:
        boxes = torch.cat([row[kept] for row, kept in zip(sampled.boxes, sampled.positive, strict=True)])
        owner = sampled.positive.nonzero()[:, 0]
        parts = [model.roi([levels[0][i : i + 1]], boxes[owner == i][None], 14) for i in range(2)]
        return torch.cat(parts)

    monkeypatch.setattr(model, "_positives", pooled_again)
    again = learn(model)
    assert len(runs) == 4 and runs[2] >= 1
    for name, wanted in vars(again).items():
        torch.testing.assert_close(getattr(once, name), wanted, rtol=1e-5, atol=1e-6)
