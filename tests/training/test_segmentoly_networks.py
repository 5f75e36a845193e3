"""Networks that segmentoly's trainings begin with: its anchors, its input and its numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn import presets
from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.spec import Spec
from maskrcnn.training.initial import load_weights, starting
from maskrcnn.training.named import PRESETS
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.sources.segmentoly import SOURCE


def sides(model: ModelConfig, level: int) -> list[list[float]]:
    """Width, height and middle of each anchor of a level."""
    cell = np.array(model.anchors.cells[level])
    return np.column_stack(
        [cell[:, 2] - cell[:, 0], cell[:, 3] - cell[:, 1], (cell[:, :2] + cell[:, 2:]) / 2]
    ).tolist()


def test_the_light_preset_has_0050_s_fifteen_anchors() -> None:
    spec, weights = starting(PRESETS["segmentoly-0050"].model)
    assert weights == {}
    assert sides(spec.model, 0)[0] == pytest.approx([19.00461443977467, 23.358642713410788, 2, 2])
    assert sides(spec.model, 4)[2] == pytest.approx([451.9415967854453, 446.5373059473707, 32, 32])
    assert [len(level) for level in spec.model.anchors.cells] == [3] * 5
    assert spec.model.anchors == presets.ARCHITECTURES["r50-fpn-light"].anchors
    assert (spec.model.rpn.post_nms, spec.model.mask_head.pool_side, spec.model.box_head.batch) == (
        100,
        7,
        256,
    )
    assert spec.preprocess == presets.SEGMENTOLY_LIGHT_INPUT


def test_the_preset_s_network_is_its_r50_fpn() -> None:
    spec, _ = starting(PRESETS["segmentoly"].model)
    assert sides(spec.model, 0) == [[49, 25, 2, 2], [33, 33, 2, 2], [25, 49, 2, 2]]
    # Detectron has 176 there.
    assert sides(spec.model, 2)[2] == [89, 147, 8, 8]
    assert spec.model.mean == (102.9801, 115.9465, 122.7717) and spec.model.std == (1, 1, 1)
    assert spec.model.conventions == presets.SEGMENTOLY and spec.model.backbone.stride_in_1x1
    assert spec.preprocess == presets.SEGMENTOLY_INPUT and spec.preprocess.channels == "bgr"


def test_every_architecture_has_a_network_of_it_and_no_other_name() -> None:
    c4, _ = starting("scratch:segmentoly/r50-c4")
    assert sides(c4.model, 0)[0] == [46, 24, 8, 8] and c4.model.conventions == presets.SEGMENTOLY_C4
    groups, _ = starting("scratch:segmentoly/x101-64x4d-fpn")
    assert not groups.model.backbone.stride_in_1x1
    with pytest.raises(UserError, match="scratch:segmentoly/r51: is no architecture"):
        starting("scratch:segmentoly/r51")


def test_the_light_head_for_masks_has_anchors_of_two_fifths() -> None:
    model = ModelConfig()
    light = ModelConfig(mask_head=presets.ARCHITECTURES["r50-fpn-light"].mask_head)
    found = [
        SOURCE.describe(each, Checkpoint(Path("x"), "", "", {}, {}), None, None).spec.model
        for each in (model, light)
    ]
    assert sides(found[0], 1)[0] == [89, 49, 4, 4]
    assert sides(found[1], 1)[0] == pytest.approx([35.6, 19.6, 4, 4])


def test_norms_of_a_file_can_be_constants_of_the_network(spec: Spec) -> None:
    """Their counters, which constants do not have, are left out."""
    learning = MaskRCNN(spec.model)
    state = {name: each.numpy() for name, each in learning.state_dict().items()}
    constant = MaskRCNN(replace(spec.model, backbone=replace(spec.model.backbone, norm="frozen_bn")))
    assert load_weights(constant, state, Path("x")) == []
    name = "backbone.res3.0.conv1.norm.running_var"
    assert torch.equal(constant.state_dict()[name], learning.state_dict()[name])
    with pytest.raises(UserError, match="strange.weight does not fit"):
        load_weights(constant, state | {"strange.weight": np.zeros(1)}, Path("x"))
