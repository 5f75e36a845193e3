"""Models measured in turns, each in a real process, on a hand-made graph of ONNX Runtime."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn.bench.measure import measure, synthetic_picture
from maskrcnn.bench.timing import Setting
from maskrcnn.errors import UserError
from maskrcnn.images import decode

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A graph that finds one object in each image."""
    tiny = runpy.run_path(str(Path(__file__).parents[1] / "backends" / "tiny_graph.py"))
    return str(tiny["write_onnx"](tmp_path_factory.mktemp("bench") / "tiny.onnx", tiny["spec"]()))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((32, 48, 3), 128, np.uint8))
    return path


def test_two_models_take_turns_and_one_that_fails_leaves(model: str, picture: Path, tmp_path: Path) -> None:
    other = shutil.copy(model, tmp_path / "other.onnx")
    steps: list[str] = []
    settings = [Setting(model), Setting("missing.onnx"), Setting(str(other), batch=2, end_to_end=True)]
    report = measure(settings, [picture], loop=7, warm_up=1, tell=steps.append)
    first, second = report.models
    assert [len(part.runs) for part in first.rounds] == [len(part.runs) for part in second.rounds]
    assert [len(part.runs) for part in first.rounds] == [2, 2, 1, 1, 1]
    assert first.detections == second.detections == 1
    assert [stage.name for stage in second.stages()] == ["decode", "resize", "network", "masks", "draw"]
    assert report.failed[0].message == "missing.onnx: no such model file"
    assert (report.images, report.sizes) == ((str(picture),), ((32, 48),))
    turns = [Path(step).stem for step in steps if step.startswith("round")]
    assert turns == [*["tiny", "other"], *["other", "tiny"]] * 2 + ["tiny", "other"]


def test_a_process_tells_its_own_memory_and_start_up(model: str, picture: Path) -> None:
    held = np.ones(200 << 20, np.uint8)  # of this process and not of the model's
    (found,) = measure([Setting(model)], [picture], loop=1).models
    assert held.any()
    assert found.memory is None or 5e6 < found.memory < 200e6
    assert found.opened.start > found.opened.imports + found.opened.opening > 0
    assert found.opened.first > 0
    assert "onnxruntime" in found.opened.versions
    assert "torch" not in found.opened.versions


def test_without_images_a_picture_of_the_first_models_size_is_used(model: str) -> None:
    report = measure([Setting(model)], loop=1, warm_up=0, layers=True)
    assert (report.images, report.sizes) == ((), ((32, 48),))
    assert "Conv" in [layer.kind for layer in report.models[0].layers]


def test_a_process_that_dies_is_told_with_its_signal(
    model: str, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[subprocess.Popen[str]] = []

    class Dies(subprocess.Popen[str]):
        def __init__(self, *arguments: object, **settings: object) -> None:
            super().__init__(*arguments, **settings)  # type: ignore[call-overload]
            children.append(self)

    def kill_in_the_first_round(words: str) -> None:
        if words.startswith("round 1"):
            os.kill(children[0].pid, signal.SIGKILL)
            children[0].wait()

    monkeypatch.setattr("maskrcnn.bench.measure.subprocess.Popen", Dies)
    report = measure([Setting(model)], [picture], loop=1, tell=kill_in_the_first_round)
    assert report.models == ()
    assert "process ended with signal SIGKILL" in report.failed[0].message
    assert "memory" in report.failed[0].hint


def test_what_a_dying_engine_said_last_is_told(
    model: str, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says_and_ends(*_: object, **settings: object) -> subprocess.Popen[str]:
        code = "import sys; print('first', file=sys.stderr); sys.exit('no such instruction')"
        return started([sys.executable, "-c", code], **settings)  # type: ignore[call-overload]

    started = subprocess.Popen
    monkeypatch.setattr("maskrcnn.bench.measure.subprocess.Popen", says_and_ends)
    monkeypatch.delenv("MASKRCNN_DEBUG", raising=False)
    failure = measure([Setting(model)], [picture], loop=1).failed[0]
    assert "exit code 1 (no such instruction)" in failure.message


def test_no_process_is_left_when_a_measurement_is_interrupted(
    model: str, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[subprocess.Popen[str]] = []
    started = subprocess.Popen

    def noted(*arguments: object, **settings: object) -> subprocess.Popen[str]:
        children.append(started(*arguments, **settings))  # type: ignore[call-overload]
        return children[-1]

    def interrupt(words: str) -> None:
        if words.startswith("warm-up"):
            raise KeyboardInterrupt

    monkeypatch.setattr("maskrcnn.bench.measure.subprocess.Popen", noted)
    with pytest.raises(KeyboardInterrupt):
        measure([Setting(model)], [picture], tell=interrupt)
    assert [child.poll() is not None for child in children] == [True]


def test_an_unreadable_image_is_told_before_a_model_is_opened(tmp_path: Path) -> None:
    (tmp_path / "words.jpg").write_text("words")
    with pytest.raises(UserError, match=r"words\.jpg"):
        measure([Setting("missing.onnx")], [tmp_path / "words.jpg"])


def test_a_synthetic_picture_has_structure_at_every_scale() -> None:
    picture = decode(synthetic_picture((64, 96)), "it").astype(float)
    assert picture.shape == (64, 96, 3)
    assert 30 < picture.std() < 60
    # Averages over 8 x 8 pixels would differ by an eighth of that if neighbours had nothing in common.
    assert picture.reshape(8, 8, 12, 8, 3).mean((1, 3)).std() > 15
