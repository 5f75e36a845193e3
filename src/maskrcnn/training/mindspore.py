"""MindSpore's checkpoints of a training: weights, momentum and step, read and written."""

import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskrcnn.errors import UserError
from maskrcnn.spec import Spec
from maskrcnn.training.begun import BUFFER, Begun
from maskrcnn.training.recipe import Training, steps_of
from maskrcnn.training.update import Run
from maskrcnn.weights.convert_back import named_tensors
from maskrcnn.weights.mindspore_ckpt import read_mindspore, write_mindspore
from maskrcnn.weights.prepare_back import prepared
from maskrcnn.weights.rewrite import rewrite, rewrite_back
from maskrcnn.weights.sources.mindspore import SOURCE, TABLE
from maskrcnn.weights.targets.mindspore import TARGET
from maskrcnn.weights.training_checkpoint import without_prefix
from maskrcnn.weights.unpickle import Malformed
from maskrcnn.whole_file import shown

Array = NDArray[Any]

MOMENTS = "moments."
TRUNK = "backbone.bottom_up."
# Of a classifier of ImageNet, which a detector does not have.
CLASSIFIER = ("classifier.", "fc.", "end_point.", "head.")
STEP, RATES, MOMENTUM, SCALE = "global_step", "learning_rate", "momentum", "scale_sense"


def read_training(path: Path) -> Begun:
    """A .ckpt of mindspore-lab's training. Raises UserError for any other file."""
    found = _read(path)
    moments = {name.removeprefix(MOMENTS): each for name, each in found.items() if name.startswith(MOMENTS)}
    numbers = {name: each for name, each in found.items() if "." not in name}
    weights = {name: each for name, each in found.items() if "." in name and not name.startswith(MOMENTS)}
    weights, moments = without_prefix(weights), without_prefix(moments)
    if not SOURCE.fingerprint <= weights.keys():
        raise UserError(
            f"{shown(path)}: is not of mindspore-lab's MaskRCNN", hint="name a .ckpt of its training"
        )
    return Begun(
        rewrite(weights, TABLE, str(path)).tensors,
        rewrite(moments, TABLE, str(path)).tensors,
        int(numbers[STEP].reshape(-1)[0]) if STEP in numbers else 0,
        float(numbers[SCALE].reshape(-1)[0]) if SCALE in numbers else 0.0,
    )


def trunk_of(path: Path) -> dict[str, Tensor]:
    """A trunk's tensors by our names without `backbone.`, from a .ckpt of a classifier or a detector."""
    found = {name: each for name, each in _read(path).items() if "." in name and not name.startswith(MOMENTS)}
    found = without_prefix(found)
    if any(name.startswith(TRUNK) for name in found):
        found = {name: each for name, each in found.items() if name.startswith(TRUNK)}
    else:
        found = {f"{TRUNK}{name}": each for name, each in found.items() if not name.startswith(CLASSIFIER)}
    tensors = rewrite(found, TABLE, str(path)).tensors
    return {
        name.removeprefix("backbone."): torch.from_numpy(np.array(each)) for name, each in tensors.items()
    }


def write_training(path: Path, run: Run, spec: Spec, step: int, rates: Array) -> None:
    """Write weights, momentum and step as the .ckpt that their training goes on from.

    rates: float32, the learning rate of every step of the run. Raises UserError where the disk refuses, and
    for a network that MindSpore has no names for.
    """
    TARGET.refuse(spec.model)
    spec = replace(spec, precision="fp32")
    state = {name: each.detach().cpu().numpy() for name, each in run.model.state_dict().items()}
    learnt = {name: each for name, each in run.model.named_parameters() if each.requires_grad}
    moments = {name: np.zeros_like(each) for name, each in state.items()}
    moments |= {name: _momentum(run, each).cpu().numpy() for name, each in learnt.items()}
    named = named_tensors(prepared(state, spec, TARGET), TARGET)
    moved = named_tensors(prepared(moments, spec, TARGET), TARGET)
    theirs = rewrite_back({name: state[name] for name in learnt}, TABLE)
    numbers: dict[str, Any] = {
        SCALE: np.float32(run.scaler.get_scale()),
        STEP: np.array([step], np.int32),
        MOMENTUM: np.float32(run.optimizer.param_groups[0].get("momentum", 0.0)),
        RATES: rates.astype(np.float32),
    }
    write_mindspore(path, named | {f"{MOMENTS}{name}": moved[name] for name in theirs} | numbers)


def checkpoint_name(spec: Spec, epoch: int) -> str:
    """As their training calls its checkpoints: `MaskRCNN_det_resnet50_epoch12_rank0.ckpt`."""
    trunk = spec.model.backbone
    grouped = f"det_resnext{trunk.depth}_{trunk.groups}x{trunk.group_width}d"
    return f"MaskRCNN_{grouped if trunk.groups > 1 else f'det_resnet{trunk.depth}'}_epoch{epoch}_rank0.ckpt"


def rates_of(run: Run, training: Training, steps_per_epoch: int) -> Array:
    """The learning rate of every step (float32), and of one epoch more at the last one, as theirs has it."""
    steps = steps_of(training, steps_per_epoch)
    peak = run.optimizer.param_groups[-1]["peak"]
    shares = [training.rate_at(step, steps) for step in range(steps)]
    return np.array([peak * share for share in shares + shares[-1:] * steps_per_epoch], np.float32)


def _momentum(run: Run, parameter: Tensor) -> Tensor:
    buffer = run.optimizer.state[parameter].get(BUFFER) if parameter in run.optimizer.state else None
    return torch.zeros_like(parameter) if buffer is None else buffer.detach()


def _read(path: Path) -> dict[str, Any]:
    """Every tensor of the file, of the training as well, as views of it."""
    try:
        with path.open("rb") as file:
            return read_mindspore(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), training=True)
    except OSError as error:
        raise UserError(
            f"{shown(path)}: cannot be read ({error.strerror})", hint="name a .ckpt of their training"
        ) from error
    except (Malformed, ValueError) as error:
        raise UserError(
            f"{shown(path)}: is no MindSpore checkpoint, cut short or damaged ({error})",
            hint="name a .ckpt of their training",
        ) from error
