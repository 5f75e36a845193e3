"""A run that is killed at any instant goes on as if nothing had happened."""

import errno
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_loop import CPU, SHORT, fresh

from maskrcnn.data.dataset import Dataset
from maskrcnn.errors import UserError
from maskrcnn.spec import Spec
from maskrcnn.training import loop
from maskrcnn.training.checkpoint import load_checkpoint
from maskrcnn.training.loop import train
from maskrcnn.training.progress import Silent
from maskrcnn.weights.model_file import read_model_file

# Saves after every step, so that many kills fall into the writing of a checkpoint.
RUN = replace(SHORT, steps=30, log_every=1, save_every=1)

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from conftest import draw_shapes
from maskrcnn.spec import spec_from_json
from maskrcnn.training.loop import train
from maskrcnn.training.progress import Silent
from test_interruptions import RUN
from test_loop import CPU, fresh

class Telling(Silent):
    def line(self, line, steps):
        print(line["step"], flush=True)

spec = spec_from_json(Path({spec!r}).read_text(), "spec")
train(fresh(spec), spec, draw_shapes(Path({images!r}), 6), RUN, Path({out!r}), CPU, watch=Telling())
"""


def program(tmp_path: Path, out: Path) -> "subprocess.Popen[str]":
    (tmp_path / "images").mkdir(exist_ok=True)
    text = PROGRAM.format(
        tests=str(Path(__file__).parent),
        spec=str(tmp_path / "spec.json"),
        images=str(tmp_path / "images"),
        out=str(out),
    )
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)


def test_killed_at_random_instants_it_ends_with_the_same_losses_and_weights(
    spec: Spec, tmp_path: Path
) -> None:
    (tmp_path / "spec.json").write_text(spec.to_json())
    whole = program(tmp_path, tmp_path / "whole")
    rng = random.Random(7)
    for _ in range(3):
        process = program(tmp_path, tmp_path / "killed")
        assert process.stdout is not None
        for _ in range(rng.randrange(3, 9)):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = program(tmp_path, tmp_path / "killed")
    last.communicate(timeout=240)
    whole.communicate(timeout=240)
    assert (last.returncode, whole.returncode) == (0, 0)
    one, other = (losses(tmp_path / name) for name in ("whole", "killed"))
    assert len(one) == 30 and one == other
    states = [read_model_file(tmp_path / name / "model.safetensors")[1] for name in ("whole", "killed")]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    leftovers = [path.name for path in (tmp_path / "killed").iterdir() if path.name.endswith(".part")]
    assert len(leftovers) <= 3


def losses(out: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["total"], line["learning_rate"]) for line in lines]


def test_a_full_disk_leaves_the_checkpoint_before_it(
    shapes: Dataset, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = torch.save, []

    def full(state: object, path: Path) -> None:
        save(state, path)
        saved.append(path)
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        train(fresh(spec), spec, shapes, SHORT, tmp_path, CPU)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3
    assert [path.name for path in tmp_path.glob("*.part")] == []
    train(fresh(spec), spec, shapes, SHORT, tmp_path, CPU)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 6


def test_a_loss_that_is_no_number_is_said_with_its_images_and_skipped(
    shapes: Dataset, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Listening(Silent):
        def says(self, words: str) -> None:
            said.append(words)

    real, steps = loop.update, []

    def once(*arguments: object) -> torch.Tensor | None:
        steps.append(1)
        return None if len(steps) == 2 else real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "update", once)
    train(fresh(spec), spec, shapes, SHORT, tmp_path, CPU, watch=Listening())
    assert len(said) == 1
    assert "step 1: the loss is not a number and was skipped; its images: " in said[0]
    assert said[0].count(".png") == 2


def test_the_last_checkpoints_stay_as_many_as_asked(shapes: Dataset, spec: Spec, tmp_path: Path) -> None:
    train(fresh(spec), spec, shapes, replace(SHORT, steps=5, save_every=1, keep=2), tmp_path, CPU)
    names = sorted(path.name for path in tmp_path.glob("checkpoint*"))
    assert names == ["checkpoint-00000004.pt", "checkpoint-00000005.pt", "checkpoint.pt"]
