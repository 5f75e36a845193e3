"""Two thousand damaged files of every container: each loads or is refused in words, and nothing runs."""

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frameworks import SMALL, Plan, detectron2_shapes, filled
from lineage import caffe2_shapes
from safetensors.numpy import save_file
from test_mindspore import shapes_of

from maskrcnn.errors import UserError
from maskrcnn.weights.convert import convert
from maskrcnn.weights.mindspore_ckpt import write_mindspore
from maskrcnn.weights.wts import write_wts

MUTANTS = 2000


class Canary:
    """Makes a file when an ordinary unpickler reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def plan(**changes: Any) -> Plan:
    return Plan(**{**SMALL, "depth": 18, **changes})


def torch_file(path: Path, canary: Path, zipped: bool) -> None:
    state = filled(detectron2_shapes(plan(norm="bn")))
    tensors = {name: torch.from_numpy(array).reshape(array.shape) for name, array in state.items()}
    content = {"model": tensors, "optimizer": {"state": {}}, "hook": Canary(canary), "iteration": 9}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


def pickle_file(path: Path, canary: Path) -> None:
    content = {"model": filled(detectron2_shapes(plan())), "matching_heuristics": Canary(canary)}
    path.write_bytes(pickle.dumps(content))


def caffe2_file(path: Path, canary: Path) -> None:
    content = {"blobs": filled(caffe2_shapes(plan())), "extra": Canary(canary)}
    path.write_bytes(pickle.dumps(content, protocol=2))


def safetensors_file(path: Path, canary: Path) -> None:
    save_file(filled(detectron2_shapes(plan())), path, {"format": "pt"})


def wts_file(path: Path, canary: Path) -> None:
    write_wts(path, filled(detectron2_shapes(plan(norm=""))))


def ckpt_file(path: Path, canary: Path, zoo: bool) -> None:
    write_mindspore(path, filled(shapes_of(plan(depth=50 if zoo else 18), zoo)))


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "torch zip.pth": lambda path, canary: torch_file(path, canary, zipped=True),
    "torch legacy.pth": lambda path, canary: torch_file(path, canary, zipped=False),
    "numpy pickle.pkl": pickle_file,
    "caffe2 pickle.pkl": caffe2_file,
    "safetensors.safetensors": safetensors_file,
    "wts.wts": wts_file,
    "mindspore.ckpt": lambda path, canary: ckpt_file(path, canary, zoo=False),
    "mindspore zoo.ckpt": lambda path, canary: ckpt_file(path, canary, zoo=True),
}


def test_the_canary_sings_when_it_is_unpickled(tmp_path: Path) -> None:
    pickle_file(tmp_path / "x.pkl", tmp_path / "canary")
    pickle.loads((tmp_path / "x.pkl").read_bytes())
    assert (tmp_path / "canary").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_loads_or_is_refused_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    counts = run(tmp_path, kind, MUTANTS)
    assert counts["loaded"] + counts["refused"] == MUTANTS
    assert counts["refused"] > MUTANTS / 4
    assert counts["grown_mb"] < 500


@pytest.mark.parametrize("kind", ["torch zip.pth", "mindspore.ckpt"])
def test_a_few_damaged_files_load_or_are_refused(tmp_path: Path, kind: str) -> None:
    assert run(tmp_path, kind, 20)["refused"] > 2


def run(folder: Path, kind: str, count: int) -> dict[str, Any]:
    """The counts of a process that converts so many mutants."""
    source, canary = folder / kind, folder / "canary"
    KINDS[kind](source, canary)
    (folder / "work").mkdir()
    arguments = [Path(__file__).with_name("mutants.py"), source, count, 0, folder / "work", canary]
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("shape", [(), (0,), (7,)])
def test_a_tensor_of_another_shape_is_refused_in_words(tmp_path: Path, shape: tuple[int, ...]) -> None:
    state = filled(shapes_of(plan(depth=50, fc=4, channels=4, width=4, group_width=4), True))
    for name in state:
        if re.search(r"layer[234]|layer1\.[12]|conv[123]\.|list\.[123]|fc_1", name):
            continue  # one of a kind is enough
        write_mindspore(tmp_path / "x.ckpt", state | {name: np.ones(shape, np.float32)})
        with pytest.raises(UserError):
            convert(tmp_path / "x.ckpt", tmp_path / "out.safetensors")
