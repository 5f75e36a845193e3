"""Checkpoints of segmentoly's training: our next step is its next step."""

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn.config_file import with_settings
from maskrcnn.errors import UserError
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.training.begun import go_on
from maskrcnn.training.initial import load_weights, starting
from maskrcnn.training.processes import Processes
from maskrcnn.training.recipe import Training
from maskrcnn.training.segmentoly import buffers_by_name, is_training, read_training
from maskrcnn.training.update import Run, start
from maskrcnn.weights.convert import convert
from maskrcnn.weights.rewrite import rewrite
from maskrcnn.weights.sources.segmentoly import NORMED_TABLE, TABLE

WEIGHTS = Path(__file__).parents[1] / "weights"
RATE, DECAY, STEPS = 0.1, 0.01, 50
TRAINING = Training(
    steps=STEPS,
    learning_rate=RATE,
    base_batch=0,
    weight_decay=DECAY,
    freeze_at=2,
    average=0.0,
    schedule="steps",
)


class Theirs:
    """Its optimiser over a state dict: groups of weights, biases and norms, frozen what its trunks freeze."""

    def __init__(self, state: dict[str, np.ndarray], normed: bool) -> None:
        self.state = {name: torch.from_numpy(each.copy()) for name, each in state.items()}
        statistics = ("running_mean", "running_var", "num_batches_tracked", "prior_boxes")
        frozen = ("backbone.stages.stage_0", "backbone.stages.stage_1")
        self.learnt = {}
        for name, each in self.state.items():
            of_trunk = name.startswith("backbone") and each.dim() == 1 and not normed
            if not (name.endswith(statistics) or name.startswith(frozen) or of_trunk):
                self.learnt[name] = torch.nn.Parameter(each)
        norms = [n for n, p in self.learnt.items() if normed and "bias" not in n and p.dim() == 1]
        biases = [name for name in self.learnt if "bias" in name]
        rest = [name for name in self.learnt if name not in (*norms, *biases)]
        groups = [
            {"params": [self.learnt[name] for name in names], "weight_decay": decay}
            for names, decay in ((rest, DECAY), (biases, 0.0), (norms, 0.0))
        ]
        self.optimizer = torch.optim.SGD(groups, lr=RATE, momentum=0.9)

    def gradients(self, step: int) -> dict[str, torch.Tensor]:
        numbers = torch.Generator().manual_seed(step)
        return {name: torch.randn(each.shape, generator=numbers) for name, each in self.learnt.items()}

    def learn(self, step: int) -> None:
        for name, gradient in self.gradients(step).items():
            self.learnt[name].grad = gradient
        self.optimizer.step()

    def weights(self) -> dict[str, np.ndarray]:
        return {
            name: self.learnt.get(name, each).detach().numpy().copy() for name, each in self.state.items()
        }

    def save(self, path: Path, step: int, **changes: Any) -> Path:
        model = {name: torch.from_numpy(each) for name, each in self.weights().items()}
        values = {"step": step, "model": model, "optimizer": self.optimizer.state_dict()}
        torch.save({**values, "optimizer_corrected": {}, **changes}, path)
        return path


def their_state(normed: bool) -> dict[str, np.ndarray]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(WEIGHTS))
        frameworks = runpy.run_path(str(WEIGHTS / "frameworks.py"))
        lineage = runpy.run_path(str(WEIGHTS / "lineage.py"))
    if normed:
        return frameworks["filled"](lineage["segmentoly_normed_shapes"](False))
    plan = frameworks["Plan"](**{**frameworks["SMALL"], "classes": 2})
    return frameworks["filled"](lineage["segmentoly_shapes"](plan))


def our_run(path: Path, normed: bool) -> Run:
    """A run that begins with the weights of the checkpoint, as the command line makes it."""
    model = path.with_suffix(".safetensors")
    convert(path, model)
    spec, state = starting(str(model))
    if not normed:
        spec = with_settings(spec, ["model.backbone.norm=frozen_bn"])
    network = MaskRCNN(spec.model)
    load_weights(network, state, model)
    return start(network, TRAINING, torch.device("cpu"), Processes())


