"""The training loop: batches in, losses down, complete checkpoints and one model file out."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import torch
from torch import Tensor, nn

from maskrcnn.data.augment import Augment
from maskrcnn.data.batches import Batch, BatchMaker, in_threads
from maskrcnn.data.coco import Dataset
from maskrcnn.errors import UserError
from maskrcnn.model.losses import LOSS_NAMES, Losses
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.model.matching import Targets
from maskrcnn.spec import Spec
from maskrcnn.training.average import Average
from maskrcnn.training.checkpoint import load_checkpoint, save_checkpoint
from maskrcnn.training.finish import write_trained
from maskrcnn.training.schedule import Schedule, factor

MOST_BAD_STEPS = 10


@dataclass(frozen=True)
class Training:
    """How to train.

    learning_rate: peak for heads and pyramid; the trunk gets `trunk_rate` times that.
    clip: largest norm of all gradients together. average: decay of the mean of weights that is written.
    precision: `bf16` computes convolutions and matrices in bfloat16; losses and boxes are always float32.
    freeze_from: share of the run after which batch norms keep their statistics, and layers whose names begin
        with one of `freeze` their weights.
    shorts: short sides in network pixels by equal parts of the run, one of a part's is drawn for each batch;
        empty for the model's own size.
    """

    steps: int = 1000
    batch: int = 2
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.0025
    trunk_rate: float = 1.0
    weight_decay: float = 1e-4
    schedule: Schedule = "cosine"
    warm_up: int = 100
    clip: float = 10.0
    average: float = 0.999
    precision: Literal["fp32", "bf16"] = "bf16"
    freeze_from: float = 0.8
    freeze: tuple[str, ...] = ()
    shorts: tuple[tuple[int, ...], ...] = ()
    augment: Augment = field(default_factory=Augment)
    threads: int = 2
    log_every: int = 20
    save_every: int = 250
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """Everything that changes while training; `step` is how many steps are done, stored in the checkpoint."""

    model: MaskRCNN
    optimizer: torch.optim.Optimizer
    average: Average
    device: torch.device


def train(
    model: MaskRCNN, spec: Spec, dataset: Dataset, training: Training, out: Path, device: torch.device
) -> Path:
    """Train `model` in place, continuing what `out` holds; -> the model file, made of the averaged weights.

    Ctrl-C saves a checkpoint before it ends the run. The same call goes on, also with another `steps`.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, final = out / "checkpoint.pt", out / "model.safetensors"
    run = _start(model, training, device)
    step = _restore(checkpoint, run, spec) if checkpoint.exists() else 0
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as log:
        try:
            while step < training.steps:
                end = min(training.steps, step + training.save_every)
                for done in _steps(run, spec, dataset, training, step, end, log):
                    step = done
                _save(checkpoint, run, spec, step)
        except KeyboardInterrupt:
            _save(checkpoint, run, spec, step)
            raise
    return write_trained(final, spec, run.average.state)


def to_targets(batch: Batch, device: torch.device) -> list[Targets]:
    """The instances of a batch as tensors."""
    return [
        Targets(*(torch.from_numpy(array).to(device) for array in (i.boxes, i.labels, i.masks, i.crowd)))
        for i in batch.instances
    ]


def _start(model: MaskRCNN, training: Training, device: torch.device) -> Run:
    model.to(device).to(memory_format=torch.channels_last)
    groups = _parameter_groups(model, training)
    optimizer: torch.optim.Optimizer
    if training.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(groups, fused=device.type in ("cpu", "cuda"))
    return Run(model, optimizer, Average(model, training.average), device)


def _parameter_groups(model: MaskRCNN, training: Training) -> list[dict[str, Any]]:
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
            peak = training.learning_rate * (training.trunk_rate if in_trunk else 1.0)
            if chosen:
                decay = training.weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": peak, "peak": peak, "weight_decay": decay})
    return groups


