"""MindSpore itself loads what is written here, computes the same and makes the same update, and is read back.

It runs in a Python of its own, which the variable MASKRCNN_MINDSPORE names: it needs numpy below 2.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_mindspore import SIDES, learning, small_spec

from maskrcnn.training.begun import go_on
from maskrcnn.training.mindspore import rates_of, read_training, write_training
from maskrcnn.training.update import Run
from maskrcnn.weights.rewrite import their_name
from maskrcnn.weights.sources.mindspore import TABLE

PYTHON = os.environ.get("MASKRCNN_MINDSPORE") or (
    sys.executable if importlib.util.find_spec("mindspore") else ""
)
SCRIPT = Path(__file__).with_name("mindspore_network.py")

needs_mindspore = pytest.mark.skipif(
    not PYTHON, reason="needs MindSpore: MASKRCNN_MINDSPORE names no Python that has it"
)


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    channels = SIDES["channels"]
    return {
        "image": rng.normal(0, 1, (1, 3, 96, 128)).astype(np.float32),
        "pooled": rng.normal(0, 1, (5, channels, 7, 7)).astype(np.float32),
        "pooled_mask": rng.normal(0, 1, (5, channels, 14, 14)).astype(np.float32),
    }


@torch.no_grad()
def outputs(run: Run, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = run.model.eval()
    tensors = {name: torch.from_numpy(values) for name, values in given.items()}
    levels = model.fpn(model.backbone(tensors["image"]))
    hidden = model.rpn.conv1(levels[0]).relu()
    scores, deltas = model.box_head.predict(tensors["pooled"])
    found = {f"p{k + 2}": level for k, level in enumerate(levels[:4])}
    found |= {"objectness": model.rpn.objectness(hidden), "deltas": model.rpn.deltas(hidden)}
    found |= {"scores": scores, "box_deltas": deltas.flatten(1)}
    head = model.mask_head
    rows = tensors["pooled_mask"]
    for layer in (head.conv1, head.conv2, head.conv3, head.conv4):
        rows = layer(rows).relu()
    found["masks"] = head.logits(head.upsample(rows).relu())
    return {name: values.numpy() for name, values in found.items()}


@needs_mindspore
def test_mindspore_loads_computes_and_learns_the_same(tmp_path: Path) -> None:
    run, training = learning(small_spec(), steps=3)
    rates = rates_of(run, training, 3)
    write_training(tmp_path / "ours.ckpt", run, small_spec(), 3, rates)
    given = inputs()
    rng = np.random.default_rng(4)
    gradients = {
        name: rng.normal(0, 1, each.shape).astype(np.float32) for name, each in run.model.named_parameters()
    }
    more = {f"gradient {their_name(name, TABLE)}": each for name, each in gradients.items()}
    numbers = {"sides": json.dumps(SIDES), "decay": training.weight_decay, "rates": rates}
    np.savez(tmp_path / "in.npz", **numbers, **given, **more)
    files = [str(tmp_path / name) for name in ("ours.ckpt", "in.npz", "out.npz", "theirs.ckpt")]
    command = [PYTHON, str(SCRIPT), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    assert (found["missing"].tolist(), int(found["parameters"])) == ([], len(gradients))
    for name, values in outputs(run, given).items():
        # float32 in another order; measured 2e-6 of the largest value
        assert np.abs(found[name] - values).max() < 1e-5 * np.abs(values).max(), name
    update(run, gradients, float(rates[3]))
    same_after_it(run, tmp_path / "theirs.ckpt")


def update(run: Run, gradients: dict[str, np.ndarray], rate: float) -> None:
    """One step of our optimiser with these gradients."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    for name, parameter in run.model.named_parameters():
        parameter.grad = torch.from_numpy(gradients[name])
    run.optimizer.step()


def same_after_it(run: Run, path: Path) -> None:
    """MindSpore's update ended where ours did, and a run goes on from its file."""
    found = read_training(path)
    assert found.step == 4
    other, _ = learning(small_spec(), steps=0)
    assert go_on(read_training(path), path, other, 10).step == 4
    resumed = dict(other.model.named_parameters())
    for name, parameter in run.model.named_parameters():
        ours, momentum = parameter.detach().numpy(), run.optimizer.state[parameter]["momentum_buffer"]
        np.testing.assert_allclose(found.weights[name], ours, rtol=1e-6, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(found.moments[name], momentum, rtol=1e-6, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(resumed[name].detach(), found.weights[name], err_msg=name)
        held = other.optimizer.state[resumed[name]]["momentum_buffer"]
        np.testing.assert_array_equal(held, found.moments[name], err_msg=name)
