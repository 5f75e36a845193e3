"""Numeric habits of MindSpore and tensorrtx that no other source has, one by one."""

from dataclasses import replace

import pytest
import torch
from torch import tensor

from maskrcnn.config import BackboneConfig, Conventions, FPNConfig, ModelConfig, RPNConfig
from maskrcnn.model.boxes import decode
from maskrcnn.model.fpn import FPN, grown
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.model.resnet import Stem, make_stage
from maskrcnn.model.rpn import RPN

SMALL = ModelConfig(
    classes=3,
    backbone=BackboneConfig(18, width=8),
    fpn=FPNConfig(16),
    rpn=RPNConfig(pre_nms=100, post_nms=30),
)


def test_a_coarser_level_grows_from_its_corners_by_half_steps_and_repeats_its_edge():
    level = tensor([[[[0.0, 2.0], [4.0, 6.0]]]])
    grid = [[0, 1, 2, 2], [2, 3, 4, 4], [4, 5, 6, 6], [4, 5, 6, 6]]
    assert grown(level, (4, 4), "bilinear_corners")[0, 0].tolist() == grid
    assert grown(level, (3, 4), "bilinear_corners")[0, 0].tolist() == grid[:3]


def test_a_coarser_level_grows_between_its_centres_by_quarters():
    level = tensor([[[[0.0, 4.0]]]])
    assert grown(level, (2, 4), "bilinear")[0, 0].tolist() == [[0, 1, 3, 4]] * 2


def test_nearest_is_what_a_pyramid_does_unless_told():
    level = tensor([[[[0.0, 4.0]]]])
    assert grown(level, (2, 4), FPNConfig().upsample)[0, 0].tolist() == [[0, 0, 4, 4]] * 2


@pytest.mark.parametrize("upsample", ["nearest", "bilinear", "bilinear_corners"])
def test_a_pyramid_adds_the_grown_level(upsample):
    pyramid = FPN([4, 4, 4, 4], FPNConfig(2, upsample=upsample)).requires_grad_(False)
    stages = [torch.rand(1, 4, 16 // 2**n, 16 // 2**n) for n in range(4)]
    top = pyramid.lateral5(stages[3])
    expected = pyramid.output4(pyramid.lateral4(stages[2]) + grown(top, (4, 4), upsample))
    assert torch.equal(pyramid(stages)[2], expected)


@pytest.mark.parametrize(("pool", "expected"), [("same", [[4, 6], [6, 6]]), ("centred", [[2, 6], [6, 6]])])
def test_the_stems_windows_begin_at_the_edge_or_one_before_it(pool, expected):
    stem = Stem(BackboneConfig(width=1, norm="none", stem_pool=pool)).requires_grad_(False)
    # The convolution takes every second pixel of the first plane: 0, 2, 4, 6, the larger coordinate.
    stem.conv.weight.zero_()
    stem.conv.bias.zero_()
    stem.conv.weight[0, 0, 3, 3] = 1
    plane = torch.arange(8.0)[None, :].maximum(torch.arange(8.0)[:, None])
    assert stem(torch.stack([plane] * 3)[None])[0, 0].tolist() == expected


def test_deltas_are_limited_where_the_convention_says():
    box, delta = tensor([[0.0, 0.0, 2.0, 2.0]]), tensor([[0.0, 0.0, 9.0, 3.0]])
    widths = [
        float((moved[:, 2] - moved[:, 0]).log() - tensor(2.0).log())
        for moved in (decode(delta, box, (1, 1, 1, 1), limit=limit) for limit in (4.0, 80.0))
    ]
    assert widths == pytest.approx([4.0, 9.0], abs=1e-5)
    assert Conventions().delta_limit == pytest.approx(4.1351666)


def test_without_a_limit_a_huge_box_is_cut_to_the_image_and_not_to_nothing():
    moved = decode(tensor([[0.0, 0, 500, 500]]), tensor([[5.0, 5, 9, 9]]), (1, 1, 1, 1), limit=80.0)
    assert moved.isfinite().all() and (moved[:, 2:] > 1e6).all() and (moved[:, :2] < -1e6).all()


def proposals(conventions: Conventions, boxes, scores, levels):
    """What the RPN keeps of anchors that its deltas leave as they are."""
    rpn = RPN(4, 1, RPNConfig(pre_nms=4, post_nms=6), conventions)
    deltas = [torch.zeros(1, len(rows), 4) for rows in levels]
    anchors = [boxes[rows] for rows in levels]
    found, real = rpn.propose(
        [scores[None, rows] for rows in levels], deltas, anchors, tensor([[100, 100]]), 4, 6
    )
    return found[0][real[0]].tolist()


def test_nms_over_all_levels_removes_what_nms_on_each_level_left():
    boxes = tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 40, 40]])
    scores, levels = tensor([2.0, 1.0, 0.0]), [[0], [1, 2]]
    assert proposals(Conventions(), boxes, scores, levels) == boxes.tolist()
    assert proposals(Conventions(rpn_nms_again=True), boxes, scores, levels) == boxes[[0, 2]].tolist()


