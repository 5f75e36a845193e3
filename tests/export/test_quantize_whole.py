"""Int8 graphs from image to detections, on both engines."""

from pathlib import Path

import cv2
import networks
import numpy as np
import pytest

from maskrcnn.export.onnx import export_onnx
from maskrcnn.export.quantize import Calibrated
from maskrcnn.export.quantize_inputs import Photographs
from maskrcnn.images import ImageFile, find_images
from maskrcnn.predict import open_model
from maskrcnn.stored_spec import stored_spec

onnx = pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network for any size and number of images."""
    folder = tmp_path_factory.mktemp("whole")
    model = networks.model_file(folder / "tiny.safetensors", networks.SMALL["fpn"])
    export_onnx(model, folder / "tiny.onnx")
    return folder / "tiny.onnx"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[ImageFile]:
    """A blank image, in which nothing is found, and three others."""
    folder = tmp_path_factory.mktemp("photographs")
    cv2.imwrite(str(folder / "blank.png"), np.zeros((96, 128, 3), np.uint8))
    for number, size in enumerate([(96, 160), (120, 96), (64, 192)]):
        image = networks.scene(*size, seed=number)[0].transpose(1, 2, 0)
        cv2.imwrite(str(folder / f"{number}.png"), image.astype(np.uint8))
    return find_images([folder])


@pytest.mark.parametrize("suffix", [".xml", ".onnx"])
def test_a_whole_graph_is_calibrated_on_any_images_and_finds_about_as_much(
    suffix: str, source: Path, photographs: list[ImageFile], tmp_path: Path
) -> None:
    path = tmp_path / f"int8{suffix}"
    Calibrated(source, suffix, photographs).write(path)
    before, after = (open_model(each, "cpu", threads=1).backend for each in (source, path))
    assert stored_spec(path).precision == "int8"
    for each in Photographs(photographs[:3], before.spec):
        counts = [
            int((backend.run(each["image"], each["size"]).scores > 0).sum()) for backend in (before, after)
        ]
        assert abs(counts[0] - counts[1]) <= 4
    two = np.concatenate(
        [each["image"] for each in [next(iter(Photographs(photographs[1:2], before.spec)))] * 2]
    )
    assert after.run(two, np.array([[96, 160], [96, 160]])).boxes.shape[:2] == (2, 12)


def test_only_layers_read_and_write_8_bits(
    source: Path, photographs: list[ImageFile], tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    Calibrated(source, ".onnx", photographs[1:]).write(path)
    graph = onnx.load(path).graph
    eight = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    kinds = {node.op_type for node in graph.node if eight & set(node.input)}
    decoding = {"Mul", "Sub", "Div", "Exp", "Clip", "Min", "Max", "Concat", "Softmax", "Sigmoid", "TopK"}
    assert kinds >= {"Conv", "Gemm", "Add", "MaxPool", "Resize"}
    assert kinds & {*decoding, "NonMaxSuppression"} == set()
