"""Checkpoints are read with the values that torch and numpy wrote, and damaged ones are refused."""

import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from maskrcnn.errors import UserError
from maskrcnn.weights.readers import read_checkpoint


def state() -> "OrderedDict[str, torch.Tensor]":
    """Tensors of every layout and type that a checkpoint has."""
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    return OrderedDict(
        whole=whole,
        transposed=whole.T,
        part=whole[1:3, 2:5],
        half=torch.tensor([1.5, -2.0], dtype=torch.float16),
        brain=torch.tensor([3.0, -0.15625, 1e30]).bfloat16(),
        double=torch.tensor([0.1], dtype=torch.float64),
        counter=torch.tensor(7),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.tensor([5.0])),
    )


def assert_like_torch(tensors: dict[str, np.ndarray]) -> None:
    for name, value in state().items():
        expected = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
        np.testing.assert_array_equal(tensors[name], expected.numpy())
        assert tensors[name].shape == tuple(value.shape)
        assert tensors[name].dtype == expected.numpy().dtype


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_has_the_values_of_torch(tmp_path: Path, zipped: bool) -> None:
    torch.save(state(), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "x.pth")
    assert found.container == ("torch zip" if zipped else "torch legacy")
    assert_like_torch(found.tensors)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_of_numpy_arrays_has_their_values(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "foreign": np.arange(3, dtype=">f4"),
        "count": np.zeros((), np.int64),
    }
    with (tmp_path / "x.pkl").open("wb") as file:
        pickle.dump({"model": arrays, "__author__": "me"}, file, protocol=protocol)
    found = read_checkpoint(tmp_path / "x.pkl")
    assert found.meta["__author__"] == "me"
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.tensors[name], array)
        assert found.tensors[name].dtype.isnative


def test_a_safetensors_file_has_its_values(tmp_path: Path) -> None:
    tensors = {name: value.detach().contiguous() for name, value in state().items()}
    safetensors.torch.save_file(
        {name: value.clone() for name, value in tensors.items()}, tmp_path / "x.safetensors"
    )
    assert_like_torch(read_checkpoint(tmp_path / "x.safetensors").tensors)


@pytest.mark.parametrize("length", range(0x70, 0x98, 8))
def test_a_safetensors_header_may_be_as_long_as_the_number_that_begins_a_pickle(
    tmp_path: Path, length: int
) -> None:
    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    contents = length.to_bytes(8, "little") + header + np.float32(2.5).tobytes()
    (tmp_path / "x.safetensors").write_bytes(contents)
    assert read_checkpoint(tmp_path / "x.safetensors").tensors["x"].tolist() == [2.5]


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_and_prefixes_of_training_code_are_taken_off(
    tmp_path: Path, wrapper: str, prefix: str
) -> None:
    named = {f"{prefix}{name}": value for name, value in state().items()}
    torch.save(
        {"epoch": 12, wrapper: named, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        tmp_path / "x.pth",
    )
    assert_like_torch(read_checkpoint(tmp_path / "x.pth").tensors)


def test_a_prefix_that_some_names_lack_is_part_of_the_names(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "x.pth")
    assert set(read_checkpoint(tmp_path / "x.pth").tensors) == {"module.a", "b"}


def test_the_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    torch.save(state(), tmp_path / "x.pth")
    expected = hashlib.sha256((tmp_path / "x.pth").read_bytes()).hexdigest()
    assert read_checkpoint(tmp_path / "x.pth").sha256 == expected


def make(kind: str, path: Path) -> None:
    """A checkpoint of each container."""
    if kind == "zip":
        torch.save(state(), path)
    elif kind == "legacy":
        torch.save(state(), path, _use_new_zipfile_serialization=False)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"model": {"a": np.arange(100.0)}}))
    else:
        safetensors.torch.save_file({"a": torch.arange(100.0)}, path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "safetensors"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    make(kind, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    for length in {1, 9, 30, len(content) // 3, len(content) // 2, len(content) - 1}:
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(UserError, match="cut"):
            read_checkpoint(tmp_path / "cut")


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "safetensors"])
def test_flipped_bytes_give_other_values_or_one_sentence(tmp_path: Path, kind: str) -> None:
    make(kind, tmp_path / "x")
    content = bytearray((tmp_path / "x").read_bytes())
    random = np.random.default_rng(0)
    for position in random.choice(len(content), 150):
        changed = bytearray(content)
        changed[position] ^= 1 << int(random.integers(8))
        (tmp_path / "changed").write_bytes(changed)
        try:
            read_checkpoint(tmp_path / "changed")
        except UserError as error:
            assert error.message.startswith(str(tmp_path / "changed"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"hello, I am a text file\n", r"text \(it starts with 'hello, I am a te'\), not a checkpoint"),
        (b"<!DOCTYPE html><html>", "text"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, not a checkpoint"),
        (b"\x1f\x8b" + bytes(100), "a compressed archive, not a checkpoint"),
        (bytes(100), "of an unknown kind, not a checkpoint"),
        (pickle.dumps([1, 2, 3]), "holds no tensors by name"),
        (pickle.dumps({"model": {}}), "holds no tensors by name"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert caught.value.hint


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, not a checkpoint"):
        read_checkpoint(tmp_path)
    with pytest.raises(UserError, match="there is no such file"):
        read_checkpoint(tmp_path / "absent.pth")


def test_an_archive_that_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="not one of torch.save"):
        read_checkpoint(tmp_path / "x.zip")


def test_a_compressed_member_is_refused_before_it_grows(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10_000_000))
    with pytest.raises(UserError, match="is compressed"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_storage_that_claims_more_values_than_it_has_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(4.0)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    # the size and the count of the tensor are both the one-byte integer 4
    members["x/data.pkl"] = members["x/data.pkl"].replace(b"K\x04", b"K\xff")
    with zipfile.ZipFile(tmp_path / "y.pth", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="claims 255 values in 16 bytes"):
        read_checkpoint(tmp_path / "y.pth")


def test_a_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(UserError, match="header ends after the file"):
        read_checkpoint(tmp_path / "x.safetensors")
