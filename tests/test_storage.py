"""A folder here and one in a store have the same files, copied when they changed, and no secret is told."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from maskrcnn import storage
from maskrcnn.errors import UserError
from maskrcnn.storage import (
    Mirror,
    cached_folder,
    fetched_path,
    is_url,
    sent_file,
    sent_folder,
    without_secrets,
)


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """A store in memory with two objects."""
    memory = fsspec.filesystem("memory")
    memory.pipe({"/bucket/data/a.txt": b"one", "/bucket/data/train/b.txt": b"two"})
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".maskrcnn-")
    }


def test_only_places_with_a_scheme_are_urls() -> None:
    assert [is_url(text) for text in ("s3://b/x", "obs://b", "file:///x", "memory://x")] == [True] * 4
    assert not any(is_url(text) for text in ("x", "/a/b", "zoo:a/b", "camera:0", "C:\\x", ""))


def test_a_folder_comes_whole_and_then_only_what_changed(
    store: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    mirror = Mirror("memory://bucket/data", tmp_path / "here")
    assert mirror.fetch() == 2
    assert files(tmp_path / "here") == {"a.txt": b"one", "train/b.txt": b"two"}
    assert Mirror("memory://bucket/data", tmp_path / "here").fetch() == 0
    store.pipe("/bucket/data/a.txt", b"other")
    assert mirror.fetch() == 1
    assert files(tmp_path / "here")["a.txt"] == b"other"


def test_a_file_comes_alone_and_is_the_local_path(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    mirror = Mirror("memory://bucket/data/a.txt", tmp_path)
    assert (mirror.fetch(), mirror.local()) == (1, tmp_path / "a.txt")
    assert Mirror("memory://bucket/data", tmp_path / "all").local() == tmp_path / "all"


def test_what_was_written_here_goes_and_what_came_does_not(
    store: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    mirror = Mirror("memory://bucket/data", tmp_path)
    mirror.fetch()
    (tmp_path / "train" / "b.txt").write_bytes(b"longer")
    (tmp_path / "c.txt").write_bytes(b"three")
    (tmp_path / ".maskrcnn-0f.part").write_bytes(b"half a file")
    assert (mirror.send(), mirror.send()) == (2, 0)
    assert store.cat("/bucket/data/train/b.txt") == b"longer"
    assert sorted(store.find("/bucket/data")) == [
        "/bucket/data/a.txt",
        "/bucket/data/c.txt",
        "/bucket/data/train/b.txt",
    ]
    assert Mirror("memory://bucket/data", tmp_path).fetch() == 0


def test_a_newer_file_here_is_not_replaced_by_an_older_one_there(
    store: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    mirror = Mirror("memory://bucket/data", tmp_path)
    mirror.fetch()
    (tmp_path / "a.txt").write_bytes(b"the next checkpoint")
    assert mirror.fetch() == 0
    assert (tmp_path / "a.txt").read_bytes() == b"the next checkpoint"


def test_a_file_that_changed_on_both_sides_is_an_error_and_stays(
    store: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    mirror = Mirror("memory://bucket/data", tmp_path)
    mirror.fetch()
    (tmp_path / "a.txt").write_bytes(b"mine")
    store.pipe("/bucket/data/a.txt", b"theirs!")
    with pytest.raises(UserError, match=r"a\.txt and memory://bucket/data/a\.txt are different"):
        mirror.fetch()
    assert (tmp_path / "a.txt").read_bytes() == b"mine"


def test_files_of_the_same_size_that_are_there_already_are_not_brought_again(
    store: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(b"one")
    assert Mirror("memory://bucket/data", tmp_path).fetch() == 1


def test_of_two_processes_at_once_one_brings_and_the_other_waits(
    store: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = []
    one_file = type(store).get_file

    def slow(self: fsspec.AbstractFileSystem, path: str, *arguments: object, **more: object) -> None:
        brought.append(path)
        time.sleep(0.1)
        one_file(self, path, *arguments, **more)

    monkeypatch.setattr(type(store), "get_file", slow)
    both = [Thread(target=Mirror("memory://bucket/data", tmp_path).fetch) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sorted(brought) == ["/bucket/data/a.txt", "/bucket/data/train/b.txt"]


def test_a_folder_of_files_is_a_store_and_what_is_there_is_whole(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "checkpoint.pt").write_bytes(bytes(1000))
    mirror = Mirror(f"file://{tmp_path}/there/run", tmp_path / "here")
    assert (mirror.exists(), mirror.send(), mirror.exists()) == (False, 1, True)
    assert files(tmp_path / "there") == {"run/checkpoint.pt": bytes(1000)}
    assert Mirror(f"file://{tmp_path}/there/run", tmp_path / "again").fetch() == 1


def test_a_store_that_refuses_is_one_sentence_without_the_secret(
    store: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise RuntimeError(
            "403 for https://AKIA:hunter22@host/b?X-Amz-Signature=feed with hunter22222\n<xml>more"
        )

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22222")
    monkeypatch.setattr(type(store), "put_file", refusing)
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(UserError) as caught:
        Mirror("memory://bucket/run", tmp_path).send()
    assert caught.value.message == (
        "memory://bucket/run: cannot be written (403 for https://host/b with ***)"
    )
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.parametrize("url", ["s3://key:secretword@bucket/x", "https://h/x?Signature=secretword"])
def test_a_url_with_a_secret_is_refused_without_repeating_it(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a password or a signature") as caught:
        Mirror(url, tmp_path)
    assert "secretword" not in caught.value.message


def test_a_missing_place_and_a_missing_driver_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="memory://nowhere: there is no such file or folder"):
        Mirror("memory://nowhere", tmp_path).fetch()

    def unknown(scheme: str) -> None:
        raise ValueError(f"Protocol not known: {scheme}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", unknown)
    with pytest.raises(UserError, match="there is no driver for obs:// here") as caught:
        Mirror("obs://bucket/x", tmp_path).fetch()
    assert "pyobsfs" in (caught.value.hint or "") and "AWS_ENDPOINT_URL" in (caught.value.hint or "")


def test_an_object_whose_name_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pipe("/bucket/data/x", b"")
    memory.store["/bucket/data/../../evil"] = memory.store.pop("/bucket/data/x")
    with pytest.raises(UserError, match="would lie outside"):
        Mirror("memory://bucket/data", tmp_path / "in").fetch()
    memory.store.clear()


def test_words_of_a_driver_are_one_line() -> None:
    assert without_secrets("a\x1b[31m\nb") == "a\\x1b[31m"


def test_a_path_stays_and_a_url_is_a_copy_in_the_cache(
    store: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path))
    said: list[str] = []
    assert fetched_path("photos/x", said.append) == Path("photos/x") and not said
    found = fetched_path("memory://bucket/data", said.append)
    assert files(found) == {"a.txt": b"one", "train/b.txt": b"two"}
    assert said == [f"memory://bucket/data: 2 files fetched to {found}"]
    assert fetched_path("memory://bucket/data/a.txt", said.append).read_bytes() == b"one"
    assert said[-1].startswith("memory://bucket/data/a.txt: 1 file fetched to ")


def test_copies_of_a_folder_and_of_what_is_in_it_lie_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what was fetched into one would be sent to the store of the other."""
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path))
    urls = ("s3://b/run", "s3://b/run/data", "s3://b/run_data", f"s3://b/{'x' * 300}")
    folders = {cached_folder(url) for url in urls}
    assert len(folders) == 4 and {folder.parent for folder in folders} == {tmp_path / "storage"}
    assert max(len(folder.name) for folder in folders) < 100


