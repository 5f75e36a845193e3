"""The whole network: every neck exports, batches of mixed sizes, and its fast form."""

import pytest
import torch
from torch import Tensor, tensor

from maskrcnn.config import (
    AnchorConfig,
    BackboneConfig,
    BoxHeadConfig,
    FPNConfig,
    MaskHeadConfig,
    ModelConfig,
    RPNConfig,
    SoftNMSConfig,
)
from maskrcnn.model.mask_rcnn import MaskRCNN, for_inference

ONE_LEVEL = AnchorConfig(sizes=((32.0, 64.0, 128.0, 256.0, 512.0),))
SMALL = {
    "fpn": ModelConfig(
        classes=5,
        backbone=BackboneConfig(18, width=16),
        fpn=FPNConfig(64, norm="gn"),
        rpn=RPNConfig(convs=2, pre_nms=200, post_nms=50),
        box_head=BoxHeadConfig(convs=1, channels=32, norm="bn", fcs=1, fc_channels=64, detections=20),
        mask_head=MaskHeadConfig(convs=2, channels=32, class_agnostic=True),
    ),
    "c4": ModelConfig(
        classes=5,
        neck="c4",
        backbone=BackboneConfig(50, width=16, group_width=16, stride_in_1x1=True),
        anchors=ONE_LEVEL,
        rpn=RPNConfig(pre_nms=200, post_nms=50),
        box_head=BoxHeadConfig(kind="res5", pool_side=14, detections=20),
        mask_head=MaskHeadConfig(convs=0, channels=32),
    ),
    "dc5": ModelConfig(
        classes=5,
        neck="dc5",
        backbone=BackboneConfig(50, groups=4, group_width=4, width=16),
        anchors=ONE_LEVEL,
        rpn=RPNConfig(pre_nms=200, post_nms=50),
        box_head=BoxHeadConfig(fc_channels=64, detections=20, soft_nms=SoftNMSConfig("linear")),
        mask_head=MaskHeadConfig(convs=2, channels=32),
    ),
}


def make(neck: str) -> MaskRCNN:
    torch.manual_seed(0)
    return MaskRCNN(SMALL[neck]).eval().requires_grad_(False)


def inputs(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    image = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(2)) * 255
    return image, tensor([[height, width], [height - 7, width - 30]])[:count]


# Exporters warn of their own workings, a different thing in each version of torch.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("neck", SMALL)
def test_every_neck_exports_with_dynamic_batch_and_size_and_computes_the_same(neck: str):
    model = make(neck)
    sides = {2: torch.export.Dim("h", min=3, max=40) * 32, 3: torch.export.Dim("w", min=3, max=40) * 32}
    count = torch.export.Dim("b", max=8)
    program = torch.export.export(
        model, inputs(2, 128, 160), dynamic_shapes=({0: count, **sides}, {0: count})
    )
    for shape in [(1, 224, 96), (2, 128, 192)]:
        for mine, exported in zip(model(*inputs(*shape)), program.module()(*inputs(*shape)), strict=True):
            assert torch.equal(mine, exported)


@pytest.mark.parametrize("neck", SMALL)
def test_rows_are_fixed_and_empty_rows_score_zero(neck: str):
    raw = make(neck)(*inputs(2, 96, 128))
    side = 14 if neck == "c4" else 28
    assert raw.boxes.shape == (2, 20, 4)
    assert raw.masks.shape == (2, 20, side, side)
    assert ((raw.labels >= 0) & (raw.labels < 5)).all()
    assert (raw.scores.diff(dim=1) <= 0).all()


def test_padding_cannot_leak_into_an_image_through_the_input():
    model, (image, size) = make("fpn"), inputs(2, 96, 128)
    other = image.clone()
    other[1, :, :, 98:] = 255.0  # beyond the width of the second image
    for a, b in zip(model(image, size), model(other, size), strict=True):
        assert torch.equal(a, b)


def test_boxes_stay_inside_the_unpadded_image():
    raw = make("fpn")(*inputs(2, 96, 128))
    assert raw.boxes[1].amax(0).tolist() <= [98, 89, 98, 89]
    assert raw.boxes.min() >= 0


@pytest.mark.parametrize("neck", SMALL)
def test_the_fast_form_computes_the_same(neck: str):
    plain, fast = make(neck), for_inference(make(neck)).to(memory_format=torch.channels_last)
    a, b = plain(*inputs(2, 96, 128)), fast(*inputs(2, 96, 128))
    assert not any("norm.running_var" in name for name in fast.state_dict())
    torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.boxes, b.boxes, atol=1e-2, rtol=0)
    torch.testing.assert_close(a.masks, b.masks, atol=1e-4, rtol=0)


def test_only_a_group_norm_is_left_by_the_fast_form():
    names = {
        name.rpartition(".")[0] for name, _ in for_inference(make("fpn")).named_parameters() if "norm" in name
    }
    assert names == {f"fpn.{part}{level}.norm" for part in ("lateral", "output") for level in (2, 3, 4, 5)}


@pytest.mark.gpu
def test_cuda_finds_what_the_cpu_finds():
    image, size = inputs(2, 96, 128)
    expected = make("fpn")(image, size)
    raw = make("fpn").cuda()(image.cuda(), size.cuda())
    # TF32 is off by default for matrix products; convolutions differ in the last bits.
    torch.testing.assert_close(raw.scores.cpu(), expected.scores, atol=1e-3, rtol=0)
