"""Published checkpoints: the table, the cache, and what is trusted."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from misbehaving_server import Server, misbehaving, only_this_machine
from small_checkpoint import NAME, published, small_checkpoint

from maskrcnn import zoo
from maskrcnn.config_file import with_settings
from maskrcnn.download import Digest
from maskrcnn.errors import UserError
from maskrcnn.predict import model_path
from maskrcnn.spec import Spec
from maskrcnn.web import OFFLINE
from maskrcnn.weights.convert import convert
from maskrcnn.weights.model_file import read_spec
from maskrcnn.weights.source import STYLES
from maskrcnn.zoo import CACHE, MIRROR, Entry, cache_folder, checkpoint_file, entries, find_entry, model_file

Publish = Callable[..., Entry]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    pytest.importorskip("torch")
    return small_checkpoint(tmp_path_factory.mktemp("checkpoint") / "x.pkl").read_bytes()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    only_this_machine(monkeypatch)
    with misbehaving() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "detectron2" / "tiny"


@pytest.fixture
def publish(checkpoint: bytes, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Put the checkpoint on the server and make it the only entry, changed as asked."""

    def publish(**changes: object) -> Entry:
        entry = published(server, checkpoint, **changes)
        monkeypatch.setattr(zoo, "entries", lambda: {NAME: entry})
        return entry

    return publish


def test_every_entry_has_an_address_two_figures_and_a_way_to_be_converted() -> None:
    spec = Spec()
    for name, entry in entries().items():
        assert entry.name == name and name.count("/") == 1 and " " not in name
        assert entry.url.startswith("https://") and entry.page.startswith("https://github.com/")
        assert 29 < entry.mask_ap < entry.box_ap < 49
        assert entry.style in (None, *STYLES)
        assert with_settings(spec, entry.settings).model.classes == 80
    assert len({entry.url for entry in entries().values()}) == len(entries()) == 72


def test_each_source_has_its_models() -> None:
    sources = [name.partition("/")[0] for name in entries()]
    assert {source: sources.count(source) for source in sources} == {
        "torchvision": 2, "detectron2": 22, "mmdetection": 28, "maskrcnn-benchmark": 4,
        "detectron": 15, "mindspore": 1,
    }  # fmt: skip


def test_hashes_are_those_in_the_file_names() -> None:
    assert find_entry("zoo:detectron2/R50-FPN-3x").digest == Digest("md5", "f10217")
    assert find_entry("torchvision/R50-FPN").digest == Digest("sha256", "bf2d0c1e")
    assert find_entry("mmdetection/R50-FPN-caffe-1x").digest == Digest("sha256", "0ebd1859")
    assert find_entry("detectron/R50-C4-1x").digest is None
    assert find_entry("detectron/R50-C4-1x").digits_beside == "md5"
    lengths = {len(entry.digest.digits) for entry in entries().values() if entry.digest}
    assert lengths == {6, 8, 64}
    assert all(
        set(entry.digest.digits) <= set("0123456789abcdef") for entry in entries().values() if entry.digest
    )


@pytest.mark.parametrize(
    ("name", "box", "mask"),
    [
        ("torchvision/R50-FPN-v2", 47.4, 41.8),
        ("detectron2/R50-FPN-3x", 41.0, 37.2),
        ("detectron2/R101-FPN-LSJ-400ep", 48.9, 43.7),
        ("mmdetection/X101-64x4d-FPN-ms-3x", 44.5, 39.7),
        ("maskrcnn-benchmark/R50-C4-1x", 35.6, 31.5),
        ("detectron/X101-32x8d-FPN-1x", 42.1, 37.3),
    ],
)
def test_average_precision_is_that_of_the_sources_pages(name: str, box: float, mask: float) -> None:
    assert (find_entry(name).box_ap, find_entry(name).mask_ap) == (box, mask)


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        find_entry("zoo:Detectron2/r50-fpn-3")
    assert caught.value.message == "zoo:Detectron2/r50-fpn-3: there is no such model"
    assert caught.value.hint.startswith("did you mean detectron2/R50-FPN-3x or ")
    with pytest.raises(UserError) as caught:
        find_entry("zoo:???\n")
    assert (caught.value.message, caught.value.hint) == (
        "zoo:???\\n: there is no such model", "`maskrcnn zoo` lists them"
    )  # fmt: skip


