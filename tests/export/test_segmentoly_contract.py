"""Graphs with segmentoly's names and Detectron's operators: what OpenVINO finds, and what is refused."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from networks import INPUT, SMALL, model_file, scene
from onnx import TensorProto, helper

from maskrcnn import presets
from maskrcnn.config import AnchorConfig, Conventions, ModelConfig, SoftNMSConfig
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.export.contracts import detectron_graph as joined
from maskrcnn.export.contracts.segmentoly import export, export_onnx, window_of
from maskrcnn.export.form import Form
from maskrcnn.export.gate import Asked, write_checked
from maskrcnn.model.boxes import pyramid_level
from maskrcnn.ops.pool_levels import pool_levels
from maskrcnn.predict import open_model
from maskrcnn.spec import Exported, Spec

pytestmark = pytest.mark.filterwarnings("ignore:.*legacy TorchScript:DeprecationWarning")
BGR = replace(INPUT, channels="bgr")
FPN, C4 = SMALL["fpn"], SMALL["c4"]
AGNOSTIC = replace(
    FPN,
    box_head=replace(FPN.box_head, class_agnostic=True),
    mask_head=replace(FPN.mask_head, class_agnostic=True),
)


def small(folder: Path, config: ModelConfig = FPN, habits: Conventions = presets.SEGMENTOLY) -> Path:
    return model_file(folder / "small.safetensors", config, BGR, habits)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 96 x 128 pixels, its `.bin` and its model beside it."""
    folder = tmp_path_factory.mktemp("ours")
    spec = export(small(folder), folder / "ours.xml", Form(size=(96, 128)))
    assert spec.exported == Exported(batch=1, height=96, width=128, contract="segmentoly")
    return folder / "ours.xml"


@pytest.mark.parametrize(
    ("config", "habits"),
    [
        (FPN, replace(presets.SEGMENTOLY, padding="black")),
        (C4, presets.SEGMENTOLY_C4),
        (AGNOSTIC, presets.CAFFE2),
    ],
    ids=["black padding", "c4", "agnostic caffe2"],
)
def test_openvino_finds_with_detectrons_operators_what_the_model_finds(
    tmp_path: Path, config: ModelConfig, habits: Conventions
) -> None:
    model, out = small(tmp_path, config, habits), tmp_path / "out.xml"
    gated = write_checked(model, out, lambda file: export(model, file, Form()), Asked(threads=1))
    assert gated.passed, gated.fault
    assert gated.check.matched > 10
    assert (gated.check.missed, gated.check.mask_pixels) == (0, 1.0)
    assert gated.check.box_px < 1e-3


def test_the_file_has_their_names_and_operators(ours: Path) -> None:
    network = openvino.Core().read_model(ours)
    shapes = {each.any_name: each.partial_shape.to_string() for each in network.inputs + network.outputs}
    assert shapes == {
        "im_data": "[1,3,96,128]",
        "im_info": "[1,3]",
        "boxes": "[12,4]",
        "classes": "[12]",
        "scores": "[12]",
        "batch_ids": "[12]",
        "raw_masks": "[12,4,28,28]",
    }
    kinds = {node.get_type_name().removeprefix("ExperimentalDetectron") for node in network.get_ops()}
    theirs = {"PriorGridGenerator", "GenerateProposalsSingleImage", "TopKROIs", "ROIFeatureExtractor"}
    assert theirs | {"DetectionOutput"} <= kinds


def test_without_a_size_the_window_is_that_of_landscape_pictures() -> None:
    assert window_of(presets.SEGMENTOLY_INPUT) == (800, 1344)
    assert window_of(presets.SEGMENTOLY_C4_INPUT) == (800, 1344)


