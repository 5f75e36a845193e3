"""`maskrcnn predict` on archives, addresses, lists, videos and cameras; the engine finds one object."""

import json
import os
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from finds import Finds, files_in

from maskrcnn import read_image

pytest.importorskip("av")

from films import content, film  # noqa: E402

UNEVEN = np.cumsum([0] + [512 if number % 3 else 1300 for number in range(299)]).tolist()


def test_a_video_three_photographs_and_an_archive_work_in_one_call(
    run: Run, finds: Finds, here: Path
) -> None:
    ran = run("predict", "model", "clip.mp4", "photos", "more.zip")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[0] for line in ran.out.splitlines()] == [
        "clip.mp4", "0.jpg", "1.jpg", "2.jpg", "a/one.jpg", "two.jpg"
    ]  # fmt: skip
    assert "10 frames   cat in 10" in ran.out.splitlines()[0]
    assert files_in(here / "predictions") == ["0.jpg", "1.jpg", "2.jpg", "a/one.jpg", "clip.mp4", "two.jpg"]


def test_300_frames_in_are_300_annotated_frames_out_at_the_same_uneven_times_with_their_sound(
    run: Run, finds: Finds, here: Path
) -> None:
    source = content(film(here / "long.mp4", UNEVEN, sound="aac"))
    assert run("predict", "model", "long.mp4").code == 0
    found = content(here / "predictions" / "long.mp4")
    assert len(found.images) == 300 == finds.runs
    assert found.seconds == source.seconds
    assert found.sound == source.sound
    drawn = [np.abs(a.astype(int) - b).max() for a, b in zip(source.images, found.images, strict=True)]
    assert min(drawn) > 40
    pairs = zip(source.images, found.images, strict=True)
    untouched = [np.abs(a.astype(int) - b)[:, :8].mean() for a, b in pairs]
    assert max(untouched) < 6


def test_a_lying_video_is_written_upright(run: Run, finds: Finds, here: Path) -> None:
    film(here / "tall.mp4", rotation=90)
    run("predict", "model", "tall.mp4")
    assert content(here / "predictions" / "tall.mp4").images[0].shape == (64, 48, 3)


def test_stream_prints_a_line_of_json_for_each_frame_and_words_go_to_stderr(
    run: Run, finds: Finds, here: Path
) -> None:
    ran = run("predict", "model", "clip.mp4", "photos/1.jpg", "more.zip", "--stream")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [(line["source"], line["frame"], line["timestamp"]) for line in lines] == [
        *[("clip.mp4", number, pytest.approx(0.04 * number)) for number in range(10)],
        ("photos/1.jpg", None, None),
        ("more.zip/a/one.jpg", None, None),
        ("more.zip/two.jpg", None, None),
    ]
    assert [line["detections"][0]["name"] for line in lines] == ["cat"] * 13
    assert lines[0]["size"] == [48, 64]
    assert [line.split()[0] for line in ran.err.splitlines()] == ["clip.mp4", "1.jpg", "a/one.jpg", "two.jpg"]
    assert not (here / "predictions").exists()


