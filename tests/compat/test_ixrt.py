"""A detectron2 C4 checkpoint goes the way of IxRT's sample, to the same detections on every engine."""

import ctypes
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from maskrcnn import presets
from maskrcnn.backends.tensorrt_api import Api, load_plugins
from maskrcnn.compat.ixrt import main
from maskrcnn.compat.verbs import run_verb
from maskrcnn.config import AnchorConfig
from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.export.form import Form
from maskrcnn.images import find_images
from maskrcnn.predict import open_model
from maskrcnn.spec import Spec
from maskrcnn.stored_spec import stored_spec
from maskrcnn.weights.convert import convert
from maskrcnn.weights.convert_back import convert_back

TESTS = Path(__file__).parents[1]
WINDOW = (120, 160)
SMALL_WINDOW = [f"preprocess.short={WINDOW[0]}", f"preprocess.long={WINDOW[1]}"]


def picture(height: int, width: int, seed: int = 1) -> np.ndarray:
    """uint8 (H, W, 3): blocks of colour."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)


@pytest.fixture(scope="module")
def wts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of a small detectron2 R50-C4 checkpoint, whose network finds as much as a trained one."""
    pytest.importorskip("torch")
    networks = runpy.run_path(str(TESTS / "export" / "networks.py"))
    folder = tmp_path_factory.mktemp("wts")
    config = replace(
        networks["SMALL"]["c4"],
        anchors=AnchorConfig(sizes=((32.0, 64.0, 128.0, 256.0, 512.0),)),
        rpn=presets.ONE_LEVEL_RPN,
        conventions=presets.DETECTRON2,
        mean=presets.MEAN_BGR,
        std=presets.NO_STD,
    )
    theirs = replace(presets.DETECTRON2_INPUT, pad_multiple=1)
    networks["model_file"](folder / "made.safetensors", config, theirs)
    convert_back(folder / "made.safetensors", folder / "model_final.pkl", "detectron2")
    convert(folder / "model_final.pkl", folder / "d2.safetensors")
    convert_back(folder / "d2.safetensors", folder / "maskrcnn.wts", "wts", allow_differences=True)
    return folder / "maskrcnn.wts"


@pytest.fixture(scope="module")
def model(wts: Path) -> Path:
    """The model file of the .wts file as IxRT runs it, but in a small window."""
    path = wts.with_name("ixrt.safetensors")
    convert(wts, path, style="ixrt", settings=SMALL_WINDOW)
    return path


