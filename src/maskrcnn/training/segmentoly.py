"""Checkpoints of segmentoly's training engine: weights, momentum and step."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.errors import UserError
from maskrcnn.training.begun import BUFFER, Begun
from maskrcnn.weights.readers import read_checkpoint
from maskrcnn.weights.recognise import recognise
from maskrcnn.weights.rewrite import rewrite
from maskrcnn.weights.sources.segmentoly import SOURCE
from maskrcnn.whole_file import shown

Array = NDArray[Any]

STEP, OPTIMIZER = "step", "optimizer"
# What is saved beside weights and learns nothing.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "prior_boxes")
# Stages that every network of its model zoo freezes.
FROZEN = ("backbone.stages.stage_0.", "backbone.stages.stage_1.", "data_normalizer.")
# Norms of a trunk; batch norms there are constants.
TRUNK_NORMS = (".bn1.", ".bn2.", ".bn3.", ".downsample.1.")


def is_training(path: Path) -> bool:
    """Whether a checkpoint is of a training, with its step. Raises UserError for what is no checkpoint."""
    meta = read_checkpoint(path).meta
    return isinstance(meta.get(OPTIMIZER), dict) and isinstance(meta.get(STEP), int)


def read_training(path: Path) -> Begun:
    """A `model_step_N.pth` of segmentoly. Raises UserError for any other file."""
    checkpoint = read_checkpoint(path)
    tensors = checkpoint.tensors
    if not SOURCE.fingerprint <= tensors.keys() or not isinstance(checkpoint.meta.get(STEP), int):
        raise UserError(
            f"{shown(path)}: is not of segmentoly's training",
            hint="name a model_step_N.pth of its `ckpt` folder",
        )
    table = recognise(tensors, str(path)).table
    moments = buffers_by_name(tensors, checkpoint.meta.get(OPTIMIZER))
    return Begun(
        rewrite(tensors, table, str(path)).tensors,
        rewrite(moments, table, str(path)).tensors,
        checkpoint.meta[STEP],
    )


def buffers_by_name(tensors: Mapping[str, Array], optimizer: Any) -> dict[str, Array]:
    """SGD's buffers by the names of the weights that they belong to; none unless every shape agrees.

    tensors: the state dict in its order. optimizer: its `state_dict()`: weights, biases and norms of groups,
    numbered; before Python 3.6 their order was not that of the names, which shapes tell.
    """
    try:
        numbers = [list(group["params"]) for group in optimizer["param_groups"]]
        state = {number: entry.get(BUFFER) for number, entry in optimizer["state"].items()}
    except (TypeError, KeyError, AttributeError):
        return {}
    if len(numbers) != 3:
        return {}
    found: dict[str, Array] = {}
    for group, names in zip(numbers, _groups(tensors, norms_apart=bool(numbers[2])), strict=True):
        if len(group) != len(names):
            return {}
        for number, name in zip(group, names, strict=True):
            buffer = state.get(number)
            if not isinstance(buffer, np.ndarray):
                continue
            if buffer.shape != tensors[name].shape:
                return {}
            found[name] = buffer
    return found


def _groups(tensors: Mapping[str, Array], norms_apart: bool) -> tuple[list[str], list[str], list[str]]:
    """Names of what learns, as its engine sorts them: weights, biases, weights of group norms."""
    learnt = list(_learnt(tensors))
    norms = [name for name in learnt if norms_apart and "bias" not in name and tensors[name].ndim == 1]
    biases = [name for name in learnt if "bias" in name]
    rest = [name for name in learnt if name not in {*norms, *biases}]
    return rest, biases, norms


def _learnt(tensors: Mapping[str, Array]) -> Iterator[str]:
    # A trunk of group norms has no statistics.
    constant = "backbone.stages.stage_0.bn1.running_mean" in tensors
    for name in tensors:
        norm = constant and name.startswith("backbone.") and any(place in name for place in TRUNK_NORMS)
        if not name.endswith(STATISTICS) and not name.startswith(FROZEN) and not norm:
            yield name
