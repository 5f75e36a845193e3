"""Writes a file only if a check on images finds that it does what the model does that it was made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn.agreement import Tolerance
from maskrcnn.compare import Comparison, Stage, in_words, number
from maskrcnn.errors import UserError
from maskrcnn.export.check import FedAs, Limits, cannot_run, check, limits_of
from maskrcnn.export.scenes import Scene, drawn_scenes, hard_cases
from maskrcnn.export.settle import own_folder, settle, store_check
from maskrcnn.export.staged import with_stages
from maskrcnn.export.verify import Annotated, precision_on, read_annotated
from maskrcnn.images import ImageFile
from maskrcnn.predict import ENGINES, INSTALL, Predictor, model_path, open_model
from maskrcnn.spec import Check
from maskrcnn.whole_file import shown

# Of annotated images that are compared one by one as well.
MOST_PHOTOGRAPHS = 8

# Stages that are compared as sets of boxes.
OF_ROWS = ("proposals", "detections", "pasted")

Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Asked:
    """What a check is made with.

    images: to compare on; without any some of `verify`, or drawn ones. verify: annotations to measure average
    precision on. tolerance: times the usual limits. max_drop: points of average precision that may be lost,
    None for the usual ones. threads: of each engine.
    """

    images: tuple[ImageFile, ...] = ()
    verify: Path | None = None
    tolerance: float = 1.0
    max_drop: float | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Gated:
    """What became of a file. path: where it is; of a rejected one OUT.rejected. check: as it is stored in it.

    fault: from what it differs and in what, "" if it was not rejected. shows: an image file on which that
    shows, "" where there is none.
    """

    path: Path
    check: Check
    fault: str = ""
    shows: str = ""

    @property
    def passed(self) -> bool:
        """Whether the file has its name."""
        return not self.fault


def write_checked(
    model: str | Path,
    out: Path,
    write: Callable[[Path], object],
    asked: Asked | None = None,
    watch: Watch = lambda what, done, total: None,
) -> Gated:
    """Let `write` make a file of a model, check it, and give it the name `out` or that of a rejected one.

    model: a model file, `example` or zoo:NAME, run on the CPU. write: is given a path with the name of `out`
    in a folder of its own, which may hold further files. watch: told what is done, and how far.
    Nothing is left after an error. Raises UserError for what the user must change.
    """
    asked = asked or Asked()
    _need_engine(out)
    annotated = read_annotated(asked.verify) if asked.verify else None
    scenes, on = scenes_of(asked, annotated)
    with own_folder(out) as folder:
        file = folder / out.name
        write(file)
        found = _checked(model_path(model), file, scenes, annotated, asked, watch)
        found = replace(found, check=replace(found.check, on=on))
        _store(file, found)
        path = settle(folder, out, rejected=not found.passed)
    shows = _shown_on(found.scene, path) if found.scene else ""
    fault = found.fault and f"differs from {shown(model)} {found.fault}"
    return Gated(path, found.check, fault, shows)


@dataclass(frozen=True)
class _Found:
    check: Check
    fault: str = ""
    scene: Scene | None = None

    @property
    def passed(self) -> bool:
        return not self.fault


def _store(file: Path, found: _Found) -> None:
    try:
        store_check(file, found.check)
    except UserError:
        if found.passed:
            raise  # a file that no engine could read has nowhere to store it


def _need_engine(out: Path) -> None:
    """Raise UserError before an hour of work if the check that ends it cannot run."""
    suffix = out.suffix.lower()
    if suffix == ".parts":
        return
    for engine in ENGINES.values():
        if suffix in engine.suffixes:
            try:
                import_module(engine.module)
            except ImportError as error:
                package = (error.name or "").partition(".")[0]
                if package not in INSTALL:
                    raise
                raise UserError(
                    f"{shown(out)}: is checked with {package}, which is not installed", hint=INSTALL[package]
                ) from error
            return


def scenes_of(asked: Asked, annotated: Annotated | None) -> tuple[list[Scene], str]:
    """The images to compare on, and which they are in words."""
    files: Sequence[ImageFile] = asked.images
    if not files and annotated:
        files = annotated.some(MOST_PHOTOGRAPHS)
    hard = hard_cases()
    if not files:
        drawn = [*drawn_scenes(), *hard]
        return drawn, f"{len(drawn)} drawn images"
    for file in files:
        file.read()  # what cannot be read is told before an hour of work
    scenes = [Scene(shown(file.name), file.read, place=file.place or str(file.path)) for file in files]
    return [*scenes, *hard], f"{len(files)} image{'s' * (len(files) > 1)} and {len(hard)} drawn ones"


def _checked(
    model: Path,
    file: Path,
    scenes: Sequence[Scene],
    annotated: Annotated | None,
    asked: Asked,
    watch: Watch,
) -> _Found:
    def open_one(path: str | Path) -> Predictor:
        return open_model(path, "auto" if Path(path).suffix == ".engine" else "cpu", threads=asked.threads)

    truth = open_one(model)
    try:
        graph = open_one(file)
    except UserError as error:
        return _Found(Check(), fault=f"in that {cannot_run(error)}")
    limits = limits_of(graph.spec, asked.tolerance, asked.max_drop)
    if annotated and limits.stage is None:
        # Average precision says more of a model in few bits than single detections do.
        limits = replace(limits, missed=1.0, mask_pixels=0.0)
    outcome = check(truth, graph, scenes, limits, lambda done, total: watch("comparing", done, total))
    scene = scenes[0] if outcome.scene is None or outcome.scene.even else outcome.scene
    stages = _stages((truth, model), (graph, file), open_one, scene, limits)
    first = _first_beyond(stages, outcome.passed) if limits.stage is not None else None
    fault = f"at stage `{first.name}`, {_figure(first)}" if first else outcome.fault
    found = _Found(replace(outcome.check, stages=_relative(stages)), fault)
    if fault:
        return replace(found, scene=scene if first else outcome.scene)
    if annotated is None:
        return found
    precision = _measured(truth, graph, annotated, watch)
    return replace(
        found, check=replace(found.check, precision=precision), fault=_drop(precision, limits.drop)
    )


def _stages(
    truth: tuple[Predictor, Path],
    graph: tuple[Predictor, Path],
    open_one: Callable[[str | Path], Predictor],
    scene: Scene,
    limits: Limits,
) -> list[Stage]:
    """How far the stages are apart on one image, where both tell them; empty where the engine fails."""
    tolerance = Tolerance(limits.stage or np.inf, max(limits.box, 0.01), limits.score)
    try:
        a, b = (with_stages(*each, open_one) for each in (truth, graph))
        comparison = Comparison(FedAs(a, b.spec.preprocess), b, tolerance, stages=True)
        found = comparison(scene.name, scene.load()).stages if comparison.stages else ()
    except MemoryError:
        raise
    except Exception:  # what is said of the graph then is what `check` found
        return []
    return [stage for stage in found if stage.as_run.fits]


def _first_beyond(stages: Sequence[Stage], same_found: bool) -> Stage | None:
    """The first stage that differs. Where scores tie, other proposals are no fault, nor what follows them.

    same_found: whether the same was found in the end.
    """
    last = [stage.name for stage in stages].index("proposals") if stages else 0
    certain = [
        stage
        for place, stage in enumerate(stages)
        if (stage.as_run if place < last else stage.by_itself or stage.as_run).within is False
        and stage.name not in OF_ROWS
    ]
    if certain or same_found:
        return certain[0] if certain else None
    return next((stage for stage in stages if not stage.within), None)


def _figure(stage: Stage) -> str:
    alone = stage.by_itself
    return in_words(alone if stage.as_run.within and alone else stage.as_run)


def _relative(stages: Sequence[Stage]) -> tuple[tuple[str, float], ...]:
    """Name and share of the largest value, of the stages whose difference is one."""
    found = [(stage.name, stage.as_run.relative) for stage in stages if stage.as_run.of is not None]
    return tuple((name, share) for name, share in found if np.isfinite(share))


def _measured(
    truth: Predictor, graph: Predictor, annotated: Annotated, watch: Watch
) -> tuple[tuple[str, float, float], ...]:
    """Average precision of both, each image prepared as the graph's description says."""
    before = precision_on(
        FedAs(truth, graph.spec.preprocess),
        annotated,
        lambda done, total: watch("measuring before", done, total),
    )
    after = precision_on(graph, annotated, lambda done, total: watch("measuring after", done, total))
    return tuple((name, value, after.get(name, 0.0)) for name, value in before.items())


def _drop(found: Sequence[tuple[str, float, float]], most: float) -> str:
    lost = [row for row in found if 100 * (row[1] - row[2]) > most]
    if not lost:
        return ""
    name, before, after = max(lost, key=lambda row: row[1] - row[2])
    words = name.replace("/", " ")
    return f"in {words}, {100 * before:.1f} -> {100 * after:.1f}, a loss of more than {number(most)} points"


def _shown_on(scene: Scene, path: Path) -> str:
    """The image file that shows a fault; a drawn one is written beside the rejected file."""
    if scene.place:
        return scene.place
    written = path.with_name(f"{path.name}.png")
    encoded: Any = cv2.imencode(".png", scene.load()[..., ::-1])[1]
    written.write_bytes(encoded.tobytes())
    return str(written)
