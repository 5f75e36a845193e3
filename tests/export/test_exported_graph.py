"""One exported graph of a small network, run by ONNX Runtime and OpenVINO on all kinds of input."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from networks import INPUT, SMALL, model_file, scene

from maskrcnn.backends.pytorch import PyTorchBackend, open_pytorch
from maskrcnn.export.form import Form
from maskrcnn.spec import Exported, Spec
from maskrcnn.stored_spec import KEY, stored_spec

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch", minversion="2.11")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

# Exporters warn of their own workings, a different thing in each version of torch.
pytestmark = pytest.mark.filterwarnings("default")

INPUT_MEAN = SMALL["fpn"].mean
Arrays = dict[str, np.ndarray]
Runs = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Made:
    """A model file, its graph in memory without a description, and what it is described as."""

    source: Path
    spec: Spec
    graph: "onnx.ModelProto"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Traced once: that takes ten seconds."""
    from maskrcnn.export.onnx import onnx_graph

    source = model_file(tmp_path_factory.mktemp("model") / "tiny.safetensors", SMALL["fpn"])
    return Made(source, *onnx_graph(source, Form(counted=True)))


@pytest.fixture(scope="module")
def model(made: Made) -> PyTorchBackend:
    return open_pytorch(made.source, "cpu")


@pytest.fixture(scope="module")
def file(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    path.write_bytes(made.graph.SerializeToString())
    return path


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def run(request: pytest.FixtureRequest, file: Path) -> Runs:
    """The graph in one session of the engine, which all tests share."""
    return session(request.param, file)


def session(engine: str, file: Path) -> Runs:
    if engine == "onnxruntime":
        opened = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [output.name for output in opened.get_outputs()]
        return lambda inputs: dict(zip(names, opened.run(None, inputs), strict=True))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(file, "CPU", settings)
    return lambda inputs: {port.any_name: array for port, array in compiled(inputs).items()}


def assert_same(
    model: PyTorchBackend, run: Runs, image: np.ndarray, size: np.ndarray, weights: str = "fp32"
) -> np.ndarray:
    """Rows of the graph are those of the model; returns how many are real in each image.

    weights: rounded ones change every number, and the best row by little.
    """
    raw, found = model.run(image, size), run({"image": image, "size": size})
    real = raw.scores > 0
    if weights != "fp32":
        np.testing.assert_allclose(found["boxes"][:, 0], raw.boxes[:, 0], atol=0.5)
        np.testing.assert_allclose(found["scores"][:, 0], raw.scores[:, 0], atol=0.01)
        return real.sum(1)
    np.testing.assert_allclose(found["boxes"], raw.boxes, atol=0.01)
    np.testing.assert_allclose(found["scores"], raw.scores, atol=1e-5)
    np.testing.assert_array_equal(found["labels"], raw.labels)
    np.testing.assert_allclose(found["masks"][real], raw.masks[real], atol=1e-3)
    assert not found["masks"][~real].any()
    np.testing.assert_array_equal(found["num_detections"], real.sum(1))
    return real.sum(1)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (192, 64), (128, 192), (64, 64)])
def test_every_size_gives_the_rows_of_the_model(
    model: PyTorchBackend, run: Runs, height: int, width: int
) -> None:
    assert assert_same(model, run, scene(height, width), np.array([[height, width]])) > 0


def test_images_of_different_sizes_in_one_batch(model: PyTorchBackend, run: Runs) -> None:
    image = scene(128, 160, 2, seed=1)
    count = assert_same(model, run, image, np.array([[128, 100], [70, 160]]))
    assert (count > 0).all()


def test_nothing_is_found_and_then_something_again(model: PyTorchBackend, run: Runs) -> None:
    mean = np.array(INPUT_MEAN, np.float32)[None, :, None, None]
    blank, size = np.broadcast_to(mean, (1, 3, 96, 96)).copy(), np.array([[96, 96]])
    assert assert_same(model, run, scene(96, 96), size) > 0
    assert assert_same(model, run, blank, size) == 0
    assert assert_same(model, run, scene(96, 96), size) > 0


def test_an_image_without_a_detection_beside_one_with_some(model: PyTorchBackend, run: Runs) -> None:
    image = scene(96, 96, 2)
    image[0] = np.array(INPUT_MEAN, np.float32)[:, None, None]
    count = assert_same(model, run, image, np.array([[96, 96], [96, 96]]))
    assert count[0] == 0
    assert count[1] > 0


