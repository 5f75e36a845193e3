"""`maskrcnn predict` on videos: numbers and colours that stay, frames a second, what is shown meanwhile."""

import csv
import http.client
import json
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import Run
from finds import Finds, files_in

from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.media import display
from maskrcnn.media.display import Page
from maskrcnn.predict import Predictor

pytest.importorskip("av")

from films import content, film  # noqa: E402


class Takes(Finds):
    """Finds two cats left and right, of which now one and now the other is the better one, and a weak one."""

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """Three rows an image, best first."""
        self.runs += 1
        self.then(self.runs)
        boxes = np.float32([[2, 4, 22, 28], [40, 4, 60, 28], [26, 4, 34, 10]])
        order = [0, 1, 2] if self.runs % 2 else [1, 0, 2]
        masks = np.ones((1, 3, 28, 28), np.float32)
        return Raw(boxes[order][None], np.float32([[0.9, 0.8, 0.2]]), np.zeros((1, 3), np.int64), masks)


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> Takes:
    backend = Takes()
    monkeypatch.setattr("maskrcnn.predict.open_model", lambda *_: Predictor(backend))
    return backend


def places(line: str) -> dict[object, int]:
    """Left end of each object by its track_id."""
    found = json.loads(line)["detections"]
    return {one["track_id"]: round(one["box"][0]) for one in found}


def test_each_object_of_a_video_has_its_number_in_every_result(run: Run, takes: Takes, here: Path) -> None:
    ran = run("predict", "model", "clip.mp4", "--stream", "--save", "json,csv,coco")
    assert (ran.code, takes.runs) == (0, 10)
    lines = ran.out.splitlines()
    assert [places(line) for line in lines] == [{1: 3, 2: 60}] * 10
    out = here / "predictions"
    assert (out / "clip.jsonl").read_text().splitlines() == lines
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["track_id"], round(float(row["x1"]))) for row in rows} == {("1", 3), ("2", 60)}
    listed = json.loads((out / "predictions.json").read_text())
    # the weak object is in the list as well, which holds all scores
    assert {(each["track_id"], round(each["bbox"][0])) for each in listed} == {(1, 3), (2, 60), (None, 39)}


def test_each_video_counts_its_objects_from_one_and_images_have_no_numbers(
    run: Run, takes: Takes, here: Path
) -> None:
    film(here / "other.mp4")
    ran = run("predict", "model", "photos/0.jpg", "clip.mp4", "other.mp4", "--stream", "--save", "csv")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert len(lines) == 21
    assert "track_id" not in lines[0]["detections"][0]
    assert [places(json.dumps(line)) for line in lines[1:]] == [{1: 60, 2: 3}] * 20
    rows = (here / "predictions/predictions.csv").read_text().splitlines()
    assert [row.endswith(",") for row in rows[1:4]] == [True, True, False]


def test_without_track_results_have_no_numbers(run: Run, takes: Takes, here: Path) -> None:
    ran = run("predict", "model", "clip.mp4", "--stream", "--no-track", "--frames", 2)
    assert ran.code == 0 and "track_id" not in ran.out and len(ran.out.splitlines()) == 2


@pytest.mark.parametrize(("option", "same"), [("--track", True), ("--no-track", False)])
def test_an_object_of_a_video_keeps_its_colour(
    run: Run, takes: Takes, here: Path, option: str, same: bool
) -> None:
    film(here / "large.mp4", size=(240, 320))
    assert run("predict", "model", "large.mp4", option).code == 0
    images = np.array(content(here / "predictions/large.mp4").images, int)
    # inside the left object, below its label, in frames of odd and even number
    inside = images[:, 190:200, 30:90].mean(axis=(1, 2))
    # the clip brightens by 2 a frame, of which the tint leaves a share
    changes = np.abs(np.diff(inside, axis=0)).max(axis=1)
    assert (changes.max() < 6) == same
    assert same or changes.min() > 6


def test_frames_a_second_are_drawn_and_told(run: Run, finds: Finds, here: Path) -> None:
    film(here / "large.mp4", size=(240, 320))
    plain = run("predict", "model", "large.mp4", "--out", "plain")
    finds.then = lambda run: time.sleep(0.02)
    told = run("predict", "model", "large.mp4", "--show-fps")
    assert (plain.code, told.code) == (0, 0)
    rate = re.search(r"   10 frames   cat in 10   \d+ ms a frame   ([\d.]+) fps   -> ", told.out)
    assert rate and 0 < float(rate[1]) <= 50
    assert "fps" not in plain.out
    before, after = (content(here / folder / "large.mp4").images for folder in ("plain", "predictions"))
    changed = [np.abs(b.astype(int) - a).max(axis=2) > 60 for b, a in zip(before, after, strict=True)]
    # (30, 30) at 640 x 480 is (15, 15) here; the first frame has no rate yet
    assert changed[-1][:20, 10:80].sum() > 50 and not changed[-1][30:].any()
    assert not changed[0].any()


