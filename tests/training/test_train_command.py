"""`maskrcnn train` starts from a model file and goes on only when asked to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from maskrcnn.cli.main import app
from maskrcnn.data.dataset import Dataset
from maskrcnn.errors import UserError
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.spec import Classes, Spec
from maskrcnn.training.initial import for_classes, initialise, load_weights
from maskrcnn.weights.model_file import read_model_file, write_model_file


@pytest.fixture
def start(spec: Spec, tmp_path: Path) -> Path:
    """A model file with 3 classes, frozen as files are."""
    frozen = replace(
        spec.model,
        classes=3,
        backbone=replace(spec.model.backbone, norm="frozen_bn"),
        fpn=replace(spec.model.fpn, norm="none"),
        mask_head=replace(spec.model.mask_head, norm="none"),
    )
    model = MaskRCNN(frozen)
    initialise(model)
    tensors = {name: values.numpy() for name, values in model.state_dict().items()}
    spec = replace(spec, model=frozen, classes=Classes(("a", "b", "c"), (1, 2, 3)))
    write_model_file(tmp_path / "start.safetensors", spec, tensors)
    return tmp_path / "start.safetensors"


def run(dataset: Dataset, start: Path, out: Path, *more: str) -> Any:
    folder = dataset.files[0].parent
    words = [
        "train",
        "--data",
        str(folder),
        "--model",
        str(start),
        "--out",
        str(out),
        "--device",
        "cpu",
        *more,
    ]
    return CliRunner().invoke(app, words)


def test_it_trains_two_steps_says_what_it_did_and_resumes(
    shapes: Dataset, start: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = run(shapes, start, out, "--steps", "2")
    assert first.exit_code == 0, first.output
    assert first.stdout.strip() == str(out / "best.safetensors")
    assert "5 images, 10 objects, 2 classes; 1 images to evaluate on" in first.stderr
    assert "learning rate 0.02 at batch 16 -> 0.0025 at batch 2" in first.stderr
    assert (out / "report.html").stat().st_size > 2000
    assert "box_head.scores.weight" in first.stderr
    again = run(shapes, start, out, "--steps", "3")
    assert again.exit_code == 2 and f"error: {out}: already holds a run" in again.stderr
    resumed = run(shapes, start, out, "--steps", "3", "--resume")
    assert resumed.exit_code == 0
    spec, _ = read_model_file(out / "model.safetensors")
    assert (spec.classes.names, spec.model.classes) == (("bright", "dark"), 2)


def test_there_must_be_a_run_to_resume(shapes: Dataset, start: Path, tmp_path: Path) -> None:
    result = run(shapes, start, tmp_path / "none", "--resume")
    assert result.exit_code == 2 and "there is no run to resume" in result.stderr


def test_only_the_predictors_start_anew_for_other_classes(start: Path) -> None:
    spec, state = read_model_file(start)
    other = for_classes(spec, Classes(("x",), (1,)))
    model = MaskRCNN(other.model)
    restarted = load_weights(model, state, start)
    assert sorted({name.rsplit(".", 1)[0] for name in restarted}) == [
        "box_head.deltas",
        "box_head.scores",
        "mask_head.logits",
    ]
    expected = torch.from_numpy(state["rpn.objectness.weight"])
    assert torch.equal(model.rpn.objectness.weight, expected)


def test_a_tensor_that_does_not_fit_is_named(start: Path) -> None:
    spec, state = read_model_file(start)
    with pytest.raises(UserError, match=r"start\.safetensors: rpn\.objectness\.weight does not fit"):
        load_weights(
            MaskRCNN(spec.model), state | {"rpn.objectness.weight": state["rpn.deltas.weight"]}, start
        )
