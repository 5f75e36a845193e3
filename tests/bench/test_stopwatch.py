"""What the process of one model times, with engines that sleep and count."""

import io
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from maskrcnn.bench.stopwatch import Stopwatch, Trial, answer
from maskrcnn.bench.timing import Setting
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.predict import Predictor
from maskrcnn.spec import Preprocess, Spec

FEW = 0.02  # seconds that the engine sleeps


class Engine:
    """Finds two objects in each image, and notes what it is given and how many runs overlap."""

    def __init__(self) -> None:
        self.spec = Spec(preprocess=Preprocess(short=32, long=64, pad_multiple=32))
        self.given: list[tuple[int, ...]] = []
        self.inside = self.most = 0
        self.lock = threading.Lock()
        self.graphs = SimpleNamespace(dense=lambda: time.sleep(FEW))

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        with self.lock:
            self.given.append(image.shape)
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.graphs.dense()
        with self.lock:
            self.inside -= 1
        count = len(image)
        scores = np.tile(np.float32([0.9, 0.6, 0.0]), (count, 1))
        boxes = np.tile(np.float32([2, 2, 20, 20]), (count, 3, 1))
        return Raw(boxes, scores, np.zeros((count, 3), np.int64), np.ones((count, 3, 28, 28), np.float32))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine of every model file."""
    made = Engine()
    monkeypatch.setattr("maskrcnn.predict.open_model", lambda *_: Predictor(made))
    return made


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """A landscape and a portrait."""
    paths = []
    for name, size in (("1.png", (48, 64)), ("2.png", (64, 48))):
        cv2.imwrite(str(tmp_path / name), np.zeros((*size, 3), np.uint8))
        paths.append(str(tmp_path / name))
    return paths


def trial(pictures: list[str], **setting: Any) -> Trial:
    opened = Trial(Setting("model.none", **setting), Path("model.none"))
    opened.first(pictures)
    return opened


def test_a_stopwatch_adds_up_what_has_one_name() -> None:
    stopwatch = Stopwatch()
    for _ in range(2):
        with stopwatch("sleep"):
            time.sleep(FEW)
    assert list(stopwatch.wall) == ["sleep"]
    assert stopwatch.wall["sleep"] >= 2000 * FEW
    assert stopwatch.cpu["sleep"] < 1000 * FEW  # sleeping takes no processor


def test_the_network_alone_is_timed_without_its_input(engine: Engine, pictures: list[str]) -> None:
    found = trial(pictures).round(3)
    assert [list(run.wall) for run in found.runs] == [["network"]] * 3
    assert found.seconds == pytest.approx(sum(run.milliseconds for run in found.runs) / 1000)
    assert found.found == 6


def test_a_round_begins_with_a_run_that_is_not_timed(engine: Engine, pictures: list[str]) -> None:
    opened = trial(pictures)
    engine.given.clear()
    assert len(opened.round(2).runs) == 2
    assert len(engine.given) == 3


def test_runs_take_the_images_in_turn_from_round_to_round(engine: Engine, pictures: list[str]) -> None:
    opened = trial(pictures, batch=1)
    engine.given.clear()
    opened.round(1)
    opened.round(1)
    landscape, portrait = (1, 3, 32, 64), (1, 3, 64, 32)
    assert engine.given == [landscape, landscape, portrait, portrait]


def test_a_batch_holds_different_images(engine: Engine, pictures: list[str]) -> None:
    trial(pictures, batch=2)
    assert engine.given == [(2, 3, 64, 64)]


def test_end_to_end_goes_from_the_file_to_the_picture(engine: Engine, pictures: list[str]) -> None:
    found = trial(pictures, end_to_end=True).round(1)
    assert list(found.runs[0].wall) == ["decode", "resize", "network", "masks", "draw"]
    assert min(found.runs[0].wall.values()) > 0


def test_streams_run_side_by_side_and_each_as_often_as_asked(engine: Engine, pictures: list[str]) -> None:
    found = trial(pictures, streams=3).round(2)
    assert (engine.most, len(found.runs)) == (3, 6)
    assert found.runs[0].cpu == {}
    assert found.seconds < sum(run.milliseconds for run in found.runs) / 1000


def test_parts_are_timed_where_the_engine_has_them_and_left_as_they_were(
    engine: Engine, pictures: list[str]
) -> None:
    opened = trial(pictures)
    before = engine.graphs.dense
    runs = opened.parts(2)
    assert [list(run.wall) for run in runs] == [["network.dense"]] * 2
    assert runs[0].wall["network.dense"] >= 1000 * FEW
    assert engine.graphs.dense is before
    assert "pool" not in vars(engine)


def test_parts_of_a_network_on_another_device_are_not_timed(engine: Engine, pictures: list[str]) -> None:
    engine.device = "cuda:0"  # type: ignore[attr-defined]
    assert trial(pictures).parts(1) == []


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        (Preprocess(short=800, long=1333), (800, 1200)),
        (Preprocess(short=800, long=1000), (800, 1000)),
        (Preprocess(resize="letterbox", short=608, long=800), (608, 800)),
    ],
)
def test_a_picture_of_a_models_size_needs_no_resizing(
    engine: Engine, rule: Preprocess, size: tuple[int, int]
) -> None:
    engine.spec = Spec(preprocess=rule)
    assert Trial(Setting("model.none"), Path("model.none")).size() == size


def answers(*requests: dict[str, Any]) -> list[dict[str, Any]]:
    replies = io.StringIO()
    answer([json.dumps(each) for each in requests], replies)
    return [json.loads(line) for line in replies.getvalue().splitlines()]


OPEN = {"open": {"setting": {"model": "model.none"}, "path": "model.none"}}


def test_each_line_is_answered_with_one(engine: Engine, pictures: list[str]) -> None:
    opened, first, done = answers(OPEN, {"first": pictures}, {"round": 2})
    assert opened["done"]["size"] == [32, 48]
    assert opened["done"]["opening"] >= 0
    assert "numpy" in opened["done"]["versions"]
    assert first["done"] >= FEW
    assert [list(run["wall"]) for run in done["done"]["runs"]] == [["network"]] * 2


@pytest.mark.parametrize(
    ("error", "words", "hint"),
    [
        (
            UserError("model.none: is damaged", hint="copy it again"),
            "model.none: is damaged",
            "copy it again",
        ),
        (MemoryError(), "out of memory", "smaller --batch"),
        (
            ZeroDivisionError("by nought\nat line 3"),
            "it failed with ZeroDivisionError: by nought",
            "MASKRCNN_DEBUG",
        ),
    ],
)
def test_what_fails_is_answered_in_words(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str, hint: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("maskrcnn.predict.open_model", fail)
    monkeypatch.delenv("MASKRCNN_DEBUG", raising=False)
    (reply,) = answers(OPEN)
    assert reply["error"] == words
    assert hint in reply["hint"]
