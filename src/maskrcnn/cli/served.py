"""`maskrcnn export --serve`: a model goes into the model repository of an inference server."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.export.form import Form
    from maskrcnn.export.gate import Asked
    from maskrcnn.export.repository import Server


def check_options(server: str | None, others: Mapping[str, bool]) -> None:
    """Raise UserError for --name without --serve, and for an option that is of no use with it.

    others: whether each was given.
    """
    if server is None:
        raise UserError("--name: is of a model in a repository", hint="add --serve triton or --serve ovms")
    for option, given in others.items():
        if given:
            raise UserError(f"{option}: --serve writes one graph that it describes", hint="leave it out")


def serve_model(
    model: str,
    path: Path,
    out: Path,
    server: "Server",
    name: str | None,
    form: "Form",
    asked: "Asked",
    as_json: bool,
) -> None:
    """Write and check it, and tell. Ends the program with 1 if it was rejected.

    model: as the user called it. path: its file. name: of the model in the repository, None for its file's.
    """
    from maskrcnn.cli.gate import tell, watching
    from maskrcnn.export.repository import place_in, write_repository

    place = place_in(out, server, named(name or model))
    with watching() as watch:
        gated = write_repository(path, place, form, asked, watch)
    tell(model, place.file, gated, as_json)
    if not as_json:
        print(f"-> {place.model}, version {place.version}, for {server}")


def named(text: str) -> str:
    """A name that servers take, and a folder may have. Raises UserError where nothing of it is left."""
    stem = text.rpartition("/")[2].removeprefix("zoo:").removesuffix(".safetensors")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip(".-")
    if not name:
        raise UserError(
            f"{text}: is no name for a model", hint="choose one with --name, of letters and digits"
        )
    return name
