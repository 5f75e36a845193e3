"""The pairs of (De)QuantizeLinear that TensorRT and IxRT build int8 engines of."""

from dataclasses import replace
from pathlib import Path

import cv2
import networks
import numpy as np
import pytest

from maskrcnn.export.form import Form
from maskrcnn.export.onnx import export_onnx
from maskrcnn.export.quantize import Calibrated, quantize
from maskrcnn.images import ImageFile, find_images
from maskrcnn.predict import open_model
from maskrcnn.stored_spec import stored_spec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

WINDOW = (96, 128)
PAIR = ("QuantizeLinear", "DequantizeLinear")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small R18-C4 as a float32 graph of one size."""
    folder = tmp_path_factory.mktemp("float32")
    small = networks.SMALL["c4"]
    small = replace(small, backbone=replace(small.backbone, depth=18))
    model = networks.model_file(folder / "c4.safetensors", small)
    export_onnx(model, folder / "c4.onnx", Form(WINDOW, 1))
    return folder / "c4.onnx"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[ImageFile]:
    """Two pictures of the size of the graph."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(2):
        image = networks.scene(*WINDOW, seed=number)[0].transpose(1, 2, 0)
        cv2.imwrite(str(folder / f"{number}.png"), image.astype(np.uint8))
    return find_images([folder])


@pytest.fixture(scope="module")
def made(source: Path, photographs: list[ImageFile], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph in int8, as the engines want it."""
    path = tmp_path_factory.mktemp("int8") / "c4.onnx"
    quantize(source, path, photographs, keep=["backbone.res3.1"], symmetric=True)
    return path


class Wired:
    """Nodes by what they make, and what reads a tensor."""

    def __init__(self, path: Path) -> None:
        self.graph = onnx.load(path).graph
        self.stored = {each.name: onnx.numpy_helper.to_array(each) for each in self.graph.initializer}
        self.maker = {name: node for node in self.graph.node for name in node.output}
        self.pairs = [node for node in self.graph.node if node.op_type in PAIR]

    def kind(self, name: str) -> str:
        """Operator that makes a tensor; `stored` and `input` for those that none makes."""
        if name in self.maker:
            return str(self.maker[name].op_type)
        return "stored" if name in self.stored else "input"

    def before(self, name: str) -> str:
        """What a pair makes `name` of, as `kind` tells it; "" without a pair."""
        if self.kind(name) != PAIR[1]:
            return ""
        return self.kind(self.maker[self.maker[name].input[0]].input[0])

    def of(self, kind: str) -> list:
        return [node for node in self.graph.node if node.op_type == kind]


def test_every_zero_point_is_0_and_every_type_a_signed_byte(made: Path) -> None:
    wired = Wired(made)
    assert len(wired.pairs) > 100
    for node in wired.pairs:
        zero = wired.stored[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any()


def test_each_pair_stands_together_so_that_nothing_is_stored_as_bytes(made: Path) -> None:
    """TensorRT 8 refuses DequantizeLinear behind stored bytes, as it does behind a bias of 32 bits."""
    wired = Wired(made)
    for node in wired.of(PAIR[1]):
        assert wired.kind(node.input[0]) == PAIR[0]
    assert {values.dtype for name, values in wired.stored.items() if name.endswith("bias")} == {
        np.dtype(np.float32)
    }


def test_weights_have_a_scale_for_each_output_channel_and_features_one(made: Path) -> None:
    wired = Wired(made)
    found = 0
    for node in (*wired.of("Conv"), *wired.of("Gemm")):
        features, weights = node.input[:2]
        if wired.kind(weights) == "stored":
            continue
        found += 1
        quantised = wired.maker[wired.maker[weights].input[0]]
        outputs = wired.stored[quantised.input[0]].shape[0]
        assert wired.stored[quantised.input[1]].shape == (outputs,)
        assert [each.i for each in quantised.attribute if each.name == "axis"] == [0]
        assert wired.stored[wired.maker[features].input[1]].shape == ()
    assert found > 30


def test_a_convolution_and_its_relu_have_nothing_between_them(made: Path) -> None:
    wired = Wired(made)
    assert {wired.kind(node.input[0]) for node in wired.of("Relu")} <= {"Conv", "Add", "ConvTranspose"}


def test_a_residual_sum_takes_the_product_as_it_is_and_the_other_term_as_bytes(made: Path) -> None:
    wired = Wired(made)
    terms = [tuple(map(wired.kind, node.input)) for node in wired.of("Add")]
    residual = [kinds for kinds in terms if "Conv" in kinds]
    assert residual.count(("Conv", PAIR[1])) == 11  # of 6 blocks, and of res5 for boxes and for masks
    assert residual.count(("Conv", "Relu")) == 1  # the one that is kept


def test_nothing_but_layers_and_roi_align_reads_bytes(made: Path) -> None:
    wired = Wired(made)
    readers = {node.op_type for node in wired.graph.node for name in node.input if wired.before(name)}
    assert readers == {"Conv", "Gemm", "Add", "RoiAlign"}


def test_no_scale_is_left_of_the_pairs_that_were_taken_away(made: Path) -> None:
    wired = Wired(made)
    read = {name for node in wired.graph.node for name in node.input}
    assert set(wired.stored) <= read
    onnx.checker.check_model(onnx.load(made), full_check=True)


def test_it_finds_nearly_what_the_float32_graph_finds(
    source: Path, made: Path, photographs: list[ImageFile]
) -> None:
    assert stored_spec(made).precision == "int8"
    before, after = (open_model(each, "cpu", threads=1) for each in (source, made))
    for file in photographs:
        a, b = before([file.read()])[0], after([file.read()])[0]
        again = [
            ((np.abs(b.boxes - box).max(1) < 6) & (b.labels == label)).any()
            for box, label in zip(a.boxes, a.labels, strict=True)
        ]
        assert len(a) > 5
        assert np.mean(again) > 0.7


def test_a_feature_of_minus_3_to_1_has_steps_of_3_by_127(source: Path, photographs: list[ImageFile]) -> None:
    """Zero is at zero, and so the larger side decides."""
    calibrated = Calibrated(source, ".engine", photographs)
    ranges = calibrated.graphs[""].measured.ranges
    name = next(name for name in ranges if name in {node.input[0] for node in Wired(source).of("Conv")})
    ranges[name].lowest, ranges[name].highest = np.float32(-3), np.float32(1)
    path = source.with_name("steps.onnx")
    calibrated.write(path)
    wired = Wired(path)
    (pair,) = [node for node in wired.pairs if node.input[0] == name]
    assert wired.stored[pair.input[1]] == pytest.approx(3 / 127)
