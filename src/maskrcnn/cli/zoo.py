"""`maskrcnn zoo`: the published checkpoints that every verb opens by name."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrcnn.cli.network import Offline
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.zoo import Entry

NAME = "Show only this model, or the models of this source, such as detectron2/R50-FPN-3x or detectron2."


def zoo(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help=NAME)] = None,
    get: Annotated[
        bool, typer.Option("--get", help="Download and convert the model, and print its file.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as a JSON list.")] = False,
    offline: Offline = False,
) -> None:
    """List published checkpoints; use one as `zoo:NAME` wherever a verb takes a model."""
    import json

    from maskrcnn.zoo import entries, find_entry, model_file

    of_source = [entry for entry in entries().values() if entry.name.startswith(f"{name}/")]
    if get:
        if name is None or of_source:
            raise UserError("--get: needs the name of one model", hint="`maskrcnn zoo` lists them")
        model = model_file(name)
        if not as_json:
            print(model)
            return
    chosen = of_source or (list(entries().values()) if name is None else [find_entry(name)])
    if as_json:
        print(json.dumps([to_json(entry) for entry in chosen], indent=2))
    else:
        single = name is not None and not of_source
        print("\n".join(details(chosen[0]) if single else table(chosen)))


def to_json(entry: "Entry") -> dict[str, Any]:
    """Plain values of everything that is known of an entry, what the cache holds of it included."""
    from dataclasses import asdict

    from maskrcnn.zoo import kept

    values = asdict(entry)
    digest, beside = values.pop("digest"), values.pop("digits_beside")
    cached = {what: str(path) if path else None for what, path in asdict(kept(entry)).items()}
    hash_url = f"{entry.url}.{beside}sum" if beside else None
    return {**values, "hash": digest, "hash_url": hash_url, "cached": cached}


def table(chosen: "list[Entry]") -> list[str]:
    """One line for each entry, in columns, below a heading."""
    rows = [("name", "box AP", "mask AP", "size", "cached")]
    rows += [(entry.name, f"{entry.box_ap:.1f}", f"{entry.mask_ap:.1f}", *_sizes(entry)) for entry in chosen]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3)), row[4]]).rstrip()
        for row in rows
    ]


def details(entry: "Entry") -> list[str]:
    """One entry for a person."""
    from maskrcnn.zoo import PREFIX, kept

    size, _ = _sizes(entry)
    cached = kept(entry)
    rows = [
        ("name", f"{PREFIX}{entry.name}"),
        ("AP", f"box {entry.box_ap:.1f}, mask {entry.mask_ap:.1f} on COCO val2017, as published"),
        ("URL", entry.url),
        ("page", entry.page),
        ("size", size),
        ("hash", _hash(entry)),
        ("convert", entry.command_options or "without options"),
        ("checkpoint", str(cached.checkpoint or "not in the cache")),
        ("model", str(cached.model or "not in the cache")),
    ]
    return [f"{title:<12}{text}" for title, text in rows]


def _sizes(entry: "Entry") -> tuple[str, str]:
    """The size of the checkpoint, as found or as published, and what the cache holds."""
    from maskrcnn.download import megabytes
    from maskrcnn.zoo import kept

    cached = kept(entry)
    size = cached.checkpoint.stat().st_size if cached.checkpoint else entry.size
    what = [title for title, path in (("checkpoint", cached.checkpoint), ("model", cached.model)) if path]
    return ("-" if size is None else megabytes(size), ", ".join(what))


def _hash(entry: "Entry") -> str:
    if entry.digest is not None:
        whole = {"md5": 32, "sha256": 64}[entry.digest.kind] == len(entry.digest.digits)
        return f"{entry.digest.kind} {entry.digest.digits}{'' if whole else '...'}"
    if entry.digits_beside:
        return f"{entry.digits_beside}, read from {entry.url}.{entry.digits_beside}sum"
    return "none published"
