"""Files from the network: read whole, or downloaded so that an interruption loses nothing."""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from maskrcnn.errors import UserError
from maskrcnn.web import (
    FOUND,
    PARTIAL,
    RANGE_REFUSED,
    Failed,
    answer,
    body_length,
    chunks,
    shown_url,
    status_failed,
)
from maskrcnn.whole_file import disk_errors_told, shown

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

# Seconds before each further attempt; an attempt that brought PROGRESS bytes starts the count anew.
WAITS = (1.0, 2.0, 4.0, 8.0)
PROGRESS = 1_000_000
# Sources state sizes rounded to a kilobyte at worst; what differs by more is another file.
SIZE_WITHIN = 0.001


class Watch(Protocol):
    """Who is told how a download goes."""

    def say(self, words: str) -> None:
        """One line for the user."""

    def bar(self, done: int, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Shows progress while open, in bytes; what it gives is called with each number of further bytes."""


class Lines:
    """Words on stderr and no bar."""

    def say(self, words: str) -> None:
        """One line."""
        sys.stderr.write(f"{words}\n")
        sys.stderr.flush()

    def bar(self, done: int, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Nothing: a file or a pipe is no place for a bar."""
        return nullcontext(lambda arrived: None)


WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


def watch() -> Watch:
    """Who is told: what WATCH was set to, else words on stderr."""
    return WATCH.get() or Lines()


@dataclass(frozen=True)
class Digest:
    """A hash as its source publishes it. kind: `md5` or `sha256`. digits: hexadecimal, the first or all."""

    kind: str
    digits: str


@dataclass(frozen=True)
class Resumable:
    """What part of a download is of. validator: the strong ETag, or the date, that the server gave for it."""

    url: str
    validator: str


def read_url(url: str, most: int = 200_000_000, seconds: float = 120.0) -> bytes:
    """What an http or https address holds, by one GET within `seconds`, at most `most` bytes.

    Raises UserError when offline, for an address that is none, when the server is not found, refuses, stalls,
    breaks off or has no such file, and for more bytes than `most`.
    """
    too_big = Failed(f"holds more than {most / 1e6:g} MB", hint="download it and name the file")
    until = time.monotonic() + seconds
    found = bytearray()
    try:
        with answer(url) as response:
            if response.status not in FOUND:
                raise status_failed(response.status)
            if (body_length(response) or 0) > most:
                raise too_big
            for chunk in chunks(response):
                found += chunk
                if len(found) > most:
                    raise too_big
                if time.monotonic() > until:
                    raise Failed(f"did not arrive within {seconds:g} s")
    except Failed as failed:
        raise failed.told(url) from None
    return bytes(found)


def download(urls: Sequence[str], path: Path, size: int | None = None, digest: Digest | None = None) -> str:
    """Bring the file that the first of `urls` to have it holds to `path`, and give its sha256.

    What arrives is kept in `<path>.part` until it is whole and verified, so that the next call goes on after
    an interruption. A url may be file://. size, digest: as published, None where they are not. Raises
    UserError when no url has the file, when it is another one than published, and where the disk refuses.
    """
    with disk_errors_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    for number, url in enumerate(urls):
        try:
            return _verified_download(url, path, size, digest)
        except Failed as failed:
            if number == len(urls) - 1:
                raise failed.told(url) from None
            watch().say(f"{shown_url(url)}: {failed.why}; trying {shown_url(urls[number + 1])}")
    raise AssertionError("no urls")


def local_path(url: str) -> Path | None:
    """The file that a file:// url names, None for other urls."""
    from urllib.request import url2pathname

    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def sha256_of(path: Path) -> str:
    """The hash of a file, hexadecimal."""
    return _hash(path, "sha256")


def check_digest(path: Path, digest: Digest | None) -> None:
    """Raises Failed with both hashes when a file is another one than its source has published."""
    if digest is None:
        return
    found = _hash(path, digest.kind)
    if not found.startswith(digest.digits.lower()):
        which = "is" if len(digest.digits) == len(found) else "begins with"
        raise Failed(
            f"holds another file: its {digest.kind} is {found}, the published one {which} {digest.digits}",
            hint="try again later, or another network or mirror",
        )


def megabytes(size: int | None) -> str:
    """`178.1 MB`, or that the size is unknown."""
    return "size unknown" if size is None else f"{size / 1e6:.1f} MB"


def _verified_download(url: str, path: Path, size: int | None, digest: Digest | None) -> str:
    part = path.with_name(f"{path.name}.part")
    resumed = part.exists()
    _fetch(url, part, size)
    try:
        check_digest(part, digest)
    except Failed:
        _forget(part)
        if not resumed:
            raise
        watch().say(f"{path.name}: what was kept of it does not fit; starting over")
        _fetch(url, part, size)
        try:
            check_digest(part, digest)
        except Failed:
            _forget(part)
            raise
    sha256 = sha256_of(part)
    with disk_errors_told(path):
        part.replace(path)
        _state_of(part).unlink(missing_ok=True)
    return sha256


def _fetch(url: str, part: Path, size: int | None) -> None:
    """All bytes of a url in `part`, in as many attempts as it takes and makes sense."""
    local = local_path(url)
    if local is not None:
        _copy(local, part)
        return
    waits, reached = iter(WAITS), False
    while True:
        before = _length(part)
        try:
            _attempt(url, part, size)
            return
        except Failed as failed:
            if _length(part) >= before + PROGRESS:
                waits = iter(WAITS)
            reached = reached or failed.reached
            wait = next(waits, None)
            if not (failed.again and reached) or wait is None:
                raise
            watch().say(f"{part.stem}: {failed.why}; trying again in {wait:g} s")
            time.sleep(wait)


def _attempt(url: str, part: Path, size: int | None) -> None:
    """One connection: go on where `part` ends if it is of the same file, else start over."""
    known = _read_state(part, url)
    have = _length(part) if known else 0
    asked = {"Range": f"bytes={have}-", "If-Range": known.validator} if known and have else {}
    with answer(url, asked) as response:
        if response.status == RANGE_REFUSED and response.headers.get("Content-Range") == f"bytes */{have}":
            return  # all of it had arrived
        start = _checked_start(response, part, have, known)
        length = body_length(response)
        total = None if length is None else start + length
        _check_size(part, total, size, length)
        if not start:
            _forget(part)
            _write_state(part, Resumable(url, _validator(response)))
        verb = f"resuming at {megabytes(start)} of" if start else "downloading"
        watch().say(f"{verb} {shown_url(url)}, {megabytes(total)}")
        _receive(response, part, start, total)


def _checked_start(response: "BaseHTTPResponse", part: Path, have: int, known: Resumable | None) -> int:
    """The byte of the file at which this answer begins. Raises Failed when it is no part of the file."""
    partial = response.status == PARTIAL
    if response.status == RANGE_REFUSED or (partial and not _goes_on(response, have, known)):
        _forget(part)
        raise Failed("its server has another file by now; starting over", again=True)
    if response.status not in FOUND:
        raise status_failed(response.status)
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise Failed("its server answers with a web page and not with a file")
    return have if partial else 0


def _goes_on(response: "BaseHTTPResponse", have: int, known: Resumable | None) -> bool:
    """Whether it is the rest of what is known; some servers send a range of whatever they have."""
    same = known is not None and _validator(response) in ("", known.validator)
    return same and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _check_size(part: Path, total: int | None, size: int | None, length: int | None) -> None:
    if total is not None and size is not None and abs(total - size) > SIZE_WITHIN * size:
        _forget(part)
        raise Failed(f"holds another file: {total} bytes, published are {size}")
    free = shutil.disk_usage(part.parent).free
    if length is not None and length > free:
        raise UserError(
            f"{shown(part.parent)}: {megabytes(length)} to download, {megabytes(free)} free",
            hint="make room, or name another folder with MASKRCNN_CACHE",
        )


def _receive(response: "BaseHTTPResponse", part: Path, start: int, total: int | None) -> None:
    try:
        with _open(part, start) as write, watch().bar(start, total) as arrived:
            for chunk in chunks(response):
                write(chunk)
                arrived(len(chunk))
    except KeyboardInterrupt:
        watch().say(f"stopped: {megabytes(_length(part))} are kept for the next run")
        raise


@contextmanager
def _open(part: Path, start: int) -> Iterator[Callable[[bytes], object]]:
    """Writes from byte `start` on; only what the disk refuses is told as such, not what the network does."""
    with disk_errors_told(part):
        file = part.open("r+b" if start else "wb")
        file.seek(start)

    def write(chunk: bytes) -> None:
        with disk_errors_told(part):
            file.write(chunk)

    try:
        yield write
    finally:
        with disk_errors_told(part):
            file.close()


def _copy(original: Path, part: Path) -> None:
    if not original.is_file():
        raise Failed("there is no such file", hint="check MASKRCNN_MIRROR")
    watch().say(f"copying {shown(original)}, {megabytes(original.stat().st_size)}")
    with disk_errors_told(part):
        shutil.copyfile(original, part)


def _validator(response: "BaseHTTPResponse") -> str:
    """What If-Range takes: a strong ETag, else the date; "" when a download could not be resumed by it."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _state_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path, url: str) -> Resumable | None:
    """What `part` is of; None when that is not known, or is not what the url holds."""
    try:
        state = Resumable(**json.loads(_state_of(part).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return state if state.url == url and state.validator else None


def _write_state(part: Path, state: Resumable) -> None:
    with disk_errors_told(part):
        _state_of(part).write_text(json.dumps(asdict(state)), "utf-8")


def _forget(part: Path) -> None:
    with disk_errors_told(part):
        part.unlink(missing_ok=True)
        _state_of(part).unlink(missing_ok=True)


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _hash(path: Path, kind: str) -> str:
    with disk_errors_told(path), path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