def test_boxes_are_drawn_when_asked_into_pictures_and_videos(run: Run, finds: Finds, here: Path) -> None:
    film(here / "large.mp4", size=(240, 320))
    for folder, options in (("plain", ()), ("boxed", ("--boxes",))):
        ran = run("predict", "model", "photos/1.jpg", "large.mp4", "--frames", 1, "--out", folder, *options)
        assert ran.code == 0
    plain, boxed = (
        content(here / folder / "large.mp4").images[0].astype(int) for folder in ("plain", "boxed")
    )
    # a thin line on the edges of the box, within it
    changed = np.abs(plain - boxed).max(axis=2) > 25
    assert 0 < changed.sum() < 2000
    assert (here / "plain/1.jpg").read_bytes() != (here / "boxed/1.jpg").read_bytes()


class Browser(threading.Thread):
    """Looks at a page as soon as there is one, and presses a key after so many pictures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int, key: str) -> None:
        super().__init__(daemon=True)
        self.pages: list[Page] = []
        self.seen = 0
        self._after, self._key = after, key

        def opened(port: int) -> Page:
            self.pages.append(Page(port))
            self.start()
            return self.pages[0]

        monkeypatch.setattr(display, "Page", opened)
        monkeypatch.setattr(display, "no_window", lambda: "there is no display")

    def run(self) -> None:
        """Read the stream to its end."""
        place = f"127.0.0.1:{self.pages[0].port}"
        stream = http.client.HTTPConnection(place, timeout=10)
        stream.request("GET", "/stream")
        for line in stream.getresponse():
            if line.startswith(b"Content-Length"):
                self.seen += 1
                if self.seen == self._after:
                    keys = http.client.HTTPConnection(place, timeout=10)
                    keys.request("POST", "/key", headers={"X-Key": self._key})
                    keys.getresponse()


def test_pictures_are_shown_in_a_browser_and_nothing_is_written_unless_asked(
    run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser(monkeypatch, 0, "")
    finds.then = lambda run: time.sleep(0.05)
    ran = run("predict", "model", "clip.mp4", "photos", "--show", "auto", "--delay", 20)
    browser.join(10)
    assert ran.code == 0
    assert (
        ran.err
        == f"note: pictures are shown at http://127.0.0.1:{browser.pages[0].port}, Esc or q there ends it\n"
    )
    assert 2 <= browser.seen <= 13
    assert files_in(here / "predictions") == []


def test_q_ends_the_run_with_a_whole_video(
    run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(here / "long.mp4", range(0, 512 * 200, 512))
    browser = Browser(monkeypatch, 3, "q")
    finds.then = lambda run: time.sleep(0.01)
    ran = run(
        *("predict", "model", "long.mp4", "clip.mp4", "--show", "auto", "--save", "image,json", "--delay", 30)
    )
    browser.join(10)
    assert (ran.code, len(ran.out.splitlines())) == (0, 1)
    frames = content(here / "predictions/long.mp4").images
    assert 3 <= len(frames) < 100
    assert f"   {len(frames)} frames   " in ran.out
    assert len((here / "predictions/long.jsonl").read_text().splitlines()) == len(frames)
    assert files_in(here / "predictions") == ["long.jsonl", "long.mp4"]


def test_ctrl_c_while_a_picture_is_shown_leaves_a_whole_video_and_no_page(
    run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Page(0)
    monkeypatch.setattr(display, "open_display", lambda _: page)
    shown: list[np.ndarray] = []

    def show(picture: np.ndarray, delay: int | None) -> bool:
        shown.append(picture)
        if len(shown) == 4:
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(page, "show", show)
    ran = run("predict", "model", "clip.mp4", "--show", "auto", "--save", "image")
    assert ran.code == 130 and "stopped: 4 frames of clip.mp4 are done" in ran.err
    assert len(content(here / "predictions/clip.mp4").images) == 4
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", page.port, timeout=5).connect()


def test_processes_that_share_images_show_nothing() -> None:
    from maskrcnn.cli.predict import _showing

    team = SimpleNamespace(place=SimpleNamespace(count=2))
    showing = _showing("auto", None, False, team)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--show: 2 processes share the images"), showing:
        pass


def test_q_ends_images_as_well(run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = Browser(monkeypatch, 1, "Escape")
    ran = run("predict", "model", "photos", "--show", "auto", "--delay", 0, "--save", "image")
    browser.join(10)
    assert (ran.code, browser.seen, len(ran.out.splitlines())) == (0, 1, 1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--delay", "5"), "error: --delay 5: nothing is shown"),
        (("--show", "nowhere"), "error: --show nowhere: is no way to show pictures"),
    ],
)
def test_what_cannot_be_shown_is_said_before_anything_is_done(
    run: Run, finds: Finds, here: Path, options: tuple[str, str], error: str
) -> None:
    ran = run("predict", "model", "clip.mp4", *options)
    assert (ran.code, finds.runs) == (2, 0)
    assert ran.err.splitlines()[0] == error
    assert not (here / "predictions").exists()
