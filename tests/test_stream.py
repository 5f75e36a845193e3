"""Files are read, predicted and written side by side, in order, few at a time."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.images import ImageFile
from maskrcnn.predict import Predictor
from maskrcnn.spec import Preprocess, Spec
from maskrcnn.stream import Found, Unreadable, in_order, predict_files


def test_results_come_in_the_order_of_the_items_however_long_each_takes() -> None:
    def work(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(in_order(work, range(20), workers=4, window=6)) == [n * n for n in range(20)]


def test_no_more_items_are_taken_than_the_window_holds() -> None:
    taken: list[int] = []
    gate = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        gate.wait(5)
        return number

    results = in_order(work, items(), workers=2, window=4)
    timer = threading.Timer(0.2, lambda: (taken.append(-1), gate.set()))
    timer.start()
    assert next(results) == 0
    timer.join()
    assert taken[: taken.index(-1)] == [0, 1, 2, 3]
    results.close()


def test_an_error_of_the_work_reaches_the_caller_and_ends_it() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise UserError("the disk is full")
        return number

    results = in_order(work, range(1000), workers=2, window=3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(UserError, match="the disk is full"):
        next(results)


class Sizes:
    """An engine that finds nothing and remembers how many images each run had."""

    def __init__(self) -> None:
        self.spec = Spec(preprocess=Preprocess(short=32, long=64))
        self.runs: list[int] = []

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """An empty row for each image."""
        self.runs.append(len(image))
        rows = (len(image), 1)
        return Raw(
            np.zeros((*rows, 4), np.float32),
            np.zeros(rows, np.float32),
            np.zeros(rows, np.int64),
            np.zeros((*rows, 28, 28), np.float32),
        )


@pytest.fixture
def files(tmp_path: Path) -> list[ImageFile]:
    """Seven images of widths 40..46; the third is no image."""
    found = []
    for number in range(7):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), np.zeros((32, 40 + number, 3), np.uint8))
        found.append(ImageFile(path, path.name))
    found[2].path.write_text("no image")
    return found


def test_every_file_has_its_outcome_in_order_and_a_bad_one_stops_nothing(files: list[ImageFile]) -> None:
    def width(found: Found) -> int:
        assert found.image is not None
        return found.image.shape[1]

    backend = Sizes()
    outcomes = list(predict_files(Predictor(backend, batch=3), files, width))
    written = ["unreadable" if isinstance(each, Unreadable) else each.written for each in outcomes]
    assert written == [40, 41, "unreadable", 43, 44, 45, 46]
    assert backend.runs == [2, 3, 1]
    assert isinstance(outcomes[2], Unreadable)
    assert "2.png: is not an image" in outcomes[2].error.message


def test_images_are_dropped_early_when_nobody_draws_them(files: list[ImageFile]) -> None:
    def image_of(found: Found) -> bool:
        return found.image is None

    outcomes = list(predict_files(Predictor(Sizes()), files[:2], image_of, keep_images=False))
    assert [each.written for each in outcomes if not isinstance(each, Unreadable)] == [True, True]


def test_few_images_are_in_memory_at_a_time(files: list[ImageFile], monkeypatch: pytest.MonkeyPatch) -> None:
    """Images read but not yet written: two windows and what the threads hold, of a hundred files."""
    alive = [0]
    most = [0]

    class Counted(np.ndarray):
        def __del__(self) -> None:
            alive[0] -= 1

    def read(path: Path) -> np.ndarray:
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return np.zeros((32, 32, 3), np.uint8).view(Counted)

    def write(found: Found) -> None:
        time.sleep(0.005)

    monkeypatch.setattr("maskrcnn.images.read_image", read)
    monkeypatch.setattr(Predictor, "prepare", _prepared)
    assert len(list(predict_files(Predictor(Sizes(), batch=2), files[:1] * 100, write))) == 100
    assert most[0] <= 12


def _prepared(predictor: Predictor, image: np.ndarray) -> object:
    """`Predictor.prepare` on a plain copy, so that only the image itself is counted."""
    from maskrcnn.predict import Prepared, prepare

    return Prepared(*prepare(np.array(image, subok=False), predictor.spec.preprocess))
