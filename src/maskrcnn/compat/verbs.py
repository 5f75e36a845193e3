"""What the command lines of others share: running our verbs, and how they fail."""

import shlex
import sys
from collections.abc import Sequence


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


def fail(error: Exception) -> None:
    """End the program with 2 and what a user can do; a mistake of ours is raised again."""
    from maskrcnn.cli.main import in_words, print_error

    told = in_words(error)
    if told is None:
        raise error
    print_error(told)
    sys.exit(2)
