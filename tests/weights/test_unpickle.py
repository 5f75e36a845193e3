"""A pickle can run nothing, whatever it asks for, and cannot grow beyond its file."""

import contextlib
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn.errors import UserError
from maskrcnn.weights.readers import read_checkpoint
from maskrcnn.weights.unpickle import Inert, Malformed, unpickle


class Reduced:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def touching(path: Path) -> str:
    """A command that leaves a trace."""
    return f"touch {path}"


def assert_inert(content: bytes, trace: Path) -> None:
    """unpickle runs nothing; pickle.loads of the same bytes would."""
    with contextlib.suppress(Malformed):
        unpickle(content)
    assert not trace.exists()


def test_the_drill_would_leave_a_trace_with_the_unpickler_of_python(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Reduced(os.system, touching(tmp_path / "trace"))))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_reduce_runs_nothing(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    call = Reduced(os.system, touching(trace))
    nested = Reduced(eval, f"__import__('os').system('touch {trace}')")
    for value in (
        call,
        [call],
        {"model": {"a": call}},
        (nested, {"b": [nested]}),
        {1: Reduced(getattr, call, "x")},
    ):
        assert_inert(pickle.dumps(value, protocol=protocol), trace)


@pytest.mark.parametrize("module", ["os", "posix", "subprocess", "builtins", "__builtin__", "torch", "numpy"])
@pytest.mark.parametrize("ending", ["R", "o", "i", "\x81", "\x92", "b"])
def test_no_opcode_runs_anything(tmp_path: Path, module: str, ending: str) -> None:
    trace = tmp_path / "trace"
    command = touching(trace).encode()
    name = f"c{module}\nsystem\n".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    content = {
        "R": name + text + b"\x85R.",  # REDUCE
        "o": b"(" + name + text + b"o.",  # OBJ
        "i": b"(" + text + f"i{module}\nsystem\n".encode() + b".",  # INST
        "\x81": b"\x80\x02" + name + text + b"\x85\x81.",  # NEWOBJ
        "\x92": b"\x80\x04" + name + text + b"\x85}\x92.",  # NEWOBJ_EX
        "b": name + b")R}" + text + text + b"sb.",  # BUILD
    }[ending]
    assert_inert(content, trace)


def test_a_global_is_a_note_of_its_name_and_is_never_imported() -> None:
    value = unpickle(b"cantigravity\nfly\n)R.")
    assert isinstance(value, Inert)
    assert value.name == "antigravity.fly"
    import sys

    assert "antigravity" not in sys.modules


def test_build_gives_no_attributes_to_anything() -> None:
    # BUILD with a state, as torch's state dicts have one for their _metadata
    value = unpickle(b"\x80\x02}}X\x09\x00\x00\x00_metadataNsb.")
    assert value == {}
    assert not hasattr(value, "_metadata")


def test_a_malicious_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    bad = Reduced(os.system, touching(trace))
    for name, value in {"top": bad, "model": {"model": bad}, "key": {"a": np.ones(1), "b": bad}}.items():
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(value))
        with pytest.raises(UserError, match=r"(posix|nt)\.system.*nothing of it was run"):
            read_checkpoint(tmp_path / f"{name}.pkl")
    torch.save({"a": torch.ones(1), "b": bad}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"b is no tensor but (posix|nt)\.system"):
        read_checkpoint(tmp_path / "x.pth")
    assert not trace.exists()


def test_objects_beside_the_tensors_do_no_harm(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save(
        {
            "state_dict": {"a": torch.ones(2)},
            "meta": {"hook": Reduced(os.system, touching(trace)), "epoch": 3},
        },
        tmp_path / "x.pth",
    )
    found = read_checkpoint(tmp_path / "x.pth")
    assert found.tensors["a"].tolist() == [1, 1]
    assert found.meta["meta"]["epoch"] == 3
    assert not trace.exists()


def test_an_array_of_python_objects_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": np.ones(1), "b": np.array([{}], object)}))
    with pytest.raises(UserError, match="b is no tensor but numpy.ndarray of Python objects"):
        read_checkpoint(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",  # BINBYTES8 of a terabyte
        b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"x.",
        b"\x80\x04" + b"N" * 10 + b"\x86\x86",  # no STOP
        b"\x80\x04.",  # an empty stack
        b"\x80\x04\x82\x01.",  # an extension code
        b"\x80\x04h\x05.",  # an unknown memo index
        b"\x80\x04}}Ns.",  # a dict as a key
        b"\x80\x04}" + b")" + b"\x85" * 200_000 + b"Ns.",  # a tuple nested 200,000 deep as a key
        b"\x80\x04" + b"]" + b"2" * 3 + b"e" * 3 + b".",
    ],
)
def test_claims_and_nonsense_are_refused_at_once(content: bytes) -> None:
    with pytest.raises(Malformed):
        unpickle(content)


def test_a_large_memo_index_takes_no_memory() -> None:
    assert unpickle(b"\x80\x04Nr\xff\xff\xff\xff.") is None


def test_an_array_cannot_be_larger_than_its_bytes() -> None:
    content = pickle.dumps(np.zeros((2, 3), np.float32), protocol=2)
    assert b"K\x02K\x03\x86" in content
    with pytest.raises(Malformed, match="an array of shape"):
        unpickle(content.replace(b"K\x02K\x03\x86", b"K\xffK\xff\x86"))


def test_a_list_that_holds_itself_many_times_takes_no_time(tmp_path: Path) -> None:
    laughs: Any = []
    for _ in range(60):
        laughs = [laughs, laughs]
    content = {"model": {"a": np.ones(1)}, "meta": {"b": laughs}}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    assert list(read_checkpoint(tmp_path / "x.pkl").tensors) == ["a"]
