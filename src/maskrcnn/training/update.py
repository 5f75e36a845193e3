"""One update of the weights: losses forward, gradients back, a step of the optimiser."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn.data.batches import Batch
from maskrcnn.model.losses import Losses
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.model.matching import Targets
from maskrcnn.training.average import Average
from maskrcnn.training.processes import Processes
from maskrcnn.training.recipe import Training

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# An fp16 run begins with overflows until its scale fits; below this scale they are the loss's own.
LEAST_SCALE = 1.0


@dataclass(frozen=True)
class Run:
    """Everything that changes while training, and where it runs."""

    model: MaskRCNN
    optimizer: torch.optim.Optimizer
    average: Average
    scaler: torch.amp.GradScaler
    device: torch.device
    processes: Processes


def start(model: MaskRCNN, training: Training, device: torch.device, processes: Processes) -> Run:
    """A run before its first step; the model moves to the device, its frozen weights learn nothing."""
    model.to(device).to(memory_format=torch.channels_last)
    for name, parameter in model.named_parameters():
        if name.startswith(training.frozen()):
            parameter.requires_grad_(False)
    if processes.count > 1 and device.type in ("cuda", "npu"):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if training.compile:
        model.backbone.compile()
    if training.deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    groups = parameter_groups(model, training)
    optimizer: torch.optim.Optimizer
    if training.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=training.momentum)
    else:
        optimizer = torch.optim.AdamW(groups, fused=device.type in ("cpu", "cuda"))
    scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "fp16")
    return Run(model, optimizer, Average(model, training.average), scaler, device, processes)


def parameter_groups(model: MaskRCNN, training: Training) -> list[dict[str, Any]]:
    """Trunk and rest, each with and without decay; norms and biases are not pulled to zero."""
    groups = []
    for in_trunk in (True, False):
        for decays in (True, False):
            chosen = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
                and name.startswith("backbone.") == in_trunk
                and (parameter.dim() > 1) == decays
            ]
            peak = training.peak_rate() * (training.trunk_rate if in_trunk else 1.0)
            if chosen:
                decay = training.weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": peak, "peak": peak, "weight_decay": decay})
    return groups


def set_mode(model: MaskRCNN, training: Training, settled: bool) -> None:
    """Training mode; when settled, batch norms keep their statistics and `freeze` its weights."""
    model.train()
    if not settled:
        return
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm):
            layer.eval()
    for name, parameter in model.named_parameters():
        if training.freeze and name.startswith(training.freeze):
            parameter.requires_grad_(False)
            parameter.grad = None


def update(run: Run, parts: list[Batch], training: Training, step: int, steps: int) -> Tensor | None:
    """Learn from this process's parts of a batch -> the losses (6,) of the whole batch in all processes.

    None, and no update, where a loss or gradient is not finite.
    """
    share = training.rate_at(step, steps)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak"] * share
    run.optimizer.zero_grad(set_to_none=True)
    found = torch.zeros(6, device=run.device)
    for part in parts:
        losses = _losses(run, part, training, step)
        weights = _weights(run, losses, part, training)
        run.scaler.scale(losses.weighted(weights)).backward()
        found += losses.detached() * torch.stack([*weights.repeat_interleave(2)[:5], weights.new_tensor(0.0)])
    run.processes.add_gradients(run.model.parameters())
    if not _stepped(run, training):
        return None
    run.average.update(run.model)
    found = run.processes.total(found)
    found[5] = found[:5].sum()
    return found


def to_targets(batch: Batch, device: torch.device) -> list[Targets]:
    """The instances of a batch as tensors."""
    return [
        Targets(*(torch.from_numpy(array).to(device) for array in (i.boxes, i.labels, i.masks, i.crowd)))
        for i in batch.instances
    ]


def _losses(run: Run, batch: Batch, training: Training, step: int) -> Losses:
    image = torch.from_numpy(batch.image).to(run.device).float().contiguous(memory_format=torch.channels_last)
    size = torch.from_numpy(batch.size).to(run.device)
    # A generator for each image: what is sampled of it does not depend on which process has it.
    seeds = ((training.seed * 1_000_003 + step) * 4096 + place for place in batch.places)
    generators = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
    dtype = DTYPES[training.precision]
    with torch.autocast(run.device.type, dtype, enabled=dtype != torch.float32):
        return run.model.losses(image, size, to_targets(batch, run.device), generators)


def _weights(run: Run, losses: Losses, part: Batch, training: Training) -> Tensor:
    """What each of the three means of a part counts (3,), so that their sum is the mean of the whole."""
    if training.accumulate > 1:
        return losses.counts.new_full((3,), len(part.images) / training.batch)
    return losses.counts / run.processes.total(losses.counts).clamp(min=1)


def _stepped(run: Run, training: Training) -> bool:
    """Clip and step, unless a gradient is not finite."""
    run.scaler.unscale_(run.optimizer)
    limit = training.clip or math.inf
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), limit)
    finite = math.isfinite(norm)
    if finite:
        run.scaler.step(run.optimizer)
    run.scaler.update()
    return finite


def scale_still_falls(run: Run) -> bool:
    """Whether an overflow is fp16's, which a smaller scale cures, and not the loss's own."""
    return run.scaler.is_enabled() and run.scaler.get_scale() >= LEAST_SCALE