@pytest.fixture(scope="module")
def graph(model: Path) -> Path:
    """The model as an ONNX graph of one size."""
    pytest.importorskip("onnxscript")
    from maskrcnn.export.onnx import export_onnx

    export_onnx(model, model.with_suffix(".onnx"), Form(WINDOW, 1))
    return model.with_suffix(".onnx")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`engine("ixrt", graph)` lets this computer have it, and every model be traced as that graph; returns
    the flags that its builder is given.
    """
    fake = runpy.run_path(str(TESTS / "compat" / "fake_engines.py"))

    def install(name: str, graph: Path) -> list[str]:
        import onnx

        traced, spec = onnx.load(graph), stored_spec(graph)

        def onnx_graph(_: object, form: Form) -> tuple[Spec, Any]:
            return replace(spec, precision=form.precision), traced

        monkeypatch.setattr("maskrcnn.export.tensorrt.onnx_graph", onnx_graph)
        return fake["install"](name, monkeypatch)

    yield install
    sys.modules.pop(fake["RUNTIME"], None)


def found_by(path: Path, engine: str | None = None, image: np.ndarray | None = None) -> Detections:
    """What a file finds in a picture that the letterbox pads on both sides."""
    image = picture(90, 140) if image is None else image
    return open_model(path, threads=1, engine=engine)([image])[0]


def assert_same(one: Detections, other: Detections) -> None:
    assert len(one) == len(other) > 20
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    assert (one.labels == other.labels).all()
    assert (one.masks() == other.masks()).mean() > 0.9999


@pytest.mark.parametrize("other", ["native", "onnxruntime", "openvino"])
def test_every_engine_finds_the_same(model: Path, graph: Path, other: str) -> None:
    pytest.importorskip({"onnxruntime": "onnxruntime", "openvino": "openvino"}.get(other, "torch"))
    if other == "native":
        from maskrcnn.host.native.library import library

        if library() is None:
            pytest.skip("the loops were not compiled")
    assert_same(found_by(model), found_by(model if other == "native" else graph, other))


@pytest.mark.parametrize("name", ["tensorrt", "ixrt"])
def test_an_engine_file_finds_the_same_with_tensorrt_and_with_ixrt(
    graph: Path, tmp_path: Path, engine: Any, name: str
) -> None:
    flags = engine(name, graph)
    from maskrcnn.export.tensorrt import export_tensorrt

    export_tensorrt("m.safetensors", tmp_path / "maskrcnn.engine", Form(WINDOW, 1))
    assert_same(found_by(graph), found_by(tmp_path / "maskrcnn.engine"))
    words = {"tensorrt": "TensorRT 10.13.0, GPU 0", "ixrt": "IxRT 1.0.0, GPU 0"}[name]
    assert open_model(tmp_path / "maskrcnn.engine").backend.runs_on == words  # type: ignore[attr-defined]
    assert flags == [{"tensorrt": "STRONGLY_TYPED", "ixrt": "EXPLICIT_BATCH"}[name]]


def test_ixrt_gets_fp16_as_a_flag_because_it_does_not_go_by_the_types_of_a_graph(
    graph: Path, tmp_path: Path, engine: Any
) -> None:
    flags = engine("ixrt", graph)
    from maskrcnn.export.tensorrt import export_tensorrt

    export_tensorrt("m.safetensors", tmp_path / "maskrcnn.engine", Form(WINDOW, 1, "fp16"))
    assert flags == ["EXPLICIT_BATCH", "FP16"]


def test_build_engine_ends_with_an_engine_that_was_checked(
    wts: Path, graph: Path, tmp_path: Path, engine: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    engine("ixrt", graph)
    made = ["--wts_file", str(wts), "--engine_file", str(tmp_path / "maskrcnn.engine")]
    sides = ["--img_h", str(WINDOW[0]), "--img_w", str(WINDOW[1])]
    main(["build_engine", *made, *sides, "--precision", "fp32", "--threads", "1"])
    rows = capsys.readouterr().out.splitlines()
    assert rows[-1] == "Build engine done!"
    assert any(row.startswith("checked on 6 drawn images: ") for row in rows)
    check = stored_spec(tmp_path / "maskrcnn.engine").exported.check  # type: ignore[union-attr]
    assert check is not None and check.matched > 20 and check.missed == 0
    assert stored_spec(tmp_path / "maskrcnn.engine").preprocess.resize == "letterbox"
    assert (tmp_path / "maskrcnn.safetensors").exists()


@pytest.mark.slow
def test_fp16_finds_most_of_the_best_twenty_again(model: Path, tmp_path: Path) -> None:
    """Half precision has 11 bits, 5e-4 of a value: proposals of nearly the same score change their order."""
    pytest.importorskip("onnxscript")
    from maskrcnn.export.onnx import export_onnx

    export_onnx(model, tmp_path / "half.onnx", Form(WINDOW, 1, "fp16"))
    whole, half = found_by(model)[:20], found_by(tmp_path / "half.onnx")
    again = [
        (np.abs(half.boxes - box).max(1) < 0.1) & (np.abs(half.scores - score) < 2e-3)
        for box, score in zip(whole.boxes, whole.scores, strict=True)
    ]
    assert sum(rows.any() for rows in again) >= 16


def test_the_plugins_of_ixrt_are_loaded_from_beside_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    library = tmp_path / "lib" / "libixrt_plugin.so"
    library.touch()
    done: list[object] = []
    monkeypatch.setattr("ctypes.CDLL", lambda path, mode: done.append((path, mode)))
    module = SimpleNamespace(
        __file__=str(tmp_path / "__init__.py"), init_libnvinfer_plugins=lambda *_: done.append("known")
    )
    load_plugins(Api(module, "IxRT"), object())
    assert done == [(str(library), ctypes.RTLD_GLOBAL), "known"]


def test_int8_for_openvino_has_the_loop_of_soft_nms_as_it_was(graph: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    import openvino

    from maskrcnn.export.quantize_openvino import Graph

    image = np.zeros((1, 3, *WINDOW), np.float32)
    whole = Graph(graph, [{"image": image, "size": np.array([WINDOW])}], 1)
    kept = [layer.name for layer in whole.layers if layer.name != "rpn.conv1"]
    whole.write(tmp_path / "int8.xml", kept, stored_spec(graph).to_json())
    kinds = [op.get_type_name() for op in openvino.Core().read_model(tmp_path / "int8.xml").get_ops()]
    assert "FakeQuantize" in kinds
    assert kinds.count("Loop") == 1
    assert len(found_by(tmp_path / "int8.xml")) > 20


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `coco_calib/` of one picture."""
    folder = tmp_path_factory.mktemp("coco_calib")
    cv2.imwrite(str(folder / "0.png"), picture(90, 140))
    return folder


