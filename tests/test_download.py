"""Downloads over a network that breaks off, stalls, lies and is down."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from misbehaving_server import Server, misbehaving, only_this_machine

from maskrcnn import download as downloads
from maskrcnn import web
from maskrcnn.download import WATCH, Digest, Lines, download
from maskrcnn.errors import UserError

MILLION = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(MILLION).hexdigest()
PUBLISHED = Digest("sha256", SHA256[:8])


@dataclass
class Told(Lines):
    """What the user was told, and how many bytes the bar has seen in each attempt."""

    lines: list[str] = field(default_factory=list)
    bars: list[tuple[int, int | None, int]] = field(default_factory=list)
    interrupt: bool = False

    def say(self, words: str) -> None:
        self.lines.append(words)

    @contextmanager
    def bar(self, done: int, total: int | None) -> Iterator[Any]:
        seen = [done]

        def arrived(count: int) -> None:
            seen[0] += count
            if self.interrupt:
                raise KeyboardInterrupt

        try:
            yield arrived
        finally:
            self.bars.append((done, total, seen[0]))


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    only_this_machine(monkeypatch)


@pytest.fixture
def server() -> Iterator[Server]:
    with misbehaving() as server:
        server.manners.files["/model.pkl"] = MILLION
        yield server


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """No waiting between attempts, and what is said."""
    monkeypatch.setattr(downloads, "WAITS", (0.0, 0.0))
    told = Told()
    token = WATCH.set(told)
    yield told
    WATCH.reset(token)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "model.pkl"


def fails(*arguments: Any, **options: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        download(*arguments, **options)
    return caught.value


def test_a_file_arrives_whole_announced_and_alone_in_its_folder(
    server: Server, told: Told, path: Path
) -> None:
    assert download([f"{server.url}/model.pkl"], path, len(MILLION), PUBLISHED) == SHA256
    assert path.read_bytes() == MILLION
    assert os.listdir(path.parent) == ["model.pkl"]
    assert told.lines == [f"downloading {server.url}/model.pkl, 1.0 MB"]
    assert told.bars == [(0, 1_024_000, 1_024_000)]


def test_a_broken_download_goes_on_where_it_stopped(server: Server, told: Told, path: Path) -> None:
    server.manners.breaks = [300_000, 200_000]
    download([f"{server.url}/model.pkl"], path, digest=PUBLISHED)
    assert path.read_bytes() == MILLION
    assert [wanted for _, wanted in server.manners.asked] == [None, "bytes=300000-", "bytes=500000-"]
    assert told.bars == [
        (0, 1_024_000, 300_000), (300_000, 1_024_000, 500_000), (500_000, 1_024_000, 1_024_000)
    ]  # fmt: skip
    assert told.lines[1:3] == [
        "model.pkl: the connection broke off; trying again in 0 s",
        f"resuming at 0.3 MB of {server.url}/model.pkl, 1.0 MB",
    ]


def test_after_two_attempts_without_progress_it_gives_up_and_the_next_call_goes_on(
    server: Server, told: Told, path: Path
) -> None:
    server.manners.breaks = [1000, 1000, 1000]
    error = fails([f"{server.url}/model.pkl"], path)
    assert error.message == f"{server.url}/model.pkl: the connection broke off"
    assert path.with_name("model.pkl.part").read_bytes() == MILLION[:3000]
    download([f"{server.url}/model.pkl"], path, digest=PUBLISHED)
    assert server.manners.asked[-1] == ("/model.pkl", "bytes=3000-")


def test_an_interruption_keeps_what_arrived(server: Server, told: Told, path: Path) -> None:
    told.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        download([f"{server.url}/model.pkl"], path)
    part = path.with_name("model.pkl.part")
    kept = part.stat().st_size
    assert 0 < kept < len(MILLION) and part.read_bytes() == MILLION[:kept] and not path.exists()
    assert told.lines[-1].startswith("stopped: ")
    told.interrupt = False
    download([f"{server.url}/model.pkl"], path, digest=PUBLISHED)
    assert server.manners.asked[-1] == ("/model.pkl", f"bytes={kept}-")


def test_a_part_that_was_whole_already_is_not_downloaded_again(
    server: Server, told: Told, path: Path
) -> None:
    stop_after(1_023_999, server, path)
    path.with_name("model.pkl.part").write_bytes(MILLION)
    download([f"{server.url}/model.pkl"], path, digest=PUBLISHED)
    assert path.read_bytes() == MILLION
    assert told.bars == [(0, 1_024_000, 1_023_999)]


def stop_after(size: int, server: Server, path: Path) -> None:
    """Leave a part of that size."""
    server.manners.breaks = [size]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(downloads, "WAITS", ())
        fails([f"{server.url}/model.pkl"], path)
    assert path.with_name("model.pkl.part").stat().st_size == size


def test_a_server_without_ranges_sends_it_all_again(server: Server, told: Told, path: Path) -> None:
    server.manners.breaks = [300_000]
    server.manners.ranges = False
    download([f"{server.url}/model.pkl"], path, digest=PUBLISHED)
    assert path.read_bytes() == MILLION
    assert told.bars[1] == (0, 1_024_000, 1_024_000)


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changed_in_between_starts_over(
    server: Server, told: Told, path: Path, if_range: bool
) -> None:
    server.manners.files["/model.pkl"] = MILLION[::-1]
    server.manners.if_range = if_range
    stop_after(300_000, server, path)
    server.manners.files["/model.pkl"], server.manners.etag = MILLION, '"two"'
    download([f"{server.url}/model.pkl"], path)
    assert path.read_bytes() == MILLION
    # Told by If-Range what is kept, a server sends the whole file at once.
    assert len(server.manners.asked) == (2 if if_range else 3)


def test_a_part_from_one_url_is_not_continued_from_another(server: Server, told: Told, path: Path) -> None:
    server.manners.files["/other.pkl"] = MILLION[::-1]
    stop_after(300_000, server, path)
    download([f"{server.url}/other.pkl"], path)
    assert path.read_bytes() == MILLION[::-1]
    assert server.manners.asked[-1] == ("/other.pkl", None)


def test_attempts_that_bring_a_megabyte_are_not_counted(server: Server, told: Told, path: Path) -> None:
    server.manners.files["/model.pkl"] = MILLION * 5
    server.manners.breaks = [1_000_000] * 5
    download([f"{server.url}/model.pkl"], path)
    assert path.read_bytes() == MILLION * 5
    assert len(server.manners.asked) == 6


def test_a_part_of_an_unknown_file_is_not_continued(server: Server, told: Told, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("model.pkl.part").write_bytes(b"of something else")
    download([f"{server.url}/model.pkl"], path)
    assert path.read_bytes() == MILLION


def test_another_file_than_the_published_is_refused_with_both_hashes_and_not_kept(
    server: Server, told: Told, path: Path
) -> None:
    error = fails([f"{server.url}/model.pkl"], path, digest=Digest("md5", "f10217"))
    md5 = hashlib.md5(MILLION).hexdigest()
    assert error.message == (
        f"{server.url}/model.pkl: holds another file: its md5 is {md5}, the published one begins with f10217"
    )
    assert os.listdir(path.parent) == []


def test_a_kept_part_that_does_not_fit_the_hash_is_dropped_and_the_file_downloaded_whole(
    server: Server, told: Told, path: Path
) -> None:
    stop_after(300_000, server, path)
    path.with_name("model.pkl.part").write_bytes(bytes(300_000))
    download([f"{server.url}/model.pkl"], path, digest=PUBLISHED)
    assert path.read_bytes() == MILLION
    assert "model.pkl: what was kept of it does not fit; starting over" in told.lines


def test_a_file_of_another_size_is_refused_before_it_arrives(server: Server, told: Told, path: Path) -> None:
    error = fails([f"{server.url}/model.pkl"], path, size=178_090_148)
    assert error.message.endswith("holds another file: 1024000 bytes, published are 178090148")
    assert told.bars == []
    download([f"{server.url}/model.pkl"], path, size=1_024_900)


def test_a_stalled_download_is_tried_again(
    server: Server, told: Told, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "STALL_SECONDS", 0.2)
    server.manners.stalls = [300_000]
    download([f"{server.url}/model.pkl"], path, digest=PUBLISHED)
    assert told.lines[1] == "model.pkl: nothing arrived for 0.2 s; trying again in 0 s"
    assert server.manners.asked[1][1] == "bytes=300000-"


def test_a_server_that_is_down_is_one_sentence_and_no_file(told: Told, path: Path) -> None:
    with misbehaving() as gone:
        pass
    error = fails([f"{gone.url}/model.pkl"], path)
    assert error.message == f"{gone.url}/model.pkl: the server cannot be reached (Connection refused)"
    assert (told.lines, os.listdir(path.parent)) == ([], [])


@pytest.mark.parametrize(
    ("status", "attempts", "words"),
    [
        (404, 1, "the server has no such file (HTTP 404)"),
        (403, 1, "the server refuses it (HTTP 403)"),
        (500, 3, "the server failed (HTTP 500)"),
        (418, 1, "the server answers otherwise (HTTP 418)"),
    ],
)
def test_what_may_pass_is_tried_again_and_the_rest_is_not(
    server: Server, told: Told, path: Path, status: int, attempts: int, words: str
) -> None:
    server.manners.statuses = [status] * 9
    assert fails([f"{server.url}/model.pkl"], path).message == f"{server.url}/model.pkl: {words}"
    assert len(server.manners.asked) == attempts


def test_a_web_page_is_not_taken_for_the_file(server: Server, told: Told, path: Path) -> None:
    server.manners.content_type = "text/html; charset=utf-8"
    error = fails([f"{server.url}/model.pkl"], path)
    assert error.message.endswith("its server answers with a web page and not with a file")


def test_a_full_disk_is_told_keeps_the_part_and_the_next_call_goes_on(
    server: Server, told: Told, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def full(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = opened(self, mode, *arguments, **options)
        if self.suffix != ".part" or mode == "rb":
            return file

        class Full:
            def write(self, chunk: bytes) -> int:
                file.write(chunk[:1000])
                raise OSError(errno.ENOSPC, "No space left on device")

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return Full()

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        error = fails([f"{server.url}/model.pkl"], path)
    assert error.message == f"{path}.part: cannot be written (No space left on device)"
    download([f"{server.url}/model.pkl"], path, digest=PUBLISHED)
    assert server.manners.asked[-1] == ("/model.pkl", "bytes=1000-")


def test_a_disk_without_room_is_told_before_the_download(
    server: Server, told: Told, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 500_000})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: usage)
    error = fails([f"{server.url}/model.pkl"], path)
    assert error.message == f"{path.parent}: 1.0 MB to download, 0.5 MB free"
    assert told.bars == []


def test_the_first_url_that_has_the_file_gives_it(server: Server, told: Told, path: Path) -> None:
    download([f"{server.url}/mirror/model.pkl", f"{server.url}/model.pkl"], path, digest=PUBLISHED)
    assert [asked for asked, _ in server.manners.asked] == ["/mirror/model.pkl", "/model.pkl"]
    assert told.lines[0] == (
        f"{server.url}/mirror/model.pkl: the server has no such file (HTTP 404); "
        f"trying {server.url}/model.pkl"
    )


def test_a_wrong_file_on_a_mirror_is_no_reason_to_give_up(server: Server, told: Told, path: Path) -> None:
    server.manners.files["/mirror/model.pkl"] = b"a wrong file"
    download([f"{server.url}/mirror/model.pkl", f"{server.url}/model.pkl"], path, digest=PUBLISHED)
    assert path.read_bytes() == MILLION


def test_a_folder_is_as_good_as_a_server(told: Told, path: Path, tmp_path: Path) -> None:
    (tmp_path / "a b.pkl").write_bytes(MILLION)
    assert download([(tmp_path / "a b.pkl").as_uri()], path, digest=PUBLISHED) == SHA256
    assert path.read_bytes() == MILLION
    assert fails([(tmp_path / "none").as_uri()], path).message.endswith("/none: there is no such file")
