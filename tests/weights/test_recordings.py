"""Recorded models of four projects, converted, give what they gave there."""

import pickle
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from golden.synthetic import IMAGE, Recording, recording
from pycocotools import mask as rle

from maskrcnn.backends.pytorch import PyTorchBackend, open_pytorch
from maskrcnn.detections import Detections
from maskrcnn.preprocess import batch, prepare
from maskrcnn.weights.convert import convert

RECORDED = (
    "torchvision-r50-fpn",
    "torchvision-r50-fpn-v2",
    "detectron2-r50-fpn",
    "detectron2-r50-c4",
    "mmdetection-r50-fpn",
    "mmdetection-r50-caffe-fpn",
    "maskrcnn-benchmark-r50-fpn",
)


@pytest.fixture(scope="module", params=RECORDED)
def recorded(request: pytest.FixtureRequest) -> Recording:
    return recording(request.param)


@pytest.fixture(scope="module")
def backend(recorded: Recording, tmp_path_factory: pytest.TempPathFactory) -> PyTorchBackend:
    """The recorded weights in the container of their framework, converted."""
    folder = tmp_path_factory.mktemp("recorded")
    checkpoint = folder / save(recorded, folder)
    out = folder / "model.safetensors"
    report = convert(checkpoint, out, style=recorded.style, settings=recorded.overrides)
    assert report.tensors == len(recorded.keys)
    checkpoint.unlink()
    opened = open_pytorch(out, device="cpu")
    out.unlink()
    return opened


def save(recorded: Recording, folder: Path) -> str:
    if recorded.name.startswith("detectron2"):
        content = {"model": recorded.state(), "__author__": "Detectron2 Model Zoo"}
        with (folder / "model.pkl").open("wb") as file:
            pickle.dump(content, file)
        return "model.pkl"
    state = {name: torch.from_numpy(array) for name, array in recorded.state().items()}
    content: dict[str, Any] = state
    if recorded.name.startswith("mmdetection"):
        content = {"state_dict": state, "meta": {"epoch": 12}}
    elif recorded.name.startswith("maskrcnn-benchmark"):
        content = {"model": {f"module.{name}": value for name, value in state.items()}, "iteration": 90000}
    torch.save(content, folder / "model.pth")
    return "model.pth"


@pytest.fixture(scope="module")
def found(backend: PyTorchBackend) -> Detections:
    planes, geometry = prepare(portrait(), backend.spec.preprocess)
    return Detections.from_raw(
        backend.run(*batch([planes], backend.spec.preprocess)), 0, geometry, backend.spec
    )


def portrait() -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(IMAGE)), cv2.COLOR_BGR2RGB)


def test_the_network_input_is_the_recorded_one(recorded: Recording, backend: PyTorchBackend) -> None:
    planes, _ = prepare(portrait(), backend.spec.preprocess)
    image, size = batch([planes], backend.spec.preprocess)
    # adding zero turns the -0.0 of the padding into the 0.0 that frameworks pad with
    net = backend.model.normalised(torch.from_numpy(image), torch.from_numpy(size)).numpy() + np.float32(0)
    np.testing.assert_allclose(net[..., 96:128, 96:128], recorded.outputs["input_crop"], atol=2e-6)
    np.testing.assert_allclose(net[..., ::16, ::16], recorded.outputs["input_grid"], atol=2e-6)
    # torchvision resizes floating point numbers, whose last bit depends on the machine
    if not recorded.name.startswith("torchvision"):
        assert f"{zlib.crc32(np.ascontiguousarray(net).tobytes()):08x}" == recorded.input_crc32


def test_every_detection_is_found_with_its_label_box_score_and_mask(
    recorded: Recording, found: Detections
) -> None:
    boxes, scores = recorded.outputs["boxes"], recorded.outputs["scores"]
    # labels of torchvision and maskrcnn-benchmark count the background
    labels = recorded.outputs["labels"] - recorded.name.startswith(("torchvision", "maskrcnn"))
    assert len(found) == len(boxes) == 100
    overlap = box_iou(boxes, found.boxes) * (labels[:, None] == found.labels)
    partner = overlap.argmax(axis=1)
    assert len(set(partner.tolist())) == 100
    assert overlap.max(axis=1).min() > 0.99
    assert np.abs(found.boxes[partner] - boxes).max() < 0.05
    assert np.abs(found.scores[partner] - scores).max() < 1e-4
    ours, theirs = found.rles(), recorded.rles()
    ious = [rle.iou([ours[column]], [theirs[row]], [0])[0, 0] for row, column in enumerate(partner)]
    assert np.median(ious) > 0.99
    assert min(ious) > 0.95


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (N, 4), b (M, 4) -> (N, M)."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    inside = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return inside / (areas[0][:, None] + areas[1] - inside)
