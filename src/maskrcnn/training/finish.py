"""From trained weights to the model file that is shipped."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from maskrcnn.config import ModelConfig, Norm
from maskrcnn.spec import Spec
from maskrcnn.weights.model_file import write_model_file


def write_trained(path: Path, spec: Spec, state: dict[str, Tensor]) -> Path:
    """Write a model file whose batch norms are constants, in the precision that `spec` names."""
    arrays = {
        name: values.float().cpu().numpy() for name, values in with_constant_norms(spec.model, state).items()
    }
    write_model_file(path, replace(spec, model=frozen(spec.model)), arrays)
    return path


def frozen(model: ModelConfig) -> ModelConfig:
    """The same model with `frozen_bn` in place of every `bn`."""
    return replace(
        model,
        backbone=replace(model.backbone, norm=_frozen(model.backbone.norm)),
        fpn=replace(
            model.fpn,
            norm=_frozen(model.fpn.norm),
            bottom_up=model.fpn.bottom_up and _frozen(model.fpn.bottom_up),
        ),
        box_head=replace(model.box_head, norm=_frozen(model.box_head.norm)),
        mask_head=replace(model.mask_head, norm=_frozen(model.mask_head.norm)),
    )


def with_constant_norms(model: ModelConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Statistics multiplied into weight and bias of each batch norm.

    What is left, mean 0 and variance 1, is exact in fp16, where a small variance would lose its digits.
    """
    eps = {
        "backbone": model.backbone.norm_eps,
        "res5": model.backbone.norm_eps,
        "fpn": model.fpn.norm_eps,
        "box_head": model.box_head.norm_eps,
        "mask_head": model.mask_head.norm_eps,
    }
    state = {name: values for name, values in state.items() if not name.endswith("num_batches_tracked")}
    for name in [name.removesuffix(".running_var") for name in state if name.endswith(".running_var")]:
        weight, bias, mean, var = (
            state[f"{name}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        of_part = eps[name.split(".")[0]]
        scale = weight / (var + of_part).sqrt()
        state[f"{name}.weight"] = scale * (1 + of_part) ** 0.5
        state[f"{name}.bias"] = bias - mean * scale
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = (
            torch.zeros_like(mean),
            torch.ones_like(var),
        )
    return state


def _frozen(norm: Norm) -> Norm:
    return "frozen_bn" if norm == "bn" else norm
