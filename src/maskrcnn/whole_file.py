"""Files that are written whole or not at all."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from maskrcnn.errors import UserError

# As a path, which has one slash of two.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, whose folder is made; what is written there takes the name on leaving.

    After any error or interruption an older file of that name is as it was, and the temporary one is gone.
    Raises UserError where the disk refuses, and for what is a URL.
    """
    on_this_machine(path)
    temporary = temporary_path(path)
    try:
        with disk_errors_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # its folder may not be one
            temporary.unlink()


def on_this_machine(path: Path) -> None:
    """Raise UserError for a URL, before a folder `s3:` is made of it."""
    if URL.match(str(path)):
        raise UserError(
            f"{shown(path)}: is a URL, and this is written on this machine only",
            hint="name a file or folder, and copy that",
        )


def temporary_path(path: Path) -> Path:
    """A name in the same folder that no other writer takes."""
    return path.with_name(f".maskrcnn-{uuid4().hex}.part")


@contextmanager
def disk_errors_told(path: Path) -> Iterator[None]:
    """What the disk refuses, as the user's error that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{shown(path)}: cannot be written ({error.strerror or error})",
            hint="check the folder and its free space",
        ) from error


def shown(path: str | Path) -> str:
    """A path as one printable line: control characters and bytes that are no text are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
