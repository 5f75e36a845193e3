"""What a source is: the names of its checkpoints, and what it means by numbers that no tensor holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.config import ModelConfig
from maskrcnn.presets import COCO
from maskrcnn.spec import Classes, Spec
from maskrcnn.weights.own_config import Settings, with_values
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.rewrite import Table

STYLES = ("caffe", "pytorch")
# Programs that feed one and the same checkpoint otherwise than it was trained.
PROGRAMS = ("tensorrtx", "ixrt")


@dataclass(frozen=True)
class Described:
    """A Spec, and what it rests on beyond the tensors. notes: sentences for the report."""

    spec: Spec
    notes: tuple[str, ...] = ()


Describe = Callable[[ModelConfig, Checkpoint, str | None, str | None], Described]
"""From architecture, checkpoint, --style and --source-config to a Spec."""


@dataclass(frozen=True)
class Source:
    """fingerprint: names that every checkpoint of it has, and no other source's. styles: that it knows."""

    name: str
    fingerprint: frozenset[str]
    table: Table
    describe: Describe
    styles: tuple[str, ...] = STYLES


def default_classes(count: int) -> Classes:
    """COCO for 80 classes, numbered names for any other count."""
    if count == len(COCO):
        return COCO
    return Classes(tuple(f"class {number}" for number in range(1, count + 1)), tuple(range(1, count + 1)))


def with_conventions(model: ModelConfig, settings: Settings) -> ModelConfig:
    """Settings below `model`; `conventions` and `rpn` may be given whole."""
    whole = {path: value for path, value in settings.items() if path in ("conventions", "rpn")}
    model = replace(model, **whole)
    return with_values(model, {path: value for path, value in settings.items() if path not in whole})


OF_STYLE = ("model.mean", "model.std", "model.backbone.stride_in_1x1", "preprocess.channels")


def without_style(own: Settings, style: str | None) -> Settings:
    """A style given by hand wins over the config."""
    return own if style is None else {path: value for path, value in own.items() if path not in OF_STYLE}


def filled_statistics(tensors: Mapping[str, NDArray[Any]], model: ModelConfig) -> dict[str, NDArray[Any]]:
    """Mean 0 and variance 1 for batch norms without statistics, as detectron2 loads trunks of Caffe2."""
    found = dict(tensors)
    for name in tensors:
        layer = name.removesuffix(".norm.weight")
        if layer != name and f"{layer}.norm.running_var" not in tensors and _is_frozen(layer, model):
            found[f"{layer}.norm.running_mean"] = np.zeros_like(tensors[name])
            found[f"{layer}.norm.running_var"] = np.ones_like(tensors[name])
    return found


def _is_frozen(layer: str, model: ModelConfig) -> bool:
    return layer.startswith(("backbone.", "res5.")) and model.backbone.norm == "frozen_bn"
