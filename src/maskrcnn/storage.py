"""Folders of an object store, or of any place that fsspec reaches, kept like folders of this machine."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from maskrcnn.errors import UserError
from maskrcnn.whole_file import disk_errors_told, shown, temporary_path, whole_file
from maskrcnn.zoo import cache_folder

Says = Callable[[str], None]

RECORD = ".maskrcnn-storage.json"
"""What the folder and the store had in common when they last met."""
LOCK = ".maskrcnn-storage.lock"
# Most of the time of a small object is waiting for the store's answer.
AT_ONCE = 16
# Drivers hold up to 100 MB of each file that goes.
SENT_AT_ONCE = 4
# Seconds for a file to go, and bytes a second that come on top.
PATIENCE, SLOWEST = 120.0, 5e5
LONGEST_NAME = 80
# What a store says of the version of an object; drivers differ in which they have.
VERSIONS = ("ETag", "etag", "md5", "LastModified", "last_modified", "mtime", "created")

READING = "cannot be read"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SIGNED = re.compile(r"://[^/@\s]*:[^/@\s]*@|\?")
_SECRET_NAMES = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 6


def is_url(text: str) -> bool:
    """Whether it is a place such as `s3://bucket/folder` and not a path of this machine."""
    return bool(_URL.match(text))


def without_secrets(text: str) -> str:
    """Words of a store's driver on one line, without passwords, signatures and what secret variables hold."""
    text = re.sub(r"://[^/@\s]+@", "://", text.strip().partition("\n")[0])
    text = re.sub(r"\?\S+", "", text)
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return shown(text)


@dataclass
class Mirror:
    """A folder of this machine and the folder or file of a store that it shall be like.

    Only what differs is copied, in either direction; nothing is ever deleted. A file that was changed on both
    sides is an error. url: without a password.
    """

    url: str
    folder: Path
    _opened: tuple[Any, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if _SIGNED.search(self.url):
            raise UserError(
                f"{without_secrets(self.url)}: the URL has a password or a signature, which others would see",
                hint="leave it out; drivers take credentials from the environment or from their own files",
            )

    def fetch(self) -> int:
        """Bring what the store has and the folder has not; -> how many files came.

        Processes of one machine take turns, so that each file comes once. A store without the place is an
        error of `fetch`; see `exists`.
        """
        with disk_errors_told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / LOCK):
                return self._fetch()

    def exists(self) -> bool:
        """Whether the store has anything there."""
        with _told(self.url, READING):
            store, root = self._open()
            store.invalidate_cache()
            return bool(store.exists(root))

    def send(self) -> int:
        """Take to the store what was written in the folder since then; -> how many files went."""
        record = self._read_record()
        changed = [
            name
            for name, path in _files(self.folder)
            if name not in record or record[name]["here"] != _stamp(path)
        ]
        with _told(self.url, "cannot be written"):
            store, root = self._open()
            # Before the copies: what is written while they go is sent the next time.
            stamps = {name: _stamp(self.folder / name) for name in changed}
            _in_threads(lambda name: _put(store, self.folder / name, f"{root}/{name}"), changed, SENT_AT_ONCE)
            # Listed as `fetch` does: drivers say other things of a single object.
            there = dict(_objects(store, root)) if changed else {}
        for name in changed:
            record[name] = {"here": stamps[name], "there": _version(there.get(name, {}))}
        if changed:
            self._write_record(record)
        return len(changed)

    def local(self) -> Path:
        """The file in the folder, where the URL is one of a file, else the folder."""
        only = self.folder / PurePosixPath(self.url).name
        return only if only.is_file() else self.folder

    def _fetch(self) -> int:
        record = self._read_record()
        with _told(self.url, READING):
            store, root = self._open()
            there = dict(_objects(store, root))
        wanted = {
            name: entry
            for name, entry in there.items()
            if record.get(name, {}).get("there") != _version(entry) or not (self.folder / name).exists()
        }
        came = {name: entry for name, entry in wanted.items() if not self._has(name, entry, record)}

        def bring(name: str) -> None:
            with _told(f"{self.url}/{name}", READING), whole_file(self.folder / name) as temporary:
                store.get_file(came[name]["name"], str(temporary))

        _in_threads(bring, came, AT_ONCE)
        for name, entry in wanted.items():
            record[name] = {"here": _stamp(self.folder / name), "there": _version(entry)}
        if wanted:
            self._write_record(record)
        return len(came)

    def _has(self, name: str, entry: dict[str, Any], record: dict[str, Any]) -> bool:
        """Whether an unrecorded file is the store's already. Raises UserError where both sides changed."""
        path = self.folder / name
        if not path.exists():
            return False
        if name not in record:
            if path.stat().st_size == entry.get("size"):
                return True
        elif record[name]["here"] == _stamp(path):
            return False
        raise UserError(
            f"{shown(path)} and {self.url}/{shown(name)} are different, and neither is a copy of the other",
            hint="remove the one that shall not stay, or name another folder for the local copies",
        )

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            self._opened = _opened(self.url)
        return self._opened

    def _read_record(self) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / RECORD).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write_record(self, record: dict[str, Any]) -> None:
        with whole_file(self.folder / RECORD) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")


