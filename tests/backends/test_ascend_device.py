"""The device `npu` is torch_npu's: loaded when it is named, and its absence is one sentence."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

from maskrcnn.backends import pytorch
from maskrcnn.backends.pytorch import choose_device
from maskrcnn.errors import UserError
from maskrcnn.training.processes import joined

# Stands for Huawei's: torch knows the device from then on; memory on it is that of the CPU.
STAND_IN = """
import torch
torch.utils.rename_privateuse1_backend("npu")
usual = torch.empty
torch.empty = lambda *size, device=None, **more: usual(*size, **more)
"""
ASK = """
from maskrcnn.backends.pytorch import choose_device
print(choose_device("npu"), choose_device("npu:1"))
"""


def test_naming_the_device_loads_torch_npu(tmp_path: Path) -> None:
    """In a Python of its own: a device of torch is renamed once and for all."""
    (tmp_path / "torch_npu.py").write_text(STAND_IN, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["npu", "npu:1"]), done.stderr


def test_without_torch_npu_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    with pytest.raises(
        UserError, match="--device npu:1: Ascend needs torch_npu, which cannot be loaded"
    ) as told:
        choose_device("npu:1")
    assert "torch-npu" in told.value.hint


def test_a_driver_that_does_not_load_is_told_with_its_first_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(name: str) -> None:
        assert name == "torch_npu"
        raise RuntimeError("libascend_hal.so: cannot open shared object file\nmore")

    monkeypatch.setattr(pytorch, "import_module", failing)
    with pytest.raises(UserError, match=r"here \(libascend_hal\.so: cannot open shared object file\)"):
        choose_device("npu")


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What processes would have met by."""
    asked_for: list[Any] = []

    def init(backend: str, rank: int, world_size: int, timeout: object) -> None:
        asked_for.append((backend, rank, world_size))

    monkeypatch.setattr(distributed, "init_process_group", init)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    for name in ("RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK_ID", "1")
    monkeypatch.setenv("RANK_SIZE", "2")
    monkeypatch.setenv("DEVICE_ID", "1")
    # Set by `joined` as well: restored after the test.
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    yield asked_for


@pytest.mark.parametrize(("device", "backend"), [("npu", "hccl"), ("cuda", "nccl"), ("cpu", "gloo")])
def test_processes_on_ascend_meet_by_hccl(meeting: list[Any], device: str, backend: str) -> None:
    with joined(device) as processes:
        assert (processes.rank, processes.count, processes.local) == (1, 2, 1)
    assert meeting == [(backend, 1, 2)]
