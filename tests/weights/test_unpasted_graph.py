"""Graphs of mmdetection whose masks are pasted by an operator of mmcv, as its pytorch2onnx writes them."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from maskrcnn.compat import ppl
from maskrcnn.predict import open_model
from maskrcnn.weights.graph_description import describe_graph
from maskrcnn.weights.unpasted_graph import unpasted_graph, without_pasting

WHITE = np.full((40, 60, 3), 255, np.uint8)


@pytest.fixture
def pasted(tmp_path: Path, repository: Path) -> Path:
    """The tiny graph of one cat, with a crop of 4 x 4 cells whose left half is the mask, laid on 80 x 120."""
    write: Callable = runpy.run_path(str(repository / "tests" / "backends" / "mmdetection_graph.py"))[
        "write_tiny"
    ]
    model = onnx.load(write(tmp_path / "tiny.onnx", (80, 120)))
    graph = model.graph
    del graph.node[-2:]  # the mask, and that of the rows found
    crop = np.zeros((1, 1, 4, 4), np.float32)
    crop[..., :2] = 1
    weights = {"crop": crop, "grid": np.zeros((1, 80, 120, 2), np.float32), "side": np.int64([-1, 80, 120])}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    graph.node.extend(
        [
            helper.make_node("Gather", ["crop", "rows"], ["masks.1"], "crops_of_rows", axis=0),
            helper.make_node(
                "grid_sampler",
                ["masks.1", "grid"],
                ["laid"],
                "pasting",
                domain="mmcv",
                align_corners=0,
                interpolation_mode=0,
                padding_mode=0,
            ),
            helper.make_node("Reshape", ["laid", "side"], ["masks"], "shaped"),
        ]
    )
    model.opset_import.append(helper.make_opsetid("mmcv", 1))
    path = tmp_path / "pasted.onnx"
    onnx.save(model, path)
    return path


def test_what_is_left_are_the_crops_and_what_the_other_outputs_need(pasted: Path) -> None:
    contents = unpasted_graph(pasted)
    assert contents is not None
    graph = onnx.load_from_string(contents).graph
    before = onnx.load(pasted).graph
    assert [each.name for each in graph.output] == ["dets", "labels", "masks"]
    assert {each.name for each in before.node} - {each.name for each in graph.node} >= {"pasting", "shaped"}
    assert [node for node in graph.node if node.domain] == []
    assert list(graph.node[-1].input) == ["masks.1"] and list(graph.node[-1].output) == ["masks"]
    assert list(graph.initializer) == list(before.initializer)
    onnx.checker.check_model(onnx.load_from_string(contents))


def test_other_graphs_stay_as_they_are(pasted: Path, tmp_path: Path) -> None:
    plain = tmp_path / "tiny.onnx"
    assert unpasted_graph(plain) is None
    with without_pasting(plain) as same:
        assert same == plain
    (tmp_path / "broken.onnx").write_bytes(pasted.read_bytes()[:-50])
    assert unpasted_graph(tmp_path / "broken.onnx") is None
    (tmp_path / "empty.onnx").touch()
    assert unpasted_graph(tmp_path / "empty.onnx") is None


def test_boxes_that_need_the_pasted_masks_leave_the_graph_as_it_is(pasted: Path, tmp_path: Path) -> None:
    model = onnx.load(pasted)
    model.graph.node.append(helper.make_node("ReduceMax", ["laid"], ["most"], "most"))
    model.graph.output.append(helper.make_tensor_value_info("most", T.FLOAT, None))
    onnx.save(model, tmp_path / "needed.onnx")
    assert unpasted_graph(tmp_path / "needed.onnx") is None


def test_what_a_branch_reads_stays(pasted: Path, tmp_path: Path) -> None:
    model = onnx.load(pasted)
    model.graph.node.insert(0, helper.make_node("Neg", ["input"], ["outside"], "read_by_the_branch"))
    inner = helper.make_graph(
        [helper.make_node("Relu", ["outside"], ["inside"])],
        "b",
        [],
        [helper.make_empty_tensor_value_info("inside")],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    branch = helper.make_node("If", ["yes"], ["extra"], "branch", then_branch=inner, else_branch=inner)
    model.graph.node.append(branch)
    model.graph.output.append(helper.make_tensor_value_info("extra", T.FLOAT, None))
    onnx.save(model, tmp_path / "branch.onnx")
    contents = unpasted_graph(tmp_path / "branch.onnx")
    assert contents is not None
    assert "read_by_the_branch" in [node.name for node in onnx.load_from_string(contents).graph.node]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_it_runs_without_mmcv_and_its_masks_are_the_crops(pasted: Path, engine: str) -> None:
    pytest.importorskip(engine)
    out = pasted.with_name("out.onnx")
    described = describe_graph(pasted, out, classes="coco")
    assert "mmcv:grid_sampler, which is left out" in described.notes[0]
    assert described.spec.origin.file == "pasted.onnx"
    for path, name in ((out, "cat"), (pasted, "class 16")):
        (found,) = open_model(path, engine=engine, threads=1)([WHITE])
        assert found.names() == [name]
        assert found.roi_masks[0].tolist() == [[1, 1, 0, 0]] * 4


def test_the_samples_command_runs_it_as_it_is(
    pasted: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import cv2

    monkeypatch.chdir(pasted.parent)
    cv2.imwrite("white.png", WHITE)
    for extra in ((), ("--exact",)):
        words = ("-i", "white.png", "-o", "out.png", "-m", str(pasted), "--engine", "onnxruntime", *extra)
        ppl.main(words)
        assert "-> out.png" in capfd.readouterr().out
    # The left half of the box 1 2 9 6 of 80 x 120 pixels, which is 0.5 1 4.5 3 of the image.
    assert (cv2.imread("out.png")[2, 10] == 255).all()


def test_pplnn_runs_it_without_the_pasting(
    pasted: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "tests" / "backends" / "fake_pyppl"))
    try:
        (found,) = open_model(pasted, engine="pplnn")([WHITE])
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "pyppl"]:
            del sys.modules[name]
    assert len(found) == 1 and found.roi_masks.shape == (1, 4, 4)


def test_weights_outside_such_a_graph_are_found(pasted: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(pasted), outside, save_as_external_data=True, location="w.data", size_threshold=0)
    there = tmp_path / "there"
    there.mkdir()
    before = sorted(each.name for each in tmp_path.iterdir())
    describe_graph(outside, there / "out.onnx")
    assert sorted(each.name for each in tmp_path.iterdir()) == before
    assert sorted(each.name for each in there.iterdir()) == ["out.onnx", "w.data"]
    assert len(open_model(there / "out.onnx", threads=1)([WHITE])[0]) == 1


def test_the_copy_that_an_engine_read_is_gone(pasted: Path) -> None:
    with without_pasting(pasted) as made:
        assert made.name == pasted.name and made != pasted and made.exists()
    assert not made.parent.exists()
