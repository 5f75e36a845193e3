"""The calls to PPL.NN, against a module that behaves as the real one was measured to."""

import ctypes
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from maskrcnn.backends.pplnn import session
from maskrcnn.backends.pplnn_graph import check_graph, faults
from maskrcnn.errors import UserError

FAKE = Path(__file__).parent / "fake_pyppl"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[object, ...]]]:
    """OpenPPL is installed; what is called in it."""
    monkeypatch.syspath_prepend(str(FAKE))
    yield importlib.import_module("pyppl.common").CALLS
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyppl"]:
        del sys.modules[name]


def conv_graph(path: Path, opset: int = 11) -> Path:
    """x (n, 2, h, w) -> sum of both channels and ten times the second, (n, 1, h, w), and its ReLU."""
    weight = numpy_helper.from_array(np.array([1, 10], np.float32).reshape(1, 2, 1, 1), "weight")
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["sum"], "conv", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["sum"], ["positive"], "relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", T.FLOAT, ["n", 2, "h", "w"])],
        [helper.make_tensor_value_info(name, T.FLOAT, ["n", 1, "h", "w"]) for name in ("sum", "positive")],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def test_calls_come_in_the_order_that_the_engine_needs(tmp_path: Path, calls: list) -> None:
    run = session(conv_graph(tmp_path / "g.onnx"), guarded=False)
    run({"x": np.ones((1, 2, 3, 4), np.float32)})
    assert calls == [
        ("SetLoggingLevel", 3),
        ("EngineFactory.Create",),
        ("RuntimeBuilderFactory.Create",),
        ("LoadModelFromFile", "g.onnx"),
        ("SetResources",),
        ("Preprocess",),
        ("CreateRuntime",),
        ("ConvertFromHost", "x", (1, 2, 3, 4)),
        ("Run",),
        ("ConvertToHost", "sum"),
        ("ConvertToHost", "positive"),
    ]


def test_an_array_of_any_layout_and_type_is_read_rightly(tmp_path: Path, calls: list) -> None:
    run = session(conv_graph(tmp_path / "g.onnx"))
    array = np.arange(24, dtype=np.uint8).reshape(1, 3, 4, 2).transpose(0, 3, 1, 2)
    found = run({"x": array})
    expected = (array[:, :1] + 10.0 * array[:, 1:]).astype(np.float32)
    np.testing.assert_array_equal(found["sum"], expected)
    assert found["positive"].dtype == np.float32


def test_what_a_run_returned_stays_after_the_next_of_another_size(tmp_path: Path, calls: list) -> None:
    run = session(conv_graph(tmp_path / "g.onnx"), guarded=False)
    first = run({"x": np.ones((1, 2, 3, 4), np.float32)})
    second = run({"x": np.full((2, 2, 5, 6), 2, np.float32)})
    assert np.all(first["sum"] == 11)
    assert second["sum"].shape == (2, 1, 5, 6)


def test_no_rows_come_back_as_no_rows(tmp_path: Path, calls: list) -> None:
    run = session(conv_graph(tmp_path / "g.onnx"), guarded=False)
    assert run({"x": np.zeros((0, 2, 3, 4), np.float32)})["sum"].shape == (0, 1, 3, 4)