def test_plus_one_in_deltas_alone_leaves_overlaps_as_they_are():
    boxes = tensor([[0.0, 0, 9, 9], [0, 0, 9, 6]])  # 54 of 81 is .667; with the pixel 70 of 100 is .7
    scores, levels = tensor([2.0, 1.0]), [[0, 1]]
    both = Conventions(plus_one=True, nms_inclusive=True)
    assert len(proposals(both, boxes, scores, levels)) == 1
    assert len(proposals(replace(both, plus_one_overlaps=False), boxes, scores, levels)) == 2


def test_black_padding_is_the_normalised_black_pixel_and_else_zero():
    image, size = torch.full((1, 3, 32, 32), 200.0), tensor([[32, 16]])
    for padding, expected in (("black", -2.0), ("mean", 0.0)):
        config = replace(SMALL, mean=(20.0,) * 3, std=(10.0,) * 3, conventions=Conventions(padding=padding))
        normalised = MaskRCNN(config).normalised(image, size)
        assert normalised[0, 0, 0, 15:17].tolist() == [18.0, expected]


@pytest.mark.parametrize(("clip", "right"), [("image", 48.0), ("padded", 64.0), ("last_pixel", 63.0)])
def test_proposals_are_clipped_to_the_image_the_input_or_its_last_pixel(clip, right):
    torch.manual_seed(0)
    config = replace(SMALL, conventions=Conventions(rpn_clip=clip))
    network = MaskRCNN(config).eval().requires_grad_(False)
    image, size = torch.rand(1, 3, 64, 64) * 255, tensor([[64, 48]])
    found, real = network.propose(network.features(image, size), size, (64, 64))
    assert float(found[0][real[0]][:, 2].max()) == right


def test_res5_on_rois_is_three_bottlenecks_at_every_depth():
    stage = make_stage(BackboneConfig(18), 5, on_rois=True)
    assert [tuple(block.conv3.weight.shape) for block in stage] == [(512, 512, 1, 1)] * 3
    assert tuple(stage[0].conv1.weight.shape) == (512, 256, 1, 1)


# Exporters warn of their own workings, a different thing in each version of torch.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("upsample", ["bilinear", "bilinear_corners"])
def test_a_network_of_mindspores_habits_exports_and_computes_the_same(upsample):
    habits = Conventions(
        rpn_clip="last_pixel",
        rpn_nms_again=True,
        padding="black",
        plus_one=True,
        plus_one_overlaps=False,
        delta_limit=4.0,
    )
    config = replace(
        SMALL,
        backbone=replace(SMALL.backbone, stem_pool="same"),
        fpn=FPNConfig(16, upsample=upsample),
        conventions=habits,
    )
    torch.manual_seed(0)
    network = MaskRCNN(config).eval().requires_grad_(False)
    sides = {2: torch.export.Dim("h", min=3, max=40) * 32, 3: torch.export.Dim("w", min=3, max=40) * 32}
    count = torch.export.Dim("b", max=8)
    image, size = torch.rand(2, 3, 128, 160) * 255, tensor([[128, 160], [100, 130]])
    program = torch.export.export(
        network, (image, size), dynamic_shapes=({0: count, **sides}, {0: count})
    ).module()
    other, size = torch.rand(1, 3, 224, 96) * 255, tensor([[220, 90]])
    for mine, exported in zip(network(other, size), program(other, size), strict=True):
        assert torch.equal(mine, exported)
