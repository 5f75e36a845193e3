"""Published checkpoints by name: downloaded once, verified, converted once, and opened from the cache."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from maskrcnn.download import Digest, check_digest, download, local_path, read_url, sha256_of, watch
from maskrcnn.errors import UserError
from maskrcnn.web import CHECK_NETWORK, OFFLINE, Failed, offline, shown_url
from maskrcnn.whole_file import disk_errors_told, shown, whole_file

PREFIX = "zoo:"
CACHE = "MASKRCNN_CACHE"
MIRROR = "MASKRCNN_MIRROR"


@dataclass(frozen=True)
class Entry:
    """A published checkpoint. name: `source/model`. box_ap, mask_ap: of COCO val2017 in per cent.

    page: where its source publishes it. size: bytes as stated there, None where they are not. digest: its
    hash where the source gives one; digits_beside: the kind of hash that stands at URL + `.` + kind + `sum`.
    style, settings: what the conversion is told beyond the checkpoint.
    """

    name: str
    url: str
    page: str
    box_ap: float
    mask_ap: float
    size: int | None = None
    digest: Digest | None = None
    digits_beside: str = ""
    style: str | None = None
    settings: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return unquote(urlsplit(self.url).path).rsplit("/", 1)[-1]

    @property
    def command_options(self) -> str:
        """What `maskrcnn convert` is to be told, as on its command line."""
        style = [f"--style {self.style}"] if self.style else []
        return " ".join([*style, *(f"--set {setting}" for setting in self.settings)])


@dataclass(frozen=True)
class Kept:
    """What the cache holds of an entry: its checkpoint, and the model file made of it; None for neither."""

    checkpoint: Path | None
    model: Path | None


@dataclass(frozen=True)
class Convertible:
    """A checkpoint on this machine and what its conversion is told."""

    path: Path
    style: str | None
    settings: tuple[str, ...]


@cache
def entries() -> dict[str, Entry]:
    """Every published checkpoint by its name, in the order of `zoo.yaml`."""
    import yaml

    sources = yaml.safe_load(files("maskrcnn").joinpath("zoo.yaml").read_text("utf-8"))
    found = [
        _entry(f"{source}/{name}", values, about)
        for source, about in sources.items()
        for name, values in about["models"].items()
    ]
    return {entry.name: entry for entry in found}


def find_entry(name: str) -> Entry:
    """The entry of a name, with or without `zoo:`. Raises UserError that names the nearest ones."""
    name = name.replace("\\", "/").removeprefix(PREFIX)
    if name in entries():
        return entries()[name]
    spelled = {known.lower(): known for known in entries()}
    near = [spelled[each] for each in difflib.get_close_matches(name.lower(), spelled, n=3, cutoff=0.5)]
    raise UserError(
        f"{PREFIX}{shown(name)}: there is no such model",
        hint=f"did you mean {' or '.join(near)}?" if near else "`maskrcnn zoo` lists them",
    )


def cache_folder() -> Path:
    """MASKRCNN_CACHE, else `maskrcnn` in XDG_CACHE_HOME, else `~/.cache/maskrcnn`."""
    chosen = os.environ.get(CACHE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "maskrcnn"


def kept(entry: Entry) -> Kept:
    """What the cache holds of an entry; neither reads nor writes more than names and one recorded hash."""
    checkpoint = _checkpoint_path(entry)
    sha256 = _recorded(checkpoint)
    model = _model_path(entry, sha256) if sha256 else None
    return Kept(
        checkpoint if checkpoint.is_file() else None, model if model is not None and model.is_file() else None
    )


def model_file(name: str) -> Path:
    """The model file of a published checkpoint, made on first use.

    Raises UserError for an unknown name, and when it is not in the cache and cannot be downloaded.
    """
    entry = find_entry(name)
    made = kept(entry).model
    if made is not None:
        return made
    with _alone(entry):
        made = kept(entry).model
        return made if made is not None else _converted(entry)


def checkpoint_file(name: str) -> Path:
    """The checkpoint as its source publishes it, downloaded on first use. Raises UserError likewise."""
    entry = find_entry(name)
    if (verified := _verified(entry)) is not None:
        return verified
    with _alone(entry):
        return _checkpoint(entry)


def convertible(source: str | Path, style: str | None, settings: Iterable[str]) -> Convertible:
    """What to convert for `source`: itself, or of `zoo:NAME` the checkpoint with what its entry says.

    A style given by hand wins over that of the entry; settings given by hand come last.
    """
    if not str(source).startswith(PREFIX):
        return Convertible(Path(source), style, tuple(settings))
    entry = find_entry(str(source))
    return Convertible(checkpoint_file(entry.name), style or entry.style, (*entry.settings, *settings))


def urls_of(entry: Entry) -> list[str]:
    """Where to look, best first: the same path under MASKRCNN_MIRROR, then the source."""
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    if not mirror:
        return [entry.url]
    if "://" not in mirror:
        mirror = Path(mirror).expanduser().absolute().as_uri()
    return [mirror + urlsplit(entry.url).path, entry.url]


def _entry(name: str, values: dict[str, Any], about: dict[str, Any]) -> Entry:
    values = {**values, "settings": tuple(values.get("settings", ()))}
    sha256 = values.pop("sha256", None)
    entry = Entry(name=name, page=about["page"], digits_beside=about.get("digits_beside", ""), **values)
    kind = about.get("digits_in_name")
    if kind:
        return replace(entry, digest=Digest(kind, re.split("[-_]", Path(entry.file_name).stem)[-1]))
    return replace(entry, digest=Digest("sha256", sha256)) if sha256 else entry


def _folder(entry: Entry) -> Path:
    return cache_folder() / entry.name


def _checkpoint_path(entry: Entry) -> Path:
    return _folder(entry) / entry.file_name


def _record_of(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.sha256")


def _recorded(checkpoint: Path) -> str:
    """The sha256 that the checkpoint had when it was verified, "" when it never was."""
    try:
        return _record_of(checkpoint).read_text("utf-8").split()[0]
    except (OSError, ValueError, IndexError):
        return ""


def _model_path(entry: Entry, sha256: str) -> Path:
    """One file for each checkpoint, way of converting, and version, which may convert otherwise."""
    made_from = [sha256, entry.style, entry.settings, version("maskrcnn")]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:8]
    return _folder(entry) / f"{entry.name.rpartition('/')[2]}-{key}.safetensors"


def _converted(entry: Entry) -> Path:
    from maskrcnn.weights.convert import convert

    checkpoint = _checkpoint(entry)
    model = _model_path(entry, _recorded(checkpoint))
    convert(checkpoint, model, style=entry.style, settings=entry.settings)
    watch().say(f"converted {entry.name} -> {shown(model)}")
    return model


def _checkpoint(entry: Entry) -> Path:
    """The verified checkpoint: from the cache, else downloaded."""
    path = _checkpoint_path(entry)
    if path.is_file() and not _recorded(path):
        # Somebody put it there, as on a machine without a network.
        try:
            check_digest(path, _published(entry))
        except Failed as failed:
            raise UserError(f"{shown(path)}: {failed.why}", hint="remove it, and it is downloaded") from None
        _record(path, sha256_of(path))
    if (verified := _verified(entry)) is not None:
        return verified
    if path.is_file():
        watch().say(f"{shown(path)}: has changed since it was downloaded")
    urls = urls_of(entry)
    if offline():
        urls = [url for url in urls if url.startswith("file:")]
        if not urls:
            raise UserError(
                f"{PREFIX}{entry.name}: is not in the cache, and this program is offline",
                hint=f"unset {OFFLINE} or leave out --offline, or put its checkpoint at {shown(path)}",
            )
    digest = _published(entry)
    try:
        sha256 = download(urls, path, entry.size, digest)
    except UserError as error:
        if error.hint != CHECK_NETWORK:
            raise
        raise UserError(
            error.message, hint=f"try again later or set {MIRROR} to a copy; its page is {entry.page}"
        ) from error
    _record(path, sha256)
    how = f"its {digest.kind} is the published one" if digest else "there is no published hash to compare"
    watch().say(f"kept as {shown(path)}; {how}")
    return path


def _verified(entry: Entry) -> Path | None:
    """The checkpoint in the cache if it is there and is still what was verified."""
    path = _checkpoint_path(entry)
    recorded = _recorded(path)
    return path if recorded and path.is_file() and sha256_of(path) == recorded else None


def _record(path: Path, sha256: str) -> None:
    with whole_file(_record_of(path)) as temporary:
        temporary.write_text(f"{sha256}  {path.name}\n", "utf-8")


def _published(entry: Entry) -> Digest | None:
    """The hash that the source gives, which may stand in a small file beside the checkpoint."""
    if entry.digest or not entry.digits_beside:
        return entry.digest
    why = "offline"
    for url in urls_of(entry):
        beside = f"{url}.{entry.digits_beside}sum"
        try:
            local = local_path(beside)
            text = read_url(beside, most=10_000) if local is None else local.read_bytes()
            digits = text.decode("ascii").split()[0]
            if re.fullmatch("[0-9a-fA-F]{32,64}", digits):
                return Digest(entry.digits_beside, digits.lower())
            why = f"{shown_url(beside)}: is no hash"
        except (UserError, OSError, ValueError, IndexError) as error:
            why = str(error)
    watch().say(f"the published hash of {entry.name} cannot be read ({why})")
    return None


@contextmanager
def _alone(entry: Entry) -> Iterator[None]:
    """While open no other process downloads or converts this entry."""
    from filelock import FileLock, Timeout

    folder = _folder(entry)
    with disk_errors_told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            watch().say(f"waiting for another process, which gets {entry.name}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
