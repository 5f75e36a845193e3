"""Images are read out of archives one by one; no archive reaches outside, blows up or ends in a traceback."""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn.errors import UserError
from maskrcnn.media import archives
from maskrcnn.media.archives import images_in, is_archive, safe_name


def png(level: int, side: int = 8) -> bytes:
    """A square of one grey, `level`, which tells one member from another."""
    return cv2.imencode(".png", np.full((side, side, 3), level, np.uint8))[1].tobytes()


MEMBERS = {"10.png": png(10), "sub/2.png": png(2), "notes.txt": b"words", "1.png": png(1)}


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, contents in members.items():
            file.writestr(name, contents)
    return path


def tarred(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, contents in members:
            header = tarfile.TarInfo(name)
            header.size = len(contents)
            file.addfile(header, io.BytesIO(contents))
    return path


def levels(path: Path) -> dict[str, int]:
    return {image.name: int(image.read()[0, 0, 0]) for image in images_in(path)}


def test_images_of_a_zip_come_in_the_order_a_person_counts_with_their_folders(tmp_path: Path) -> None:
    found = levels(zipped(tmp_path / "a.zip", MEMBERS))
    assert list(found.items()) == [("1.png", 1), ("10.png", 10), ("sub/2.png", 2)]


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tar.bz2", "w:bz2"), (".txz", "w:xz")]
)
def test_images_of_a_tar_come_in_its_order(tmp_path: Path, suffix: str, mode: str) -> None:
    found = levels(tarred(tmp_path / f"a{suffix}", list(MEMBERS.items()), mode))
    assert list(found.items()) == [("10.png", 10), ("sub/2.png", 2), ("1.png", 1)]


def test_nothing_is_unpacked_to_the_disk(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", MEMBERS)
    levels(path)
    assert os.listdir(tmp_path) == ["a.zip"]


def test_members_of_a_compressed_tar_may_be_asked_for_by_several_threads(tmp_path: Path) -> None:
    members = [(f"{number}.png", png(number)) for number in range(100)]
    files = images_in(tarred(tmp_path / "a.tgz", members, "w:gz"))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda file: int(file.read()[0, 0, 0]), files))
    assert found == list(range(100))


def test_of_two_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    members = [("a.png", png(1)), ("b.png", png(2)), ("./a.png", png(3))]
    assert levels(tarred(tmp_path / "a.tar", members)) == {"b.png": 2, "a.png": 3}


@pytest.mark.parametrize(
    ("member", "name"),
    [
        ("../../etc/a.png", "etc/a.png"),
        ("/abs/a.png", "abs/a.png"),
        ("C:\\windows\\a.png", "C_/windows/a.png"),
        ("x/./../a.png", "x/a.png"),
    ],
)
def test_no_name_leads_out_of_the_archive(tmp_path: Path, member: str, name: str) -> None:
    assert safe_name(member) == name
    image = images_in(zipped(tmp_path / "a.zip", {member: png(5)}))[0]
    assert (image.name, image.path) == (name, tmp_path / "a.zip" / name)


def test_hidden_files_links_and_archives_inside_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    inner = zipped(tmp_path / "inner.zip", MEMBERS).read_bytes()
    tarred(
        path, [(".hidden.png", png(1)), ("__MACOSX/b.png", png(2)), ("inner.zip", inner), ("c.png", png(3))]
    )
    with tarfile.open(path, "a") as file:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    assert levels(path) == {"c.png": 3}


def test_an_archive_without_an_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a.zip: holds no image"):
        images_in(zipped(tmp_path / "a.zip", {"notes.txt": b"words"}))


def test_an_encrypted_zip_is_told(tmp_path: Path) -> None:
    contents = bytearray(zipped(tmp_path / "a.zip", {"a.png": png(1)}).read_bytes())
    directory = contents.index(b"PK\x01\x02")
    for flags in (6, directory + 8):
        contents[flags] |= 1
    (tmp_path / "a.zip").write_bytes(contents)
    with pytest.raises(UserError, match=r"a.zip: is encrypted \(a.png\)"):
        images_in(tmp_path / "a.zip")


