"""Times of layers as the engines tell them."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.bench.layer_times import added, calls_of_profile, layer_times, slowest_first, told_by
from maskrcnn.bench.timing import Layer, Setting
from maskrcnn.errors import UserError
from maskrcnn.predict import open_model


def test_calls_of_one_layer_are_added_up() -> None:
    times = added([("a", "Conv", 1500.0), ("b", "Relu", 250.0), ("a", "Conv", 500.0)])
    assert times == {("a", "Conv"): (2.0, 2), ("b", "Relu"): (0.25, 1)}


def test_layers_are_sorted_by_their_median_and_none_is_lost() -> None:
    runs = [
        {("a", ""): (1.0, 1), ("b", ""): (4.0, 2)},
        {("a", ""): (2.0, 1), ("b", ""): (6.0, 2)},
        {("a", ""): (9.0, 1)},
    ]
    assert slowest_first(runs) == [Layer("b", "", 4.0, 2), Layer("a", "", 2.0, 1)]


def event(name: str, start: int, length: int, kind: str = "") -> dict[str, object]:
    return {"name": name, "ts": start, "dur": length, "args": {"op_name": kind} if kind else {}}


def test_kernels_belong_to_the_run_in_which_they_began() -> None:
    events = [
        event("model_run", 100, 50),
        event("a_kernel_time", 110, 20, "Conv"),
        event("model_run", 200, 50),
        event("a_kernel_time", 205, 30, "Conv"),
        event("session_initialization", 0, 90),
    ]
    assert calls_of_profile(events, [0, 7]) == {0: [("a", "Conv", 20)], 7: [("a", "Conv", 30)]}


def test_kernels_inside_a_loops_body_are_part_of_the_loop() -> None:
    events = [
        event("model_run", 0, 100),
        event("loop_kernel_time", 10, 50, "Loop"),
        event("body_kernel_time", 10, 20, "Add"),
        event("body_kernel_time", 35, 20, "Add"),
        event("after_kernel_time", 60, 5, "Relu"),
    ]
    assert calls_of_profile(events, [0]) == {0: [("loop", "Loop", 50), ("after", "Relu", 5)]}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_graphs_convolution_is_told_once_a_run(tmp_path: Path, engine: str) -> None:
    pytest.importorskip(engine)
    pytest.importorskip("onnx")
    tiny = runpy.run_path(str(Path(__file__).parents[1] / "backends" / "tiny_graph.py"))
    path = tiny["write_onnx"](tmp_path / "tiny.onnx", tiny["spec"]())
    backend = open_model(path, engine=engine).backend
    given = np.full((1, 3, 32, 64), 99, np.uint8), np.array([[32, 64]])
    found = layer_times(path, backend, Setting(str(path), threads=1, engine=engine), given, 2)
    assert all(layer.milliseconds >= 0 for layer in found)
    assert max(layer.calls for layer in found) == 1
    assert [layer for layer in found if "conv" in layer.kind.lower() or "conv" in layer.name.lower()]


def test_layers_of_pytorch_are_modules_and_operations_between_them() -> None:
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 3)
            self.head = torch.nn.Sequential(torch.nn.Linear(8, 2))

    class Engine:
        def __init__(self) -> None:
            self.model, self.device = Model(), torch.device("cpu")

        @torch.inference_mode()
        def run(self, image: np.ndarray, size: np.ndarray) -> None:
            features = self.model.stem(torch.from_numpy(image)).amax((2, 3))
            self.model.head(self.model.head[0](features).repeat(1, 4))

    engine = Engine()
    given = np.ones((1, 3, 16, 16), np.float32), np.array([[16, 16]])
    found = layer_times(Path("a.safetensors"), engine, Setting("a"), given, 2)
    kinds = {(layer.name, layer.kind): layer.calls for layer in found}
    assert kinds["stem", "Conv2d"] == 1
    assert kinds["head.0", "Linear"] == 2
    assert kinds["aten::amax", ""] == 1
    assert not engine.model.stem._forward_hooks


@pytest.mark.parametrize(
    ("name", "setting", "engine"),
    [
        ("a.safetensors", Setting("a"), "pytorch"),
        ("a.ONNX", Setting("a"), "onnxruntime"),
        ("a.onnx", Setting("a", engine="openvino"), "openvino"),
        ("a.xml", Setting("a", device="cpu"), "openvino"),
    ],
)
def test_the_suffix_or_the_engine_says_who_tells_layers(name: str, setting: Setting, engine: str) -> None:
    assert told_by(Path(name), setting) == engine


def test_the_layers_of_parts_are_told_by_the_engine_of_their_graphs(tmp_path: Path) -> None:
    (tmp_path / "a.parts").mkdir()
    (tmp_path / "a.parts" / "dense.xml").touch()
    assert told_by(tmp_path / "a.parts", Setting("a")) == "openvino"


@pytest.mark.parametrize(
    ("name", "setting", "words"),
    [
        ("a.engine", Setting("a"), r"a\.engine does not tell its layers"),
        ("a.safetensors", Setting("a", engine="pytorch-compiled"), "pytorch-compiled does not tell"),
        ("a.onnx", Setting("a", device="cuda"), "on the CPU and not on cuda"),
    ],
)
def test_where_no_layers_are_told_that_is_said(name: str, setting: Setting, words: str) -> None:
    with pytest.raises(UserError, match=words):
        told_by(Path(name), setting)