def test_weights_in_float16_are_half_the_file(ours: Path, tmp_path: Path) -> None:
    spec = export(
        ours.with_name("small.safetensors"), tmp_path / "half.xml", Form((96, 128), precision="fp16")
    )
    assert spec.precision == "fp16"
    sizes = [path.with_suffix(".bin").stat().st_size for path in (tmp_path / "half.xml", ours)]
    assert sizes[0] < 0.6 * sizes[1]
    assert (raw_of(tmp_path / "half.xml").scores > 0).sum() > 3


def raw_of(path: Path) -> Raw:
    return open_model(path, threads=1, engine="openvino").backend.run(scene(96, 128), np.array([[96, 120]]))


def test_the_same_as_onnx_is_read_by_openvino(ours: Path, tmp_path: Path) -> None:
    export_onnx(ours.with_name("small.safetensors"), tmp_path / "b.onnx", Form(size=(96, 128)))
    onnx.checker.check_model(onnx.load(tmp_path / "b.onnx"))
    raws = [raw_of(ours), raw_of(tmp_path / "b.onnx")]
    assert (raws[0].scores > 0).sum() > 3
    for mine, theirs in zip(*raws, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def run(nodes: joined.Nodes, inputs: dict[str, np.ndarray], output: str) -> np.ndarray:
    """What OpenVINO returns of a graph."""
    described = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in inputs.items()]
    found = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes.nodes, "g", described, [found], nodes.constants)
    versions = [helper.make_opsetid("", 11), helper.make_opsetid(joined.DOMAIN, 1)]
    text = helper.make_model(graph, opset_imports=versions, ir_version=8).SerializeToString()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    network = openvino.Core().compile_model(openvino.Core().read_model(text, b""), "CPU", exact)
    request = network.create_infer_request()
    request.infer(inputs)
    return request.get_output_tensor(0).data.copy()


def test_boxes_are_pooled_on_the_level_of_x2_minus_x1_plus_1() -> None:
    corner = [[8.0, 4.0, 0.0, 0.0]]
    sides = [110.9, 111.1, 111.9, 223.0, 223.5, 224.0, 446.9, 447.5, 0.0, 0.4]
    boxes = np.array([[8, 4, 8 + side, 4 + side] for side in sides] + corner, np.float32)
    boxes[-1, 2:] = boxes[-1, :2] + (0, 300)
    levels = [np.random.default_rng(n).random((1, 2, 512 >> n, 512 >> n), np.float32) for n in (2, 3, 4, 5)]
    habits = presets.SEGMENTOLY
    nodes = joined.Nodes()
    pyramid = joined.Pyramid(("l2", "l3", "l4", "l5"), (4, 8, 16, 32))
    model = ModelConfig(conventions=habits)
    output = joined.pooled_features(nodes, pyramid, "boxes", 3, Spec(model))
    found = run(nodes, {"boxes": boxes} | dict(zip(pyramid.levels, levels, strict=True)), output)
    rows = torch.from_numpy(boxes)[None]
    level_of = pyramid_level(rows, 4, habits.level_eps_inside, 0.0, plus_one=True)
    assert level_of[0].tolist() == [0, 1, 1, 2, 2, 2, 2, 3, 0, 0, 0]
    scales = [1 / stride for stride in pyramid.strides]
    wanted = pool_levels([torch.from_numpy(each) for each in levels], rows, level_of, scales, 3, 2, False)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_proposals_of_072_by_x2_minus_x1_plus_1_overlap_and_of_068_do_not() -> None:
    """Without the one they are 0.689 and 0.644, and none would."""
    anchors = ((0.0, 0.0, 9.0, 9.0), (0.0, 0.0, 9.0, 6.2), (0.0, 0.0, 9.0, 5.8))
    cells = AnchorConfig(sizes=((1.0, 2.0, 3.0),), ratios=(1.0,), cells=(anchors,))
    model = replace(C4, anchors=cells, conventions=presets.SEGMENTOLY_C4)
    spec = Spec(model, exported=Exported(height=64, width=64))
    nodes = joined.Nodes()
    output = joined.proposals(nodes, spec, (16,))
    inputs = {
        "im_info": np.array([[64, 64, 1]], np.float32),
        "im_data": np.zeros((1, 3, 64, 64), np.float32),
        "dense.objectness0": np.array([3, 2, 1], np.float32).reshape(1, 3, 1, 1),
        "dense.deltas0": np.zeros((1, 12, 1, 1), np.float32),
    }
    found = run(nodes, inputs, output)
    np.testing.assert_allclose(found[:2], [anchors[0], anchors[2]], atol=1e-4)
    assert not found[2:].any()


