"""What TensorRT and CUDA are asked for, in what order, and what is made of their answers; on no real GPU."""

import gc
from pathlib import Path

import numpy as np
import pytest
from fake_tensorrt import Arrays, Machine, Plan, install
from tiny_graph import planes, spec

from maskrcnn.errors import UserError
from maskrcnn.predict import open_model
from maskrcnn.spec import Spec
from maskrcnn.stored_spec import engine_header

PLAN = b"a serialized plan"
SIZE = np.array([[30, 60], [20, 40]])


def brightest(arrays: Arrays) -> Arrays:
    """One object in each image, of its largest value, in its true size."""
    image, size = arrays["image"], arrays["size"]
    boxes = np.zeros((len(image), 3, 4), np.float32)
    boxes[:, 0, 2:] = size[:, ::-1]
    scores = np.zeros((len(image), 3), np.float32)
    scores[:, 0] = image.max((1, 2, 3)) / 255
    labels = (scores > 0).astype(np.int64)
    return {"boxes": boxes, "scores": scores, "labels": labels, "masks": np.ones((len(image), 3, 4, 4), "f4")}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    outputs = {
        "boxes": (np.float32, lambda b: (b, 3, 4)),
        "scores": (np.float32, lambda b: (b, 3)),
        "labels": (np.int64, lambda b: (b, 3)),
        "masks": (np.float32, lambda b: (b, 3, 4, 4)),
    }
    inputs = {
        "image": (np.float32, (1, 3, 32, 32), (4, 3, 64, 64)),
        "size": (np.int64, (1, 2), (4, 2)),
    }
    machine = Machine({PLAN: Plan(brightest, inputs, outputs)})
    install(machine, monkeypatch)
    return machine


def engine_file(folder: Path, description: Spec | None = None, plan: bytes = PLAN) -> Path:
    path = folder / "tiny.engine"
    path.write_bytes(engine_header(description or spec()) + plan)
    return path


def test_images_go_to_the_gpu_and_rows_come_back(machine: Machine, tmp_path: Path) -> None:
    backend = open_model(engine_file(tmp_path)).backend
    raw = backend.run(planes(51, 255), SIZE)
    assert raw.scores[:, 0].tolist() == pytest.approx([0.2, 1])
    assert raw.boxes[:, 0].tolist() == [[0, 0, 60, 30], [0, 0, 40, 20]]
    assert raw.labels.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert backend.runs_on == "TensorRT 10.13.0, GPU 0"  # type: ignore[attr-defined]


def test_calls_come_in_the_order_that_the_documentation_asks_for(machine: Machine, tmp_path: Path) -> None:
    backend = open_model(engine_file(tmp_path), device="cuda:1").backend
    assert machine.calls == ["cudaSetDevice", "plugins", "deserialize_cuda_engine", "cudaStreamCreate"]
    assert machine.device == 1
    machine.calls.clear()
    backend.run(planes(51), SIZE[:1])
    assert machine.calls == [
        "cudaSetDevice",
        *["set_input_shape", "cudaMalloc", "cudaMemcpyAsync"] * 2,
        *["cudaMalloc"] * 4,
        "execute_async_v3",
        *["cudaMemcpyAsync"] * 4,
        "cudaStreamSynchronize",
    ]


def test_memory_is_kept_for_the_next_run_grows_and_is_given_back(machine: Machine, tmp_path: Path) -> None:
    backend = open_model(engine_file(tmp_path)).backend
    backend.run(planes(1, 2), SIZE)
    machine.calls.clear()
    backend.run(planes(1), SIZE[:1])
    assert "cudaMalloc" not in machine.calls
    backend.run(planes(1, 2, size=(64, 64)), SIZE)
    assert machine.calls.count("cudaMalloc") == machine.calls.count("cudaFree") == 1
    assert len(machine.memory) == 6
    del backend
    gc.collect()
    assert machine.memory == {}
    assert machine.streams == 0


def test_a_size_outside_the_range_is_told_with_the_range(machine: Machine, tmp_path: Path) -> None:
    backend = open_model(engine_file(tmp_path)).backend
    words = r"image is \[1, 3, 96, 64\], and the engine was built for \[1, 3, 32, 32\] to \[4, 3, 64, 64\]"
    with pytest.raises(UserError, match=words):
        backend.run(planes(0, size=(96, 64)), SIZE[:1])


def test_a_plan_of_another_version_is_told_with_the_version(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"TensorRT 10\.13\.0 cannot read it; a plan runs only with"):
        open_model(engine_file(tmp_path, plan=b"another plan"))


def test_a_gpu_that_is_missing_is_told_in_the_words_of_cuda(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CUDA on GPU 5 says: no CUDA-capable device is detected"):
        open_model(engine_file(tmp_path), device="cuda:5")
    with pytest.raises(UserError, match="--device cpu: TensorRT runs on CUDA devices"):
        open_model(engine_file(tmp_path), device="cpu")


def test_a_full_gpu_is_out_of_memory(machine: Machine, tmp_path: Path) -> None:
    backend = open_model(engine_file(tmp_path)).backend
    machine.room = 1000
    with pytest.raises(MemoryError):
        backend.run(planes(0), SIZE[:1])


def test_planes_are_of_the_type_that_the_file_asks_for(machine: Machine, tmp_path: Path) -> None:
    plan = machine.plans[PLAN]
    plan.inputs["image"] = (np.uint8, *plan.inputs["image"][1:])
    backend = open_model(engine_file(tmp_path, spec(image="uint8"))).backend
    assert backend.run(planes(51, dtype="uint8"), SIZE[:1]).scores[0, 0] == pytest.approx(0.2)
