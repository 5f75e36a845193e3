"""Images in .zip and .tar archives, read member by member without unpacking anything to the disk."""

import bz2
import gzip
import io
import lzma
import re
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.images import READABLE, SUFFIXES, ImageFile, decode, natural_order
from maskrcnn.whole_file import shown

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# Of one image: scans of 150 megapixels stay below, uncompressed.
MOST_BYTES = 1 << 29
# Of a compressed .tar: photographs hardly shrink, bitmaps of drawings a hundred times.
MOST_UNPACKED, MOST_RATIO = 1 << 32, 200
# tarfile reads the headers of long names in one piece, of whatever size they claim.
MOST_READ, CHUNK = 4 << 20, 1 << 20
COMPRESSIONS = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError),
    *(struct.error, ValueError, OverflowError, IndexError, NotImplementedError),
)


class Archive(Protocol):
    """An open archive whose images can be read from several threads, each once."""

    def names(self) -> list[str]:
        """Of its images, in the order in which they are read best."""

    def contents(self, name: str) -> bytes:
        """The file of one image. Raises UserError above MOST_BYTES, and DAMAGE."""


def is_archive(path: str | Path) -> bool:
    """Whether a name ends as that of an archive."""
    return str(path).lower().endswith(ARCHIVES)


def images_in(path: Path) -> list[ImageFile]:
    """The images of an archive; hidden files, links and archives inside it are passed over.

    Names keep their folders, but none leads out of the archive. Of two members of one name the last counts,
    as in unpacking. Raises UserError for an archive that is damaged, encrypted or holds no image.
    """
    with _damage_told(shown(path)):
        archive: Archive = Zip(path) if _is_zip(path) else Tar(path)
    found = [ImageFile(path / name, name, partial(_read, archive, path, name)) for name in archive.names()]
    if not found:
        raise UserError(f"{shown(path)}: holds no image", hint=f"{READABLE} are found in it by their suffix")
    return found


def safe_name(member: str) -> str:
    """A member's name as a path that stays inside any folder it is put in."""
    parts = re.split(r"[/\\]", member.replace("\0", "").replace(":", "_"))
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _is_zip(path: Path) -> bool:
    # zipfile.is_zipfile looks for a directory near the end, and finds that of a .zip in a .tar.
    with open(path, "rb") as file:
        return file.read(2) == b"PK" or path.suffix.lower() == ".zip"


class Zip:
    """A .zip file; its images are read in the order a person counts."""

    def __init__(self, path: Path) -> None:
        self._file = zipfile.ZipFile(path)
        named = {safe_name(info.filename): info for info in self._file.infolist() if not info.is_dir()}
        self._members = {name: info for name, info in named.items() if _is_image(name)}
        for name, info in self._members.items():
            if info.flag_bits & 1:
                raise UserError(
                    f"{shown(path)}: is encrypted ({shown(name)})",
                    hint="unpack it with its password, and name the folder",
                )

    def names(self) -> list[str]:
        """2.jpg before 10.jpg."""
        return sorted(self._members, key=natural_order)

    def contents(self, name: str) -> bytes:
        """The file of one image."""
        with self._file.open(self._members[name]) as member:
            return _bounded(member)


class Tar:
    """A .tar file; a compressed one can only be read forwards, so its images keep its order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: dict[str, int] = {}
        with _opened_tar(path) as tar:
            for place, name, _ in _members(tar, path):
                self._last.pop(name, None)
                self._last[name] = place
        self._lock = threading.Lock()
        self._ahead: dict[str, bytes | UserError] = {}
        self._rest = self._files()

    def names(self) -> list[str]:
        """As they come."""
        return list(self._last)

    def contents(self, name: str) -> bytes:
        """The file of one image; those before it that are still to be asked for are kept till then."""
        with self._lock:
            while name not in self._ahead:
                following = next(self._rest, None)
                if following is None:
                    raise EOFError("it is not where it was")
                self._ahead[following[0]] = following[1]
            found = self._ahead.pop(name)
        if isinstance(found, UserError):
            raise found
        return found

    def _files(self) -> Iterator[tuple[str, bytes | UserError]]:
        with _opened_tar(self._path) as tar:
            for place, name, member in _members(tar, self._path):
                file = tar.extractfile(member) if self._last[name] == place else None
                if file is not None:
                    yield name, _bounded(file) if member.size <= MOST_BYTES else _too_big()


@contextmanager
def _opened_tar(path: Path) -> Iterator[tarfile.TarFile]:
    with open(path, "rb") as file:
        start = file.read(2)
        file.seek(0)
        plain: IO[bytes] = COMPRESSIONS[start](file) if start in COMPRESSIONS else file  # type: ignore[operator]
        with plain, tarfile.open(fileobj=_Guarded(plain), mode="r:") as tar:
            yield tar


def _members(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[int, str, tarfile.TarInfo]]:
    """Place, safe name and header of each image."""
    most = max(MOST_UNPACKED, MOST_RATIO * path.stat().st_size)
    place = 0
    while (member := tar.next()) is not None:
        if member.offset_data + member.size > most:
            raise UserError(
                f"{shown(path)}: unpacks to more than {most // 10**9} GB",
                hint="unpack it yourself, if it is good",
            )
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
        name = safe_name(member.name)
        if member.isreg() and _is_image(name):
            yield place, name, member
        place += 1


class _Guarded(io.RawIOBase):
    """A file that refuses to be read in one huge piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()


def _bounded(file: IO[bytes]) -> bytes:
    """What a member holds, whatever size it claims."""
    found = bytearray()
    while chunk := file.read(CHUNK):
        found += chunk
        if len(found) > MOST_BYTES:
            raise _too_big()
    return bytes(found)


def _too_big() -> UserError:
    return UserError(f"unpacks to more than {MOST_BYTES >> 20} MB", hint="unpack it yourself, if it is good")


def _read(archive: Archive, path: Path, name: str) -> np.ndarray:
    place = f"{shown(path)}: {shown(name)}"
    with _damage_told(place):
        contents = archive.contents(name)
    return decode(contents, place)


@contextmanager
def _damage_told(place: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        if error.message.startswith(place):
            raise
        raise UserError(f"{place}: {error.message}", error.hint) from error
    except PermissionError as error:
        raise UserError(
            f"{place}: cannot be read ({error.strerror})", hint="check its permissions"
        ) from error
    except DAMAGE as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise UserError(
            f"{place}: is a damaged or incomplete archive ({reason})", hint="copy or download it again"
        ) from error


def _is_image(name: str) -> bool:
    bare = name.rpartition("/")[2].lower()
    return not bare.startswith(".") and not name.startswith("__MACOSX/") and bare.endswith(SUFFIXES)
