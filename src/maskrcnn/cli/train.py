"""`maskrcnn train`: annotated pictures become a model file."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrcnn.cli.network import Offline
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.compat.mindspore_recipe import Translation
    from maskrcnn.data.content import Content
    from maskrcnn.spec import Spec
    from maskrcnn.storage import Mirror
    from maskrcnn.training.loop import Trained
    from maskrcnn.training.progress import Line, Watch
    from maskrcnn.training.run_file import RunFile

DATA = (
    "Annotations: COCO, VIA or CVAT file, YOLO data.yaml, or a folder of COCO, labelme, VOC or label images."
)

MINDSPORE_CONFIG = (
    "YAML configuration of mindspore-lab's RCNN; --data is its dataset_dir, other options come after it."
)
MINDSPORE_RESUME = "MindSpore .ckpt of a training to go on from: weights, momentum and step."
EXACT = "With --mindspore-config: repeat what its code does otherwise than the configuration says."

LOSSES = ("rpn_objectness", "rpn_deltas", "box_classes", "box_deltas", "mask", "total")


def train(
    run_file: Annotated[
        Path | None, typer.Argument(metavar="RUN.yaml", help="Settings of the run; options come after it.")
    ] = None,
    data: Annotated[str | None, typer.Option(help=DATA)] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder or URL of the run: checkpoints, metrics, report, model files.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model file to start from, `example` (when left out), zoo:NAME or scratch:NAME."),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="Folder of the pictures; `images` beside the annotations when left out."),
    ] = None,
    val: Annotated[
        str | None, typer.Option(help="Annotations to evaluate on; when left out, a fifth of the data.")
    ] = None,
    val_images: Annotated[str | None, typer.Option(help="Folder of the pictures of --val.")] = None,
    val_share: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share held out without --val; 0 for none.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of the weights.", min=1)] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the images, in place of steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images of an update.", min=1)] = None,
    rate: Annotated[
        float | None, typer.Option("--lr", help="Peak learning rate at a batch of 16; 0.02.", min=0)
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps, xpu, npu.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any setting: training.clip=5, preprocess.short=480, model.rpn.post_nms=500."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings to begin with: segmentoly or segmentoly-0050.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that the folder holds.")
    ] = False,
    local: Annotated[
        str | None, typer.Option(help="Folder for local copies of what is a URL; the cache when left out.")
    ] = None,
    mindspore_config: Annotated[Path | None, typer.Option(help=MINDSPORE_CONFIG)] = None,
    mindspore_resume: Annotated[str | None, typer.Option(help=MINDSPORE_RESUME)] = None,
    checkpoints_for: Annotated[
        str | None, typer.Option(help="mindspore: write each checkpoint as MindSpore's .ckpt as well.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help=EXACT)] = False,
    offline: Offline = False,
) -> None:
    """Train a model on your own pictures; starts and goes on under torchrun, mpirun and srun as well."""
    from maskrcnn.training.run_file import read_run

    options: dict[str, Any] = {"data": data, "out": out, "model": model, "images": images, "val": val}
    options |= {"val_images": val_images, "device": device, "val_share": val_share, "local": local}
    options |= {"resume_from": mindspore_resume, "checkpoints_for": checkpoints_for}
    if exact and mindspore_config is None:
        raise UserError("--exact says nothing here", hint="it goes with --mindspore-config")
    if mindspore_config is not None:
        if run_file is not None:
            raise UserError(f"{run_file} and {mindspore_config} are both given", hint="leave one of them out")
        translated = _translated(mindspore_config, data or "", model or "", exact)
        taken = {name: value for name, value in options.items() if value is not None and name != "data"}
        options = {**translated.given, **taken}
        settings = [*translated.settings, *(settings or ())]
    run = read_run(run_file, options, settings or (), preset)
    numbers = {"steps": steps, "epochs": epochs, "batch": batch, "learning_rate": rate}
    if epochs is not None and steps is None:
        numbers["steps"] = 0
    run = _with_numbers(run, {name: value for name, value in numbers.items() if value is not None})
    learn(run, resume)


def _translated(config: Path, data: str, model: str, exact: bool) -> "Translation":
    """The run of a MindSpore configuration, told key by key."""
    import os

    from maskrcnn.compat.mindspore_config import read_config
    from maskrcnn.compat.mindspore_keys import Asked
    from maskrcnn.compat.mindspore_recipe import translate
    from maskrcnn.launch import place_of

    place = place_of(os.environ)
    read = read_config(config, exact)
    translated = translate(Asked(read, data, model, place.count, exact))
    if place.is_first:
        for line in translated.told():
            _say(line)
    return translated


def _with_numbers(run: "RunFile", numbers: dict[str, Any]) -> "RunFile":
    from dataclasses import replace

    return replace(run, training=replace(run.training, **numbers))


def learn(run: "RunFile", resume: bool, watched_by: "Callable[[Watch], Watch]" = lambda told: told) -> None:
    """Train, telling on stderr how it goes and printing the path of the model.

    resume: the run's folder holds a run to go on with; else it must not hold one. watched_by: is given what
    tells of the run, and returns what is told of it. Raises UserError.
    """
    from maskrcnn.backends.pytorch import choose_device
    from maskrcnn.training.keeping import sent_at_the_end, stopped_in_order, with_local_copies
    from maskrcnn.training.loop import CHECKPOINT
    from maskrcnn.training.processes import joined, placed
    from maskrcnn.training.run_file import contents_of, write_run

    here, named = placed(), run
    run, mirror = with_local_copies(run, _say if here.is_first else lambda words: None)
    out = Path(run.out)
    if (out / CHECKPOINT).exists() != resume:
        problem = "there is no run to resume" if resume else "already holds a run"
        hint = "leave --resume out" if resume else "add --resume to go on, or name another --out"
        raise UserError(f"{out}: {problem}", hint=hint)
    learn, measure = contents_of(run)
    _check(learn, run.data)
    device = choose_device(run.device)
    if device.type in ("cuda", "npu") and here.count > 1:
        device = choose_device(f"{device.type}:{here.local}")
    with stopped_in_order(), joined(device.type) as processes:
        watch = watched_by(Told(processes.is_first, run.training.batch))
        if processes.is_first:
            write_run(named, out)
            if mirror is not None:
                mirror.send()
            _introduce(run, learn, measure, processes.count)
        with sent_at_the_end(mirror if processes.is_first else None, watch.says):
            trained = _trained(run, learn, measure, device, processes, watch, mirror)
            if processes.is_first:
                _end(run, trained)


def _trained(
    run: "RunFile",
    learn: "Content",
    measure: "Content | None",
    device: Any,
    processes: Any,
    watch: "Watch",
    mirror: "Mirror | None",
) -> "Trained":
    import torch

    from maskrcnn.config_file import with_settings
    from maskrcnn.data.dataset import dataset_of
    from maskrcnn.model.mask_rcnn import MaskRCNN
    from maskrcnn.training.initial import for_classes, initialise, load_trunk, load_weights, starting
    from maskrcnn.training.keeping import extras_of
    from maskrcnn.training.loop import train as loop
    from maskrcnn.training.validation import validation_of

    spec, state = starting(run.model)
    spec = with_settings(for_classes(spec, learn.classes), run.settings)
    torch.manual_seed(run.training.seed)
    network = MaskRCNN(spec.model)
    initialise(network)
    if run.trunk:
        load_trunk(network, Path(run.trunk))
    restarted = load_weights(network, state, Path(run.model)) if state else []
    if restarted:
        watch.says(f"starting anew for these classes: {', '.join(restarted)}")
    validation = None if measure is None else validation_of(_as_labels(measure, spec))
    return loop(
        network,
        spec,
        dataset_of(learn),
        run.training,
        Path(run.out),
        device,
        validation,
        processes,
        watch,
        extras_of(run, spec.model, mirror, watch.says),
    )


def _as_labels(content: "Content", spec: "Spec") -> "Content":
    """Raises UserError where the classes to measure are not those that are learnt."""
    strange = sorted(set(content.classes.names) - set(spec.classes.names))
    if strange:
        raise UserError(
            f"{content.path}: has the class {strange[0]}, which is not learnt",
            hint="use the same categories for both",
        )
    return content


def _check(content: "Content", data: str) -> None:
    """Say how many faults the annotations have. Raises UserError for pictures that are not there."""
    from maskrcnn.data.doctor import examine

    findings = examine(content)
    errors = [each for each in findings if each.severity == "error"]
    if errors:
        raise UserError(
            f"{errors[0].place} {errors[0].message}; {len(errors)} errors in all",
            hint=f"`maskrcnn data check {data} --fix FILE.json` writes a mended copy",
        )
    warnings = sum(each.severity == "warning" for each in findings)
    if warnings:
        print(f"{warnings} warnings (maskrcnn data check {data} shows them)", file=sys.stderr)


def _introduce(run: "RunFile", learn: "Content", measure: "Content | None", processes: int) -> None:
    training = run.training
    counts = f"{len(learn.pictures)} images, {len(learn.instances)} objects, {len(learn.categories)} classes"
    held = "nothing to evaluate on" if measure is None else f"{len(measure.pictures)} images to evaluate on"
    _say(f"{counts}; {held}")
    if training.base_batch:
        _say(
            f"learning rate {training.learning_rate:g} at batch {training.base_batch} -> "
            f"{training.peak_rate():.3g} at batch {training.batch}"
        )
    if processes > 1:
        _say(f"{processes} processes share each batch of {training.batch}")


def _end(run: "RunFile", trained: "Trained") -> None:
    from maskrcnn.training.report import write_report

    report = write_report(Path(run.out), trained.judged)
    print(trained.best or trained.path)
    _say(f"report: {report}")


class Told:
    """What the run tells, as lines on stderr; nothing in processes other than the first."""

    def __init__(self, speaks: bool, batch: int) -> None:
        self._speaks = speaks
        self._batch = batch
        self._began = time.monotonic()
        self._from = 0

    def begins(self, step: int, steps: int) -> None:
        """Where the run goes on."""
        self._began, self._from = time.monotonic(), step
        if step:
            self.says(f"going on at step {step} of {steps}")

    def line(self, line: "Line", steps: int) -> None:
        """`step 240/1000  loss 0.61 (rpn .05 .04  box .11 .18  mask .23)  2.4 images/s  ...`."""
        if "total" not in line:
            names = [name for name in ("bbox/AP", "segm/AP") if name in line]
            self.says(
                "  ".join(
                    [f"step {line['step']}", *(f"{name} {_number(line, name, 100):.1f}" for name in names)]
                )
            )
            return
        step = int(line["step"] or 0)
        left = (time.monotonic() - self._began) / max(step - self._from, 1) * (steps - step)
        rpn, deltas, classes, moves, mask, total = (_number(line, name) for name in LOSSES)
        losses = f"(rpn {rpn:.2f} {deltas:.2f}  box {classes:.2f} {moves:.2f}  mask {mask:.2f})"
        speed = f"{_number(line, 'images_per_second'):.1f} images/s"
        waiting = f"data wait {_number(line, 'data_wait', 100):.0f} %"
        rate = f"lr {_number(line, 'learning_rate'):.2g}"
        parts = [f"step {step}/{steps}", f"loss {total:.2f} {losses}", rate, speed, waiting]
        self.says("  ".join([*parts, f"{line['memory_gb']} GB", f"{_duration(left)} left"]))

    def says(self, words: str) -> None:
        """A sentence."""
        if self._speaks:
            _say(words)


def _number(line: "Line", name: str, times: float = 1) -> float:
    return times * float(line[name] or 0)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
