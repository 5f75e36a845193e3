"""Where two models first differ, stage by stage and detection by detection, and by how much."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Protocol, runtime_checkable

import numpy as np

from maskrcnn.agreement import Agreement, Tolerance, Totals, compare_detections, labels_in, totals
from maskrcnn.predict import Predictor
from maskrcnn.preprocess import batch
from maskrcnn.spec import Spec
from maskrcnn.stages import STAGES, Difference, Ran, compare_runs, given_to, worst

# Fields that only training reads.
OF_TRAINING = (
    *("pre_nms_training", "post_nms_training", "foreground_iou", "background_iou", "batch"),
    *("positive_fraction", "smooth_l1_beta"),
)


@runtime_checkable
class Staged(Protocol):
    """A backend that tells what each of its stages computes; a backend may do without."""

    def stages(self, image: np.ndarray, size: np.ndarray) -> Mapping[str, np.ndarray]:
        """image and size as for `run` -> arrays by the names and shapes that `maskrcnn.stages` lists."""


@runtime_checkable
class Fed(Protocol):
    """A backend whose stages can read the values of another model."""

    def stages_given(
        self, image: np.ndarray, size: np.ndarray, given: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]:
        """As `stages`, each stage reading what is given in place of what the stages before it computed."""


@dataclass(frozen=True)
class Stage:
    """as_run: each model by itself from the image on. by_itself: the stage of one model on the inputs that
    it has in the other; None where those do not fit.
    """

    name: str
    as_run: Difference
    by_itself: Difference | None

    @property
    def within(self) -> bool:
        """Whether neither way differs beyond the tolerance."""
        return self.as_run.within and (self.by_itself is None or self.by_itself.within)


@dataclass(frozen=True)
class Compared:
    """Two models on one image. stages: in order, empty where only detections were compared."""

    image: str
    stages: tuple[Stage, ...]
    agreement: Agreement


@dataclass(frozen=True)
class Setting:
    """A field of the models' descriptions in which they differ."""

    field: str
    a: Any
    b: Any


class Comparison:
    """Compares two models on one image at a time; every stage, if asked for and both tell theirs."""

    def __init__(self, a: Predictor, b: Predictor, tolerance: Tolerance, stages: bool = False) -> None:
        self.a, self.b, self.tolerance = a, b, tolerance
        self.labels = labels_in(a.spec, b.spec)
        self.stages = stages and isinstance(a.backend, Staged) and isinstance(b.backend, Staged)

    def __call__(self, name: str, image: np.ndarray) -> Compared:
        """image uint8 (H, W, 3) RGB, called `name` in the figures."""
        if not self.stages:
            found_a, found_b = self.a([image])[0], self.b([image])[0]
            return Compared(name, (), compare_detections(found_a, found_b, self.labels, self.tolerance))
        a, b = _run("A", self.a, image), _run("B", self.b, image)
        found_a, found_b = a.detections(a.spec), b.detections(b.spec)
        agreement = compare_detections(found_a, found_b, self.labels, self.tolerance)
        as_run = compare_runs(a, b, self.labels, self.tolerance, agreement)
        by_itself = self._by_itself(a, b)
        stages = []
        for key, difference in as_run.items():
            alone = by_itself.get(key)
            alone = replace(alone, image=name) if alone else None
            stages.append(Stage(key, replace(difference, image=name), alone))
        return Compared(name, tuple(stages), agreement)

    def _by_itself(self, a: Ran, b: Ran) -> dict[str, Difference]:
        """B's stages on the values of A; or the other way round where only A can be fed."""
        giver, taker, fed = (
            (a, b, self.b.backend) if isinstance(self.b.backend, Fed) else (b, a, self.a.backend)
        )
        if not isinstance(fed, Fed):
            return {}
        labels = labels_in(giver.spec, taker.spec)
        stages = fed.stages_given(giver.image, giver.size, given_to(taker.spec, labels, giver))
        ran = Ran(taker.name, taker.spec, giver.geometry, giver.image, giver.size, stages)
        return compare_runs(giver, ran, labels, self.tolerance)


def _run(name: str, model: Predictor, image: np.ndarray) -> Ran:
    prepared = model.prepare(image)
    planes, size = batch([prepared.planes], model.spec.preprocess)
    assert isinstance(model.backend, Staged)
    stages = {"input": planes, **model.backend.stages(planes, size)}
    return Ran(name, model.spec, prepared.geometry, planes, size, stages)


def spec_differences(a: Spec, b: Spec) -> list[Setting]:
    """The fields that inference reads and that are not equal, such as model.conventions.roi_aligned."""
    theirs = dict(_leaves(asdict(b)))
    return [
        Setting(field, value, theirs[field])
        for field, value in _leaves(asdict(a))
        if not field.startswith(("origin.", "format", "exported"))
        and value != theirs[field]
        and field.rpartition(".")[2] not in OF_TRAINING
    ]


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield path + name, value