@pytest.mark.parametrize(
    ("config", "habits", "form", "sentence"),
    [
        (FPN, presets.DETECTRON2, Form(), "plus_one=False; segmentoly's operators have boxes of x2 - x1"),
        (FPN, replace(presets.SEGMENTOLY, roi_aligned=True), Form(), "RoIAlign without the half pixel"),
        (FPN, replace(presets.SEGMENTOLY, delta_limit=4.0), Form(), r"delta_limit=4.0; .* log\(1000 / 16\)"),
        (FPN, presets.SEGMENTOLY, Form(batch=2), "--batch 2: segmentoly graphs take one image"),
        (FPN, presets.SEGMENTOLY, Form(uint8=True), "--uint8: segmentoly graphs have no such form"),
        (FPN, presets.SEGMENTOLY, Form(precision="bf16"), "bf16: segmentoly graphs are fp32 or fp16"),
        (FPN, presets.SEGMENTOLY, Form(size=(64, 65)), "65 is no multiple of 32"),
    ],
)
def test_a_model_that_computes_otherwise_is_refused_in_words(
    tmp_path: Path, config: ModelConfig, habits: Conventions, form: Form, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        export(small(tmp_path, config, habits), tmp_path / "out.xml", form)
    assert not list(tmp_path.glob("out*"))


def test_soft_nms_is_refused(tmp_path: Path) -> None:
    soft = replace(FPN, box_head=replace(FPN.box_head, soft_nms=SoftNMSConfig("linear")))
    with pytest.raises(UserError, match="has soft-NMS, and segmentoly's operators have none"):
        export(small(tmp_path, soft), tmp_path / "out.xml", Form())


# What a writer of another tool leaves out, and what it calls things.
AS_THEIRS: dict[str, Callable[[str], str]] = {
    "without a description": lambda text: re.sub(r"<maskrcnn .*?/>", "", text, flags=re.S),
    "of version 10": lambda text: re.sub(
        r"<rt_info>.*?</rt_info>|<rt_info\s*/>| names=\"[^\"]*\"| output_names=\"[^\"]*\"",
        "",
        text,
        flags=re.S,
    ).replace('version="11"', 'version="10"'),
}


@pytest.mark.parametrize("writer", AS_THEIRS)
def test_a_network_of_theirs_finds_the_same(ours: Path, tmp_path: Path, writer: str) -> None:
    text = AS_THEIRS[writer](ours.read_text())
    assert "plus_one" not in text
    (tmp_path / "theirs.xml").write_text(text)
    (tmp_path / "theirs.bin").write_bytes(ours.with_suffix(".bin").read_bytes())
    spec = open_model(tmp_path / "theirs.xml", threads=1).spec
    assert (spec.model.classes, spec.model.mean) == (3, (0.0, 0.0, 0.0))
    assert (spec.preprocess.short, spec.preprocess.long) == (96, 128)
    found = [raw_of(ours), raw_of(tmp_path / "theirs.xml")]
    assert (found[0].scores > 0).sum() > 3
    for mine, other in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_network_of_before_2020_is_refused_with_its_version(tmp_path: Path) -> None:
    (tmp_path / "old.xml").write_text('<?xml version="1.0"?>\n<net batch="1" name="x" version="7"/>')
    (tmp_path / "old.bin").write_bytes(b"")
    with pytest.raises(UserError, match="is an OpenVINO network of version 7, and OpenVINO .* reads 10 and"):
        open_model(tmp_path / "old.xml")