def test_results_of_frames_are_lines_of_one_file_or_files_with_the_number_of_the_frame(
    run: Run, finds: Finds, here: Path
) -> None:
    ran = run("predict", "model", "clip.mp4", "--save", "json,masks,coco,csv", "--frames", 3)
    assert (ran.code, ran.err) == (0, "")
    out = here / "predictions"
    masks = [f"clip-{number:06d}.masks.{kind}" for number in range(3) for kind in ("json", "png")]
    assert files_in(out) == [*masks, "clip.jsonl", "predictions.csv", "predictions.json"]
    lines = [json.loads(line) for line in (out / "clip.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2]
    items = json.loads((out / "predictions.json").read_text())
    assert [(item["image_id"], item["file_name"]) for item in items] == [
        (number, f"clip-{number:06d}") for number in range(3)
    ]
    assert len((out / "predictions.csv").read_text().splitlines()) == 1 + 3


def test_frames_of_several_videos_have_no_image_ids_and_names_of_their_own(
    run: Run, finds: Finds, here: Path
) -> None:
    (here / "other").mkdir()
    film(here / "other" / "clip.mp4")
    run("predict", "model", "clip.mp4", "other/clip.mp4", "--save", "coco,image", "--frames", 1)
    items = json.loads((here / "predictions" / "predictions.json").read_text())
    assert [item["file_name"] for item in items] == ["clip-000000", "other/clip-000000"]
    assert not any("image_id" in item for item in items)
    assert files_in(here / "predictions") == ["clip.mp4", "other/clip.mp4", "predictions.json"]


def test_seconds_end_a_video_and_its_sound(run: Run, finds: Finds, here: Path) -> None:
    film(here / "long.mp4", range(0, 51200, 512), sound="aac")
    run("predict", "model", "long.mp4", "--seconds", 1)
    found = content(here / "predictions" / "long.mp4")
    assert len(found.images) == 25
    assert 0.9 < len(found.sound) * 1024 / 44100 < 1.1


def test_a_video_never_takes_the_place_of_its_source(run: Run, finds: Finds, here: Path) -> None:
    before = (here / "clip.mp4").read_bytes()
    ran = run("predict", "model", "clip.mp4", "--out", ".")
    assert ran.code == 2
    assert "would take the place of clip.mp4" in ran.err
    assert (here / "clip.mp4").read_bytes() == before


def test_a_damaged_video_is_done_up_to_the_damage_and_the_exit_code_is_1(
    run: Run, finds: Finds, here: Path
) -> None:
    path = film(here / "long.mkv", range(0, 51200, 512))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    ran = run("predict", "model", "long.mkv")
    assert ran.code == 1
    done = len(content(here / "predictions" / "long.mp4").images)
    assert 20 < done < 100
    assert ran.out.startswith(f"long.mkv   {done} frames   cat in {done}")
    assert "error: long.mkv: is damaged or incomplete at " in ran.err
    assert ran.err.splitlines()[-1] == "hint: copy or download it again"


@pytest.mark.parametrize("contents", [b"", b"this is a text\n"])
def test_what_is_no_video_is_told_and_the_others_are_done(
    run: Run, finds: Finds, here: Path, contents: bytes
) -> None:
    (here / "text.mp4").write_bytes(contents)
    alone = run("predict", "model", "text.mp4")
    assert (alone.code, alone.out) == (2, "")
    assert alone.err.startswith("error: text.mp4: is no video, or a damaged one\nhint: ")
    assert files_in(here / "predictions") == []
    among = run("predict", "model", "text.mp4", "photos/1.jpg")
    assert among.code == 1
    assert among.err.splitlines()[-1] == "hint: 1 of 2 sources were left out"


def test_a_video_without_frames_is_told(run: Run, finds: Finds, here: Path) -> None:
    film(here / "none.mkv", [])
    film(here / "none.ts", [])
    for name in ("none.mkv", "none.ts"):
        ran = run("predict", "model", name)
        assert ran.code == 2
        assert ran.err.startswith(f"error: {name}: ")


def test_without_pyav_images_are_done_and_the_video_says_how_to_get_it(
    run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    alone = run("predict", "model", "clip.mp4")
    assert alone.code == 2
    assert alone.err == (
        "error: clip.mp4: needs av, which is not installed\n"
        'hint: install it with `pip install "maskrcnn[video]"`\n'
    )
    assert run("predict", "model", "clip.mp4", "photos", "more.zip").code == 1
    assert len(files_in(here / "predictions")) == 5


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_a_dash_stands_for_a_list_on_standard_input(
    run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    words = separator.join(["photos/2.jpg", "", "more.zip", "clip.mp4"]).encode()
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(words)))
    ran = run("predict", "model", "photos/0.jpg", "-")
    assert [line.split()[0] for line in ran.out.splitlines()] == [
        "0.jpg", "2.jpg", "a/one.jpg", "two.jpg", "clip.mp4"
    ]  # fmt: skip


def test_an_empty_list_is_told(run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"\n")))
    assert "no images are named" in run("predict", "model", "-").err


