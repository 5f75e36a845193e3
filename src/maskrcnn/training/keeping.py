"""Where a run's data come from and its checkpoints go: an object store, and MindSpore's own form."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import ceil
from pathlib import Path

from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.spec import Spec
from maskrcnn.storage import Mirror, cached_folder, is_url
from maskrcnn.training.begun import go_on
from maskrcnn.training.loop import Extras, State
from maskrcnn.training.recipe import steps_of
from maskrcnn.training.run_file import RunFile
from maskrcnn.training.update import Run
from maskrcnn.weights.targets.mindspore import TARGET

Says = Callable[[str], None]

CHECKPOINTS = "checkpoints"
FETCHED = ("data", "images", "val", "val_images", "resume_from", "trunk")


def with_local_copies(run: RunFile, says: Says) -> tuple[RunFile, Mirror | None]:
    """The run with folders of this machine in place of URLs, fetched, and what sends its own folder.

    Raises UserError where a store refuses.
    """
    for name in FETCHED:
        url = getattr(run, name)
        if is_url(url):
            mirror = Mirror(url, _folder(run, url))
            _fetched(mirror, says)
            run = replace(run, **{name: str(mirror.local())})  # type: ignore[arg-type]
    if is_url(run.out):
        run = replace(run, out=str(_folder(run, run.out)), mirror=run.out)
    if not run.mirror:
        return run, None
    mirror = Mirror(run.mirror, Path(run.out))
    if mirror.exists():
        _fetched(mirror, says)
    return run, mirror


@contextmanager
def stopped_in_order() -> Iterator[None]:
    """A request to end (SIGTERM, of Slurm, Kubernetes or ModelArts) is taken like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def sent_at_the_end(mirror: Mirror | None, says: Says) -> Iterator[None]:
    """Send what the run's folder holds when it ends, however it ends. Raises UserError where that fails."""
    try:
        yield
    except BaseException:
        if mirror is not None:
            _sent_or_told(mirror, says)
        raise
    if mirror is not None:
        try:
            mirror.send()
        except UserError as error:
            raise UserError(
                f"{error.message}; the run is complete in {mirror.folder}",
                hint="the same command with --resume sends what is missing",
            ) from error


def extras_of(run: RunFile, model: ModelConfig, mirror: Mirror | None, says: Says) -> Extras:
    """What the loop does besides: begin with another tool's checkpoint, write MindSpore's, and send all.

    Raises UserError for a model that MindSpore has no names for.
    """
    from maskrcnn.training import mindspore, segmentoly

    training = run.training
    if run.checkpoints_for == "mindspore":
        TARGET.refuse(model)

    def begin(live: Run, steps_per_epoch: int) -> State:
        path = Path(run.resume_from)
        theirs = mindspore if path.suffix.lower() == ".ckpt" else segmentoly
        return go_on(theirs.read_training(path), path, live, steps_of(training, steps_per_epoch), says)

    def saved(live: Run, spec: Spec, state: State, steps_per_epoch: int) -> None:
        if run.checkpoints_for == "mindspore":
            epoch = ceil(state.step / steps_per_epoch)
            path = Path(run.out) / CHECKPOINTS / mindspore.checkpoint_name(spec, epoch)
            rates = mindspore.rates_of(live, training, steps_per_epoch)
            mindspore.write_training(path, live, spec, state.step, rates)
        if mirror is not None:
            _sent_or_told(mirror, says)

    return Extras(begin if run.resume_from else None, saved)


def _sent_or_told(mirror: Mirror, says: Says) -> None:
    """A store that is away for a while does not end a run."""
    try:
        mirror.send()
    except UserError as error:
        says(f"{error.message}; kept in {mirror.folder}, and sent with the next checkpoint")


def _fetched(mirror: Mirror, says: Says) -> None:
    count = mirror.fetch()
    says(f"{mirror.url}: {count} file{'s' * (count != 1)} fetched to {mirror.folder}")


def _folder(run: RunFile, url: str) -> Path:
    return cached_folder(url, Path(run.local) if run.local else None)