@pytest.fixture(scope="module")
def pairs(graph: Path, calibration: Path) -> Path:
    """The graph in int8, as TensorRT and IxRT want it."""
    pytest.importorskip("onnxruntime")
    from maskrcnn.export.quantize import quantize

    path = graph.with_name("pairs.onnx")
    made = quantize(graph, path, find_images([calibration]), symmetric=True)
    assert [each.layer for each in made.kept] == ["mask_head.upsample"]
    return path


@pytest.mark.parametrize("name", ["tensorrt", "ixrt"])
def test_an_int8_engine_finds_what_its_graph_finds(
    graph: Path, pairs: Path, calibration: Path, tmp_path: Path, engine: Any, name: str
) -> None:
    flags = engine(name, graph)
    # A random network is no trained one: many of its scores are nearly the same.
    words = ["--calibrate", str(calibration), "--threads", "1", "--tolerance", "100"]
    run_verb(["quantize", str(graph), str(tmp_path / "c4.engine"), *words])
    assert flags == {"tensorrt": ["STRONGLY_TYPED"], "ixrt": ["EXPLICIT_BATCH", "INT8"]}[name]
    assert stored_spec(tmp_path / "c4.engine").precision == "int8"
    assert_same(found_by(pairs), found_by(tmp_path / "c4.engine"))


def test_a_builder_refuses_the_pairs_of_onnx_runtime(
    graph: Path, calibration: Path, tmp_path: Path, engine: Any
) -> None:
    """Unsigned bytes, zero points that are not 0, stored bytes and biases of 32 bits."""
    pytest.importorskip("onnxruntime")
    from maskrcnn.export.quantize import quantize
    from maskrcnn.export.tensorrt_plan import build

    engine("tensorrt", graph)
    quantize(graph, tmp_path / "cpu.onnx", find_images([calibration]))
    pairs = (tmp_path / "cpu.onnx").read_bytes()
    with pytest.raises(UserError, match=r"TensorRT 10.13.0 cannot build it \(.*signed 8 bits"):
        build(pairs, stored_spec(graph), tmp_path / "cpu.engine")
    assert not (tmp_path / "cpu.engine").exists()


def test_int8_for_tensorrt_has_the_loop_of_soft_nms_as_it_was(graph: Path, pairs: Path) -> None:
    import onnx

    def loops(path: Path) -> list[list[tuple[str, list[str]]]]:
        found = [node for node in onnx.load(path).graph.node if node.op_type == "Loop"]
        return [[(each.op_type, list(each.input)) for each in loop.attribute[0].g.node] for loop in found]

    assert loops(graph) == loops(pairs) != []


def test_without_either_engine_both_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for absent in ("tensorrt", "ixrt"):
        monkeypatch.setitem(sys.modules, absent, None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "maskrcnn.backends.tensorrt_runtime", raising=False)
    (tmp_path / "m.engine").write_bytes(b"")
    with pytest.raises(UserError, match="needs tensorrt, which is not installed") as told:
        open_model(tmp_path / "m.engine")
    assert "TensorRT 10 or later of NVIDIA or IxRT of Iluvatar" in told.value.hint
