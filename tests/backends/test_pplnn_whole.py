"""Whole detectors of other tools on PPL.NN, and what of them it is not given."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from mmdetection_graph import write_tiny
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from maskrcnn.backends.pplnn import is_installed
from maskrcnn.backends.pplnn_graph import faults
from maskrcnn.errors import UserError
from maskrcnn.predict import open_model

WHITE, BLACK = (np.full((40, 60, 3), grey, np.uint8) for grey in (255, 0))


@pytest.fixture
def openppl(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """OpenPPL's module is installed, as far as a fake of it goes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "fake_pyppl"))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyppl"]:
        del sys.modules[name]


# In an input of any size the image is 1200 pixels wide, padded to 1216 with the mean colour.
@pytest.mark.parametrize(("size", "filled"), [(None, 1200 / 1216), ((80, 120), 1)])
def test_one_detection_and_none_come_back(
    tmp_path: Path, openppl: None, size: tuple[int, int] | None, filled: float
) -> None:
    model = open_model(write_tiny(tmp_path / "g.onnx", size), engine="pplnn")
    one, none = model([WHITE, BLACK])
    assert (one.labels.tolist(), none.labels.tolist()) == ([15], [])
    white = 2.4380 * filled  # mean of (255 - mean) / std
    assert one.scores[0] == pytest.approx(1 / (1 + np.exp(-white)), abs=1e-4)
    theirs = open_model(tmp_path / "g.onnx", engine="onnxruntime")([WHITE])[0]
    np.testing.assert_array_equal(one.boxes, theirs.boxes)
    np.testing.assert_array_equal(one.masks(), theirs.masks())


def test_a_graph_that_ends_the_engine_does_not_end_this_process(
    tmp_path: Path, openppl: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_PYPPL_CRASHES", "1")
    with pytest.raises(UserError, match="it ends the process by SIGSEGV"):
        open_model(write_tiny(tmp_path / "g.onnx"), engine="pplnn")


def test_a_whole_graph_of_ours_is_sent_to_its_parts(openppl: None, repository: Path) -> None:
    with pytest.raises(UserError, match="which PPL.NN does not run") as told:
        open_model(repository / "src" / "maskrcnn" / "example.onnx", engine="pplnn")
    assert "OUT.parts --opset 11" in told.value.hint


def test_a_graph_of_a_later_opset_is_refused_by_name(tmp_path: Path, openppl: None) -> None:
    with pytest.raises(UserError, match="PPL.NN does not run opset 16"):
        open_model(write_tiny(tmp_path / "g.onnx", opset=16), engine="pplnn")


def test_openppl_is_told_from_the_other_pyppl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "pyppl.py").write_text("class Proc: ...\n")
    with monkeypatch.context() as other:
        other.syspath_prepend(str(tmp_path))
        assert not is_installed()
    sys.modules.pop("pyppl", None)
    request.getfixturevalue("openppl")
    assert is_installed()


def graph_of(
    operator: str, inputs: dict[str, tuple[int, list[int]]], domain: str = "", opset: int = 11, **how: object
) -> onnx.ModelProto:
    """A graph of one node, whose output is not described."""
    values = [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in inputs.items()]
    node = helper.make_node(operator, list(inputs), ["y"], domain=domain, **how)
    graph = helper.make_graph([node], "g", values, [])
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=imports)


TWO = {"a": (T.FLOAT, [3, 4]), "b": (T.FLOAT, [3, 4])}


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (graph_of("NonMaxSuppression", {"a": (T.FLOAT, [1, 3, 4])}), []),
        (graph_of("NonMaxSuppression", TWO, "mmcv"), []),
        (
            graph_of("NonMaxSuppression", {"a": (T.FLOAT, [3, 4])}, "mmcv"),
            ["mmcv:NonMaxSuppression of 1 inputs"],
        ),
        (graph_of("NonMaxSuppression", TWO, "mmdeploy"), ["mmdeploy:NonMaxSuppression"]),
        (graph_of("Max", TWO), ["Max of two values of 2 and 2 dimensions"]),
        (graph_of("Max", {"a": (T.FLOAT, [3, 4]), "b": (T.FLOAT, [4])}), []),
        (graph_of("ReduceSum", {"a": (T.FLOAT, [3, 4])}), ["ReduceSum without axes"]),
        (graph_of("ReduceSum", {"a": (T.FLOAT, [3, 4])}, keepdims=0), []),
        (graph_of("ReduceSum", TWO, opset=13, keepdims=0), ["ReduceSum with axes as an input"]),
        (graph_of("Gather", {"a": (T.FLOAT, [3]), "b": (T.INT32, [1])}), ["Gather with places of 32 bits"]),
        (graph_of("Gather", {"a": (T.FLOAT, [3]), "b": (T.INT64, [1])}), []),
        (
            graph_of("ScatterND", {"a": (T.INT64, [3]), "b": (T.INT64, [1, 1]), "c": (T.INT64, [1])}),
            ["ScatterND of other values than floats"],
        ),
        (
            graph_of("ReduceMean", {"a": (T.INT64, [3, 4])}, axes=[0], keepdims=0),
            ["ReduceMean of whole numbers"],
        ),
        (graph_of("Round", {"a": (T.FLOAT, [3])}), ["Round"]),
    ],
)
def test_what_the_engine_would_compute_wrongly_is_named(model: onnx.ModelProto, found: list[str]) -> None:
    assert faults(model, whole=True) == found


def test_a_branch_that_returns_nothing_and_an_operator_inside_it_are_named() -> None:
    nothing = numpy_helper.from_array(np.zeros((0, 4), np.float32), "nothing")
    empty = helper.make_graph([], "empty", [], [helper.make_tensor_value_info("nothing", T.FLOAT, [0, 4])])
    empty.initializer.append(nothing)
    inner = helper.make_graph(
        [helper.make_node("Abs", ["x"], ["z"])], "abs", [], [helper.make_tensor_value_info("z", T.FLOAT, [3])]
    )
    model = graph_of("If", {"c": (T.BOOL, [])}, then_branch=empty, else_branch=inner)
    assert faults(model, whole=True) == ["Abs", "If that returns a constant of no elements"]
