"""Files that grow by one image at a time and are whole whenever they are looked at."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from maskrcnn.whole_file import disk_errors_told, temporary_path, whole_file


class GrowingList:
    """A JSON list in a file, written as it grows under a temporary name; use it in a `with`.

    On leaving, also through an interruption, the list is ended after the last complete addition and takes its
    name. If nothing was added, or the disk refuses, an older file of that name stays. Raises UserError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = temporary_path(path)
        self._end = 0
        with disk_errors_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._temporary, "wb")  # noqa: SIM115 (closed on leaving)

    def add(self, items: Sequence[dict[str, Any]]) -> None:
        """Append items; none still makes the file a list."""
        text = ",\n".join(json.dumps(item, separators=(",", ":")) for item in items)
        opening = "[\n" if self._end == 0 else ",\n" if text and self._end > 2 else ""
        with disk_errors_told(self.path):
            self._file.write((opening + text).encode())
            self._file.flush()
        self._end = self._file.tell()

    def __enter__(self) -> "GrowingList":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with disk_errors_told(self.path), self._file:
                self._file.truncate(self._end)
                self._file.seek(self._end)
                self._file.write(b"\n]\n")
            if self._end:
                with disk_errors_told(self.path):
                    os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


class GrowingText:
    """A text file with a head, an entry for each image and an end, which stands there after every addition.

    The first addition replaces an older file of that name, and nothing has to be closed: any error and any
    interruption but a kill in the midst of an addition leaves the entries before it, and the end. Threads may
    add side by side: entries stand in the order of their additions. Raises UserError where the disk refuses.
    """

    def __init__(self, path: Path, end: str = "") -> None:
        self.path = path
        self._end = _bytes(end)
        self._at = 0
        self._count = 0
        self._lock = Lock()

    def add(self, head: str, entry: Callable[[int], str]) -> Path:
        """Append entry(number), where number counts from 0; head is for the first addition."""
        with self._lock:
            text = _bytes(entry(self._count))
            if self._count == 0:
                text = _bytes(head) + text
                with whole_file(self.path) as temporary:
                    temporary.write_bytes(text + self._end)
            else:
                with disk_errors_told(self.path):
                    self._replace_end(text)
            self._at += len(text)
            self._count += 1
        return self.path

    def _replace_end(self, text: bytes) -> None:
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(self._at)
            try:
                _write_all(file.write, text + self._end)
                file.truncate()
            except BaseException:  # an interruption as well
                with suppress(OSError):
                    file.truncate(self._at)
                    file.seek(self._at)
                    file.write(self._end)
                raise


def _write_all(write: Callable[[memoryview], int], contents: bytes) -> None:
    """A disk that is nearly full takes a piece and refuses at the next."""
    left = memoryview(contents)
    while left:
        left = left[write(left) :]


def _bytes(text: str) -> bytes:
    # Names of files may hold bytes that are no text.
    return text.encode("utf-8", "backslashreplace")
