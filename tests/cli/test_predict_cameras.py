"""`maskrcnn predict` on cameras and on a video of an hour; the engine finds one object."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from commands import Run
from finds import Finds, files_in

from maskrcnn.errors import UserError

pytest.importorskip("av")

from films import content, content_times, film  # noqa: E402


def pictures(count: int, pause: float) -> Callable[[int], Callable[[], Iterator[Callable[[], np.ndarray]]]]:
    """A camera that gives so many pictures and then, like a cable pulled out, nothing more."""

    def connect() -> Iterator[Callable[[], np.ndarray]]:
        for number in range(count):
            yield partial(np.full, (48, 64, 3), number % 256, np.uint8)
            time.sleep(pause)
        raise UserError("camera:0: gives no picture")

    return lambda number: connect


def test_a_camera_is_recorded_at_the_pace_of_its_pictures_and_dropped_ones_are_told(
    run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskrcnn.media.find.camera", pictures(1000, 0.004))
    finds.then = lambda run: time.sleep(0.05)
    ran = run("predict", "model", "camera:0", "--frames", 8, "--save", "image,json")
    assert ran.code == 0
    name, frames = ran.out.split("   ")[:2]
    assert name == "camera-0"
    assert frames.startswith("8 frames (") and frames.endswith(" dropped, the model is slower)")
    lines = [json.loads(line) for line in (here / "predictions/camera-0.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == ["camera:0"] * 8
    assert sum(line["dropped"] for line in lines) == int(frames.split()[2][1:]) > 8
    seconds = [float(at) for at in content(here / "predictions/camera-0.mp4").seconds]
    assert seconds == pytest.approx([line["timestamp"] for line in lines], abs=1e-4)
    assert np.diff(seconds).min() > 0


def test_without_pyav_a_camera_is_told_of_but_not_recorded(
    run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskrcnn.media.find.camera", pictures(1000, 0.01))
    monkeypatch.setitem(sys.modules, "av", None)
    told = run("predict", "model", "camera:0", "--stream", "--frames", 2)
    assert (told.code, len(told.out.splitlines())) == (0, 2)
    recorded = run("predict", "model", "camera:0", "--frames", 2)
    assert recorded.code == 2
    assert "needs av, which is not installed" in recorded.err


def test_ctrl_c_ends_a_camera_with_a_whole_video(
    run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(run: int) -> None:
        if run == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr("maskrcnn.media.find.camera", pictures(1000, 0.01))
    finds.then = interrupt
    ran = run("predict", "model", "camera:0", "--save", "image,json,coco")
    assert ran.code == 130
    assert "stopped: 5 frames of camera:0 are done" in ran.err
    assert ran.out.startswith("camera-0   5 frames")
    assert files_in(here / "predictions") == ["camera-0.jsonl", "camera-0.mp4", "predictions.json"]
    assert len(content(here / "predictions/camera-0.mp4").images) == 5
    assert len((here / "predictions/camera-0.jsonl").read_text().splitlines()) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="another way to interrupt a program")
def test_an_interrupted_program_that_waits_for_a_stalled_stream_ends_with_a_whole_video(
    model_file: Path, here: Path
) -> None:
    contents = film(here / "clip.ts", range(0, 51200, 512)).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        arguments = ["maskrcnn", "predict", str(model_file), place, "--stream", "--save", "image"]
        code = f"import sys; sys.argv = {arguments!r}; from maskrcnn.cli.main import main; main()"
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", code], **pipes) as program:  # type: ignore[call-overload]
            caller, _ = server.accept()
            with caller:
                caller.sendall(contents)
                assert json.loads(program.stdout.readline())["frame"] == 0
                time.sleep(0.5)
                program.send_signal(signal.SIGINT)
                rest, words = program.communicate(timeout=30)
    assert program.returncode == 130, words
    video = next((here / "predictions").glob("*.mp4"))
    assert len(content(video).images) == 1 + len(rest.splitlines())


def test_a_lost_camera_is_said_on_stderr_and_the_recording_goes_on(
    run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskrcnn.media.live.PAUSES", (0.01, 0.02))
    monkeypatch.setattr("maskrcnn.media.find.camera", pictures(3, 0.03))
    ran = run("predict", "model", "camera:0", "--frames", 7)
    assert ran.code == 0
    assert (
        ran.err.splitlines()[:4]
        == [
            "note: camera:0: is lost (gives no picture); connecting again until it is back",
            "note: camera:0: is back",
        ]
        * 2
    )
    assert len(content(here / "predictions/camera-0.mp4").images) == 7


@pytest.mark.parametrize("sound", ["", pytest.param("aac", marks=pytest.mark.slow)])
def test_memory_is_flat_over_a_video_of_an_hour(run: Run, finds: Finds, here: Path, sound: str) -> None:
    """One frame a second: from its first tenth to its end less than 25 MB, of 119 MB that its frames have.

    An .mp4 has a table of frames and of the 155,000 packets of its sound, which grows.
    """
    path = film(here / "hour.mp4", range(3600), size=(96, 128), tick=Fraction(1), sound=sound)
    memory: dict[int, int] = {}

    def measure(run: int) -> None:
        if run in (360, 3600):
            memory[run] = psutil.Process().memory_info().rss

    finds.then = measure
    ran = run("predict", "model", path, "--save", "image,json,coco,csv")
    assert (ran.code, ran.err) == (0, "")
    assert content_times(here / "predictions" / "hour.mp4") == list(range(3600))
    assert memory[3600] - memory[360] < 25e6