def test_a_file_goes_to_the_store_when_it_is_complete(
    store: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path))
    said: list[str] = []
    for content in (b"first", b"second"):
        with sent_file("memory://bucket/out/found.json", said.append) as path:
            path.write_bytes(content)
        assert store.cat("/bucket/out/found.json") == content
    assert said == ["-> memory://bucket/out/found.json"] * 2
    with pytest.raises(ZeroDivisionError), sent_file("memory://bucket/out/other.json", said.append):
        raise ZeroDivisionError
    assert not store.exists("/bucket/out/other.json")
    with sent_file(str(tmp_path / "here.json"), said.append) as path:
        assert path == tmp_path / "here.json"


def test_a_file_that_the_store_refuses_is_kept_and_named(
    store: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path))
    monkeypatch.setattr(type(store), "put_file", refusing)
    with pytest.raises(UserError) as caught, sent_file("memory://bucket/found.json", print) as path:
        path.write_bytes(b"1")
    assert caught.value.message == f"memory://bucket: cannot be written, access is refused; kept as {path}"
    assert path.read_bytes() == b"1"


def test_a_folder_of_results_goes_however_its_run_ends(
    store: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path))
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt), sent_folder("memory://bucket/found", said.append) as folder:
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(b"1")
        raise KeyboardInterrupt
    assert store.cat("/bucket/found/a.jpg") == b"1"
    assert said == ["1 file -> memory://bucket/found"]
    with sent_folder(str(tmp_path / "here"), said.append) as folder:
        assert folder == tmp_path / "here"
    assert len(said) == 1


class Silent(AsyncFileSystem):  # type: ignore[misc]
    """A store that takes connections and never answers."""

    protocol = "silent"

    async def _put_file(self, *_: object, **__: object) -> None:
        await asyncio.sleep(30)


def test_a_store_that_never_answers_is_given_up_after_a_time_of_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("silent", Silent, clobber=True)
    monkeypatch.setattr(storage, "PATIENCE", 0.5)
    (tmp_path / "a").write_bytes(bytes(250_000))
    with pytest.raises(UserError) as caught:
        Mirror("silent://bucket/run", tmp_path).send()
    # half a second, and another for 0.25 MB at 0.5 MB/s
    assert caught.value.message == "silent://bucket/run: cannot be written (no answer in 1 s)"
    assert (tmp_path / "a").exists()


class Locked(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A store whose driver wants a key."""

    def __init__(self, **_: object) -> None:
        raise ValueError("an access key is required")


def test_a_driver_that_wants_a_key_is_not_a_missing_driver(tmp_path: Path) -> None:
    fsspec.register_implementation("locked", Locked, clobber=True)
    with pytest.raises(UserError) as caught:
        Mirror("locked://bucket/x", tmp_path).fetch()
    assert caught.value.message == "locked://bucket/x: cannot be opened (an access key is required)"
    assert "credentials" in (caught.value.hint or "")