@dataclass(frozen=True)
class Report:
    """Two models on some images. a, b: what the user called them. settings: in which they differ."""

    a: str
    b: str
    tolerance: Tolerance
    settings: tuple[Setting, ...]
    images: tuple[Compared, ...]

    def stages(self) -> list[Stage]:
        """Each stage at its worst, as run and by itself, over all images."""
        stages = []
        for name in STAGES:
            found = [stage for image in self.images for stage in image.stages if stage.name == name]
            alone = [stage.by_itself for stage in found if stage.by_itself]
            if found:
                as_run = worst(stage.as_run for stage in found)
                stages.append(Stage(name, as_run, worst(alone) if alone else None))
        return stages

    def totals(self) -> Totals:
        """The detections of all images."""
        return totals((image.image, image.agreement) for image in self.images)

    def within(self) -> bool:
        """Whether nothing differs beyond the tolerance, and there was something to compare."""
        agreed = all(image.agreement.within(self.tolerance) for image in self.images)
        compared = any(image.stages or image.agreement.pairs for image in self.images)
        return agreed and compared and all(stage.within for stage in self.stages())

    def verdict(self) -> str:
        """One line: same, or where they first differ and by how much."""
        return stages_verdict(self.stages()) or detections_verdict(self.totals(), self.within())

    def to_json(self) -> dict[str, Any]:
        """Plain values of everything; what is not finite is None."""
        report = {
            **{"a": self.a, "b": self.b, "same": self.within(), "verdict": self.verdict()},
            "tolerance": asdict(self.tolerance),
            "settings": [asdict(setting) for setting in self.settings],
            "stages": [_stage_json(stage) for stage in self.stages()],
            "detections": asdict(self.totals()),
            "images": [
                {
                    "image": image.image,
                    "stages": [_stage_json(stage) for stage in image.stages],
                    "detections": asdict(image.agreement),
                }
                for image in self.images
            ],
        }
        plain: dict[str, Any] = _finite(report)
        return plain


def stages_verdict(stages: list[Stage]) -> str:
    """`same up to res3; res4 differs: 0.013 of 8.1 at ...`; "" where no stage differs."""
    differing = [row for row, stage in enumerate(stages) if not stage.within]
    if not differing:
        return ""
    first = differing[0]
    stage = stages[first]
    before = f"same up to {stages[first - 1].name}; " if first else ""
    figure = stage.by_itself if stage.as_run.within and stage.by_itself else stage.as_run
    parts = [f"{before}{stage.name} differs: {in_words(figure)}"]
    culprits = [each.name for each in stages if each.by_itself and not each.by_itself.within]
    if culprits and culprits != [stage.name]:
        parts.append(f"given the same inputs {', '.join(culprits)} differ{'s' * (len(culprits) == 1)}")
    elif not culprits and stage.by_itself:
        parts.append("given the same inputs no stage differs")
    elif any(each.by_itself for each in stages[first + 1 :]):
        parts.append("given the same inputs no other stage differs")
    if differing[-1] < len(stages) - 1:
        parts.append(f"the same again from {stages[differing[-1] + 1].name} on")
    return "; ".join(parts)


def in_words(difference: Difference) -> str:
    """`0.013 of 8.1 at channel 17, y 12, x 40 (street.jpg)`."""
    if not isfinite(difference.largest):
        figure = difference.words
    elif difference.of is None:
        figure = f"{number(difference.largest)} px, {difference.words}"
    else:
        figure = f"{number(difference.largest)} of {number(difference.of)}"
    where = f" at {difference.where}" if difference.where else ""
    return f"{figure}{where} ({difference.image})"


def number(value: float) -> str:
    """Two digits of a small number, all of a large one, "0" for 0."""
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def detections_verdict(found: Totals, within: bool) -> str:
    """`same: 12 objects in 3 images, boxes within 0.003 px, ...`."""
    images = f"{found.images} image{'s' * (found.images != 1)}"
    if not found.a and not found.b:
        nothing = f"neither model finds anything in {images}"
        return f"same: {nothing}" if within else f"{nothing}: nothing was compared"
    objects = f"{found.matched} object{'s' * (found.matched != 1)} in {images}"
    if not within:
        objects = f"{objects} matched, {found.only_a} only in A, {found.only_b} only in B"
    figures = [objects]
    if found.box and found.score and found.mask_iou:
        figures.append(f"boxes within {number(found.box.worst)} px")
        figures.append(f"scores within {number(found.score.worst)}")
        figures.append(f"mask IoU from {found.mask_iou.worst:.4f}")
    return f"{'same' if within else 'different'}: {', '.join(figures)}"


def _stage_json(stage: Stage) -> dict[str, Any]:
    values = asdict(stage)
    for way, difference in (("as_run", stage.as_run), ("by_itself", stage.by_itself)):
        if difference:
            values[way]["relative"] = difference.relative if difference.of is not None else None
    return values


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
