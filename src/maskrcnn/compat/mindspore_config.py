"""The YAML configuration of mindspore-lab's RCNN: `__BASE__` lists, up to three documents, one deep merge."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from maskrcnn.errors import UserError
from maskrcnn.whole_file import shown

SUFFIXES = (".yml", ".yaml")
BASES = "__BASE__"
MOST_DOCUMENTS = 3
"""Configuration, help and choices; only the first says anything."""

RATIO = "warmup_ratio"
# What YAML 1.1 reads as an octal number.
_OCTAL = re.compile(r"[-+]?0[0-7_]+")


@dataclass(frozen=True)
class MindSporeConfig:
    """values: nested, of all files together. files: the one that was named, then its bases, each once.

    notes: sentences on numbers that were not taken as YAML has them.
    """

    values: dict[str, Any]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Dotted key and value of everything; a list is one value."""
        yield from _leaves("", self.values)

    def get(self, path: str, default: Any = None) -> Any:
        """The value of a dotted key."""
        found: Any = self.values
        for name in path.split("."):
            if not isinstance(found, dict) or name not in found:
                return default
            found = found[name]
        return found


def read_config(path: Path, exact: bool = False) -> MindSporeConfig:
    """A file with all its bases: what a file says itself comes over its bases, a later base over an earlier.

    Mappings are joined, lists replaced. exact: a `warmup_ratio` of 0001 is the octal number 1, as MindSpore
    takes it; else 0.001, which is meant. Raises UserError for files that are missing, in a circle or no YAML.
    """
    files: dict[Path, None] = {}
    notes: dict[str, None] = {}

    def read(place: Path, within: tuple[Path, ...]) -> dict[str, Any]:
        if place in within:
            circle = " -> ".join(shown(each.name) for each in (*within[within.index(place) :], place))
            raise UserError(
                f"{shown(path)}: {BASES} runs in a circle ({circle})", hint="leave one of them out"
            )
        files[place] = None
        own = _first_document(place, within[-1] if within else None)
        found: dict[str, Any] = {}
        notes.update(dict.fromkeys(_mended(own, place, exact)))
        for base in _bases(own.values, place):
            found = merged(found, read(base, (*within, place)))
        return merged(found, {key: value for key, value in own.values.items() if key != BASES})

    values = read(path.expanduser().resolve(), ())
    return MindSporeConfig(values, tuple(files), tuple(notes))


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, mappings joined at every depth; where both have a value it is that of `over`."""
    found = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found


@dataclass(frozen=True)
class _Document:
    """values: of the first document. octal: dotted key -> how a number that begins with 0 is written."""

    values: dict[str, Any]
    octal: dict[str, str]


def _first_document(path: Path, named_by: Path | None) -> _Document:
    where = f" (named by {shown(named_by)})" if named_by else ""
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{shown(path)}: is no .yml or .yaml{where}", hint="name a file of their config/ folder"
        )
    try:
        text = path.read_text(encoding="utf-8")
        nodes = list(yaml.compose_all(text, yaml.SafeLoader))
        documents = list(yaml.safe_load_all(text))
    except OSError as error:
        raise UserError(
            f"{shown(path)}: cannot be read ({error.strerror}){where}", hint="check the path"
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{shown(path)}: is not YAML", hint="correct it and run it again") from error
    if len(documents) > MOST_DOCUMENTS:
        raise UserError(
            f"{shown(path)}: has {len(documents)} documents; a file has at most {MOST_DOCUMENTS}, config, "
            "help and choices",
            hint="leave the others out",
        )
    values = documents[0] if documents and documents[0] is not None else {}
    if not isinstance(values, dict):
        raise UserError(f"{shown(path)}: holds no settings", hint="write it as `key: value`")
    return _Document(values, dict(_octal("", nodes[0])) if values else {})


def _bases(values: dict[str, Any], path: Path) -> list[Path]:
    named = values.get(BASES, [])
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise UserError(f"{shown(path)}: {BASES} is no list of files", hint="write it like ['../coco.yml']")
    return [(path.parent / Path(each).expanduser()).resolve() for each in named]


def _octal(path: str, node: yaml.Node) -> Iterator[tuple[str, str]]:
    """Dotted keys of numbers that are written with zeros before them, and how."""
    if isinstance(node, yaml.MappingNode):
        for key, value in (pair for pair in node.value if pair[0].tag.endswith(":str")):
            yield from _octal(f"{path}.{key.value}".lstrip("."), value)
    elif isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") and _OCTAL.fullmatch(node.value):
        yield path, node.value


def _mended(document: _Document, path: Path, exact: bool) -> Iterator[str]:
    """Put 0.001 where 0001 is written for the ratio of the warm-up; -> a sentence on each octal number."""
    for key, text in document.octal.items():
        *parents, name = key.split(".")
        inside: Any = document.values
        for parent in parents:
            inside = inside[parent]
        begins = f"{shown(path.name)}: {key}: {text} is the octal number {inside[name]} in YAML"
        if name != RATIO:
            yield begins
        elif exact:
            yield f"{begins}, so there is no warm-up"
        else:
            inside[name] = float(f"0.{text.lstrip('+-')[1:]}")
            yield f"{begins}, without any warm-up; {inside[name]:g} is meant and taken (--exact takes {text})"


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}".lstrip("."), inner)
    elif path:
        yield path, value
