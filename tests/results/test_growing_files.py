"""The files of a run are whole after every image, whoever adds to them and whatever stops it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from pictured import block, drawn, write

from maskrcnn.errors import UserError
from maskrcnn.images import ImageFile
from maskrcnn.results import GrowingText, growing
from maskrcnn.stream import Found


def test_the_end_stands_there_after_every_addition(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    text = GrowingText(path, end="</a>")
    assert text.add("<a>", lambda number: f"<b>{number}</b>") == path
    assert path.read_text() == "<a><b>0</b></a>"
    text.add("<not used>", lambda number: f"<é>{number}</é>")
    assert path.read_text("utf-8") == "<a><b>0</b><é>1</é></a>"
    text.add("<a>", lambda _: "")
    assert path.read_text("utf-8") == "<a><b>0</b><é>1</é></a>"


def test_an_older_file_stays_until_there_is_something_to_write(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("older and longer than what will stand there")
    text = GrowingText(path)
    assert path.read_text() == "older and longer than what will stand there"
    text.add("h\n", lambda _: "1\n")
    assert path.read_text() == "h\n1\n"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_disk_that_fills_up_leaves_what_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.xml"
    text = GrowingText(path, end="</a>")
    text.add("<a>", lambda _: "<b/>")

    def half(write: object, contents: bytes) -> None:
        write(contents[: len(contents) // 2])  # type: ignore[operator]
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(growing, "_write_all", half)
        with pytest.raises(UserError, match=r"a.xml: cannot be written \(No space left on device\)"):
            text.add("<a>", lambda _: "<c>much longer than the end</c>")
    assert path.read_text() == "<a><b/></a>"
    text.add("<a>", lambda number: f"<d>{number}</d>")
    assert path.read_text() == "<a><b/><d>1</d></a>"


def test_a_file_that_somebody_removes_is_named(tmp_path: Path) -> None:
    text = GrowingText(tmp_path / "a.csv")
    text.add("", lambda _: "1\n")
    (tmp_path / "a.csv").unlink()
    with pytest.raises(UserError, match=r"a.csv: cannot be written \(No such file"):
        text.add("", lambda _: "2\n")


def test_what_is_written_in_pieces_is_written_whole() -> None:
    written = bytearray()

    def three_at_most(contents: memoryview) -> int:
        written.extend(contents[:3])
        return min(3, len(contents))

    growing._write_all(three_at_most, b"abcdefgh")
    assert bytes(written) == b"abcdefgh"


ENDLESS = """
import sys
from itertools import count
from pathlib import Path
from maskrcnn.results import GrowingText

text = GrowingText(Path(sys.argv[1]), end="</a>")
try:
    for _ in count():
        text.add("<a>", lambda number: f"<b>{number}</b>" * 1000)
except KeyboardInterrupt:
    sys.exit(7)
"""


def test_a_program_that_is_interrupted_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    program = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)])
    try:
        # A kill, which no program can answer, could cut the entry that is being written.
        limit = time.monotonic() + 60
        while not path.exists() or path.stat().st_size < 100_000:
            assert time.monotonic() < limit
            assert program.poll() is None
            time.sleep(0.001)
        program.send_signal(signal.SIGINT)
        assert program.wait(60) == 7
    finally:
        program.kill()
        program.wait()
    numbers = [int(entry.text or "") for entry in ElementTree.parse(path).getroot()]
    assert numbers == [number for number in range(numbers[-1] + 1) for _ in range(1000)]


def test_threads_add_every_image_once(tmp_path: Path) -> None:
    found = drawn(block())
    output, _ = write(tmp_path, "cvat", "csv", "yolo", detections=found, name="0.jpg")
    names = [f"{number}.jpg" for number in range(1, 60)]
    files = [ImageFile(tmp_path / "in" / name, name) for name in names]
    output.stems.update({file.path: file.path.stem for file in files})  # type: ignore[attr-defined]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(output.write, [Found(file, None, found, 1.0) for file in files]))
    images = ElementTree.parse(tmp_path / "out/annotations.xml").getroot().findall("image")
    assert sorted(image.attrib["name"] for image in images) == sorted(["0.jpg", *names])
    assert [image.attrib["id"] for image in images] == [str(number) for number in range(60)]
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) == 61
    assert len(os.listdir(tmp_path / "out/labels")) == 60


def test_a_labelme_file_leads_to_its_image_and_names_one_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/a.b.jpg").touch()
    for name, expected in (
        ("sub/a.b.jpg", "../../../in/sub/a.b.jpg"),
        ("film.mp4/0001.jpg", "film.mp4/0001.jpg"),
    ):
        _, written = write(tmp_path, "labelme", name=name)
        assert written.paths == ((tmp_path / "out/labelme" / name).with_suffix(".json"),)
        assert json.loads(written.paths[0].read_text())["imagePath"] == expected


def test_every_kind_says_where_its_results_are(tmp_path: Path) -> None:
    kinds = ("json", "masks", "labelme", "geojson", "yolo", "cvat", "csv")
    _, written = write(tmp_path, *kinds, detections=drawn(block()))
    assert [str(path.relative_to(tmp_path / "out")) for path in written.paths] == [
        *("street.json", "street.masks.png", "street.masks.json", "labelme/street.json", "street.geojson"),
        *("labels/street.txt", "predictions.csv", "annotations.xml"),
    ]
    assert all(path.is_file() for path in written.paths)
    assert written.notes == ()


def test_the_score_holds_for_every_format_but_the_coco_list(tmp_path: Path) -> None:
    kinds = ("coco", "labelme", "geojson", "yolo", "cvat", "csv")
    found = drawn(block(), block())
    low = replace(found, scores=np.float32([0.9, 0.3]))
    _, written = write(tmp_path, *kinds, detections=low)
    out = tmp_path / "out"
    assert len(written.coco) == 2
    assert len((out / "labels/street.txt").read_text().splitlines()) == 1
    assert (out / "labelme/street.json").read_text().count('"label"') == 1
    assert (out / "street.geojson").read_text().count('"Feature"') == 1
    assert (out / "annotations.xml").read_text().count("<polygon") == 1
    assert len((out / "predictions.csv").read_text().splitlines()) == 2
