"""A run whose data and folder are in a store: fetched at its start, sent at each checkpoint and the end."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from conftest import draw_shapes
from typer.testing import CliRunner

from maskrcnn.cli.main import app
from maskrcnn.errors import UserError
from maskrcnn.storage import Mirror, cached_folder
from maskrcnn.training import keeping, loop
from maskrcnn.training.checkpoint import load_checkpoint
from maskrcnn.training.keeping import with_local_copies
from maskrcnn.training.run_file import RunFile

SMALL = (
    *("--set", "model.backbone.depth=18", "--set", "model.backbone.width=8", "--set", "model.fpn.channels=8"),
    *("--set", "model.box_head.fc_channels=16", "--set", "model.mask_head.channels=8"),
    *("--set", "preprocess.short=64", "--set", "preprocess.long=96", "--set", "training.precision=fp32"),
    *("--set", "model.rpn.post_nms=20", "--set", "model.rpn.post_nms_training=20"),
    *("--set", "training.log_every=1", "--model", "scratch:r18-fpn", "--device", "cpu"),
)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Any]:
    """A store in memory with a data set of four pictures."""
    (tmp_path / "shapes").mkdir()
    draw_shapes(tmp_path / "shapes", 4)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "shapes"), "/bucket/shapes", recursive=True)
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def train(folder: Path, *more: str) -> Any:
    words = [
        "train",
        "--data",
        "memory://bucket/shapes",
        "--out",
        "memory://bucket/run",
        "--val-share",
        "0.25",
    ]
    return CliRunner().invoke(app, [*words, "--local", str(folder), *SMALL, *more])


def test_a_run_in_a_store_ends_there_and_goes_on_on_another_machine(bucket: Any, tmp_path: Path) -> None:
    done = train(tmp_path / "one", "--steps", "2")
    assert done.exit_code == 0, done.output
    assert "memory://bucket/shapes: 5 files fetched to" in done.stderr
    there = {path.removeprefix("/bucket/run/") for path in bucket.find("/bucket/run")}
    assert {"checkpoint.pt", "model.safetensors", "report.html", "run.yaml", "metrics.jsonl"} <= there
    assert b"out: memory://bucket/run\n" in bucket.cat("/bucket/run/run.yaml")
    again = train(tmp_path / "two", "--steps", "4", "--resume")
    assert again.exit_code == 0, again.output
    assert "going on at step 2 of 4" in again.stderr
    bucket.get_file("/bucket/run/checkpoint.pt", str(tmp_path / "last.pt"))
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 4


def test_what_is_there_is_sent_after_every_checkpoint(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    one = Mirror.send

    def sending(self: Mirror) -> int:
        checkpoint = self.folder / "checkpoint.pt"
        steps.append(load_checkpoint(checkpoint)["step"] if checkpoint.exists() else 0)
        return one(self)

    monkeypatch.setattr(Mirror, "send", sending)
    assert train(tmp_path, "--steps", "4", "--set", "training.save_every=2").exit_code == 0
    # at the start, after two checkpoints, and at the end with the report
    assert steps == [0, 2, 4, 4]


def test_a_store_that_is_away_for_a_while_does_not_end_the_run(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, calls = type(bucket).put_file, []

    def failing(self: Any, path: str, *arguments: Any, **more: Any) -> Any:
        if path.endswith("checkpoint.pt") and not calls:
            calls.append(path)
            raise OSError("the line is cut")
        return one(self, path, *arguments, **more)

    monkeypatch.setattr(type(bucket), "put_file", failing)
    done = train(tmp_path, "--steps", "4", "--set", "training.save_every=2")
    assert done.exit_code == 0, done.output
    assert "cannot be written (the line is cut); kept in" in done.stderr
    assert bucket.exists("/bucket/run/checkpoint.pt")


def test_a_store_that_is_away_at_the_end_leaves_everything_here_and_says_where(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = type(bucket).put_file

    def failing(self: Any, path: str, *arguments: Any, **more: Any) -> Any:
        if path.endswith((".pt", ".safetensors", ".html")):
            raise OSError("the line is cut")
        return one(self, path, *arguments, **more)

    monkeypatch.setattr(type(bucket), "put_file", failing)
    done = train(tmp_path, "--steps", "2")
    assert done.exit_code == 2
    last, hint = done.stderr.strip().splitlines()[-2:]
    folder = cached_folder("memory://bucket/run", tmp_path)
    assert last == (
        f"error: memory://bucket/run: cannot be written (the line is cut); the run is complete in {folder}"
    )
    assert hint == "hint: the same command with --resume sends what is missing"
    assert (folder / "model.safetensors").exists()
    monkeypatch.setattr(type(bucket), "put_file", one)
    assert train(tmp_path, "--steps", "2", "--resume").exit_code == 0
    assert bucket.exists("/bucket/run/model.safetensors")


def test_a_store_that_cannot_be_written_is_told_before_the_first_step(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: Any, **__: Any) -> Any:
        raise PermissionError("403 Forbidden")

    monkeypatch.setattr(type(bucket), "put_file", refusing)
    done = train(tmp_path, "--steps", "2")
    assert done.exit_code == 2
    assert "error: memory://bucket/run: cannot be written, access is refused" in done.stderr
    assert "step 1" not in done.stderr


def test_ctrl_c_sends_the_checkpoint_that_it_makes(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_update, done = loop.update, []

    def stopping(*arguments: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return one_update(*arguments)

    monkeypatch.setattr(loop, "update", stopping)
    assert train(tmp_path, "--steps", "50").exit_code == 130
    bucket.get_file("/bucket/run/checkpoint.pt", str(tmp_path / "last.pt"))
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 3


REQUESTED = """
import os, signal, sys, time
from maskrcnn.training.keeping import stopped_in_order

