"""What is told of the machine."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from maskrcnn.bench.machine import Machine, imported_versions, peak_memory, this_machine

IDLE = Machine("Z80", 4, 0.9, "CP/M", "3.13.0")


def test_a_machine_is_busy_from_a_quarter_of_its_cores_on() -> None:
    assert not IDLE.busy
    assert replace(IDLE, load=1.1).busy
    assert not replace(IDLE, load=None).busy


def test_a_machine_is_told_in_a_line() -> None:
    assert IDLE.words() == "Z80, 4 cores, load 0.9, CP/M, Python 3.13.0"
    assert replace(IDLE, cores=1, load=None).words() == "Z80, 1 core, CP/M, Python 3.13.0"


def test_this_machine_has_a_processor_and_at_least_one_core() -> None:
    found = this_machine()
    assert found.cpu
    assert found.cores >= 1
    assert found.python == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.skipif(sys.platform != "linux", reason="a later peak of this process is read on Linux")
def test_peak_memory_grows_with_what_was_touched_and_stays() -> None:
    before = peak_memory()
    held = np.ones(64 << 20, np.uint8)
    while_held = peak_memory()
    del held
    assert before is not None and while_held is not None
    assert while_held >= before
    assert while_held >= 64 << 20
    assert peak_memory() == pytest.approx(while_held, rel=0.05)


def test_only_what_is_imported_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    found = imported_versions()
    assert found["numpy"] == np.__version__
    assert "torch" not in found
