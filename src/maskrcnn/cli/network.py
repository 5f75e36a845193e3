"""What the verbs share that may open a connection: the option `--offline`, and how a download looks."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from maskrcnn.download import Lines
from maskrcnn.web import OFFLINE


def _stay_offline(asked: bool) -> bool:
    if asked:
        os.environ[OFFLINE] = "1"
    return asked


Offline = Annotated[
    bool,
    typer.Option("--offline", help=f"Open no connection, as with {OFFLINE}=1.", callback=_stay_offline),
]


class Terminal(Lines):
    """Words on stderr, and a bar while a download runs if stderr is a terminal."""

    @contextmanager
    def bar(self, done: int, total: int | None) -> Iterator[Callable[[int], None]]:
        """Bytes, their rate and the time left."""
        if not sys.stderr.isatty():
            yield lambda arrived: None
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=total, completed=done)
            yield lambda arrived: progress.advance(task, arrived)
