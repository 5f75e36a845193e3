"""The architecture is read from names and shapes."""

from dataclasses import replace

import pytest
import torch
from frameworks import Plan, detectron2_shapes, hollow, mmdetection_shapes

from maskrcnn.config import BackboneConfig, BoxHeadConfig, FPNConfig, MaskHeadConfig, ModelConfig, RPNConfig
from maskrcnn.errors import UserError
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.presets import ARCHITECTURES, ONE_LEVEL_ANCHORS
from maskrcnn.weights.architecture import infer, name_of, parameter_shapes
from maskrcnn.weights.rewrite import rewrite
from maskrcnn.weights.sources import detectron2, mmdetection

GN = {"norm": "gn", "head_norm": "gn", "box_convs": 4, "fcs": 1}
BN = {"norm": "bn", "head_norm": "bn", "box_convs": 4, "fcs": 1, "rpn_convs": 2}

EXPECTED = {
    "R50-FPN": (Plan(), ModelConfig()),
    "R18-FPN": (Plan(depth=18), ModelConfig(backbone=BackboneConfig(depth=18))),
    "R34-FPN": (Plan(depth=34), ModelConfig(backbone=BackboneConfig(depth=34))),
    "R101-FPN": (Plan(depth=101), ModelConfig(backbone=BackboneConfig(depth=101))),
    "R152-FPN": (Plan(depth=152), ModelConfig(backbone=BackboneConfig(depth=152))),
    "X101-32x8d-FPN": (
        Plan(depth=101, groups=32, group_width=8),
        ModelConfig(backbone=BackboneConfig(depth=101, groups=32, group_width=8)),
    ),
    "X101-64x4d-FPN": (
        Plan(depth=101, groups=64, group_width=4),
        ModelConfig(backbone=BackboneConfig(depth=101, groups=64, group_width=4)),
    ),
    "R50-FPN 4conv1fc gn": (
        Plan(**GN),
        ModelConfig(
            backbone=BackboneConfig(norm="gn"),
            fpn=FPNConfig(norm="gn"),
            box_head=BoxHeadConfig(convs=4, fcs=1, norm="gn"),
            mask_head=MaskHeadConfig(norm="gn"),
        ),
    ),
    "R101-FPN 4conv1fc bn": (
        Plan(depth=101, **BN),
        ModelConfig(
            backbone=BackboneConfig(depth=101, norm="bn"),
            fpn=FPNConfig(norm="bn"),
            rpn=RPNConfig(convs=2),
            box_head=BoxHeadConfig(convs=4, fcs=1, norm="bn"),
            mask_head=MaskHeadConfig(norm="bn"),
        ),
    ),
    "R50-FPN class-agnostic": (
        Plan(agnostic=True),
        ModelConfig(
            box_head=BoxHeadConfig(class_agnostic=True), mask_head=MaskHeadConfig(class_agnostic=True)
        ),
    ),
    "R101-C4": (
        Plan(depth=101, neck="c4"),
        ModelConfig(
            neck="c4",
            backbone=BackboneConfig(depth=101),
            anchors=ONE_LEVEL_ANCHORS,
            box_head=BoxHeadConfig(kind="res5", pool_side=14),
            mask_head=MaskHeadConfig(convs=0),
        ),
    ),
    "R50-DC5": (Plan(neck="dc5"), ModelConfig(neck="dc5", anchors=ONE_LEVEL_ANCHORS)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_detectron2_names_and_shapes_tell_the_architecture(name: str) -> None:
    plan, expected = EXPECTED[name]
    found = rewrite(hollow(detectron2_shapes(plan)), detectron2.TABLE, "x.pkl").tensors
    shapes = {ours: array.shape for ours, array in found.items()}
    assert infer(shapes, "x.pkl") == expected
    assert parameter_shapes(expected) == shapes
    assert name_of(expected) == name


@pytest.mark.parametrize("name", [name for name in EXPECTED if "DC5" not in name])
def test_mmdetection_names_and_shapes_tell_the_architecture(name: str) -> None:
    plan, expected = EXPECTED[name]
    # mmdetection freezes by evaluation mode, so its trunks always have counters
    frozen = plan.norm == "frozen_bn"
    plan = Plan(**{**vars(plan), "norm": "bn" if frozen else plan.norm})
    found = rewrite(hollow(mmdetection_shapes(plan)), mmdetection.TABLE, "x.pth").tensors
    shapes = {ours: array.shape for ours, array in found.items()}
    config = infer(shapes, "x.pth")
    assert config.backbone.norm == plan.norm
    assert name_of(config).replace(" bn", "") == name.replace(" bn", "")
    assert parameter_shapes(config) == shapes


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameter_shapes_are_those_of_the_network(name: str) -> None:
    with torch.device("meta"):
        state = MaskRCNN(ARCHITECTURES[name]).state_dict()
    assert parameter_shapes(ARCHITECTURES[name]) == {key: tuple(value.shape) for key, value in state.items()}


def test_every_named_architecture_is_inferred_from_its_own_parameters() -> None:
    for name, config in ARCHITECTURES.items():
        found = infer(parameter_shapes(config), name)
        # thresholds, places of strides and anchors that came as numbers are no matter of shapes
        assert (found.backbone, found.fpn, found.box_head, found.mask_head) == (
            replace(config.backbone, stride_in_1x1=False),
            replace(config.fpn, deformable="faded" if config.fpn.deformable != "none" else "none"),
            replace(config.box_head, fc1_relu=True),
            config.mask_head,
        )
        assert (found.neck, found.roi_levels, found.anchors.sizes, found.rpn.convs) == (
            config.neck,
            config.roi_levels,
            config.anchors.sizes,
            config.rpn.convs,
        )


def test_one_class_makes_four_box_rows_class_specific() -> None:
    found = infer(parameter_shapes(ModelConfig(classes=1)), "x")
    assert not found.box_head.class_agnostic
    assert not found.mask_head.class_agnostic


def test_a_trunk_with_a_block_too_few_is_named_by_its_blocks() -> None:
    shapes = parameter_shapes(ModelConfig())
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("backbone.res4.5.")}
    with pytest.raises(UserError, match=r"x.pth: its trunk has 3, 4, 5, 3 bottleneck blocks"):
        infer(shapes, "x.pth")
