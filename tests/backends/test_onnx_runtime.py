"""ONNX Runtime computes what the graph says, on the provider that was asked for and on no other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_graph import WEIGHTS, planes, spec, write_onnx

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from maskrcnn.backends import onnx_runtime  # noqa: E402
from maskrcnn.backends.onnx_runtime import open_onnx_runtime, session  # noqa: E402
from maskrcnn.errors import UserError  # noqa: E402

SIZE = np.array([[30, 60]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "tiny.onnx", spec())


class FakeSession:
    """Takes the place of InferenceSession. used: the providers that it ends up with."""

    used: list[str] = ["CPUExecutionProvider"]
    refused: str = ""
    made: list[tuple[Any, Any, dict[str, Any]]] = []

    def __init__(self, path: Path, options: Any, providers: list[Any], **extra: Any) -> None:
        FakeSession.made.append((options, providers, extra))
        names = [each if isinstance(each, str) else each[0] for each in providers]
        if self.refused in names and self.refused:
            raise RuntimeError(f"{self.refused} cannot be created")

    def get_providers(self) -> list[str]:
        return self.used

    def get_inputs(self) -> list[Any]:
        return []

    get_outputs = get_inputs


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeSession]:
    """A build of ONNX Runtime with every provider, none of which works but the CPU."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    names = [*onnx_runtime.PROVIDERS.values(), "XnnpackExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(FakeSession, "made", [])
    return FakeSession


def test_one_object_is_found_with_its_box_score_label_and_mask(model: Path) -> None:
    backend = open_onnx_runtime(model, "cpu", threads=1)
    raw = backend.run(planes(255), SIZE)
    assert raw.boxes.tolist() == [[[0, 0, 60, 30], [0] * 4, [0] * 4]]
    np.testing.assert_allclose(raw.scores, [[sum(WEIGHTS), 0, 0]], atol=1e-6)
    assert raw.labels.tolist() == [[1, 0, 0]]
    assert raw.masks.shape == (1, 3, 4, 4)
    assert backend.spec == spec()
    assert backend.runs_on == f"ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider"


def test_a_batch_of_several_images_runs_at_once(model: Path) -> None:
    raw = open_onnx_runtime(model, "cpu", threads=1).run(planes(255, 51), np.repeat(SIZE, 2, 0))
    np.testing.assert_allclose(raw.scores[:, 0], [sum(WEIGHTS), sum(WEIGHTS) / 5], atol=1e-6)


def test_threads_are_those_asked_for(fake: type[FakeSession]) -> None:
    session(Path("m.onnx"), "cpu", threads=3)
    session(Path("m.onnx"), "cpu")
    assert [options.intra_op_num_threads for options, _, _ in fake.made] == [3, 0]


def test_a_provider_that_onnx_runtime_replaced_by_the_cpu_is_an_error(fake: type[FakeSession]) -> None:
    for device in ("cuda", "tensorrt", "openvino", "cann", "coreml", "directml", "XnnpackExecutionProvider"):
        name = onnx_runtime.PROVIDERS.get(device, device)
        words = f"cannot use {name} here and would fall back to CPUExecutionProvider"
        with pytest.raises(UserError, match=words):
            session(Path("m.onnx"), device)


