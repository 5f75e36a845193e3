"""What each word of a user stands for: image files, archives, addresses, videos, cameras."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.images import SUFFIXES, ImageFile, decode, find_images, natural_order
from maskrcnn.media.archives import ARCHIVES, images_in, is_archive, safe_name
from maskrcnn.media.live import Live, camera, network_stream
from maskrcnn.media.video import VIDEOS, Video, is_video
from maskrcnn.web import shown_url
from maskrcnn.whole_file import shown

STDIN = "-"
CAMERA = "camera:"
WEB = ("http", "https")
LIVE = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "tcp")
# An image; a video is read as it comes.
MOST_BYTES = 200_000_000
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
DEVICE = re.compile(r"(?:/dev/video)?([0-9]{1,3})")
# First bytes, of files whose suffix says nothing.
VIDEO_MAGIC = re.compile(
    rb"....ftyp(?!avi[fs]|hei|mif1|msf1|hev)|\x1aE\xdf\xa3|RIFF....AVI |FLV\x01", re.DOTALL
)
ARCHIVE_MAGIC = re.compile(rb"PK\x03\x04")


@dataclass(frozen=True)
class Stills:
    """Images that are read one by one, in any number of threads."""

    files: tuple[ImageFile, ...]


@dataclass(frozen=True)
class Moving(ImageFile):
    """A video or a camera; path and name as of an image, for the names of its results.

    source: what opens it. live: it has no end.
    """

    source: str = ""
    live: bool = False


def find_sources(
    words: Iterable[str], listed: Iterable[str], skip: Path | None = None
) -> list[Stills | Moving]:
    """Images and videos that are named by files, folders, patterns, archives and addresses, each once.

    `-` stands for the words of `listed`. Folders are searched for images alone. skip: a folder to pass over.
    Neighbouring images are one Stills. Raises UserError for what is missing, or holds nothing.
    """
    found: dict[str, ImageFile] = {}
    for word in _expanded(words, listed):
        for image in _named(word, skip):
            found.setdefault(os.path.abspath(image.path), image)
    if not found:
        raise UserError("no images are named", hint="name files, folders or patterns such as 'photos/*.jpg'")
    parts: list[Stills | Moving] = []
    for _, group in groupby(found.values(), key=lambda image: image if isinstance(image, Moving) else None):
        images = tuple(group)
        parts.append(images[0] if isinstance(images[0], Moving) else Stills(images))
    return parts


def in_a_store(word: str) -> bool:
    """Whether it is an address of neither the web nor a camera, as s3://bucket/photos."""
    address = ADDRESS.match(word)
    return address is not None and address[1].lower() not in (*WEB, *LIVE)


def open_video(moving: Moving, stem: str) -> Video:
    """Open what has an end; stem: how the names of its frames begin. Raises UserError."""
    return Video(moving.source, moving.path, stem, moving.place)


def open_live(moving: Moving, stem: str, say: Callable[[str], None]) -> Live:
    """A camera or stream, not yet connected; stem, say: as Live's."""
    number = DEVICE.fullmatch(moving.source)
    connect = camera(int(number[1])) if number else network_stream(moving.source, moving.place)
    return Live(moving.path, stem, moving.place, connect, say)


def words_in(contents: bytes) -> list[str]:
    """A list of names: one a line, or parted by zero bytes as `find -print0` does."""
    parts = contents.split(b"\0") if b"\0" in contents else contents.splitlines()
    return [os.fsdecode(part) for part in parts if part.strip()]


def _expanded(words: Iterable[str], listed: Iterable[str]) -> Iterator[str]:
    for word in words:
        if word == STDIN:
            yield from listed
        else:
            yield word


def _named(word: str, skip: Path | None) -> list[ImageFile]:
    if word.startswith(CAMERA) and not os.path.lexists(word):
        return [_camera(word)]
    if address := ADDRESS.match(word):
        return [_at_address(word, address[1].lower())]
    if os.path.isdir(word):
        return find_images([word], skip)
    if os.path.lexists(word):
        return _file(Path(word), skip)
    if glob.has_magic(word):
        return _by_pattern(word, skip)
    return find_images([word], skip)


def _file(path: Path, skip: Path | None) -> list[ImageFile]:
    if not path.is_file():  # a broken link, or a pipe that nobody writes to: whoever reads it says so
        return [ImageFile(path, path.name)]
    known = path.name.lower().endswith((*SUFFIXES, *VIDEOS, *ARCHIVES))
    start = b"" if known else _start(path)
    if is_archive(path) or ARCHIVE_MAGIC.match(start):
        return images_in(path)
    if is_video(path) or VIDEO_MAGIC.match(start):
        return [Moving(path, path.name, place=shown(path), source=str(path))]
    return find_images([path], skip)


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(16)
    except OSError:
        return b""  # whoever reads the whole of it says why


def _by_pattern(pattern: str, skip: Path | None) -> list[ImageFile]:
    """The images as `find_images` has them, then videos and archives."""
    matches = [Path(match) for match in glob.glob(pattern, recursive=True) if os.path.isfile(match)]
    others = [path for path in matches if is_video(path) or is_archive(path)]
    images = any(path.suffix.lower() in SUFFIXES for path in matches)
    found = find_images([pattern], skip) if images or not others else []
    for path in sorted(others, key=lambda path: natural_order(path.as_posix())):
        found += _file(path, skip)
    return found


def _camera(word: str) -> Moving:
    spec = word.removeprefix(CAMERA)
    if address := ADDRESS.match(spec):
        if address[1].lower() in (*WEB, *LIVE):
            return _moving_address(spec, live=True)
    elif number := DEVICE.fullmatch(spec):
        name = f"camera-{number[1]}"
        return Moving(Path(name), name, place=word, source=number[1], live=True)
    raise UserError(
        f"{shown(word)}: names no camera",
        hint="use camera:0, camera:/dev/video2 or camera:http://host/stream",
    )


def _at_address(word: str, scheme: str) -> ImageFile:
    if scheme in LIVE:
        return _moving_address(word, live=True)
    if scheme not in WEB:
        raise UserError(
            f"{shown_url(word)}: addresses of {scheme} cannot be read", hint=f"use {', '.join((*WEB, *LIVE))}"
        )
    path = _path_of(word)
    if is_video(path):
        return _moving_address(word, live=False)
    if is_archive(path):
        raise UserError(f"{shown_url(word)}: is an archive", hint="download it and name the file")
    key, name = _names_of(word)
    return ImageFile(key, name, partial(_read_address, word), shown_url(word))


def _moving_address(word: str, live: bool) -> Moving:
    key, name = _names_of(word)
    return Moving(key, name, place=shown_url(word), source=word, live=live)


def _read_address(url: str) -> np.ndarray:
    from maskrcnn.download import read_url

    return decode(read_url(url, MOST_BYTES), shown_url(url))


def _path_of(url: str) -> str:
    try:
        return unquote(urlsplit(url).path)
    except ValueError as error:
        raise UserError(
            f"{shown(url)}: is no address ({error})", hint="such as https://host/file.jpg"
        ) from error


def _names_of(url: str) -> tuple[Path, str]:
    """A path that no other address has, and the name of the file there; without user and password."""
    parts = urlsplit(url)
    whole = safe_name(f"{parts.scheme}/{parts.netloc.rpartition('@')[2]}/{unquote(parts.path)}")
    name = safe_name(_path_of(url)).rpartition("/")[2] or safe_name(parts.netloc.rpartition("@")[2])
    query = re.sub(r"[^\w.=-]", "_", parts.query)
    return Path(whole, query) if query else Path(whole), name or "image"