def test_the_cache_is_where_the_user_or_the_system_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "maskrcnn"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/maskrcnn")
    monkeypatch.setenv(CACHE, "~/y")
    assert cache_folder() == Path.home() / "y"


def test_a_model_is_downloaded_and_converted_once_and_then_needs_no_network(
    publish: Publish, server: Server, cache: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = publish()
    path = model_path(f"zoo:{NAME}")
    spec = read_spec(path)
    sha256 = hashlib.sha256(checkpoint).hexdigest()
    assert (spec.origin.source, spec.origin.file, spec.origin.sha256) == (
        "detectron2", entry.file_name, sha256
    )  # fmt: skip
    assert spec.model.rpn.post_nms == 20
    assert (cache / f"{entry.file_name}.sha256").read_text() == f"{sha256}  {entry.file_name}\n"
    monkeypatch.setenv(OFFLINE, "1")
    assert model_path(f"zoo:{NAME}") == path
    (cache / entry.file_name).unlink()
    assert model_path(f"zoo:{NAME}") == path
    assert len(server.manners.asked) == 1


def test_another_version_converts_the_kept_checkpoint_again(
    publish: Publish, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    first = model_file(NAME)
    monkeypatch.setattr(zoo, "version", lambda package: "99")
    assert model_file(NAME) != first
    assert len(server.manners.asked) == 1


def test_a_checkpoint_that_changed_in_the_cache_is_downloaded_again(
    publish: Publish, server: Server, cache: Path, checkpoint: bytes
) -> None:
    entry = publish()
    assert checkpoint_file(NAME) == cache / entry.file_name == checkpoint_file(NAME)
    (cache / entry.file_name).write_bytes(b"something else")
    assert checkpoint_file(NAME).read_bytes() == checkpoint
    assert len(server.manners.asked) == 2


def test_a_checkpoint_put_into_the_cache_by_hand_serves_a_machine_without_network(
    publish: Publish, server: Server, cache: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = publish()
    monkeypatch.setenv(OFFLINE, "1")
    cache.mkdir(parents=True)
    (cache / entry.file_name).write_bytes(b"something else")
    with pytest.raises(UserError, match="holds another file: its md5 is"):
        model_file(NAME)
    (cache / entry.file_name).write_bytes(checkpoint)
    assert read_spec(model_file(NAME)).origin.file == entry.file_name
    assert server.manners.asked == []


def test_offline_and_not_in_the_cache_is_one_sentence_and_no_connection(
    publish: Publish, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = publish()
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(UserError) as caught:
        model_file(NAME)
    assert caught.value.message == f"zoo:{NAME}: is not in the cache, and this program is offline"
    assert str(cache / entry.file_name) in caught.value.hint
    assert server.manners.asked == []


def test_a_wrong_file_leaves_nothing_that_a_later_run_would_take(
    publish: Publish, server: Server, cache: Path
) -> None:
    entry = publish()
    server.manners.files[f"/zoo/{entry.file_name}"] = b"a wrong file"
    with pytest.raises(UserError, match="holds another file: its md5 is"):
        model_file(NAME)
    assert os.listdir(cache) == [".lock"]


def test_the_hash_beside_a_checkpoint_is_read_and_compared(
    publish: Publish, server: Server, checkpoint: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = publish(digest=None, digits_beside="md5")
    beside = f"/zoo/{entry.file_name}.md5sum"
    server.manners.files[beside] = b"0" * 32
    with pytest.raises(UserError, match=f"the published one is {'0' * 32}"):
        checkpoint_file(NAME)
    server.manners.files[beside] = hashlib.md5(checkpoint).hexdigest().encode() + b"  model_final.pkl\n"
    checkpoint_file(NAME)
    assert "its md5 is the published one" in capsys.readouterr().err


@pytest.mark.parametrize("beside", [None, b"<html>", b"\xff\xfe", b""])
def test_without_a_published_hash_the_download_says_so(
    publish: Publish, server: Server, capsys: pytest.CaptureFixture[str], beside: bytes | None
) -> None:
    entry = publish(digest=None, digits_beside="md5")
    if beside is not None:
        server.manners.files[f"/zoo/{entry.file_name}.md5sum"] = beside
    checkpoint_file(NAME)
    words = capsys.readouterr().err
    assert f"the published hash of {NAME} cannot be read (" in words
    assert "there is no published hash to compare" in words


def test_a_mirror_is_asked_first_under_the_same_path(
    publish: Publish, server: Server, monkeypatch: pytest.MonkeyPatch, checkpoint: bytes
) -> None:
    entry = publish()
    monkeypatch.setenv(MIRROR, f"{server.url}/mirror/")
    server.manners.files[f"/mirror/zoo/{entry.file_name}"] = checkpoint
    checkpoint_file(NAME)
    assert [path for path, _ in server.manners.asked] == [f"/mirror/zoo/{entry.file_name}"]


def test_a_folder_as_mirror_works_offline(
    publish: Publish, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: bytes
) -> None:
    entry = publish(url=f"{server.url}/zoo/a%3Ab.pkl", digest=None, digits_beside="md5")
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "a:b.pkl").write_bytes(checkpoint)
    (tmp_path / "zoo" / "a:b.pkl.md5sum").write_text(hashlib.md5(checkpoint).hexdigest())
    monkeypatch.setenv(MIRROR, str(tmp_path))
    monkeypatch.setenv(OFFLINE, "1")
    assert (entry.file_name, checkpoint_file(NAME).read_bytes()) == ("a:b.pkl", checkpoint)
    assert server.manners.asked == []


def test_convert_takes_a_published_checkpoint_as_its_entry_says(publish: Publish, tmp_path: Path) -> None:
    publish(style="pytorch")
    report = convert(f"zoo:{NAME}", tmp_path / "a.safetensors", settings=["model.rpn.post_nms=7"])
    assert (report.spec.model.rpn.post_nms, report.spec.model.rpn.pre_nms) == (7, 40)
    assert report.spec.model.backbone.stride_in_1x1 is False
    report = convert(f"zoo:{NAME}", tmp_path / "b.safetensors", style="caffe")
    assert report.spec.model.backbone.stride_in_1x1 is True


def test_a_cache_that_cannot_be_written_is_told(publish: Publish, tmp_path: Path) -> None:
    publish()
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"detectron2/tiny: cannot be written \(Not a directory\)"):
        model_file(NAME)


PROCESS = """
import json, sys
from maskrcnn import zoo
from maskrcnn.download import Digest
values = json.loads(sys.argv[1])
entry = zoo.Entry(**{**values, "digest": Digest(**values["digest"])})
zoo.entries = lambda: {entry.name: entry}
print(zoo.model_file(entry.name))
"""


def test_two_processes_at_once_download_once_and_get_the_same_file(
    publish: Publish, server: Server, cache: Path
) -> None:
    entry = publish()
    server.manners.delay = 0.5
    command = [sys.executable, "-c", PROCESS, json.dumps(asdict(entry))]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ended = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    assert ended[0][0] == ended[1][0]
    assert len(server.manners.asked) == 1
    assert sum("waiting for another process" in words for _, words in ended) == 1
    assert sorted(path.suffix for path in cache.iterdir() if path.name != ".lock") == [
        ".pkl", ".safetensors", ".sha256"
    ]  # fmt: skip
