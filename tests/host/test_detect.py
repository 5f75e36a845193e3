"""The host's detections: hand-made numbers, and agreement with the network's box head."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskrcnn import presets
from maskrcnn.config import BoxHeadConfig, Conventions, ModelConfig, SoftNMSConfig
from maskrcnn.host.detect import detect, masks_of, softmax
from maskrcnn.model.box_head import BoxHead

CONVENTIONS = {
    name: getattr(presets, name)
    for name in ("TORCHVISION", "DETECTRON2", "MMDETECTION", "MASKRCNN_BENCHMARK", "MINDSPORE_ZOO")
}
SIZE = np.array([300, 400])
K = 6


def outputs(agnostic: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (P, K + 1), deltas (P, 4 or 4 K) and proposals (P, 4) of a crowd."""
    rng = np.random.default_rng(5)
    corners = rng.random((12, 2))[rng.integers(0, 12, 120)] * (300, 200) + rng.normal(0, 5, (120, 2))
    proposals = np.concatenate([corners, corners + 20 + rng.random((120, 2)) * 90], 1).clip(0, 400)
    proposals[0] = 0
    logits = rng.normal(0, 2, (120, K + 1))
    deltas = rng.normal(0, 1, (120, 4 if agnostic else 4 * K))
    return logits.astype(np.float32), deltas.astype(np.float32), proposals.astype(np.float32)


def of_the_network(config: ModelConfig, arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    logits, deltas, proposals = (torch.from_numpy(each) for each in arrays)
    head = BoxHead(8, K, config.box_head, config.conventions)
    real = torch.ones(1, len(proposals))
    found = head.detect(
        logits, deltas.unflatten(1, (-1, 4)), proposals[None], real, torch.from_numpy(SIZE)[None]
    )
    rows = found.scores[0] > 0
    return tuple(part[0, rows].numpy() for part in found)


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("method", ["none", "linear", "gaussian"])
@pytest.mark.parametrize("agnostic", [True, False])
def test_detections_are_those_of_the_network(name: str, method: str, agnostic: bool):
    head = BoxHeadConfig(
        class_agnostic=agnostic,
        detections=60,
        soft_nms=SoftNMSConfig(method, min_score=0.05),  # type: ignore[arg-type]
    )
    config = ModelConfig(classes=K, box_head=head, conventions=CONVENTIONS[name])
    arrays = outputs(agnostic)
    found = detect(*arrays, SIZE, config)
    boxes, scores, labels = of_the_network(config, arrays)
    assert len(found) == len(scores) == 60
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    np.testing.assert_array_equal(found.labels, labels)
    assert [part.dtype.name for part in (found.boxes, found.scores, found.labels)] == [
        *("float32", "float32", "int64")
    ]


def test_a_side_below_the_least_of_a_detection_drops_it_before_the_best_are_taken():
    config = ModelConfig(classes=1, conventions=Conventions(detection_min_size=1.0))
    config = replace(config, box_head=BoxHeadConfig(detections=1))
    proposals = np.float32([[10, 10, 10.5, 40], [100, 100, 150, 140]])
    found = detect(np.float32([[9, 0], [2, 0]]), np.zeros((2, 4), np.float32), proposals, SIZE, config)
    assert found.boxes.tolist() == [[100, 100, 150, 140]]


def test_nothing_over_the_limit_is_no_detection():
    logits, deltas, proposals = outputs()
    logits[:, -1] = 50
    assert len(detect(logits, deltas, proposals, SIZE, ModelConfig(classes=K))) == 0


def test_no_proposal_is_no_detection():
    empty = (np.zeros((0, K + 1), np.float32), np.zeros((0, 4 * K), np.float32), np.zeros((0, 4), np.float32))
    assert len(detect(*empty, SIZE, ModelConfig(classes=K))) == 0


def test_large_logits_do_not_overflow():
    assert softmax(np.float32([[1000, 1000], [-1000, 0]])).tolist() == [[0.5, 0.5], [0, 1]]


def test_the_mask_of_the_label_is_taken_or_the_only_one():
    masks = np.arange(3, dtype=np.float32)[None, :, None, None].repeat(2, 0)
    assert masks_of(masks, np.array([2, 0])).ravel().tolist() == [2, 0]
    assert masks_of(masks[:, :1], np.array([2, 0])).ravel().tolist() == [0, 0]
