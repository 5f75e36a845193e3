"""A PANet: RoIs of all levels at once, the largest of first layers, masks with a foreground of their own."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
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
from maskrcnn.model.box_head import BoxHead
from maskrcnn.model.fpn import FPN
from maskrcnn.model.layers import LargestOfLevels
from maskrcnn.model.mask_head import MaskHead
from maskrcnn.model.mask_rcnn import MaskRCNN, for_inference
from maskrcnn.spec import Spec, spec_from_json

PANET = ModelConfig(
    classes=3,
    backbone=BackboneConfig(18, width=8),
    fpn=FPNConfig(32, bottom_up="gn", deformable="held"),
    roi_levels="all",
    anchors=AnchorConfig(sizes=((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))),
    rpn=RPNConfig(pre_nms=60, post_nms=30),
    box_head=BoxHeadConfig(fc_channels=32, fc1_relu=False, detections=12, score_over=0.0),
    mask_head=MaskHeadConfig(convs=3, channels=64, norm="gn", fully_connected=True),
)


@pytest.fixture(scope="module")
def model() -> MaskRCNN:
    torch.manual_seed(0)
    model = MaskRCNN(PANET).eval().requires_grad_(False)
    for name, values in model.named_parameters():
        if name.endswith("offset.weight"):
            nn.init.normal_(values, std=0.1)
        elif name.endswith("norm.weight"):
            nn.init.uniform_(values, 0.5, 1.5)
    return model


def test_of_what_the_layers_of_the_levels_return_the_largest_counts() -> None:
    layers = LargestOfLevels([nn.Conv2d(1, 1, 1) for _ in range(3)])
    for layer, weight in zip(layers.children(), (1.0, -2.0, 0.5), strict=True):
        nn.init.constant_(layer.weight, weight)  # type: ignore[arg-type]
        nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
    x = torch.tensor([[3.0, 1.0, 4.0], [1.0, -3.0, 4.0]])[:, :, None, None]
    assert layers(x).flatten().tolist() == [3.0, 6.0]  # of 3, -2, 2 and 1, 6, 2
    assert [name for name, _ in layers.named_children()] == ["level2", "level3", "level4"]


def test_a_roi_is_pooled_from_every_level_whatever_its_size(model: MaskRCNN) -> None:
    torch.manual_seed(1)
    levels = [torch.randn(2, 32, 64 // stride, 96 // stride) for stride in (4, 8, 16, 32, 64)]
    boxes = torch.tensor([[[4.0, 4, 12, 20], [0, 0, 90, 60]], [[30.0, 8, 60, 40], [5, 5, 9, 9]]])
    found = model.roi(levels, boxes, 7)
    assert found.shape == (4, 4 * 32, 7, 7)
    wanted = [
        torchvision.ops.roi_align(level, list(boxes), 7, 1 / stride, aligned=True)
        for level, stride in zip(levels, (4, 8, 16, 32), strict=False)
    ]
    torch.testing.assert_close(found, torch.cat(wanted, 1), atol=1e-5, rtol=0)


def test_the_box_head_takes_the_largest_before_its_second_layer() -> None:
    torch.manual_seed(0)
    for relu in (True, False):
        head = BoxHead(8, 3, BoxHeadConfig(fc_channels=16, fc1_relu=relu), Conventions(), levels=4)
        x = torch.randn(5, 32, 7, 7)
        with torch.no_grad():
            logits, deltas = head.predict(x)
            layers = [getattr(head.fc1, f"level{number}") for number in (2, 3, 4, 5)]
            each = [
                F.linear(part.flatten(1), layer.weight, layer.bias)
                for part, layer in zip(x.split(8, 1), layers, strict=True)
            ]
            largest = torch.stack(each).amax(0)
            assert (largest < 0).any()
            hidden = head.fc2(largest.relu() if relu else largest).relu()
            torch.testing.assert_close(logits, head.scores(hidden))
            torch.testing.assert_close(deltas.flatten(1), head.deltas(hidden))


def test_the_foreground_is_added_to_the_masks_of_every_class() -> None:
    torch.manual_seed(0)
    config = MaskHeadConfig(convs=3, channels=64, norm="gn", pool_side=4, fully_connected=True)
    head = MaskHead(8, 3, config, levels=4)
    x, labels = torch.randn(5, 32, 4, 4), torch.tensor([0, 2, 1, 1, 0])

    def step(layer: nn.Module, y: torch.Tensor) -> torch.Tensor:
        norm = layer.norm
        y = F.conv2d(y, layer.weight, padding=1)  # type: ignore[arg-type]
        return F.group_norm(y, 32, norm.weight, norm.bias).relu()  # type: ignore[union-attr, arg-type]

    with torch.no_grad():
        first = [getattr(head.conv1, f"level{number}") for number in (2, 3, 4, 5)]
        y = torch.stack([step(layer, part) for layer, part in zip(first, x.split(8, 1), strict=True)]).amax(0)
        y = step(head.conv2, y)  # type: ignore[arg-type]
        foreground = head.foreground(step(head.fc_conv2, step(head.fc_conv1, y)).flatten(1)).relu()
        masks = head.logits(head.upsample(step(head.conv3, y)).relu())  # type: ignore[arg-type]
        wanted = masks + foreground.reshape(5, 1, 8, 8)
        assert (foreground > 0).any()
        torch.testing.assert_close(head.every(x), wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(head(x, labels), wanted[torch.arange(5), labels], atol=1e-5, rtol=1e-5)


def test_a_deformable_path_begins_as_the_plain_one() -> None:
    torch.manual_seed(0)
    stages = [torch.randn(1, 8 * 2**n, 32 // 2**n, 32 // 2**n) for n in range(4)]
    moving, plain = (
        FPN([8, 16, 32, 64], FPNConfig(32, bottom_up="gn", deformable=kind)).eval()  # type: ignore[arg-type]
        for kind in ("held", "none")
    )
    state = {name: values for name, values in moving.state_dict().items() if "offset" not in name}
    assert len(moving.state_dict()) - len(state) == 6
    plain.load_state_dict(state)
    with torch.no_grad():
        for mine, other in zip(moving(stages), plain(stages), strict=True):
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=0)


def test_the_fastest_form_finds_the_same(model: MaskRCNN) -> None:
    image, size = torch.rand(2, 3, 96, 128) * 255, torch.tensor([[96, 128], [90, 100]])
    before = model(image, size)
    fast = MaskRCNN(PANET)
    fast.load_state_dict(model.state_dict())
    found = for_inference(fast)(image, size)
    assert not any(isinstance(layer, nn.Linear) for layer in fast.box_head.fc1.modules())  # type: ignore[union-attr]
    for mine, other in zip(found, before, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FPNConfig(deformable="held"), "deformable convolutions are those of a bottom_up path"),
        (lambda: MaskHeadConfig(convs=1, fully_connected=True), "needs at least two convs"),
        (lambda: ModelConfig(neck="dc5", roi_levels="all"), "roi_levels all needs a pyramid"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(make: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()  # type: ignore[operator]


def test_descriptions_from_before_there_were_panets_are_read() -> None:
    """Nothing of a PANet in them: that of another network."""
    text = Spec().to_json()
    for part in (
        '"roi_levels":"one",',
        ',"deformable":"none"',
        '"fc1_relu":true,',
        '"fully_connected":false,',
    ):
        assert part in text
        text = text.replace(part, "")
    assert spec_from_json(text, "x") == Spec()
