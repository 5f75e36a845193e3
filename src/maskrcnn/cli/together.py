"""A verb in several processes, which torchrun, mpirun or Slurm started: one speaks, and all end alike."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TYPE_CHECKING

import typer

from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.team import Team

INTERRUPTED, FAILED = 130, 2


@contextmanager
def together(device: str) -> "Iterator[Team]":
    """The processes that share the work of this command: usually one, which is the first.

    The others print nothing, let the first say what fails in them, and end with its exit code.
    device: as the user named it; where that leaves it open each process of a host takes a GPU of its own.
    """
    from maskrcnn.launch import place_of, take_gpu
    from maskrcnn.team import meet

    place = place_of(os.environ)
    if place.count > 1 and device in ("auto", "cuda"):
        take_gpu(place, os.environ)
    team = meet(place, os.environ, sys.argv[1:])
    try:
        if place.count == 1:
            yield team
        elif place.is_first:
            yield from _leading(team)
        else:
            yield from _following(team)
    finally:
        team.leave()


def _leading(team: "Team") -> "Iterator[Team]":
    from maskrcnn.cli.main import print_error

    code = FAILED
    try:
        yield team
        code = 0
    except typer.Exit as leaving:
        code = leaving.exit_code
        raise
    except KeyboardInterrupt:
        code = INTERRUPTED
        raise
    except UserError as error:
        if os.environ.get("MASKRCNN_DEBUG"):
            raise
        print_error(error)
        raise typer.Exit(FAILED) from None
    finally:
        # First, because a launcher ends this process when it sees another fail.
        with suppress(OSError):
            sys.stdout.flush()
        team.dismiss(code)


def _following(team: "Team") -> "Iterator[Team]":
    failed = False
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            try:
                yield team
            except typer.Exit:
                failed = True
            except UserError as error:
                failed = True
                team.report(error)
        code = team.dismissed()
    if code is None:
        raise UserError("process 0 has ended before the others", hint="its own last words say why")
    if code or failed:
        raise typer.Exit(code or FAILED)
