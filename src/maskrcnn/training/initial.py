"""Starting weights: random ones by the rules of the papers, and a trunk that was taught before."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.predict import model_path
from maskrcnn.presets import ARCHITECTURES
from maskrcnn.spec import Classes, Origin, Spec
from maskrcnn.training.checkpoint import load_checkpoint
from maskrcnn.weights.model_file import read_model_file
from maskrcnn.weights.readers import Checkpoint
from maskrcnn.weights.source import Source
from maskrcnn.weights.sources import segmentoly
from maskrcnn.weights.sources.mindspore import SOURCE

# Begins the name of an architecture with random weights.
SCRATCH = "scratch:"
# Between that and an architecture: segmentoly's network of it.
SEGMENTOLY = "segmentoly/"
# Of batch norms that learn; where the norms of a file are constants they start at zero, and where those of
# the model are they are left out.
COUNTER = ".num_batches_tracked"
# The layers with rows for every class.
PREDICTORS = ("box_head.scores.", "box_head.deltas.", "mask_head.logits.")


def starting(model: str) -> tuple[Spec, dict[str, np.ndarray]]:
    """What `--model` names: a description, and its weights; none for `scratch:r50-fpn` and the like.

    `scratch:mindspore` is the R50-FPN of mindspore-lab, `scratch:segmentoly/NAME` an architecture with the
    anchors, the input and the numbers of segmentoly. Norms of random networks learn.
    """
    if not model.startswith(SCRATCH):
        return read_model_file(model_path(model))
    name = model.removeprefix(SCRATCH)
    if name == "mindspore":
        found = _described(SOURCE, ModelConfig())
    elif name.startswith(SEGMENTOLY) and name.removeprefix(SEGMENTOLY) in ARCHITECTURES:
        found = _described(segmentoly.SOURCE, ARCHITECTURES[name.removeprefix(SEGMENTOLY)])
    elif name in ARCHITECTURES:
        found = Spec(ARCHITECTURES[name])
    else:
        known = ", ".join((*ARCHITECTURES, "mindspore", f"{SEGMENTOLY}NAME"))
        raise UserError(f"--model {model}: is no architecture", hint=f"choose {known}")
    trunk = found.model.backbone
    norm = "bn" if trunk.norm == "frozen_bn" else trunk.norm
    return replace(found, model=replace(found.model, backbone=replace(trunk, norm=norm))), {}


def _described(source: Source, model: ModelConfig) -> Spec:
    """A source's network before it has learnt anything."""
    return source.describe(model, Checkpoint(Path(source.name), "", "", {}, {}), None, None).spec


def for_classes(spec: Spec, classes: Classes) -> Spec:
    """The same model for other classes, its weights made here and stored in float32."""
    model = replace(spec.model, classes=len(classes))
    return replace(
        spec, model=model, classes=classes, precision="fp32", origin=Origin(tool_version=version("maskrcnn"))
    )


def initialise(model: MaskRCNN) -> None:
    """He et al. 2015 for layers before a ReLU; predictors start near zero, for small first losses.

    Random numbers are those of torch's global generator.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        if name in ("box_head.scores", "rpn.objectness", "rpn.deltas") or name.startswith("rpn.conv"):
            nn.init.normal_(layer.weight, std=0.01)
        elif name.endswith(".offset"):
            nn.init.zeros_(layer.weight)  # a deformable convolution begins as an ordinary one
        elif name == "box_head.deltas":
            nn.init.normal_(layer.weight, std=0.001)
        elif name.startswith("fpn.") or isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        else:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def load_trunk(model: MaskRCNN, path: Path) -> None:
    """Put the trunk that trunk.py or MindSpore taught into the model.

    Raises UserError where it is another trunk.
    """
    if path.suffix == ".ckpt":
        from maskrcnn.training.mindspore import trunk_of  # it imports this module

        own = model.backbone.state_dict()
        state = {
            "backbone": {name: each for name, each in own.items() if name.endswith(COUNTER)} | trunk_of(path)
        }
    else:
        state = load_checkpoint(path)
    if "backbone" not in state:
        raise UserError(f"{path}: holds no trunk", hint="name the trunk.pt of a trunk run")
    try:
        model.backbone.load_state_dict(state["backbone"])
    except RuntimeError as error:
        raise UserError(
            f"{path}: is a trunk of another shape ({str(error).splitlines()[-1].strip()})",
            hint="train the trunk with the model's own `backbone` settings",
        ) from error


def load_weights(model: MaskRCNN, state: dict[str, np.ndarray], place: Path) -> list[str]:
    """Put the tensors of a model file into a model of the same architecture.

    Predictors for another number of classes keep their random start; -> the names of these tensors.
    """
    own = model.state_dict()
    compared = [name for name in own if name in state or not name.endswith(COUNTER)]
    other = [name for name in compared if name not in state or own[name].shape != state[name].shape]
    restarted = [name for name in other if name in state and name.startswith(PREDICTORS)]
    beyond = sorted(name for name in state.keys() - own.keys() if not name.endswith(COUNTER))
    unknown = sorted(set(other) - set(restarted)) + beyond
    if unknown:
        raise UserError(
            f"{place}: {unknown[0]} does not fit the model that it describes", hint="convert the model again"
        )
    # A copy, because values may be views of a mapped file.
    kept = {
        name: torch.from_numpy(np.array(each))
        for name, each in state.items()
        if name in own and name not in restarted
    }
    model.load_state_dict(own | kept)
    return restarted
