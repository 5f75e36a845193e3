"""A trunk learns to name crops, goes on where it stopped, and fits into the detector."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn.config import BackboneConfig
from maskrcnn.data.dataset import Dataset
from maskrcnn.errors import UserError
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.spec import Spec
from maskrcnn.training.checkpoint import load_checkpoint, save_checkpoint
from maskrcnn.training.crops import Crops, cut, draw
from maskrcnn.training.initial import load_trunk
from maskrcnn.training.trunk import TrunkRecipe, train_trunk

RECIPE = TrunkRecipe(
    backbone=BackboneConfig(depth=18, width=8, norm="bn"),
    steps=60,
    warm_up=4,
    batch=16,
    learning_rate=0.02,
    sides=(24, 32),
    crop_side=40,
    held_out=3,
    save_every=30,
)


def test_a_crop_shows_the_instance_in_its_middle_with_context(shapes: Dataset) -> None:
    crops = cut(shapes, np.arange(len(shapes)), side=47, smallest=24)
    assert crops.pixels.shape == (12, 47, 47, 3)
    assert crops.labels.tolist() == [0, 1] * 6
    # The longer side, 36 pixels, is 1 / 1.3 of the crop: the square reaches 18 pixels up and 15 sideways.
    bright = crops.pixels[0, :, :, 0] > 240
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    assert (rows[0] + rows[-1]) / 2 == pytest.approx(23, abs=1)
    assert (columns[0] + columns[-1]) / 2 == pytest.approx(23, abs=1)
    assert len(rows) == pytest.approx(36, abs=2) and len(columns) == pytest.approx(30, abs=2)


def test_small_instances_are_left_out(shapes: Dataset) -> None:
    with pytest.raises(UserError, match="no instance of 100 pixels or more"):
        cut(shapes, np.arange(len(shapes)), side=32, smallest=100)


def test_a_class_is_drawn_by_the_root_of_its_number() -> None:
    crops = Crops(np.zeros((100, 16, 16, 3), np.uint8), np.array([0] * 90 + [1] * 10))
    _, labels = draw(crops, 4000, 16, np.random.default_rng(0))
    # sqrt(90) : sqrt(10) = 3 : 1
    assert float((labels == 1).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_bright_and_dark_are_told_apart_and_a_second_call_trains_nothing(
    shapes: Dataset, tmp_path: Path
) -> None:
    path = train_trunk(shapes, RECIPE, tmp_path)
    first, last = (json.loads(line) for line in (tmp_path / "trunk.jsonl").read_text().splitlines())
    # A tenth of the label is spread over both classes: knowing it costs -.95 ln .95 - .05 ln .05 = .199.
    assert (first["step"], last["step"]) == (30, 60)
    assert last["loss"] < 0.3
    written = path.stat().st_mtime_ns
    assert train_trunk(shapes, RECIPE, tmp_path).stat().st_mtime_ns == written


def test_a_trunk_goes_into_the_detector_and_another_shape_is_refused(
    shapes: Dataset, spec: Spec, tmp_path: Path
) -> None:
    path = train_trunk(shapes, replace(RECIPE, steps=2, save_every=2), tmp_path)
    model = MaskRCNN(spec.model)
    load_trunk(model, path)
    expected = load_checkpoint(path)["backbone"]["res5.1.conv2.weight"]
    assert torch.equal(model.backbone.state_dict()["res5.1.conv2.weight"], expected)
    wider = replace(spec.model, backbone=replace(spec.model.backbone, width=16))
    with pytest.raises(UserError, match="is a trunk of another shape"):
        load_trunk(MaskRCNN(wider), path)


class Evil:
    """Unpickling it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]


def test_a_checkpoint_with_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "evil.pt", {"step": Evil(tmp_path / "written")})
    with pytest.raises(UserError, match=r"evil\.pt: is not a checkpoint"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "written").exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises(TypeError):
        save_checkpoint(path, {"step": (line for line in "ab")})
    assert load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
