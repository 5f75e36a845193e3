"""`maskrcnn zoo`, and published models by name in other verbs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from commands import Run
from misbehaving_server import Server, misbehaving, only_this_machine
from small_checkpoint import NAME, published, small_checkpoint

from maskrcnn import zoo
from maskrcnn.web import OFFLINE
from maskrcnn.zoo import CACHE, Entry


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv(OFFLINE, "")
    return tmp_path / "cache"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    only_this_machine(monkeypatch)
    monkeypatch.setenv(OFFLINE, "")
    with misbehaving() as server:
        yield server


@pytest.fixture
def entry(server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    pytest.importorskip("torch")
    entry = published(server, small_checkpoint(tmp_path / "x.pkl").read_bytes())
    monkeypatch.setattr(zoo, "entries", lambda: {NAME: entry})
    return entry


def test_the_list_has_a_heading_and_a_line_for_each_model(run: Run, cache: Path) -> None:
    ran = run("zoo")
    lines = ran.out.splitlines()
    assert (ran.code, ran.err, len(lines)) == (0, "", 73)
    assert lines[0].split() == ["name", "box", "AP", "mask", "AP", "size", "cached"]
    assert lines[1].split() == ["torchvision/R50-FPN", "37.9", "34.6", "178.1", "MB"]
    assert [line.split()[0] for line in run("zoo", "maskrcnn-benchmark").out.splitlines()[1:]] == [
        f"maskrcnn-benchmark/{name}"
        for name in ("R50-C4-1x", "R50-FPN-1x", "R101-FPN-1x", "X101-32x8d-FPN-1x")
    ]


def test_one_model_is_shown_with_its_address_and_hash(run: Run, cache: Path) -> None:
    rows = dict(
        line.split(maxsplit=1) for line in run("zoo", "mmdetection/R50-FPN-caffe-1x").out.splitlines()
    )
    assert rows["AP"] == "box 38.0, mask 34.4 on COCO val2017, as published"
    assert rows["URL"].startswith("https://download.openmmlab.com/") and rows["URL"].endswith("0ebd1859.pth")
    assert (rows["hash"], rows["convert"]) == ("sha256 0ebd1859...", "--style caffe")
    assert rows["model"] == "not in the cache"


def test_the_json_list_has_everything(run: Run, cache: Path) -> None:
    values = {value["name"]: value for value in json.loads(run("zoo", "--json").out)}
    assert len(values) == 72
    one = values["detectron/R50-C4-1x"]
    assert (one["box_ap"], one["mask_ap"], one["size"], one["hash"]) == (35.8, 31.4, None, None)
    assert one["hash_url"] == one["url"] + ".md5sum"
    assert one["cached"] == {"checkpoint": None, "model": None}
    assert values["torchvision/R50-FPN"]["hash"] == {"kind": "sha256", "digits": "bf2d0c1e"}
    assert values["detectron2/R50-FPN-SyncBN-scratch-9x"]["style"] == "pytorch"


def test_a_wrong_name_is_told_with_the_nearest(run: Run, cache: Path) -> None:
    for ran in (run("zoo", "detectron2/R50-FPN-4x"), run("info", "zoo:detectron2/R50-FPN-4x")):
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(
            "error: zoo:detectron2/R50-FPN-4x: there is no such model\nhint: did you mean"
        )
    assert run("zoo", "detectron2", "--get").err.startswith("error: --get: needs the name of one model\n")


def test_a_model_by_name_predicts_and_the_second_time_opens_no_connection(
    run: Run, entry: Entry, server: Server, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("predict", f"zoo:{NAME}", photographs, "--save", "json", "--score", "0", "--device", "cpu")
    ran = run(*arguments, "--out", tmp_path / "first")
    assert ran.code == 0 and len(ran.out.splitlines()) == 3
    assert [line.split()[0] for line in ran.err.splitlines()] == ["downloading", "kept", "converted"]
    assert len(server.manners.asked) == 1
    monkeypatch.setenv(OFFLINE, "1")
    again = run(*arguments, "--out", tmp_path / "second")
    assert (again.code, again.err, len(server.manners.asked)) == (0, "", 1)
    first, second = (sorted((tmp_path / out).rglob("*.json")) for out in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second] != []


def test_offline_as_an_option_opens_no_connection(
    run: Run, entry: Entry, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("info", f"zoo:{NAME}", "--offline")
    assert ran.code == 2
    assert ran.err.startswith(f"error: zoo:{NAME}: is not in the cache, and this program is offline\nhint: ")
    assert server.manners.asked == []
    monkeypatch.setenv(OFFLINE, "")
    assert run("info", f"zoo:{NAME}").code == 0
    ran = run("info", f"zoo:{NAME}", "--offline")
    assert (ran.code, ran.err, len(server.manners.asked)) == (0, "", 1)


def test_getting_a_model_prints_its_file_and_the_list_then_knows_it(
    run: Run, entry: Entry, cache: Path
) -> None:
    path = Path(run("zoo", NAME, "--get").out.strip())
    assert path.is_file() and path.parent == cache / NAME
    assert run("zoo").out.splitlines()[1].split()[-2:] == ["checkpoint,", "model"]
    (value,) = json.loads(run("zoo", NAME, "--json").out)
    assert value["cached"] == {"checkpoint": str(cache / NAME / entry.file_name), "model": str(path)}


PROCESS = """
import json, sys
from maskrcnn import zoo
from maskrcnn.cli.main import main
from maskrcnn.download import Digest
values = json.loads(sys.argv.pop(1))
entry = zoo.Entry(**{**values, "digest": Digest(**values["digest"])})
zoo.entries = lambda: {entry.name: entry}
main()
"""


def test_an_interrupted_command_says_what_is_kept_and_leaves_with_130(
    entry: Entry, server: Server, cache: Path
) -> None:
    server.manners.stalls = [100_000]
    command = [sys.executable, "-c", PROCESS, json.dumps(asdict(entry)), "zoo", NAME, "--get"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    part = cache / NAME / f"{entry.file_name}.part"
    until = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "stopped: 0.1 MB are kept for the next run"
    assert part.stat().st_size == 100_000