before = signal.getsignal(signal.SIGTERM)
try:
    with stopped_in_order():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
except KeyboardInterrupt:
    sys.exit(0 if signal.getsignal(signal.SIGTERM) is before else 4)
sys.exit(3)
"""


def test_a_request_to_end_is_taken_like_ctrl_c() -> None:
    assert subprocess.run([sys.executable, "-c", REQUESTED], check=False).returncode == 0


def test_a_network_without_names_there_is_refused_before_the_first_step(bucket: Any, tmp_path: Path) -> None:
    done = train(
        tmp_path, "--steps", "1", "--checkpoints-for", "mindspore", "--set", "model.mask_head.convs=2"
    )
    assert done.exit_code == 2
    assert "error: mindspore has no names for a mask head of 2 convolutions" in done.stderr


def test_folders_of_urls_lie_below_the_one_that_is_named_and_nowhere_else(
    bucket: Any, tmp_path: Path
) -> None:
    run = RunFile(data="memory://bucket/shapes/../shapes/instances.json", local=str(tmp_path / "here"))
    bucket.store["/bucket/shapes/../shapes/instances.json"] = bucket.store["/bucket/shapes/instances.json"]
    said: list[str] = []
    found, mirror = with_local_copies(run, said.append)
    assert mirror is None
    (folder,) = (tmp_path / "here").iterdir()
    assert folder.name.startswith("memory_bucket_shapes_.._shapes_instances.json-")
    assert found.data == str(folder / "instances.json")
    assert json.loads((folder / "instances.json").read_text())["categories"]
    assert said == [f"memory://bucket/shapes/../shapes/instances.json: 1 file fetched to {folder}"]


def test_without_a_folder_they_lie_in_the_cache(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path / "cache"))
    url = "memory://bucket/shapes"
    found, _ = with_local_copies(RunFile(data=url, out=f"{url}/run"), lambda words: None)
    assert found.data == str(cached_folder(url))
    assert Path(found.data).parent == Path(found.out).parent == tmp_path / "cache" / "storage"


def test_paths_of_this_machine_stay_as_they_are() -> None:
    run = RunFile(data="fruits/", out="runs/x")
    assert keeping.with_local_copies(run, lambda words: None) == (run, None)


def test_a_data_set_that_is_not_there_is_told(bucket: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="memory://bucket/none: there is no such file or folder"):
        with_local_copies(RunFile(data="memory://bucket/none", local=str(tmp_path)), lambda words: None)