@pytest.fixture
def server(here: Path) -> Iterator[str]:
    """The address at which the working folder is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(here)))
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()
    thread.join()


def test_images_and_videos_are_read_from_addresses(run: Run, finds: Finds, here: Path, server: str) -> None:
    ran = run(
        "predict", "model", f"{server}/photos/1.jpg?size=big", f"{server}/clip.mp4", f"{server}/none.jpg"
    )
    assert ran.code == 1
    assert [line.split()[0] for line in ran.out.splitlines()] == ["1.jpg", "clip.mp4"]
    assert f"{server}/none.jpg: the server has no such file" in ran.err
    assert files_in(here / "predictions") == ["1.jpg", "clip.mp4"]
    assert len(content(here / "predictions" / "clip.mp4").images) == 10
    assert read_image(here / "predictions" / "1.jpg").shape == (48, 64, 3)


def test_offline_no_address_is_opened(run: Run, finds: Finds, here: Path, server: str) -> None:
    for name in ("photos/1.jpg", "clip.mp4"):
        ran = run("predict", "model", f"{server}/{name}", "--offline")
        os.environ.pop("MASKRCNN_OFFLINE", None)
        assert ran.code == 2
        assert "this program is offline" in ran.err


def test_images_of_one_name_at_two_addresses_do_not_overwrite_each_other(
    run: Run, finds: Finds, here: Path, server: str
) -> None:
    (here / "b").mkdir()
    os.link(here / "photos/1.jpg", here / "b/1.jpg")
    assert run("predict", "model", f"{server}/photos/1.jpg", f"{server}/b/1.jpg").code == 0
    assert len(files_in(here / "predictions")) == 2


def test_images_come_from_a_store_and_pictures_go_to_one(
    run: Run, finds: Finds, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setenv("MASKRCNN_CACHE", str(here / "cache"))
    memory.pipe("/bucket/photos/a.jpg", (here / "photos/0.jpg").read_bytes())
    try:
        ran = run("predict", "model", "memory://bucket/photos", "--out", "memory://bucket/found")
        assert (ran.code, ran.out.split()[0]) == (0, "a.jpg")
        assert ran.err.splitlines()[-1] == "1 file -> memory://bucket/found"
        assert memory.find("/bucket/found") == ["/bucket/found/a.jpg"]
    finally:
        memory.store.clear()
    assert not (here / "predictions").exists()
    assert not (here / "memory:").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("camera:63",), "camera:63: cannot be opened"),
        (("camera:front",), "camera:front: names no camera"),
        (("rtsp://me:secret@127.0.0.1:9/door",), "rtsp://...@127.0.0.1:9/door: Connection refused"),
        (("camera:0", "photos"), "camera:0: has no end, and there are sources after it"),
        (("rstp://door/a",), "rstp://door/a: there is no driver for rstp:// here"),
        (("http://127.0.0.1:9/a.zip",), "http://127.0.0.1:9/a.zip: is an archive"),
        (("http://127.0.0.1:9/a.mp4",), "http://127.0.0.1:9/a.mp4: Connection refused"),
        (("http://[bad/a.jpg",), "is no address"),
        (("none.zip",), "none.zip: no such file or folder"),
        (("none/*.mp4",), "none/*.mp4: no file matches"),
    ],
)
def test_a_source_that_cannot_be_is_told(
    run: Run, finds: Finds, here: Path, words: tuple[str, ...], message: str
) -> None:
    ran = run("predict", "model", *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err.splitlines()[0]
    assert ran.err.splitlines()[1].startswith("hint: ")


def test_a_pattern_finds_images_then_videos_and_archives(run: Run, finds: Finds, here: Path) -> None:
    with tarfile.open(here / "more.tgz", "w:gz") as file:
        file.add(here / "photos/2.jpg", "three.jpg")
    film(here / "10.mp4")
    film(here / "9.mov")
    (here / "notes.txt").write_text("passed over")
    ran = run("predict", "model", "*.*")
    assert [line.split()[0] for line in ran.out.splitlines()] == [
        "9.mov", "10.mp4", "clip.mp4", "three.jpg", "a/one.jpg", "two.jpg"
    ]  # fmt: skip


def test_videos_and_archives_are_known_by_their_first_bytes_too(run: Run, finds: Finds, here: Path) -> None:
    (here / "clip.mp4").rename(here / "clip.dat")
    (here / "more.zip").rename(here / "more.cbz")
    ran = run("predict", "model", "clip.dat", "more.cbz")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["clip.dat", "a/one.jpg", "two.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["pipe.mp4", "pipe.zip", "pipe"])
def test_a_pipe_that_nobody_writes_to_is_told_and_not_waited_for(
    run: Run, finds: Finds, here: Path, name: str
) -> None:
    os.mkfifo(here / name)
    ran = run("predict", "model", name)
    assert ran.code == 2
    assert f"{name}: is not a file" in ran.err
