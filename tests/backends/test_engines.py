"""A model file runs on the engine that its suffix names, or on the one that is asked for."""

import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_graph import WEIGHTS, spec, write_onnx, write_xml

from maskrcnn.cli.engine import NAMES
from maskrcnn.errors import UserError
from maskrcnn.predict import ENGINES, open_model

IMAGE = np.full((32, 64, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.onnx and tiny.xml."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("engines")
    write_xml(folder / "tiny.xml", spec())
    write_onnx(folder / "tiny.onnx", spec())
    return folder


@pytest.mark.parametrize(
    ("name", "engine", "class_name"),
    [
        ("tiny.onnx", None, "OnnxSession"),
        ("tiny.onnx", "onnxruntime", "OnnxSession"),
        ("tiny.onnx", "openvino", "OpenVinoSession"),
        ("tiny.xml", None, "OpenVinoSession"),
    ],
)
def test_an_image_becomes_detections_on_each_engine(
    files: Path, name: str, engine: str | None, class_name: str
) -> None:
    predictor = open_model(files / name, "cpu", threads=1, engine=engine)
    found = predictor([IMAGE])[0]
    assert type(predictor.backend.session).__name__ == class_name  # type: ignore[attr-defined]
    assert found.boxes.tolist() == [[0, 0, 64, 32]]
    np.testing.assert_allclose(found.scores, [sum(WEIGHTS)], atol=1e-6)
    assert found.labels.tolist() == [1]


def test_images_of_several_sizes_go_through_a_graph_for_a_fixed_batch(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = write_onnx(tmp_path / "two.onnx", spec(batch=2))
    predictor = open_model(path, "cpu", threads=1)
    assert predictor.batch == 2
    found = predictor([IMAGE, np.full((60, 90, 3), 51, np.uint8), IMAGE[:, :20]])
    assert [each.boxes.tolist() for each in found] == [[[0, 0, 64, 32]], [[0, 0, 90, 60]], [[0, 0, 20, 32]]]


@pytest.mark.parametrize(
    ("name", "engine", "message", "hint"),
    [
        ("tiny.onnx", "magic", "--engine magic: there is none", "choose from pytorch, "),
        ("tiny.onnx", "pytorch", "tiny.onnx: pytorch reads .safetensors", "onnxruntime and openvino"),
        (
            "tiny.xml",
            "onnxruntime",
            "tiny.xml: onnxruntime reads .onnx and .parts",
            ".xml is read by openvino",
        ),
    ],
)
def test_an_engine_that_cannot_read_the_file_is_refused(
    files: Path, name: str, engine: str, message: str, hint: str
) -> None:
    with pytest.raises(UserError) as caught:
        open_model(files / name, engine=engine)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "package", "module", "words"),
    [
        ("tiny.onnx", "onnxruntime", "onnx_runtime", "maskrcnn[onnx]"),
        ("tiny.xml", "openvino", "openvino_runtime", "maskrcnn[openvino]"),
        ("tiny.engine", "tensorrt", "tensorrt_runtime", "TensorRT 10 or later"),
    ],
)
def test_an_engine_that_is_not_installed_is_named_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, module: str, words: str
) -> None:
    path = tmp_path / name
    path.touch()
    monkeypatch.delitem(sys.modules, f"maskrcnn.backends.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "maskrcnn.backends.silent_openvino", raising=False)
    with pytest.raises(UserError, match=f"{path}: needs {package}, which is not installed") as caught:
        open_model(path)
    assert words in caught.value.hint


def test_the_option_lists_every_engine() -> None:
    assert NAMES.replace(" or ", ", ").split(", ") == list(ENGINES)