def test_every_return_code_is_looked_at(tmp_path: Path, calls: list, monkeypatch: pytest.MonkeyPatch) -> None:
    nn = importlib.import_module("pyppl.nn")
    path = conv_graph(tmp_path / "g.onnx")
    for owner, name, words in (
        (nn._Builder, "LoadModelFromFile", "loading: unsupported, code 2"),
        (nn._Builder, "SetResources", "setting the engine: unsupported, code 2"),
        (nn._Builder, "Preprocess", "preparing: unsupported, code 2"),
        (nn._Tensor, "ConvertFromHost", "input x: unsupported, code 2"),
        (nn._Runtime, "Run", "a run: unsupported, code 2"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *_: 2)
            with pytest.raises(UserError) as refused:
                session(path, guarded=False)({"x": np.ones((1, 2, 3, 4), np.float32)})
            assert words in refused.value.message


def test_what_is_not_made_is_looked_at(tmp_path: Path, calls: list, monkeypatch: pytest.MonkeyPatch) -> None:
    nn = importlib.import_module("pyppl.nn")
    path = conv_graph(tmp_path / "g.onnx")
    for owner, name, words in (
        (nn._Engine, "Create", "no x86 engine"),
        (nn._Builder, "Create", "no builder"),
        (nn._Builder, "CreateRuntime", "no runtime"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *_: None)
            with pytest.raises(UserError, match=words):
                session(path, guarded=False)


def test_a_code_without_a_name_is_told_as_a_number(
    tmp_path: Path, calls: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("pyppl.nn")._Runtime, "Run", lambda _: 40)
    with pytest.raises(UserError, match="a run: unknown, code 40"):
        session(conv_graph(tmp_path / "g.onnx"), guarded=False)({"x": np.ones((1, 2, 3, 4), np.float32)})


def test_a_failed_run_does_not_hinder_the_next(tmp_path: Path, calls: list) -> None:
    run = session(conv_graph(tmp_path / "g.onnx"), guarded=False)
    with pytest.raises(UserError, match="a run: invalid value, code 4"):
        run({"x": np.ones((1, 3, 3, 4), np.float32)})
    assert run({"x": np.ones((1, 2, 3, 4), np.float32)})["sum"].max() == 11


def test_a_graph_that_ends_the_process_ends_a_child_only(
    tmp_path: Path, calls: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_PYPPL_CRASHES", "1")
    with pytest.raises(UserError, match="it ends the process by SIGSEGV"):
        session(conv_graph(tmp_path / "g.onnx"))


def test_threads_are_those_of_openmp(tmp_path: Path, calls: list, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(omp_set_num_threads=threads.append))
    session(conv_graph(tmp_path / "g.onnx"), threads=3, guarded=False)
    assert threads == [3]


def test_without_openmps_library_threads_are_refused(
    tmp_path: Path, calls: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(UserError) as refused:
        session(conv_graph(tmp_path / "g.onnx"), threads=3, guarded=False)
    assert refused.value.hint == "leave --threads out and set OMP_NUM_THREADS=3"


def test_another_device_or_precision_is_refused(tmp_path: Path) -> None:
    for arguments, words in (({"device": "cuda"}, "--device cuda"), ({"precision": "fp16"}, "in fp16")):
        with pytest.raises(UserError, match=words):
            session(tmp_path / "g.onnx", **arguments)


@pytest.mark.parametrize("content", ["", "class Pyppl: pass", "nn = common = object()"])
def test_the_other_program_of_that_name_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    module = ModuleType("pyppl")
    exec(content, module.__dict__)  # noqa: S102
    monkeypatch.setitem(sys.modules, "pyppl", module)
    with pytest.raises(UserError) as refused:
        session(tmp_path / "g.onnx")
    assert "PPL.NN cannot be imported" in refused.value.message
    assert "pyppl on PyPI is another program" in refused.value.hint


def small_model(nodes: list[onnx.NodeProto], opset: int = 11, **dims: list) -> onnx.ModelProto:
    """A graph of these nodes, unchecked."""
    inputs = [helper.make_tensor_value_info(name, T.FLOAT, shape) for name, shape in dims.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize(
    ("operator", "attributes", "fault"),
    [
        ("Abs", {}, "Abs"),
        ("InstanceNormalization", {}, "InstanceNormalization"),
        ("Squeeze", {}, "Squeeze without axes"),
        ("ReduceMean", {"keepdims": 1}, "ReduceMean without axes"),
        ("Conv", {}, "Conv without kernel_shape"),
        (
            *("ConvTranspose", {"kernel_shape": [2, 2], "strides": [2, 2], "group": 1}),
            "ConvTranspose without dilations, pads",
        ),
        ("Resize", {"mode": "linear"}, "Resize of mode linear, half_pixel"),
        (
            *("Resize", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}),
            "Resize with nearest_mode round_prefer_floor",
        ),
    ],
)
def test_what_the_engine_refuses_or_computes_wrongly_is_named(
    operator: str, attributes: dict, fault: str
) -> None:
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    assert faults(small_model([node], x=[1, 2])) == [fault]


def test_other_faults_of_a_graph_are_named() -> None:
    custom = helper.make_node("RoiAlign", ["x"], ["y"], domain="mmdeploy")
    assert faults(small_model([custom], x=[1])) == ["mmdeploy:RoiAlign"]
    assert faults(small_model([], opset=17, x=[1])) == ["opset 17"]
    left_out = helper.make_node("Pad", ["x", "p", ""], ["y"])
    assert faults(small_model([left_out], x=[1])) == ["Pad with an input left out"]
    nodes = [helper.make_node("Relu", ["x"], [name], "same") for name in ("y", "z")]
    assert faults(small_model(nodes, x=[1])) == ["two nodes of the name same"]
    assert faults(small_model([], x=[None])) == ["input x with a dimension of neither number nor name"]
    softmax = helper.make_node("Softmax", ["x"], ["y"], axis=1)
    assert faults(small_model([softmax], opset=13, x=[1])) == ["Softmax over axis 1"]
    assert faults(small_model([softmax], opset=11, x=[1])) == []


def test_a_graph_that_is_not_run_is_refused_before_the_engine_sees_it(tmp_path: Path, calls: list) -> None:
    nodes = [helper.make_node("Abs", ["x"], [f"y{n}"], f"a{n}") for n in range(3)]
    onnx.save(small_model(nodes, x=[1]), tmp_path / "g.onnx")
    with pytest.raises(UserError, match=r"PPL.NN does not run Abs \(3 nodes\)"):
        session(tmp_path / "g.onnx")
    assert calls == []


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(b"\xff\xfe no graph")
    for name in ("g.onnx", "missing.onnx"):
        with pytest.raises(UserError, match="is not an ONNX model, or not all of it"):
            check_graph(tmp_path / name)
