"""OpenVINO computes what the graph says, in the precision of its description and on the device asked for."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_graph import WEIGHTS, planes, spec, write_onnx, write_xml

pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")

from maskrcnn.backends.openvino_runtime import open_openvino, session  # noqa: E402
from maskrcnn.errors import UserError  # noqa: E402

SIZE = np.array([[30, 60]])
ABLE = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_xml(tmp_path_factory.mktemp("openvino") / "tiny.xml", spec())


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 3, 32, 64)).astype(np.float32)


def brightness(image: np.ndarray) -> float:
    return float((image[0].astype(np.float64) * np.reshape(WEIGHTS, (3, 1, 1))).sum(0).mean() / 255)


def test_one_object_is_found_with_its_box_score_label_and_mask(model: Path) -> None:
    raw = open_openvino(model, threads=1).run(planes(255), SIZE)
    assert raw.boxes.tolist() == [[[0, 0, 60, 30], [0] * 4, [0] * 4]]
    np.testing.assert_allclose(raw.scores, [[sum(WEIGHTS), 0, 0]], atol=1e-6)
    assert raw.labels.tolist() == [[1, 0, 0]]
    assert raw.masks.shape == (1, 3, 4, 4)


def test_it_reads_the_onnx_file_as_well(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "tiny.onnx", spec())
    backend = open_openvino(path, threads=1)
    assert backend.run(planes(255), SIZE).labels.tolist() == [[1, 0, 0]]
    assert backend.runs_on.startswith("OpenVINO ")
    assert backend.runs_on.endswith(", CPU, f32")


@pytest.mark.parametrize(
    ("precision", "hint"),
    [
        ("fp32", "f32"),
        ("int8", "f32"),
        ("bf16", "bf16" if "BF16" in ABLE else "f32"),
        ("fp16", "f16" if "FP16" in ABLE else "f32"),
    ],
)
def test_the_arithmetic_follows_the_description(tmp_path: Path, precision: str, hint: str) -> None:
    backend = open_openvino(write_xml(tmp_path / "tiny.xml", spec(precision)), threads=1)
    assert backend.session.compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == hint
    off = abs(backend.run(noise(), SIZE).scores[0, 0] - brightness(noise()))
    # Three weights rounded to 8 bits are off by 5e-4 here.
    assert (off < 1e-6) == (hint == "f32")


def test_threads_and_latency_are_settings_and_streams_another(model: Path) -> None:
    fast = session(model, threads=1).compiled
    assert fast.get_property("INFERENCE_NUM_THREADS") == 1
    assert fast.get_property("PERFORMANCE_HINT") == "LATENCY"
    assert session(model, threads=2, streams=2).compiled.get_property("NUM_STREAMS") == 2


def test_runs_from_several_threads_do_not_mix(model: Path) -> None:
    backend = open_openvino(model, threads=2, streams=2)
    greys = [5 * grey for grey in range(1, 41)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda grey: backend.run(planes(grey), SIZE).scores[0, 0], greys))
    np.testing.assert_allclose(found, [sum(WEIGHTS) * grey / 255 for grey in greys], atol=1e-6)
    assert backend.session.idle.qsize() <= 4


def test_what_one_run_returned_stays_when_the_next_one_runs(model: Path) -> None:
    backend = open_openvino(model, threads=1)
    first = backend.run(planes(255), SIZE)
    backend.run(planes(0), SIZE)
    assert first.labels.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("device", ["npu", "gpu.1", "cuda"])
def test_a_device_that_is_missing_is_refused_with_those_there_are(model: Path, device: str) -> None:
    if device.partition(".")[0].upper() in {
        name.partition(".")[0] for name in openvino.Core().available_devices
    }:
        pytest.skip(f"this machine has {device}")
    with pytest.raises(UserError, match=f"--device {device}: OpenVINO has only .*cpu"):
        open_openvino(model, device)


def test_devices_made_of_others_keep_the_precision(model: Path) -> None:
    backend = open_openvino(model, "hetero:cpu", threads=1)
    assert abs(backend.run(noise(), SIZE).scores[0, 0] - brightness(noise())) < 1e-6


def test_weights_that_are_cut_short_are_told_in_a_sentence(tmp_path: Path) -> None:
    path = write_xml(tmp_path / "tiny.xml", spec())
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:8])
    with pytest.raises(UserError, match=f"{path}: OpenVINO .* cannot run it") as caught:
        open_openvino(path, threads=1)
    assert "\n" not in caught.value.message


def test_a_graph_that_fails_while_it_runs_is_told_in_a_sentence(model: Path) -> None:
    with pytest.raises(UserError, match="cannot run it") as caught:
        session(model, threads=1)({"image": np.zeros((1, 4, 32, 32), np.float32), "size": SIZE})
    assert "\n" not in caught.value.message


def test_layers_are_measured_when_asked_for(model: Path) -> None:
    graph = session(model, threads=1, profile=True)
    graph({"image": planes(0), "size": SIZE})
    assert any(layer.node_type == "Convolution" for layer in graph.idle.get().profiling_info)


def test_openvino_has_no_telemetry_to_send_with():
    code = "import sys, maskrcnn.backends.openvino_runtime; print(sys.modules['openvino_telemetry'])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "None"
