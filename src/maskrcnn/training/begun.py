"""A training that another tool began, and how a run goes on with it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from maskrcnn.errors import UserError
from maskrcnn.training.initial import load_weights
from maskrcnn.training.loop import State
from maskrcnn.training.update import Run
from maskrcnn.whole_file import shown

# What torch's SGD calls the momentum of a parameter.
BUFFER = "momentum_buffer"


@dataclass(frozen=True)
class Begun:
    """weights, moments: by our names, moments empty where the file has none that belong to its weights.

    step: updates so far, 0 where the file has weights alone. scale: of losses in float16; 0 where there is
    none.
    """

    weights: dict[str, NDArray[Any]]
    moments: dict[str, NDArray[Any]]
    step: int
    scale: float = 0.0


def go_on(
    begun: Begun, path: Path, run: Run, steps: int, says: Callable[[str], None] = lambda words: None
) -> State:
    """Put weights, momentum and step of the file `path` into a run of `steps` before its first step.

    says: is told what the file lacks. Raises UserError where it is of another network or has nothing left.
    """
    if begun.step >= steps:
        raise UserError(
            f"{shown(path)}: is at step {begun.step}, and the run ends at step {steps}",
            hint="give the run more --epochs or --steps",
        )
    restarted = load_weights(run.model, begun.weights, path)
    if restarted:
        says(f"starting anew for these classes: {', '.join(restarted)}")
    if not begun.moments:
        says(f"{shown(path)} has no momentum that belongs to its weights: it begins at zero")
    _set_momentum(begun, path, run)
    run.average.load(run.model.state_dict(), begun.step)
    scaler = run.scaler.state_dict()
    if scaler and begun.scale:
        run.scaler.load_state_dict(scaler | {"scale": begun.scale})
    return State(step=begun.step)


def _set_momentum(begun: Begun, path: Path, run: Run) -> None:
    """Rows of other classes begin at zero, as their weights begin anew."""
    if begun.moments and not isinstance(run.optimizer, torch.optim.SGD):
        raise UserError(
            f"{shown(path)}: has the momentum of SGD, and the run has another optimizer",
            hint="use training.optimizer=sgd",
        )
    for name, parameter in run.model.named_parameters():
        moment = begun.moments.get(name)
        if moment is not None and parameter.requires_grad and parameter.shape == moment.shape:
            buffer = torch.from_numpy(np.array(moment, np.float32)).to(parameter)
            run.optimizer.state[parameter][BUFFER] = buffer
