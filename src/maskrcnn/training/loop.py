"""The training loop: batches in, losses down, complete checkpoints and a model file out."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from maskrcnn.data.batches import Batch, BatchMaker, in_threads
from maskrcnn.data.dataset import Dataset
from maskrcnn.data.sampling import without_negatives
from maskrcnn.errors import UserError
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.spec import Spec, spec_from_json
from maskrcnn.training.checkpoint import keep_last, load_checkpoint, save_checkpoint
from maskrcnn.training.finish import write_trained
from maskrcnn.training.processes import Processes
from maskrcnn.training.progress import Line, Log, Silent, Watch, Window, memory
from maskrcnn.training.recipe import Training, check, steps_of
from maskrcnn.training.update import Run, scale_still_falls, set_mode, start, update
from maskrcnn.training.validation import Judged, Validation, judge, precision_of

CHECKPOINT, FINAL, BEST = "checkpoint.pt", "model.safetensors", "best.safetensors"


@dataclass
class State:
    """How far a run is. best: its highest average precision, and the step that reached it.

    poor: evaluations since then. bad: steps in a row whose loss was no number. settled: the network's mode.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    poor: int = 0
    bad: int = 0
    settled: bool | None = None
    window: Window = field(default_factory=Window)


@dataclass(frozen=True)
class Extras:
    """What else a run does; all is called by the first process only, but for `begin`.

    begin: how a run that has no checkpoint of its own starts, as from another tool's; raises UserError.
    saved: after every checkpoint, with the steps of a pass over the images.
    """

    begin: Callable[[Run, int], State] | None = None
    saved: Callable[[Run, Spec, State, int], None] | None = None


@dataclass(frozen=True)
class Trained:
    """path: the model file of the end, of averaged weights. best: that of the best evaluation, if any.

    judged: the last evaluation.
    """

    path: Path
    best: Path | None
    judged: Judged | None


def train(
    model: MaskRCNN,
    spec: Spec,
    dataset: Dataset,
    training: Training,
    out: Path,
    device: torch.device,
    validation: Validation | None = None,
    processes: Processes | None = None,
    watch: Watch | None = None,
    extras: Extras | None = None,
) -> Trained:
    """Train `model` in place, continuing what `out` holds.

    Ctrl-C saves a checkpoint before it ends the run; the same call goes on, also with another `steps`.
    """
    processes, watch, extras = processes or Processes(), watch or Silent(), extras or Extras()
    dataset = without_negatives(dataset, training.negatives, training.seed)
    check(training, len(dataset), processes.count)
    maker = _maker(dataset, spec, training)
    out.mkdir(parents=True, exist_ok=True)
    run = start(model, training, device, processes)
    state = restore(out / CHECKPOINT, run, spec)
    if extras.begin is not None and not (out / CHECKPOINT).exists():
        state = extras.begin(run, maker.steps_per_epoch)
    judged = None

    def keep() -> None:
        save(out, run, spec, state, training)
        if extras.saved is not None and processes.is_first:
            extras.saved(run, spec, state, maker.steps_per_epoch)

    with Log(out, state.step) if processes.is_first else nullcontext() as log:
        if processes.is_first:
            watch.begins(state.step, maker.steps)
        try:
            for step, parts in _batches(maker, training, processes, state):
                _learn(run, parts, maker, training, step, state, watch)
                if log is not None:
                    _tell(run, log, watch, training, maker.steps, state)
                if validation is not None and _is_due(training, maker.steps, state.step):
                    judged = _evaluate(run, spec, validation, out, state, log, watch) or judged
                    if training.patience and state.poor >= training.patience:
                        watch.says(f"no better for {state.poor} evaluations: the run ends")
                        break
                often = training.save_every or maker.steps_per_epoch
                if state.step % often == 0 and state.step < maker.steps:
                    keep()
        except KeyboardInterrupt:
            keep()
            raise
        keep()
    if processes.is_first:
        write_trained(out / FINAL, spec, run.average.state)
    processes.wait()
    best = out / BEST
    return Trained(out / FINAL, best if best.exists() else None, judged)


def _maker(dataset: Dataset, spec: Spec, training: Training) -> BatchMaker:
    maker = BatchMaker(
        dataset,
        spec.preprocess,
        training.augment,
        training.batch,
        training.shorts,
        seed=training.seed,
        repeat=training.repeat,
    )
    return replace(maker, steps=steps_of(training, maker.steps_per_epoch))


def _batches(
    maker: BatchMaker, training: Training, processes: Processes, state: State
) -> Iterator[tuple[int, list[Batch]]]:
    """This process's parts of the batch of every step that is left, made in threads ahead of their use."""

    def parts_of(step: int) -> list[Batch]:
        mine = range(len(maker.chosen(step)))[processes.rank :: processes.count]
        pieces = [mine[start :: training.accumulate] for start in range(training.accumulate)]
        return [maker.part(step, piece) for piece in pieces if piece]

    steps = range(state.step, maker.steps)
    ahead, room = training.ahead or 2 * training.threads, training.ahead_mb * 1e6 or math.inf
    batches = in_threads(parts_of, steps, training.threads, ahead, _memory, room)
    for step in steps:
        asked = time.monotonic()
        parts = next(batches)
        state.window.waited += time.monotonic() - asked
        yield step, parts