def fetched_path(place: str, says: Says) -> Path:
    """The path itself; of a URL that of a copy in the cache, with what changed there since the last time.

    says: is told how much was fetched. Raises UserError where the store refuses.
    """
    if not is_url(place):
        return Path(place)
    mirror = Mirror(place, cached_folder(place))
    count = mirror.fetch()
    says(f"{place}: {count} file{'s' * (count != 1)} fetched to {shown(mirror.folder)}")
    return mirror.local()


@contextmanager
def sent_file(place: str, says: Says) -> Iterator[Path]:
    """The path to write a file at; of a URL one in the cache, and the file goes to the store after the block.

    A store that cannot be reached is told before the block. Raises UserError, which names the file that is
    kept here, where the store refuses it.
    """
    if not is_url(place):
        yield Path(place)
        return
    above, _, name = place.rpartition("/")
    mirror = Mirror(above, cached_folder(place))
    mirror.exists()
    with disk_errors_told(mirror.folder):
        mirror.folder.mkdir(parents=True, exist_ok=True)
    yield mirror.folder / name
    try:
        mirror.send()
    except UserError as error:
        raise UserError(f"{error.message}; kept as {shown(mirror.folder / name)}", error.hint) from error
    says(f"-> {place}")


@contextmanager
def sent_folder(place: str, says: Says) -> Iterator[Path]:
    """The folder to write to; of a URL one in the cache, and what is in it goes to the store after the block,
    however that ends.

    A store that cannot be reached is told before the block. Raises UserError, which names the folder that is
    kept here, where the store refuses.
    """
    if not is_url(place):
        yield Path(place)
        return
    mirror = Mirror(place, cached_folder(place))
    mirror.exists()
    try:
        yield mirror.folder
    finally:
        try:
            count = mirror.send()
        except UserError as error:
            raise UserError(f"{error.message}; kept in {shown(mirror.folder)}", error.hint) from error
        if count:
            says(f"{count} file{'s' * (count != 1)} -> {place}")


def cached_folder(url: str, base: Path | None = None) -> Path:
    """Where local copies of it lie, below `base` or in the cache.

    None lies in that of another URL: what is in a folder goes to its store.
    """
    words = re.sub(r"[^\w.@-]+", "_", url)[-LONGEST_NAME:]
    name = f"{words}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    return (cache_folder() / "storage" if base is None else base) / name


