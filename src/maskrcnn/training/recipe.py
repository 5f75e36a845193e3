"""How to train: every setting of a run, and what follows from them."""

from dataclasses import dataclass, field
from typing import Literal

from maskrcnn.data.augment import Augment
from maskrcnn.errors import UserError
from maskrcnn.training.schedule import Schedule, WarmUp, factor


@dataclass(frozen=True)
class Training:
    """How a run learns.

    steps: updates of the weights; 0 for `epochs` passes over the images instead.
    epochs: passes over the images, where steps is 0.
    batch: images of one update, over all processes.
    accumulate: parts in which each process computes its share of a batch, to save memory; losses are then
        means over images and not over samples.
    optimizer: stochastic gradient descent with momentum, or AdamW.
    learning_rate: peak for heads and pyramid at `base_batch` images.
    base_batch: the rate is scaled by batch / base_batch (Goyal et al. 2017); 0 takes it as it is.
    trunk_rate: the trunk's rate as a share of that of the heads.
    weight_decay: of weights; norms and biases have none.
    schedule: half a cosine, steps, or a hold that falls to 0 over the last 40 % of the run.
    milestones: shares of the run after which `steps` lowers the rate (2/3 and 8/9 in Detectron).
    drop: what `steps` multiplies the rate by there.
    warm_up: steps of a straight line to the peak; at most a tenth of the run.
    warm_up_from: share of the peak at which that line begins.
    warm_up_shape: `linear` for that line, `constant` for its beginning during all of the warm-up.
    clip: largest norm of all gradients together; 0 for any.
    average: decay of the mean of weights that is evaluated and written; 0 for the last weights themselves.
    precision: `bf16` and `fp16` compute convolutions and matrices in 16 bits; losses and boxes are always
        float32.
    freeze_at: stages of the trunk that keep their weights: 0 none, 1 the stem, 2 stem and res2 and so on.
    freeze_from: share of the run after which batch norms keep their statistics, and `freeze` its weights.
    freeze: beginnings of the names of layers that learn no more from then on.
    shorts: short sides in network pixels by equal parts of the run, one of a part's is drawn for each batch;
        empty for the model's own size.
    negatives: images without instances: all, none, or a share of them.
    repeat: images with classes in less than this share of the images come more often (LVIS); 0 for never.
    threads: that prepare batches.
    ahead: batches that are prepared before their use; 0 for twice the threads.
    ahead_mb: most memory of these in MB, but for one batch; 0 for any.
    log_every: steps between lines of metrics.jsonl.
    save_every: steps between checkpoints; 0 for one after each pass over the images.
    evaluate_every: steps between evaluations; 0 for ten in the run.
    patience: evaluations without a better average precision after which the run ends; 0 for never.
    keep: how many last checkpoints stay.
    bad_steps: how many steps in a row may have a loss that is no number before the run ends.
    compile: compile the trunk with torch.
    deterministic: only algorithms that repeat bit by bit.
    seed: of the order of images, their views, the samples and new layers.
    """

    steps: int = 0
    epochs: float = 12.0
    batch: int = 2
    accumulate: int = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.02
    base_batch: int = 16
    momentum: float = 0.9
    trunk_rate: float = 1.0
    weight_decay: float = 1e-4
    schedule: Schedule = "cosine"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)
    drop: float = 0.1
    warm_up: int = 500
    warm_up_from: float = 0.0
    warm_up_shape: WarmUp = "linear"
    clip: float = 10.0
    average: float = 0.999
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    freeze_at: int = 0
    freeze_from: float = 0.8
    freeze: tuple[str, ...] = ()
    shorts: tuple[tuple[int, ...], ...] = ()
    augment: Augment = field(default_factory=Augment)
    negatives: Literal["all", "none"] | float = "all"
    repeat: float = 0.0
    threads: int = 2
    ahead: int = 0
    ahead_mb: float = 0.0
    log_every: int = 20
    save_every: int = 250
    evaluate_every: int = 0
    patience: int = 0
    keep: int = 1
    bad_steps: int = 10
    compile: bool = False
    deterministic: bool = False
    seed: int = 0

    def peak_rate(self) -> float:
        """The learning rate of heads and pyramid at its highest."""
        return self.learning_rate * (self.batch / self.base_batch if self.base_batch else 1.0)

    def frozen(self) -> tuple[str, ...]:
        """Beginnings of the names of weights that are never changed."""
        stages = ("backbone.stem.", "backbone.res2.", "backbone.res3.", "backbone.res4.", "backbone.res5.")
        return stages[: self.freeze_at]

    def rate_at(self, step: int, steps: int) -> float:
        """The share of the peak with which a step of a run learns."""
        return factor(
            self.schedule,
            step,
            steps,
            self.warm_up_of(steps),
            self.milestones,
            self.warm_up_from,
            self.drop,
            self.warm_up_shape,
        )

    def warm_up_of(self, steps: int) -> int:
        """No more than a tenth of a short run."""
        return max(1, min(self.warm_up, steps // 10))


def check(training: Training, images: int, processes: int) -> None:
    """Raises UserError for settings that cannot work together."""
    needed = processes * training.accumulate
    if images == 0:
        raise UserError("there is no image to learn from", hint="`maskrcnn data check` tells why")
    if training.batch < max(1, needed):
        raise UserError(
            f"training.batch is {training.batch}, for {processes} processes of {training.accumulate} parts",
            hint=f"use {needed} or more",
        )
    if training.steps < 0 or training.epochs <= 0:
        raise UserError(
            f"training.steps is {training.steps} and epochs {training.epochs:g}", hint="use positive numbers"
        )
    if not 0 <= training.average < 1:
        raise UserError(f"training.average is {training.average:g}", hint="use 0, or 0.9 to 0.9999")


def steps_of(training: Training, steps_per_epoch: int) -> int:
    """Updates in the run."""
    return training.steps or max(1, round(training.epochs * steps_per_epoch))
