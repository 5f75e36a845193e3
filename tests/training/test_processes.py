"""Two processes learn what one process with the same batch learns."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn.spec import Spec

# A process of its own as torchrun, mpirun or srun would start it: batch 4 on images of one size.
PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from conftest import draw_shapes
from maskrcnn.training.loop import train
from maskrcnn.training.processes import joined
from test_loop import CPU, SHORT, fresh
from maskrcnn.spec import spec_from_json

torch.set_num_threads(1)
spec = spec_from_json(Path({spec!r}).read_text(), "spec")
with joined("cpu") as processes:
    folder = Path({folder!r}) / f"images{{processes.rank}}"
    folder.mkdir(exist_ok=True)
    shapes = draw_shapes(folder, 12)
    training = replace(SHORT, steps=4, batch=4, log_every=1, save_every=4)
    train(fresh(spec), spec, shapes, training, Path({out!r}), CPU, processes=processes)
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_two_processes_have_the_losses_of_one(tmp_path: Path, spec: Spec) -> None:
    frozen = replace(
        spec.model,
        backbone=replace(spec.model.backbone, norm="frozen_bn"),
        fpn=replace(spec.model.fpn, norm="none"),
        mask_head=replace(spec.model.mask_head, norm="none"),
    )
    (tmp_path / "spec.json").write_text(replace(spec, model=frozen).to_json())
    one, two = tmp_path / "one", tmp_path / "two"
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    running = [start(tmp_path, one, {})]
    running += [start(tmp_path, two, {"RANK": rank, "LOCAL_RANK": rank} | meet) for rank in ("0", "1")]
    for process in running:
        _, words = process.communicate(timeout=240)
        assert process.returncode == 0, words
    # float32 sums in another order: the first step agrees to 1e-6, and every update magnifies that a little
    assert losses(two)[0] == pytest.approx(losses(one)[0], rel=2e-5)
    for line, other in zip(losses(one), losses(two), strict=True):
        assert other == pytest.approx(line, rel=1e-3, abs=1e-4)


def start(folder: Path, out: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    values = {"spec": folder / "spec.json", "folder": folder, "out": out, "tests": Path(__file__).parent}
    text = PROGRAM.format(**{name: str(value) for name, value in values.items()})
    starters = ("SLURM", "OMPI", "PMI")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(starters)}
    return subprocess.Popen(
        [sys.executable, "-c", text], env=clean | environment, stderr=subprocess.PIPE, text=True
    )


def losses(out: Path) -> list[list[float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    names = ("rpn_objectness", "rpn_deltas", "box_classes", "box_deltas", "mask", "total")
    return [[line[name] for name in names] for line in lines]