def _steps(
    run: Run, spec: Spec, dataset: Dataset, training: Training, start: int, end: int, log: TextIO
) -> Iterator[int]:
    """Steps `start` to `end`; yields the number of steps done after each."""
    maker = BatchMaker(
        dataset,
        spec.preprocess,
        training.augment,
        training.batch,
        training.shorts,
        training.steps,
        training.seed,
    )
    batches = in_threads(maker, range(start, end), training.threads, ahead=2 * training.threads)
    _set_mode(run.model, training, settled=start >= training.freeze_from * training.steps)
    window, bad = Window(training.batch), 0
    for step in range(start, end):
        asked = time.monotonic()
        batch = next(batches)
        window.waited += time.monotonic() - asked
        losses = _one_step(run, batch, training, step)
        bad = 0 if losses else bad + 1
        if bad > MOST_BAD_STEPS:
            raise UserError(
                f"step {step}: the loss is not a number, {bad} steps in a row", hint="lower the learning rate"
            )
        if losses:
            window.losses.append(losses.detached())
        yield step + 1
        if window.losses and ((step + 1) % training.log_every == 0 or step + 1 == end):
            rate = {"learning_rate": run.optimizer.param_groups[-1]["lr"]}
            log.write(json.dumps({"step": step + 1} | window.summary() | rate) + "\n")
            log.flush()
            window = Window(training.batch)


@dataclass
class Window:
    """What happened since the last line of the log. waited: seconds in which the network had no batch."""

    batch: int
    began: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    losses: list[Tensor] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Mean losses, images a second and the share of time without a batch."""
        seconds = time.monotonic() - self.began
        means = torch.stack(self.losses).mean(0).tolist()
        return {
            **{name: round(mean, 4) for name, mean in zip(LOSS_NAMES, means, strict=True)},
            "images_per_second": round(len(self.losses) * self.batch / seconds, 2),
            "data_wait": round(self.waited / seconds, 3),
        }


def _one_step(run: Run, batch: Batch, training: Training, step: int) -> Losses | None:
    """Forward, backward, update; None and no update where a loss or gradient is not finite."""
    share = factor(training.schedule, step, training.steps, training.warm_up)
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak"] * share
    image = torch.from_numpy(batch.image).to(run.device).float().contiguous(memory_format=torch.channels_last)
    size = torch.from_numpy(batch.size).to(run.device)
    generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=training.precision == "bf16"):
        losses = run.model.losses(image, size, to_targets(batch, run.device), generator)
    run.optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), training.clip)
    if not math.isfinite(norm):
        return None
    run.optimizer.step()
    run.average.update(run.model)
    return losses


def _set_mode(model: MaskRCNN, training: Training, settled: bool) -> None:
    model.train()
    if not settled:
        return
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    for name, parameter in model.named_parameters():
        if name.startswith(training.freeze):
            parameter.requires_grad_(False)
            parameter.grad = None


def _save(checkpoint: Path, run: Run, spec: Spec, step: int) -> None:
    """Batches and samples follow from seed and step: weights, optimiser, mean and step are all there is."""
    state: dict[str, Any] = {
        "step": step,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "average": run.average.state,
        "average_steps": run.average.steps,
        "spec": spec.to_json(),
    }
    save_checkpoint(checkpoint, state)


def _restore(checkpoint: Path, run: Run, spec: Spec) -> int:
    state = load_checkpoint(checkpoint)
    if state["spec"] != spec.to_json():
        raise UserError(
            f"{checkpoint}: is of another model than the one that is to be trained",
            hint="resume with the same settings, or name another --out",
        )
    run.model.load_state_dict(state["model"])
    peaks = [group["peak"] for group in run.optimizer.param_groups]
    run.optimizer.load_state_dict(state["optimizer"])
    for group, peak in zip(run.optimizer.param_groups, peaks, strict=True):
        group["peak"] = peak
    average: dict[str, Tensor] = state["average"]
    run.average.load(average, state["average_steps"])
    return int(state["step"])