def _opened(url: str) -> tuple[Any, str]:
    try:
        fsspec = import_module("fsspec")
    except ImportError as error:
        raise UserError(
            f"{url}: needs fsspec, which is not installed",
            hint='install it with `pip install "maskrcnn[storage]"`',
        ) from error
    scheme = url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{url}: there is no driver for {scheme}:// here ({without_secrets(str(error))})",
            hint=_DRIVERS.get(scheme, "install the fsspec driver of that store, or use a local folder"),
        ) from error
    # Drivers that want an endpoint or a key refuse here.
    with _told(url, "cannot be opened"):
        store, root = fsspec.url_to_fs(url)
    return store, str(root).rstrip("/")


_DRIVERS = {
    "s3": "install it with `pip install s3fs`",
    # OBS refuses URLs with the bucket in their path, which is how botocore addresses endpoints of others.
    "obs": "install `pip install pyobsfs`; or use s3:// with s3fs, AWS_ENDPOINT_URL of the OBS endpoint and "
    "`addressing_style = virtual` in the file that AWS_CONFIG_FILE names",
    "gs": "install it with `pip install gcsfs`",
}


def _objects(store: Any, root: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name below the root, and what the store says of it, of every file; of a file its own name."""
    store.invalidate_cache()
    about = store.info(root)
    if about["type"] == "file":
        yield PurePosixPath(root).name, about
        return
    for path, entry in store.find(root, detail=True).items():
        name = str(path)[len(root) :].lstrip("/")
        if not name or name.endswith("/") or _is_ours(PurePosixPath(name).name):
            continue
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise UserError(f"{name}: would lie outside of its folder", hint="rename the object in the store")
        yield name, entry


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _is_ours(path.name):
            yield path.relative_to(folder).as_posix(), path


def _is_ours(name: str) -> bool:
    """Records, locks, and files that another process is writing."""
    return name.startswith(".maskrcnn-")


def _stamp(path: Path) -> list[int]:
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _version(entry: dict[str, Any]) -> list[str]:
    found = next((entry[key] for key in VERSIONS if entry.get(key) is not None), "")
    return [str(entry.get("size")), str(found)]


def _put(store: Any, path: Path, target: str) -> None:
    """Whole or not at all: an object store does that itself, a file system by renaming."""
    if "file" not in (store.protocol if isinstance(store.protocol, tuple) else (store.protocol,)):
        _put_in_time(store, path, target)
        return
    store.makedirs(store._parent(target), exist_ok=True)
    temporary = temporary_path(Path(target))
    try:
        store.put_file(str(path), str(temporary))
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _put_in_time(store: Any, path: Path, target: str) -> None:
    """Within a limit where the driver takes one: s3fs waits for ever for a store that never asks for it."""
    if not getattr(store, "async_impl", False):
        store.put_file(str(path), target)
        return
    limit = PATIENCE + path.stat().st_size / SLOWEST
    try:
        store.put_file(str(path), target, timeout=limit)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer in {limit:.0f} s") from error


def _in_threads(copy: Callable[[str], None], names: Iterable[str], most: int) -> None:
    with ThreadPoolExecutor(most, thread_name_prefix="storage") as pool:
        waiting = [pool.submit(copy, name) for name in names]
        try:
            for future in waiting:
                future.result()
        except BaseException:
            for future in waiting:
                future.cancel()
            raise


@contextmanager
def _told(url: str, what: str) -> Iterator[None]:
    """What a driver refuses, in a sentence without secrets."""
    try:
        yield
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(
            f"{shown(url)}: {what}, access is refused", hint="check the credentials that the driver takes"
        ) from error
    except Exception as error:  # drivers raise the errors of their own libraries
        # Of what is written it is the bucket, or an upload that the store has forgotten.
        if isinstance(error, FileNotFoundError) and what == READING:
            raise UserError(f"{shown(url)}: there is no such file or folder", hint="check the URL") from error
        reason = without_secrets(str(error)) or type(error).__name__
        raise UserError(
            f"{shown(url)}: {what} ({reason})",
            hint="check the URL, the connection and the credentials that the driver takes",
        ) from error
