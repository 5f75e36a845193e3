"""Recorded models of full size go in and come back as they were, in their own container and order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden.synthetic import recording

from maskrcnn.weights.convert import convert
from maskrcnn.weights.convert_back import convert_back
from maskrcnn.weights.readers import read_checkpoint

# Rows of the background, which no model keeps.
BACKGROUND = {"box_predictor.bbox_pred": 4, "box.predictor.bbox_pred": 4, "mask_fcn_logits": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "to", "suffix"),
    [
        ("torchvision-r50-fpn", "torchvision", ".pth"),
        ("torchvision-r50-fpn-v2", "torchvision", ".pth"),
        ("detectron2-r50-fpn", "detectron2", ".pkl"),
        ("detectron2-r50-c4", "detectron2", ".pth"),
        ("mmdetection-r50-fpn", "mmdetection", ".pth"),
        ("mmdetection-r50-caffe-fpn", "mmdetection", ".pth"),
        ("maskrcnn-benchmark-r50-fpn", "maskrcnn-benchmark", ".pth"),
    ],
)
def test_a_recorded_model_comes_back_bit_by_bit(tmp_path: Path, name: str, to: str, suffix: str) -> None:
    recorded = recording(name)
    given = recorded.state()
    wrapped = {key: torch.from_numpy(array) for key, array in given.items()}
    torch.save(wrapped, tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "x.safetensors", style=recorded.style, settings=recorded.overrides)
    report = convert_back(tmp_path / "x.safetensors", tmp_path / f"y{suffix}", to)
    assert report.differences == ()
    found = {
        key: array
        for key, array in read_checkpoint(tmp_path / f"y{suffix}").tensors.items()
        if "cell_anchors" not in key
    }
    assert list(found) == list(given)
    for key, array in given.items():
        rows = 0 if to in ("detectron2", "mmdetection") else _background(key)
        np.testing.assert_array_equal(
            found[key][rows:] if rows else found[key], array[rows:] if rows else array
        )
        assert not rows or not found[key][:rows].any()


def _background(key: str) -> int:
    return next((rows for part, rows in BACKGROUND.items() if f".{part}." in key), 0)