def test_its_own_fallback_which_goes_on_with_the_cpu_is_off(
    fake: type[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "refused", "CANNExecutionProvider")
    with pytest.raises(UserError, match="CANNExecutionProvider cannot be created"):
        session(Path("m.onnx"), "cann")
    assert fake.made[0][2] == {"enable_fallback": 0}


def test_left_to_choose_it_takes_cuda_and_where_that_fails_the_cpu(
    fake: type[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    session(Path("m.onnx"))
    monkeypatch.setattr(fake, "refused", "CUDAExecutionProvider")
    session(Path("m.onnx"))
    first = [providers[0] for _, providers, _ in fake.made]
    assert [each if isinstance(each, str) else each[0] for each in first] == [
        "CUDAExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ]


@pytest.mark.parametrize(
    ("device", "precision", "provider", "options"),
    [
        ("cuda:1", "fp32", "CUDA", {"device_id": "1", "use_tf32": "0"}),
        ("tensorrt", "fp32", "Tensorrt", {"trt_fp16_enable": "False", "trt_int8_enable": "False"}),
        ("tensorrt:2", "fp16", "Tensorrt", {"device_id": "2", "trt_fp16_enable": "True"}),
        ("openvino", "fp32", "OpenVINO", {"device_type": "CPU", "precision": "FP32"}),
        ("openvino:NPU", "fp16", "OpenVINO", {"device_type": "NPU", "precision": "FP16"}),
        ("cann:3", "fp32", "CANN", {"device_id": "3", "precision_mode": "must_keep_origin_dtype"}),
        ("coreml", "fp32", "CoreML", {"ModelFormat": "MLProgram"}),
        ("directml:1", "fp32", "Dml", {"device_id": "1"}),
    ],
)
def test_a_provider_is_told_its_device_and_to_keep_the_precision(
    fake: type[FakeSession],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    precision: str,
    provider: str,
    options: dict[str, str],
) -> None:
    monkeypatch.setattr(fake, "used", [f"{provider}ExecutionProvider"])
    session(Path("m.onnx"), device, precision=precision)
    session_options, providers, _ = fake.made[0]
    name, told = providers[0]
    assert name == f"{provider}ExecutionProvider"
    assert {key: told[key] for key in options} == options
    assert providers[-1] == "CPUExecutionProvider"
    if provider == "Dml":
        assert not session_options.enable_mem_pattern


def test_what_tensorrt_cannot_do_goes_to_cuda_before_the_cpu(
    fake: type[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "used", ["TensorrtExecutionProvider"])
    session(Path("m.onnx"), "tensorrt:1")
    _, providers, _ = fake.made[0]
    assert providers[1][0] == "CUDAExecutionProvider"
    assert providers[1][1]["device_id"] == "1"


@pytest.mark.parametrize("device", ["cann", "gpu", "CUDAExecutionProvider"])
def test_a_provider_that_this_build_lacks_is_refused_with_those_it_has(model: Path, device: str) -> None:
    with pytest.raises(UserError, match=f"--device {device}: this build of ONNX Runtime has only .*cpu"):
        open_onnx_runtime(model, device)


def test_a_list_of_providers_goes_to_onnx_runtime_as_it_is(model: Path) -> None:
    wanted = [("CPUExecutionProvider", {})]
    assert open_onnx_runtime(model, threads=1, providers=wanted).run(planes(0), SIZE).labels.max() == 0


def test_a_graph_that_onnx_runtime_cannot_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    import onnx

    path = write_onnx(tmp_path / "odd.onnx", spec())
    graph = onnx.load(path)
    graph.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(graph, path)
    with pytest.raises(UserError, match=rf"{path}: ONNX Runtime .* cannot run it \(.*NoSuchOperator"):
        open_onnx_runtime(path, "cpu", threads=1)


def test_a_graph_that_fails_while_it_runs_is_told_in_a_sentence(model: Path) -> None:
    graph = session(model, "cpu", threads=1)
    with pytest.raises(UserError, match="cannot run it") as caught:
        graph({"image": np.zeros((1, 4, 32, 32), np.float32), "size": SIZE})
    assert "\n" not in caught.value.message


def test_outputs_of_other_names_are_refused(tmp_path: Path) -> None:
    names = ("dets", "scores", "labels", "masks")
    path = write_onnx(tmp_path / "other.onnx", spec(), names)
    with pytest.raises(UserError, match="to dets, scores, labels, masks"):
        open_onnx_runtime(path, "cpu", threads=1)


def test_layers_are_measured_when_asked_for(model: Path, tmp_path: Path) -> None:
    graph = session(model, "cpu", threads=1, profile=tmp_path / "layers")
    graph({"image": planes(0), "size": SIZE})
    report = Path(graph.session.end_profiling())
    assert report.parent == tmp_path
    assert '"op_name" : "Conv"' in report.read_text()
