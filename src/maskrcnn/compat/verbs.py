"""What the command lines of others share: running our verbs, and how they fail."""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def run_verb(words: Sequence[str]) -> None:
    """One of our verbs, told on stderr and as if it had been typed; the program ends here if it fails."""
    from maskrcnn.cli.main import main

    print(f"$ {shlex.join(['maskrcnn', *words])}", file=sys.stderr, flush=True)
    before, sys.argv = sys.argv, ["maskrcnn", *words]
    try:
        main()
    except SystemExit as leaving:
        if leaving.code:
            raise
    finally:
        sys.argv = before


def note(words: str) -> None:
    """A sentence on stderr."""
    print(f"note: {words}", file=sys.stderr)


@contextmanager
def ends_in_words() -> Iterator[None]:
    """In the block all that a user can do something about ends the program with 2 and a sentence, as in our
    verbs; Ctrl-C ends it with 130. A mistake of ours is raised.
    """
    import typer

    from maskrcnn.cli.main import INTERRUPTED, in_words, print_error

    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except typer.Exit as leaving:
        sys.exit(leaving.exit_code)
    except Exception as error:
        told = in_words(error)
        if told is None or os.environ.get("MASKRCNN_DEBUG"):
            raise
        print_error(told)
        sys.exit(2)
