"""Read configuration strictly: from mappings, YAML files and `a.b=value` settings, every mistake at once."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from maskrcnn.errors import UserError

T = TypeVar("T")
# What pydantic adds to the path of a value that may be one number or three.
KINDS = ("float", "tuple[float, float, float]")


def read_strictly(kind: type[T], values: Any, place: str | Path) -> T:
    """The dataclass `kind` from nested mappings. Raises UserError with every unknown key and bad value."""
    try:
        return _adapter(kind).validate_python(values)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = [_sentence(kind, fault) for fault in error.errors()]
        raise UserError(f"{place}: {'; '.join(faults)}", hint="correct these and run it again") from error


def with_settings(original: T, settings: Iterable[str], place: str = "--set") -> T:
    """A copy of a frozen dataclass with settings like `model.rpn.post_nms=300`; values are YAML."""
    values = asdict(original)  # type: ignore[call-overload]
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"{place} {setting}: has no `=`", hint=f"write {place} {setting}=VALUE")
        _assign(values, path.strip().split("."), number_or_yaml(text), f"{place} {setting}", type(original))
    return read_strictly(type(original), values, place)


def number_or_yaml(text: str) -> Any:
    """A YAML value; `1e-3`, which YAML 1.1 reads as text, is a number."""
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _assign(values: dict[str, Any], path: list[str], value: Any, place: str, kind: type) -> None:
    for depth, name in enumerate(path):
        if not isinstance(values, dict) or name not in values:
            known = list(values) if isinstance(values, dict) else []
            raise UserError(
                f"{place}: there is no `{'.'.join(path[: depth + 1])}`{_did_you_mean(name, known)}",
                hint=f"known here: {', '.join(known)}" if known else "it has no parts",
            )
        if depth == len(path) - 1:
            if isinstance(values[name], dict):
                raise UserError(
                    f"{place}: `{'.'.join(path)}` has parts", hint=f"set one of {', '.join(values[name])}"
                )
            values[name] = value
        else:
            values = values[name]


def _sentence(kind: type, fault: Mapping[str, Any]) -> str:
    path = [str(part) for part in fault["loc"] if part not in KINDS]
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key `{'.'.join(path)}`{_did_you_mean(path[-1], _names_at(kind, path[:-1]))}"
    return f"`{'.'.join(path) or 'value'}` is {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""


def _names_at(kind: type, path: list[str]) -> list[str]:
    for part in path:
        kind = get_type_hints(kind).get(part, object)
    return [field.name for field in fields(kind)] if is_dataclass(kind) else []


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    _forbid_extra(kind)
    return TypeAdapter(kind)


def _forbid_extra(kind: type) -> None:
    with_config(ConfigDict(extra="forbid"))(kind)
    for hint in get_type_hints(kind).values():
        if is_dataclass(hint):
            _forbid_extra(hint)  # type: ignore[arg-type]
