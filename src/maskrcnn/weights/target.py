"""What a target is: another tool that loads a model of ours under its own names and with its own config."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.spec import Spec
from maskrcnn.weights.rewrite import Table

Array = NDArray[Any]
Settings = dict[str, Any]
"""Dotted keys of another tool's config and their values."""


@dataclass(frozen=True)
class Said:
    """config: what the other side needs to build the model, in its own language; where: what to do with it.

    paths: settings of ours (`model.rpn.post_nms`) that the config carries.
    """

    config: str
    where: str
    paths: frozenset[str]


@dataclass(frozen=True)
class Target:
    """Another tool's checkpoint as something to write.

    name: of --to; source: name in SOURCES of what reads such files back.
    suffixes: of the file, the usual one first.
    rows: of the source's table, those that name the parameters of this architecture.
    refuse: raises UserError for an architecture that has no names there.
    misfits: what its own code cannot build although it has names for it, as sentences.
    say: the config, from a Spec and the paths in which that differs from what the target takes for granted.
    write: path, tensors by their names, Spec, config.
    order: beginnings of our names in the order in which the target saves its modules.
    shortcut_last: the target saves the shortcut of a block after its convolutions.
    counters: num_batches_tracked of batch norms: `kept` where the model has them, `made` where it has not,
        `dropped` everywhere.
    anchor_order: in which its anchors of one cell come.
    style: what --style is for its own reader.
    fixed: tensors that it saves beside the parameters and makes from its config.
    folded: it knows no norm layers, which are multiplied into the convolutions.
    """

    name: str
    source: Callable[[ModelConfig], str]
    suffixes: tuple[str, ...]
    rows: Callable[[ModelConfig], Table]
    refuse: Callable[[ModelConfig], None]
    misfits: Callable[[ModelConfig], tuple[str, ...]]
    say: Callable[[Spec, Set[str]], Said]
    write: Callable[[Path, Mapping[str, Array], Spec, str], None]
    order: tuple[str, ...]
    anchor_order: Literal["size_first", "ratio_first"]
    shortcut_last: bool = False
    counters: Literal["kept", "made", "dropped"] = "kept"
    style: Callable[[ModelConfig], str | None] = lambda model: None
    fixed: Callable[[Spec], dict[str, Array]] = lambda spec: {}
    folded: bool = False


def refused(target: str, what: str, hint: str = "") -> UserError:
    """The error for an architecture that a target has no names for."""
    return UserError(f"{target} has no {what}", hint=hint or "choose another --to")


def nested(settings: Settings) -> dict[str, Any]:
    """Dotted keys as dicts in dicts, tuples as lists."""
    found: dict[str, Any] = {}
    for path, value in settings.items():
        inner = found
        *parents, last = path.split(".")
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[last] = _listed(value)
    return found


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def yaml_text(values: dict[str, Any]) -> str:
    """YAML whose lists stand on one line."""
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=1000)


def spelled(value: Any) -> Any:
    """A whole number without its `.0`, also in tuples."""
    if isinstance(value, tuple):
        return tuple(spelled(item) for item in value)
    return int(value) if isinstance(value, float) and value == np.floor(value) else value


def stage_channels(model: ModelConfig) -> tuple[int, ...]:
    """Outputs of res2..res5."""
    first = model.backbone.width * (1 if model.backbone.depth < 50 else 4)
    return tuple(first * 2**number for number in range(4))
