"""Make a model's tensors say the same in the habits of another tool: counters, anchor order, folded norms."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.config import ModelConfig
from maskrcnn.spec import Spec
from maskrcnn.weights.target import Target

Array = NDArray[Any]

COUNTER = ".norm.num_batches_tracked"


@dataclass(frozen=True)
class Prepared:
    """tensors: by our names; spec: what describes them; notes: sentences for the report."""

    tensors: dict[str, Array]
    spec: Spec
    notes: tuple[str, ...]


def prepared(tensors: Mapping[str, Array], spec: Spec, target: Target) -> Prepared:
    """The same network as the target can have it. tensors: every parameter by our names."""
    notes: list[str] = []
    if spec.precision != "fp32":
        notes.append(f"{spec.precision} weights are written as float32, which holds them exactly")
    found = {
        name: array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
        for name, array in tensors.items()
    }
    model = spec.model
    if target.folded and any(name.endswith(".norm.running_var") for name in found):
        found, model = folded(found, model), without_norms(model)
        notes.append("batch norms are multiplied into their convolutions (in float64, then float32)")
    if target.counters != "kept":
        found = _counted(found, target, notes)
    if model.conventions.anchor_order != target.anchor_order and not model.anchors.cells:
        found = _reordered(found, model, target, notes)
        model = replace(model, conventions=replace(model.conventions, anchor_order=target.anchor_order))
    return Prepared(found, replace(spec, model=model), tuple(notes))


def _counted(tensors: dict[str, Array], target: Target, notes: list[str]) -> dict[str, Array]:
    """With a counter for every batch norm, or with none."""
    if target.counters == "dropped":
        kept = {name: array for name, array in tensors.items() if not name.endswith(COUNTER)}
        if len(kept) < len(tensors):
            notes.append(
                f"{len(tensors) - len(kept)} num_batches_tracked have no name there and are left out"
            )
        return kept
    layers = [
        name.removesuffix(".norm.running_var") for name in tensors if name.endswith(".norm.running_var")
    ]
    made = {f"{layer}{COUNTER}": np.zeros((), np.int64) for layer in layers}
    if not made.keys() <= tensors.keys():
        notes.append("num_batches_tracked, which the model does not have, are zero")
    return made | tensors


def folded(tensors: Mapping[str, Array], model: ModelConfig) -> dict[str, Array]:
    """Batch norms multiplied into weights and biases of their convolutions, computed in float64."""
    found: dict[str, Array] = {}
    for name, array in tensors.items():
        layer = name.removesuffix(".weight")
        if ".norm." in name:
            continue
        if layer == name or f"{layer}.norm.running_var" not in tensors:
            found[name] = array
            continue
        gamma, beta, mean, variance = (
            tensors[f"{layer}.norm.{kind}"].astype(np.float64)
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + _eps(layer, model))
        weight = array.astype(np.float64) * scale[:, None, None, None]
        found[name] = weight.astype(np.float32)
        found[f"{layer}.bias"] = (beta - mean * scale).astype(np.float32)
    return found


def _eps(layer: str, model: ModelConfig) -> float:
    part = layer.split(".", maxsplit=1)[0]
    return getattr(model, part if part in ("fpn", "box_head", "mask_head") else "backbone").norm_eps


def without_norms(model: ModelConfig) -> ModelConfig:
    """The architecture of folded tensors."""
    return replace(
        model,
        backbone=replace(model.backbone, norm="none"),
        fpn=replace(model.fpn, norm="none"),
        box_head=replace(model.box_head, norm="none"),
        mask_head=replace(model.mask_head, norm="none"),
    )


def _reordered(
    tensors: dict[str, Array], model: ModelConfig, target: Target, notes: list[str]
) -> dict[str, Array]:
    """RPN outputs in the order in which the target lists the anchors of a cell."""
    sizes, ratios = len(model.anchors.sizes[0]), len(model.anchors.ratios)
    if min(sizes, ratios) == 1:
        return tensors
    notes.append(f"RPN outputs are reordered for anchors {target.anchor_order.replace('_', ' ')}")
    outer = (sizes, ratios) if model.conventions.anchor_order == "size_first" else (ratios, sizes)
    changed = {}
    for name in ("rpn.objectness.weight", "rpn.objectness.bias", "rpn.deltas.weight", "rpn.deltas.bias"):
        rows = tensors[name].reshape(*outer, -1)
        changed[name] = rows.swapaxes(0, 1).reshape(tensors[name].shape)
    return tensors | changed