@pytest.mark.parametrize("normed", [False, True], ids=["batch norm", "group norm"])
def test_the_next_step_is_theirs(tmp_path: Path, normed: bool) -> None:
    """Momentum is of another order, and of rows for the background that ours has elsewhere or not at all."""
    theirs = Theirs(their_state(normed), normed)
    for step in range(3):
        theirs.learn(step)
    # In some files a second table of buffers, by the weights themselves.
    corrected = {each: theirs.optimizer.state[each]["momentum_buffer"] for each in theirs.learnt.values()}
    path = theirs.save(tmp_path / "model_step_3.pth", 3, optimizer_corrected=corrected)
    run = our_run(path, normed)
    said: list[str] = []
    assert go_on(read_training(path), path, run, STEPS, said.append).step == 3 and said == []
    learning = {name: each for name, each in run.model.named_parameters() if each.requires_grad}
    assert len(learning) == len(theirs.learnt)
    table = NORMED_TABLE if normed else TABLE
    gradients = {name: np.zeros_like(each) for name, each in theirs.weights().items()}
    gradients |= {name: each.numpy() for name, each in theirs.gradients(3).items()}
    for name, each in rewrite(gradients, table, "x").tensors.items():
        if name in learning:
            learning[name].grad = torch.from_numpy(np.array(each))
    run.optimizer.step()
    theirs.learn(3)
    wanted = rewrite(theirs.weights(), table, "x").tensors
    for name, each in learning.items():
        np.testing.assert_allclose(each.detach().numpy(), wanted[name], rtol=1e-6, atol=1e-6)


def test_before_its_first_step_there_is_no_momentum(tmp_path: Path) -> None:
    path = Theirs(their_state(False), False).save(tmp_path / "model_step_0.pth", 0)
    run, said = our_run(path, False), []
    assert go_on(read_training(path), path, run, STEPS, said.append).step == 0
    assert len(said) == 1 and "it begins at zero" in said[0]
    assert len(run.optimizer.state) == 0


def test_buffers_in_another_order_than_the_weights_are_not_guessed() -> None:
    """Python 3.5 forgot the order of names."""
    theirs = Theirs(their_state(False), False)
    theirs.learn(0)
    optimizer = theirs.optimizer.state_dict()
    state = {
        number: {"momentum_buffer": each["momentum_buffer"].numpy()}
        for number, each in optimizer["state"].items()
    }
    values = {"param_groups": optimizer["param_groups"], "state": state}
    assert len(buffers_by_name(theirs.weights(), values)) == len(theirs.learnt)
    params = values["param_groups"][0]["params"]
    params[0], params[1] = params[1], params[0]
    assert buffers_by_name(theirs.weights(), values) == {}
    for broken in (None, {}, {"param_groups": [], "state": {}}, {"param_groups": [1], "state": {}}):
        assert buffers_by_name(theirs.weights(), broken) == {}


def test_what_cannot_be_gone_on_with_is_said(tmp_path: Path) -> None:
    theirs = Theirs(their_state(False), False)
    theirs.learn(0)
    path = theirs.save(tmp_path / "model_step_60.pth", 60)
    assert is_training(path)
    with pytest.raises(UserError, match="is at step 60, and the run ends at step 50"):
        go_on(read_training(path), path, our_run(path, False), STEPS)
    torch.save({"model": theirs.state}, tmp_path / "weights.pth")
    assert not is_training(tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights.pth: is not of segmentoly's training"):
        read_training(tmp_path / "weights.pth")
    early = theirs.save(tmp_path / "model_step_1.pth", 1)
    run = our_run(early, False)
    adam = replace(run, optimizer=torch.optim.AdamW(run.model.parameters()))
    with pytest.raises(UserError, match="has the momentum of SGD"):
        go_on(read_training(early), early, adam, STEPS)
