"""The host's proposals: hand-made numbers, and agreement with the network's RPN in every convention."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskrcnn import presets
from maskrcnn.config import AnchorConfig, BackboneConfig, Conventions, FPNConfig, ModelConfig, RPNConfig
from maskrcnn.host.proposals import Proposer, sigmoid
from maskrcnn.model.mask_rcnn import MaskRCNN

CONVENTIONS = {
    name: getattr(presets, name)
    for name in (
        *("TORCHVISION", "DETECTRON2", "MMDETECTION", "MASKRCNN_BENCHMARK", "CAFFE2", "CAFFE2_C4"),
        *("TENSORRTX", "MINDSPORE", "MINDSPORE_ZOO"),
    )
}
SIZE, PADDED = np.array([90, 150]), (96, 160)


def small(conventions: Conventions, neck: str = "fpn") -> ModelConfig:
    """3 levels would do, but an FPN has 5."""
    one = AnchorConfig(sizes=((32.0, 64.0, 128.0),))
    return ModelConfig(
        neck=neck,  # type: ignore[arg-type]
        backbone=BackboneConfig(18, width=8),
        fpn=FPNConfig(16),
        anchors=AnchorConfig() if neck == "fpn" else one,
        rpn=RPNConfig(pre_nms=200, post_nms=150),
        conventions=conventions,
    )


def maps(config: ModelConfig) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random logits (A, h, w) and deltas (4 A, h, w) for an input of PADDED pixels."""
    rng = np.random.default_rng(3)
    strides = (4, 8, 16, 32, 64) if config.neck == "fpn" else (16,)
    cells = [(-(-PADDED[0] // stride), -(-PADDED[1] // stride)) for stride in strides]
    per_cell = len(config.anchors.sizes[0]) * 3
    logits = [rng.normal(0, 2, (per_cell, *cell)).astype(np.float32) for cell in cells]
    return logits, [rng.normal(0, 0.5, (4 * per_cell, *cell)).astype(np.float32) for cell in cells]


def of_the_network(config: ModelConfig, logits: list[np.ndarray], deltas: list[np.ndarray]) -> np.ndarray:
    """The real proposals of model/, whose RPN gets these maps in place of its own."""
    model = MaskRCNN(config)
    flat = [torch.from_numpy(each).permute(1, 2, 0).reshape(1, -1) for each in logits]
    moves = [
        torch.from_numpy(each).unflatten(0, (-1, 4)).permute(2, 3, 0, 1).reshape(1, -1, 4) for each in deltas
    ]
    model.rpn.predict = lambda levels: (flat, moves)  # type: ignore[method-assign]
    levels = [torch.from_numpy(each)[None] for each in logits]
    boxes, real = model.propose(levels, torch.from_numpy(SIZE)[None], PADDED)
    return boxes[0, real[0]].numpy()


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_proposals_are_those_of_the_network(name: str, neck: str):
    config = small(CONVENTIONS[name], neck)
    logits, deltas = maps(config)
    mine = Proposer(config)(logits, deltas, SIZE, PADDED)
    theirs = of_the_network(config, logits, deltas)
    assert len(mine) > 50
    assert mine.dtype == np.float32
    # exp() of numpy and torch may differ in the last bit.
    np.testing.assert_allclose(mine, theirs, atol=1e-3)


def test_a_view_of_channels_last_memory_gives_the_same():
    config = small(Conventions())
    logits, deltas = maps(config)
    views = [
        [np.ascontiguousarray(each.transpose(1, 2, 0)).transpose(2, 0, 1) for each in some]
        for some in (logits, deltas)
    ]
    propose = Proposer(config)
    np.testing.assert_array_equal(propose(*views, SIZE, PADDED), propose(logits, deltas, SIZE, PADDED))


def test_the_best_anchor_is_found_at_its_place():
    config = small(Conventions())
    config = replace(config, rpn=RPNConfig(pre_nms=1, post_nms=1))
    logits, deltas = maps(config)
    deltas = [np.zeros_like(each) for each in deltas]
    logits[2][1, 3, 4] = 99
    # Level P4: stride 16, cell y 3, x 4; anchor 1 is the square of side 128 around (64, 48).
    assert Proposer(config)(logits, deltas, np.array([400, 400]), PADDED).tolist() == [[0, 0, 128, 112]]


def test_of_equal_scores_the_first_cell_and_then_the_first_anchor_comes_first():
    config = small(replace(Conventions(), rpn_scores="sigmoid"), "c4")
    config = replace(config, rpn=RPNConfig(pre_nms=4, post_nms=4, nms_iou=1.0))
    logits, deltas = maps(config)
    logits[0][:], deltas[0][:] = 50, 0  # as a sigmoid, 1
    logits[0][0, 0, 0] = 60
    boxes = Proposer(config)(logits, deltas, np.array([9999, 9999]), PADDED)
    anchors = Proposer(config).cells[0][:4].clip(0)
    np.testing.assert_array_equal(boxes, anchors)


def test_a_sigmoid_does_not_overflow():
    assert sigmoid(np.float32([-1e4, 0, 1e4])).tolist() == pytest.approx([0, 0.5, 1], abs=1e-30)
