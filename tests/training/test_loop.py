"""Training lowers the loss, goes on exactly where it stopped, and writes a model that predicts."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn.data.dataset import Dataset
from maskrcnn.errors import UserError
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.spec import Spec
from maskrcnn.training import loop
from maskrcnn.training.checkpoint import load_checkpoint
from maskrcnn.training.initial import initialise
from maskrcnn.training.loop import train
from maskrcnn.training.recipe import Training
from maskrcnn.weights.model_file import read_model_file

CPU = torch.device("cpu")
SHORT = Training(
    steps=6,
    batch=2,
    optimizer="adamw",
    learning_rate=2e-3,
    base_batch=0,
    warm_up=2,
    schedule="hold",
    precision="fp32",
    save_every=3,
)


def fresh(spec: Spec) -> MaskRCNN:
    torch.manual_seed(0)
    model = MaskRCNN(spec.model)
    initialise(model)
    return model


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_network_learns_to_find_and_outline_rectangles(
    shapes: Dataset, spec: Spec, tmp_path: Path
) -> None:
    training = replace(SHORT, steps=60, warm_up=5, learning_rate=5e-3, log_every=5, save_every=60)
    train(fresh(spec), spec, shapes, training, tmp_path, CPU)
    first, *_, last = lines(tmp_path)
    assert last["rpn_objectness"] < first["rpn_objectness"] / 4
    assert last["mask"] < first["mask"] * 0.7


def test_a_run_in_two_parts_ends_with_the_weights_of_a_run_in_one(
    shapes: Dataset, spec: Spec, tmp_path: Path
) -> None:
    train(fresh(spec), spec, shapes, SHORT, tmp_path / "one", CPU)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(fresh(spec), spec, shapes, SHORT, tmp_path / "two", CPU)
    assert load_checkpoint(tmp_path / "two" / "checkpoint.pt")["step"] == 4
    train(fresh(spec), spec, shapes, SHORT, tmp_path / "two", CPU)
    one, two = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    for part in ("model", "average"):
        for name, values in one[part].items():
            torch.testing.assert_close(two[part][name], values, rtol=0, atol=0, msg=f"{part} {name}")


def stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Ctrl-C in the step after that many."""
    one_update, done = loop.update, []

    def stopping(*arguments: object) -> torch.Tensor | None:
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(1)
        return one_update(*arguments)  # type: ignore[arg-type]

    patch.setattr(loop, "update", stopping)


def test_the_written_model_computes_what_the_averaged_network_computes(
    shapes: Dataset, spec: Spec, tmp_path: Path
) -> None:
    path = train(fresh(spec), spec, shapes, SHORT, tmp_path, CPU).path
    written_spec, state = read_model_file(path)
    assert {written_spec.model.backbone.norm, written_spec.model.fpn.norm} == {"frozen_bn"}
    written, averaged = MaskRCNN(written_spec.model).eval(), MaskRCNN(spec.model).eval()
    written.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
    averaged.load_state_dict(load_checkpoint(tmp_path / "checkpoint.pt")["average"])
    image, size = (
        torch.from_numpy(np.arange(3 * 96 * 96).reshape(1, 3, 96, 96) % 251).float(),
        torch.tensor([[90, 96]]),
    )
    with torch.no_grad():
        for ours, reference in zip(
            written.features(image, size), averaged.features(image, size), strict=True
        ):
            torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


def test_from_half_way_on_norms_keep_their_statistics_and_frozen_layers_their_weights(
    shapes: Dataset, spec: Spec, tmp_path: Path
) -> None:
    training = replace(
        SHORT, steps=4, save_every=2, schedule="cosine", freeze_from=0.5, freeze=("backbone.stem.",)
    )
    states = []
    for steps in (2, 4):
        with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
            stop_after(patch, steps)
            train(fresh(spec), spec, shapes, training, tmp_path / str(steps), CPU)
        states.append(load_checkpoint(tmp_path / str(steps) / "checkpoint.pt")["model"])
    half, end = states
    changed = {name for name in half if not torch.equal(half[name], end[name])}
    assert not any("running" in name or name.startswith("backbone.stem.") for name in changed)
    assert {
        "backbone.res2.0.conv1.weight",
        "backbone.res2.0.conv1.norm.weight",
        "rpn.conv1.weight",
    } <= changed


def test_a_checkpoint_of_another_model_is_refused(shapes: Dataset, spec: Spec, tmp_path: Path) -> None:
    train(fresh(spec), spec, shapes, replace(SHORT, steps=1), tmp_path, CPU)
    other = replace(spec, preprocess=replace(spec.preprocess, short=96))
    with pytest.raises(UserError, match=r"checkpoint\.pt: is of another model"):
        train(fresh(other), other, shapes, SHORT, tmp_path, CPU)


def test_a_loss_that_is_no_number_changes_no_weight_and_ends_the_run(
    shapes: Dataset, spec: Spec, tmp_path: Path
) -> None:
    model = fresh(spec)
    torch.nn.init.constant_(model.box_head.scores.bias, float("nan"))
    before = model.rpn.objectness.weight.clone()
    with pytest.raises(UserError, match="step 10: the loss is not a number"):
        train(model, spec, shapes, replace(SHORT, steps=20, save_every=20), tmp_path, CPU)
    assert torch.equal(model.rpn.objectness.weight, before)


def test_bfloat16_gives_the_losses_of_float32_to_two_digits(
    shapes: Dataset, spec: Spec, tmp_path: Path
) -> None:
    found = []
    for precision in ("fp32", "bf16"):
        training = replace(SHORT, steps=1, precision=precision)
        train(fresh(spec), spec, shapes, training, tmp_path / precision, CPU)
        found.append(lines(tmp_path / precision)[0])
    for name in ("rpn_objectness", "box_classes", "mask"):
        assert found[1][name] == pytest.approx(found[0][name], rel=0.05), name