def test_a_damaged_member_of_a_zip_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": png(1, 99), "b.png": png(2)})
    contents = bytearray(path.read_bytes())
    contents[60] ^= 0xFF
    path.write_bytes(contents)
    bad, good = images_in(path)
    with pytest.raises(UserError, match="a.zip: a.png: is a damaged or incomplete archive"):
        bad.read()
    assert good.read()[0, 0, 0] == 2


def whole(kind: str, tmp_path: Path) -> Path:
    rough = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    noise = cv2.imencode(".png", rough)[1].tobytes()
    if kind == ".zip":
        return zipped(tmp_path / "a.zip", {"a.png": noise, "b.png": noise})
    return tarred(
        tmp_path / f"a{kind}", [("a.png", noise), ("b.png", noise)], f"w:{kind.removeprefix('.tar.')}"
    )


@pytest.mark.parametrize("kind", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_an_incomplete_archive_is_told(tmp_path: Path, kind: str) -> None:
    path = whole(kind, tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UserError, match="is a damaged or incomplete archive"):
        images_in(path)


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz"])
def test_flipped_bits_are_told_or_do_no_harm(tmp_path: Path, kind: str) -> None:
    path = whole(kind, tmp_path) if kind != ".tar" else tarred(tmp_path / "a.tar", list(MEMBERS.items()))
    contents = path.read_bytes()
    chance = np.random.default_rng(1)
    for _ in range(300):
        mutated = bytearray(contents)
        for place in chance.integers(0, len(contents), 4):
            mutated[place] ^= 1 << int(chance.integers(8))
        path.write_bytes(mutated)
        try:
            for image in images_in(path):
                try:
                    image.read()
                except UserError:
                    continue
        except UserError:
            continue


def test_a_text_file_of_that_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("no archive")
    with pytest.raises(UserError, match="is a damaged or incomplete archive"):
        images_in(tmp_path / "a.zip")


def zip_bomb(path: Path) -> Path:
    """64 MB of zeros in 64 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("a.png", "w") as member:
        for _ in range(64):
            member.write(bytes(1 << 20))
    return path


def tar_bomb(path: Path) -> Path:
    return tarred(path, [("a.png", bytes(64 << 20)), ("b.png", png(1))], "w:gz")


@pytest.mark.parametrize(("suffix", "make"), [(".zip", zip_bomb), (".tgz", tar_bomb)])
def test_a_member_that_unpacks_to_too_much_is_told_before_it_is_in_memory(
    tmp_path: Path, suffix: str, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 8 << 20)
    image, *others = images_in(make(tmp_path / f"a{suffix}"))
    tracemalloc.start()
    with pytest.raises(UserError, match="a.png: unpacks to more than 8 MB"):
        image.read()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 24 << 20
    assert [other.read()[0, 0, 0] for other in others] == [1] * len(others)


def test_a_tar_that_unpacks_to_too_much_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_UNPACKED", 10**6)
    with pytest.raises(UserError, match="unpacks to more than 0 GB"):
        images_in(tar_bomb(tmp_path / "a.tgz"))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_header_that_claims_gigabytes_is_told(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    header = tarfile.TarInfo("name")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    (tmp_path / "a.tgz").write_bytes(compress(header.tobuf() + bytes(1 << 20)))
    with pytest.raises(UserError, match="is a damaged or incomplete archive"):
        images_in(tmp_path / "a.tgz")


def test_a_zip_that_lies_about_the_size_of_a_member_is_told(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": png(1)})
    contents = bytearray(path.read_bytes())
    directory = contents.index(b"PK\x01\x02")
    contents[directory + 24 : directory + 28] = struct.pack("<I", 3)
    path.write_bytes(contents)
    with pytest.raises(UserError, match="a.png: is a damaged"):
        images_in(path)[0].read()


@pytest.mark.parametrize("name", ["a.ZIP", "a.tar.gz", "b.tgz", "b.tar"])
def test_archives_are_known_by_their_suffix(name: str) -> None:
    assert is_archive(name)
    assert not is_archive(f"{name}.jpg")
