"""Files that segmentoly's own converter and Model Optimizer write: names and operators that ours have not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from networks import INPUT, SMALL, model_file, scene
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as ops

from maskrcnn import presets
from maskrcnn.backends.contracts.segmentoly import mended
from maskrcnn.backends.openvino_runtime import session
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.export.contracts.segmentoly import export, export_onnx
from maskrcnn.export.form import Form
from maskrcnn.predict import open_model

pytestmark = pytest.mark.filterwarnings("ignore:.*legacy TorchScript:DeprecationWarning")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    model = model_file(folder / "small.safetensors", SMALL["fpn"], INPUT, presets.SEGMENTOLY)
    export_onnx(model, folder / "ours.onnx", Form(size=(96, 128)))
    return folder / "ours.onnx"


def raw_of(path: Path) -> Raw:
    return open_model(path, threads=1, engine="openvino").backend.run(scene(96, 128), np.array([[96, 120]]))


def as_theirs(path: Path, out: Path) -> Path:
    """The graph with a fourth output of its detections, and with 0 of int64 added to every output."""
    model = onnx.load(path)
    graph = model.graph
    (detections,) = [node for node in graph.node if node.op_type == "ExperimentalDetectronDetectionOutput"]
    detections.output.append("numbers_of_images")
    zero = helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array(0, np.int64)))
    graph.node.append(zero)
    for value in graph.output:
        for node in graph.node:
            for names in (node.input, node.output):
                for at, name in enumerate(names):
                    if name == value.name:
                        names[at] = f"inner/{name}"
        source = "numbers_of_images" if value.name == "batch_ids" else f"inner/{value.name}"
        graph.node.append(helper.make_node("Add", [source, "zero"], [value.name]))
    onnx.save(model, out)
    return out


def test_an_onnx_file_of_its_converter_finds_the_same(ours: Path, tmp_path: Path) -> None:
    theirs = as_theirs(ours, tmp_path / "theirs.onnx")
    with pytest.raises(RuntimeError):
        openvino.Core().read_model(theirs)
    found, wanted = raw_of(theirs), raw_of(ours)
    assert (wanted.scores > 0).sum() > 3
    for mine, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_group_norm_in_pyramid_and_head_finds_the_same_in_pictures_of_more_than_one_colour(
    tmp_path: Path,
) -> None:
    """In one colour a norm divides rounding errors by nearly nothing, and anchors differ by them alone."""
    small = SMALL["fpn"]
    config = replace(
        small,
        fpn=replace(small.fpn, channels=32, norm="gn", conv_bias=True),
        mask_head=replace(small.mask_head, channels=32, norm="gn", conv_bias=True),
    )
    model = model_file(tmp_path / "gn.safetensors", config, INPUT, presets.SEGMENTOLY)
    export(model, tmp_path / "gn.xml", Form(size=(96, 128)))
    whole, size = scene(96, 128).astype(np.float32), np.array([[96, 120]])
    wanted = open_model(model, "cpu").backend.run(whole, size)
    found = open_model(tmp_path / "gn.xml", threads=1, engine="openvino").backend.run(whole, size)
    assert (wanted.scores > 0).sum() > 3
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)


def test_no_other_graph_is_mended(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1])
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["boxes"])], "g", [taken], [value])
    onnx.save(helper.make_model(graph), tmp_path / "other.onnx")
    assert mended(tmp_path / "other.onnx") is None
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07\x3a\x7f\x0a\x00")
    assert mended(tmp_path / "broken.onnx") is None
    with pytest.raises(UserError, match="cannot run it"):
        session(tmp_path / "broken.onnx")


def test_a_value_with_two_names_has_that_of_its_layer(tmp_path: Path) -> None:
    """As Model Optimizer names masks, whose added 0 it drops."""
    taken = ops.parameter([2], np.float32, name="im_data")
    made = ops.sigmoid(taken)
    made.friendly_name = "raw_masks"
    made.output(0).tensor.set_names({"/mask_head/Sigmoid_output_0", "raw_masks"})
    taken.output(0).tensor.set_names({"im_data"})
    openvino.save_model(openvino.Model([made], [taken], "net"), tmp_path / "net.xml", compress_to_fp16=False)
    opened = session(tmp_path / "net.xml", threads=1)
    assert (opened.inputs, opened.outputs) == (("im_data",), ("raw_masks",))
    assert opened({"im_data": np.zeros(2, np.float32)})["raw_masks"].tolist() == [0.5, 0.5]
