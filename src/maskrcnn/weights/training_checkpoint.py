"""Which of the dicts in a checkpoint is the state dict, and what training code put before its names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.weights.unpickle import Inert

WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "module", "blobs")
"""Where training code keeps the weights, maybe wrapped again; the first that holds tensors is taken."""

AVERAGED = ("model_ema", "ema", "ema_state_dict", "state_dict_ema", "model_ema_state_dict", "ema_model")
"""Where training code keeps their moving average."""

LEVELS = 4
"""How deep dicts may stand in one another: {"ema": {"model": {"state_dict": {...}}}} has four levels."""

PREFIXES = ("module.", "_orig_mod.", "model.", "network.")
"""Put before every name by DistributedDataParallel, torch.compile, Lightning and MindSpore."""

COUNTER = "n_averaged"
"""How many steps torch's AveragedModel has seen, beside the names that begin with `module.`."""


@dataclass(frozen=True)
class StateDict:
    """named: the tensors without prefixes. beside: all that the file holds. notes: what was chosen."""

    named: dict[str, Any]
    beside: Mapping[str, Any]
    notes: tuple[str, ...]


def state_dict(path: Path, value: Any, averaged: bool) -> StateDict:
    """The weights in what a file holds, or with averaged their moving average. Raises UserError."""
    if isinstance(value, dict):
        # mmengine writes the average into state_dict and what it was made from into ema_state_dict.
        swapped = "message_hub" in value
        places = () if swapped else tuple(key for key in AVERAGED if _within(value.get(key)))
        plain = _within(value)
        if averaged and places:
            return StateDict(_names(value[places[0]]), value, (f"the averaged weights of `{places[0]}`",))
        if averaged and not swapped:
            raise UserError(
                f"{path}: holds no averaged weights", hint=f"leave out --ema; it reads {', '.join(AVERAGED)}"
            )
        if plain is not None:
            note = (
                f"the file holds averaged weights too, in `{places[0]}`; --ema takes them" if places else ""
            )
            return StateDict(_names(value), value, (note,) if note else ())
        if places:
            note = f"the file holds averaged weights only, in `{places[0]}`"
            return StateDict(_names(value[places[0]]), value, (note,))
    raise _nothing(path, value)


def _nothing(path: Path, value: Any) -> UserError:
    held = (
        [value, *(value.get(wrapper) for wrapper in (*WRAPPERS, *AVERAGED))]
        if isinstance(value, dict)
        else [value]
    )
    for item in held:
        if isinstance(item, Inert):
            return UserError(
                f"{path}: holds a Python object ({item.name}) and not tensors; nothing of it was run",
                hint="save the model's `state_dict()` instead",
            )
    return UserError(f"{path}: holds no tensors by name", hint="save the model's `state_dict()`")


def _within(value: Any, levels: int = LEVELS) -> dict[Any, Any] | None:
    """The first dict of tensors in nested wrappers, else this one if it has tensors."""
    if not isinstance(value, dict) or levels == 0:
        return None
    for wrapper in WRAPPERS:
        found = _within(value.get(wrapper), levels - 1)
        if found is not None:
            return found
    return value if any(isinstance(item, np.ndarray) for item in value.values()) else None


def _names(value: dict[Any, Any]) -> dict[str, Any]:
    found = _within(value) or {}
    named = {name: item for name, item in found.items() if isinstance(name, str)}
    if found is value:
        # Beside tensors at the top of a file stand settings and counters, such as Detectron's weight_order.
        named = {name: item for name, item in named.items() if not isinstance(item, _PLAIN)}
    return without_prefix(named)


_PLAIN = (str, bytes, int, float, list, tuple, dict, type(None))


def without_prefix(named: dict[str, Any]) -> dict[str, Any]:
    """The same without what stands before every name."""
    rest = {name: item for name, item in named.items() if name != COUNTER}
    for prefix in PREFIXES:
        if rest and all(name.startswith(prefix) for name in rest):
            return without_prefix({name.removeprefix(prefix): item for name, item in rest.items()})
    return named