def test_more_objects_than_rows_are_cut_to_the_best(model: PyTorchBackend, run: Runs) -> None:
    rows = SMALL["fpn"].box_head.detections
    counts = [
        int(assert_same(model, run, scene(192, 192, seed=seed), np.array([[192, 192]]))[0])
        for seed in range(3)
    ]
    assert max(counts) == rows


def test_the_graph_is_made_of_standard_operators_and_has_no_trace_of_the_machine(made: Made) -> None:
    assert [(each.domain, each.version) for each in made.graph.opset_import] == [("", 18)]
    assert not made.graph.functions
    assert {node.domain for node in made.graph.graph.node} <= {"", "ai.onnx"}
    assert b"site-packages" not in made.graph.SerializeToString()
    onnx.checker.check_model(made.graph, full_check=True)


def test_inputs_and_outputs_say_what_is_free(made: Made) -> None:
    def sides(values: list) -> dict[str, list]:
        return {
            value.name: [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
            for value in values
        }

    assert sides(made.graph.graph.input) == {"image": ["batch", 3, "height", "width"], "size": ["batch", 2]}
    assert sides(made.graph.graph.output) == {
        "boxes": ["batch", 12, 4],
        "scores": ["batch", 12],
        "labels": ["batch", 12],
        "masks": ["batch", 12, 28, 28],
        "num_detections": ["batch"],
    }


def test_the_description_says_how_the_graph_is_fed(made: Made) -> None:
    assert made.spec.exported == Exported(counted=True)
    assert made.spec.preprocess == INPUT


@pytest.fixture
def traced(made: Made, monkeypatch: pytest.MonkeyPatch) -> Made:
    """What writes files takes the graph that is traced already."""

    def graph(source: Path, form: Form) -> tuple[Spec, "onnx.ModelProto"]:
        copy = onnx.ModelProto()
        copy.CopyFrom(made.graph)
        return replace(made.spec, precision=form.precision), copy

    monkeypatch.setattr("maskrcnn.export.onnx.onnx_graph", graph)
    monkeypatch.setattr("maskrcnn.export.openvino.onnx_graph", graph)
    return made


def test_a_file_describes_itself_in_its_metadata(traced: Made, tmp_path: Path) -> None:
    from maskrcnn.export.onnx import export_onnx

    spec = export_onnx(traced.source, tmp_path / "sub" / "m.onnx")
    assert stored_spec(tmp_path / "sub" / "m.onnx") == spec
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_openvino_network_is_two_files_and_describes_itself(
    traced: Made, model: PyTorchBackend, tmp_path: Path, precision: str
) -> None:
    from maskrcnn.export.openvino import export_openvino

    out = tmp_path / "m.xml"
    spec = export_openvino(traced.source, out, Form(precision=precision))  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    assert stored_spec(out) == spec
    assert spec.precision == precision
    weights = [onnx.numpy_helper.to_array(each) for each in traced.graph.graph.initializer]
    size = sum(each.nbytes for each in weights)
    if precision != "fp32":
        size -= sum(each.nbytes // 2 for each in weights if each.size >= 1024 and each.dtype == np.float32)
    assert out.with_suffix(".bin").stat().st_size == pytest.approx(size, rel=0.05)
    names = {port.any_name for port in openvino.Core().read_model(out).outputs}
    # Boxes that are an output are not rounded on their way to RoIAlign.
    assert ("pooled_boxes.0" in names) == (precision != "fp32")
    assert_same(model, session("openvino", out), scene(96, 128), np.array([[96, 128]]), precision)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_plain_graph_takes_the_image_alone_and_all_of_it(
    traced: Made, model: PyTorchBackend, tmp_path: Path, suffix: str
) -> None:
    from maskrcnn.export.onnx import export_onnx
    from maskrcnn.export.openvino import export_openvino

    export = export_onnx if suffix == ".onnx" else export_openvino
    out = tmp_path / f"m{suffix}"
    export(traced.source, out, Form(plain=True))
    if suffix == ".onnx":
        plain = onnx.load(out)
        onnx.checker.check_model(plain, full_check=True)
        assert KEY not in {each.key for each in plain.metadata_props}
    image = scene(128, 96, 2)
    raw = model.run(image, np.array([[128, 96]] * 2))
    found = session("onnxruntime" if suffix == ".onnx" else "openvino", out)({"image": image})
    np.testing.assert_allclose(found["boxes"], raw.boxes, atol=0.01)
    np.testing.assert_array_equal(found["labels"], raw.labels)