def _memory(parts: list[Batch]) -> float:
    return sum(part.nbytes for part in parts)


def _learn(
    run: Run,
    parts: list[Batch],
    maker: BatchMaker,
    training: Training,
    step: int,
    state: State,
    watch: Watch,
) -> None:
    """One step; a loss that is no number is skipped, said with its images, and ends the run if it stays."""
    settled = step >= training.freeze_from * maker.steps
    if state.settled is not settled:
        set_mode(run.model, training, settled)
        state.settled = settled
    losses = update(run, parts, training, step, maker.steps)
    state.step = step + 1
    if losses is not None:
        state.bad = 0
        state.window.losses.append(losses)
        state.window.timed += 1
        return
    if scale_still_falls(run):
        return
    state.bad += 1
    names = ", ".join(str(maker.dataset.files[row]) for row in maker.chosen(step)[:8])
    if run.processes.is_first:
        watch.says(f"step {step}: the loss is not a number and was skipped; its images: {names}")
    if state.bad > training.bad_steps:
        raise UserError(
            f"step {step}: the loss is not a number, {state.bad} steps in a row, the last on {names}",
            hint="lower the learning rate, or look at these images with `maskrcnn data view`",
        )


def _tell(run: Run, log: Log, watch: Watch, training: Training, steps: int, state: State) -> None:
    if not state.window.losses or (state.step % training.log_every and state.step != steps):
        return
    line: Line = {"step": state.step} | state.window.summary(training.batch)
    line |= {"learning_rate": run.optimizer.param_groups[-1]["lr"], "memory_gb": memory(run.device)}
    log.write(line)
    watch.line(line, steps)
    state.window = Window()


def _is_due(training: Training, steps: int, step: int) -> bool:
    every = training.evaluate_every or max(1, -(-steps // 10))
    return step % every == 0 or step == steps


def _evaluate(
    run: Run,
    spec: Spec,
    validation: Validation,
    out: Path,
    state: State,
    log: Log | None,
    watch: Watch,
) -> Judged | None:
    """Measure the averaged weights; the best so far are written as a model file."""
    began = time.monotonic()
    judged = judge(spec, run.average.state, validation, run.device, run.processes)
    (found,) = set(run.processes.gathered(None if judged is None else precision_of(judged.metrics))) - {None}
    better = found > state.best
    state.poor = 0 if better else state.poor + 1
    if better:
        state.best, state.best_step = found, state.step
    if judged is not None and log is not None:
        numbers = judged.metrics.numbers()
        line: Line = {"step": state.step}
        line |= {name: None if math.isnan(value) else round(value, 5) for name, value in numbers.items()}
        log.write(line)
        watch.line(line, 0)
        for name, picture in judged.pictures.items():
            log.picture(name, picture, state.step)
        if better:
            write_trained(out / BEST, spec, run.average.state)
    state.window.began += time.monotonic() - began
    return judged


def save(out: Path, run: Run, spec: Spec, state: State, training: Training) -> None:
    """Batches and samples follow from seed and step; everything else that goes on is in the file."""
    if not run.processes.is_first:
        return
    values: dict[str, Any] = {
        "step": state.step,
        "best": state.best,
        "best_step": state.best_step,
        "poor": state.poor,
        "bad": state.bad,
        "window": torch.stack(state.window.losses).cpu() if state.window.losses else torch.zeros(0, 6),
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "average": run.average.state,
        "average_steps": run.average.steps,
        "spec": spec.to_json(),
    }
    save_checkpoint(out / CHECKPOINT, values)
    keep_last(out / CHECKPOINT, state.step, training.keep)


def restore(checkpoint: Path, run: Run, spec: Spec) -> State:
    """The state of a run that goes on; a new one where there is no checkpoint."""
    if not checkpoint.exists():
        return State()
    values = load_checkpoint(checkpoint)
    # Read, not compared as text: a later version may know settings that this run has at their defaults.
    if spec_from_json(values["spec"], checkpoint) != spec_from_json(spec.to_json(), checkpoint):
        raise UserError(
            f"{checkpoint}: is of another model than the one that is to be trained",
            hint="resume with the same settings, or name another --out",
        )
    run.model.load_state_dict(values["model"])
    peaks = [(group["peak"], group["weight_decay"]) for group in run.optimizer.param_groups]
    run.optimizer.load_state_dict(values["optimizer"])
    for group, (peak, decay) in zip(run.optimizer.param_groups, peaks, strict=True):
        group["peak"], group["weight_decay"] = peak, decay
    run.scaler.load_state_dict(values["scaler"])
    run.average.load(values["average"], values["average_steps"])
    window = Window(losses=[row.to(run.device) for row in values["window"]])
    return State(
        values["step"], values["best"], values["best_step"], values["poor"], values["bad"], window=window
    )
