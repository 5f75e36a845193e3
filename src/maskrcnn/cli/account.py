"""What `maskrcnn predict` says of a run: a line for each image or video, a bar, and what failed."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.detections import Detections
    from maskrcnn.results import GrowingList, Written

WIDEST_NAME = 40


class Account:
    """Collects what a run did. stream: standard output is for JSON lines, and words go to stderr.

    total: images and videos there are. width: of the longest name. images: whether there are only images.
    """

    def __init__(
        self, stream: bool, total: int, width: int, images: bool, coco: "GrowingList | None"
    ) -> None:
        self.stream, self.total, self.width = stream, total, min(WIDEST_NAME, width)
        self.kind = "images" if images else "sources"
        self._left_out: list[UserError] = []
        self._damaged: list[UserError] = []
        self._notes: set[str] = set()
        self._coco, self.listed = coco, 0

    def line(self, name: str, *parts: str) -> None:
        """`street.jpg   3 person, 1 bicycle   48 ms   -> predictions/street.jpg`."""
        self.words("   ".join([f"{name:<{self.width}}", *parts]))

    def words(self, text: str) -> None:
        """On standard output, unless that is for JSON lines."""
        print(text, file=sys.stderr if self.stream else sys.stdout, flush=True)

    def json_line(self, line: str) -> None:
        """One line for a program that reads along."""
        if self.stream:
            print(line, flush=True)

    def note(self, sentence: str) -> None:
        """Each once."""
        if sentence not in self._notes:
            self._notes.add(sentence)
            self.say(sentence)

    def say(self, sentence: str) -> None:
        """As a note, however often; threads may call it."""
        print(f"note: {sentence}", file=sys.stderr, flush=True)

    def written(self, written: "Written") -> None:
        """Add to the COCO list what was found in an image or frame, and say what could not be written."""
        if self._coco is not None:
            self._coco.add(written.coco)
            self.listed += 1
        for sentence in written.notes:
            self.note(sentence)

    def left_out(self, error: UserError) -> None:
        """An image or video of which there is no result."""
        self._left_out.append(error)

    def damaged(self, error: UserError) -> None:
        """A video of which there are results as far as it could be read."""
        self._damaged.append(error)

    def finish(self) -> None:
        """Say what failed; ends the program with 2 if that is everything, with 1 if it is a part."""
        if len(self._left_out) == self.total == 1:
            raise self._left_out[0]
        for error in [*self._left_out, *self._damaged]:
            print(f"error: {error.message}", file=sys.stderr)
        if self._left_out:
            text = f"{len(self._left_out)} of {self.total} {self.kind} were left out"
            print(f"hint: {text}", file=sys.stderr)
            raise typer.Exit(2 if len(self._left_out) == self.total else 1)
        if self._damaged:
            print(f"hint: {self._damaged[-1].hint}", file=sys.stderr)
            raise typer.Exit(1)


def counts(detections: "Detections") -> str:
    """`3 person, 1 bicycle`, most frequent first."""
    numbers = Counter(detections.names()).most_common()
    return ", ".join(f"{number} {name}" for name, number in numbers) or "nothing found"


@contextmanager
def progress(total: int | None, unit: str) -> Iterator[Callable[[], None]]:
    """A bar with images/s and the time left on a terminal's stderr, nothing elsewhere; call it for each one.

    total: None where there is no end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: "object") -> Text:
            speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
            return Text(f"{speed:.1f} {unit}/s" if speed else "")

    console = Console(stderr=True)
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or total == 1,
        # Lines printed to a terminal go above the bar; a pipe gets them as they are.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
