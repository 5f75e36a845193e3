"""`eval` and `predict` in several processes do what one does, once, and end alike."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import Ran, Run
from finds import files_in

from maskrcnn.team import Team

# The command line on an engine that finds a cat in every image and needs no torch. In the process of that
# rank it is killed at its second image.
PROGRAM = """
import os, signal, sys
sys.path.insert(0, {tests!r})
sys.modules["torch"] = None
from finds import Finds
from maskrcnn import predict
from maskrcnn.cli.main import main

def end(run):
    if run == 2 and os.environ.get("RANK") == {killed!r}:
        os.kill(os.getpid(), signal.SIGKILL)

predict.open_model = lambda *_, **__: predict.Predictor(Finds(end))
sys.argv = ["maskrcnn", *{words!r}]
main()
"""
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER", "SLURM", "OMPI", "PMI", "TORCHELASTIC")
EVERYTHING = "image,json,masks,coco,labelme,geojson,yolo,cvat,csv"


def program(words: list[object], killed: str = "") -> list[str]:
    text = PROGRAM.format(tests=str(Path(__file__).parent), killed=killed, words=list(map(str, words)))
    return [sys.executable, "-c", text]


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}


def run_two(*words: object, killed: str = "") -> list[Ran]:
    """What each of two processes of a command left, the first one first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    running = [
        subprocess.Popen(
            program(list(words), killed),
            env=clean() | {"RANK": rank, "WORLD_SIZE": "2", "MASTER_PORT": port},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    left = [process.communicate(timeout=100) for process in running]
    return [Ran(process.returncode, *words) for process, words in zip(running, left, strict=True)]


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """A folder of five images of different sizes, 0.png to 4.png."""
    folder = tmp_path / "five"
    folder.mkdir()
    for number in range(5):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((40 + 9 * number, 64, 3), 50 * number, np.uint8))
    return folder


@pytest.fixture
def annotations(five: Path) -> Path:
    """A cat of another size in each image."""
    images, objects = [], []
    for number in range(5):
        height, left = 40 + 9 * number, 30 + number
        images.append({"id": number + 1, "file_name": f"{number}.png", "height": height, "width": 64})
        ring = [left, 16, 60, 16, 60, height - 2, left, height - 2]
        box = [left, 16, 60 - left, height - 18]
        row = {"id": number + 1, "image_id": number + 1, "category_id": 17, "iscrowd": 0}
        objects.append(row | {"bbox": box, "area": box[2] * box[3], "segmentation": [ring]})
    path = five.parent / "instances.json"
    content = {"images": images, "annotations": objects, "categories": [{"id": 17, "name": "cat"}]}
    path.write_text(json.dumps(content))
    return path


def measured(five: Path, annotations: Path, *more: object) -> list[object]:
    return ["eval", "model", "--images", five, "--annotations", annotations, *more]


@pytest.mark.usefixtures("finds")
def test_the_measurement_is_that_of_one_process_and_so_is_the_exit_code(
    run: Run, five: Path, annotations: Path
) -> None:
    lists = [five.parent / name for name in ("one.json", "two.json")]
    limit = ("--json", "--at-least", "segm/AP=0.99", "--save")
    one = run(*measured(five, annotations, *limit, lists[0]))
    first, other = run_two(*measured(five, annotations, *limit, lists[1]))
    assert (one.code, json.loads(one.out)["detections"]) == (1, 5)
    assert first == one
    assert other == Ran(1, "", "")
    assert lists[1].read_bytes() == lists[0].read_bytes()


def test_the_first_says_what_another_process_cannot_read(five: Path, annotations: Path) -> None:
    (five / "3.png").write_bytes(b"no image")
    path = five.parent / "list.json"
    first, other = run_two(*measured(five, annotations, "--save", path))
    assert (first.code, first.out) == (2, "")
    assert "3.png: is not an image" in first.err
    assert other == Ran(2, "", "")
    assert files_in(five.parent) == [*(f"five/{number}.png" for number in range(5)), "instances.json"]


@pytest.mark.parametrize("killed", ["0", "1"])
def test_a_process_that_is_killed_ends_the_other(five: Path, annotations: Path, killed: str) -> None:
    path = five.parent / "list.json"
    ran = run_two(*measured(five, annotations, "--save", path), killed=killed)
    left = ran[1 - int(killed)]
    assert ran[int(killed)].code == -signal.SIGKILL
    assert left.code == 2
    what = "process 0 has ended before the others" if killed == "0" else "process 1 of 2 has ended before"
    assert left.err.startswith(f"error: {what}")
    assert not path.exists()


@pytest.mark.usefixtures("finds")
def test_files_and_lines_of_a_prediction_are_those_of_one_process(run: Run, five: Path) -> None:
    (five / "2.png").write_bytes(b"no image")
    folders = [five.parent / name for name in ("one", "two")]
    words = ("predict", "model", five, "--stream", "--save", EVERYTHING, "--out")
    one = run(*words, folders[0])
    first, other = run_two(*words, folders[1])
    assert (one.code, first.code, len(one.out.splitlines())) == (1, 1, 4)
    assert other == Ran(1, "", "")
    assert first.out == one.out
    assert without_times(first.err, "two") == without_times(one.err, "one")
    assert len(files_in(folders[0])) == 4 * 7 + 4
    assert files_in(folders[1]) == files_in(folders[0])
    for name in files_in(folders[0]):
        parts = [(folder / name).read_bytes() for folder in folders]
        # One process adds images to these as its threads finish them.
        if name in ("annotations.xml", "predictions.csv"):
            found = re.findall(rb"\b\d\.png", parts[1])
            assert found == [b"0.png", b"1.png", b"3.png", b"4.png"]
            parts = [b"".join(sorted(re.sub(rb'id="."', b"", part).split(b"\n"))) for part in parts]
        assert parts[0] == parts[1], name


def without_times(words: str, folder: str) -> str:
    return re.sub(r"\d+ ms", "", words).replace(f"/{folder}/", "/")


@pytest.mark.parametrize(
    ("source", "name"),
    [("camera:0", "camera:0"), ("clip.mp4", "clip.mp4"), ("-", "the list on standard input")],
)
def test_what_several_processes_cannot_read_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_bytes(b"")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("maskrcnn.team.meet", lambda place, *_: Team(place, ()))
    ran = run("predict", "model", source, "--frames", "1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {name}: cannot be shared by 2 processes\n")
    assert files_in(tmp_path) == ["clip.mp4"]


@pytest.mark.usefixtures("finds")
def test_mpirun_starts_it(run: Run, five: Path, annotations: Path) -> None:
    if shutil.which("mpirun") is None or "Open MPI" not in started(["mpirun", "--version"]):
        pytest.skip("needs Open MPI's mpirun")
    words = measured(five, annotations, "--json")
    launch = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", *program(words)]
    assert started(launch) == run(*words).out


@pytest.mark.usefixtures("finds")
def test_torchrun_starts_it(run: Run, five: Path, annotations: Path) -> None:
    """On the port beside its own, which it holds."""
    pytest.importorskip("torch")
    words = measured(five, annotations, "--json")
    (five.parent / "program.py").write_text(program(words)[-1])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert started([*launch, str(five.parent / "program.py")]) == run(*words).out


def started(words: list[str]) -> str:
    """What they print on standard output."""
    environment = clean() | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
