"""Containers of other tools are written so that those tools read them."""

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn.errors import UserError
from maskrcnn.weights.readers import read_checkpoint
from maskrcnn.weights.writers import Call, Name, Outside, write_numpy_pickle, write_pickle, write_torch

TENSORS = {
    "weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "half": np.ones(3, np.float16),
    "double": np.full(2, 0.1),
    "none": np.zeros((0, 3), np.float32),
    "counter": np.array(7),
    "spread": np.broadcast_to(np.float32(2), (2, 2)),
}
META = {
    "names": ("a", "ü"),
    "epoch": 1 << 40,
    "less": -5,
    "nothing": None,
    "yes": True,
    "no": False,
    "rate": 0.5,
}


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_tensors_and_plain_values_as_weights_only(tmp_path: Path, mmap: bool) -> None:
    write_torch(tmp_path / "x.pth", {"model": TENSORS, "meta": META})
    loaded = torch.load(tmp_path / "x.pth", weights_only=True, mmap=mmap)
    assert loaded["meta"] == META
    assert list(loaded["model"]) == list(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(loaded["model"][name].numpy(), array, strict=True)


def test_tensors_are_aligned_as_torch_aligns_them(tmp_path: Path) -> None:
    write_torch(tmp_path / "x.pth", TENSORS)
    content = (tmp_path / "x.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        members = archive.infolist()
    for member in members:
        name, extra = struct.unpack_from("<HH", content, member.header_offset + 26)
        assert (member.header_offset + 30 + name + extra) % 64 == 0
    assert members[0].filename == "archive/data.pkl"
    assert sum(member.filename.startswith("archive/data/") for member in members) == len(TENSORS)


def test_the_same_tensors_make_the_same_file(tmp_path: Path) -> None:
    for name in ("x.pth", "another.pth"):
        write_torch(tmp_path / name, TENSORS)
    assert (tmp_path / "x.pth").read_bytes() == (tmp_path / "another.pth").read_bytes()


def test_python_loads_a_pickle_of_arrays_as_detectron2_does(tmp_path: Path) -> None:
    write_numpy_pickle(tmp_path / "x.pkl", {"model": TENSORS, "__author__": "maskrcnn"})
    with (tmp_path / "x.pkl").open("rb") as file:
        loaded = pickle.load(file, encoding="latin1")
    assert loaded["__author__"] == "maskrcnn"
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(loaded["model"][name], array, strict=True)
    # numpy before 2 has no numpy._core
    assert b"numpy._core" not in (tmp_path / "x.pkl").read_bytes()


@pytest.mark.parametrize(("write", "container"), [(write_torch, "torch zip"), (write_numpy_pickle, "pickle")])
def test_our_own_reader_reads_both(tmp_path: Path, write: Any, container: str) -> None:
    write(tmp_path / "x", {"model": TENSORS})
    found = read_checkpoint(tmp_path / "x")
    assert found.container == container
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found.tensors[name], array, strict=True)


def test_every_kind_of_value_is_what_python_reads() -> None:
    parts: list[bytes] = []
    value = {"a": (1, -1, 1 << 31, -(1 << 70), 1.5, "ü", b"\x00", None, True, False, (), {})}
    write_pickle(parts.append, value, protocol=3)
    assert pickle.loads(b"".join(parts)) == value
    parts.clear()
    write_pickle(parts.append, Call(Name("fractions", "Fraction"), (1, 3)), protocol=3)
    assert pickle.loads(b"".join(parts)) * 3 == 1
    parts.clear()
    write_pickle(parts.append, Outside(("storage", "0")), protocol=2)
    assert parts[-2:] == [b"Q", b"."]
    with pytest.raises(TypeError, match="set"):
        write_pickle(parts.append, {1}, protocol=3)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_torch(tmp_path / "x.pth", {"a": np.ones(3, np.float32), "b": object()})
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_torch(tmp_path / "x", TENSORS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]
