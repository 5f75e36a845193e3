"""Whether an exported graph finds what the model finds that it was made of, and how nearly.

B images of one run, D rows of each, M side of a mask, N detections of an image, R pairs of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from maskrcnn.agreement import Agreement, Tolerance, compare_detections, labels_in, match
from maskrcnn.compare import number
from maskrcnn.detections import Detections, Raw
from maskrcnn.errors import UserError
from maskrcnn.export.scenes import Scene
from maskrcnn.predict import Predictor
from maskrcnn.preprocess import Geometry, batch
from maskrcnn.spec import Check, Preprocess, Spec


@dataclass(frozen=True)
class Limits:
    """How far a graph may be from its model.

    score: detections of at least this score need a partner. even: of at least this one on pictures whose
    pixels are nearly all equal, where scores tie and each engine breaks ties its own way; inf for none.
    missed: share of them that may be without one; spare: as many may be in any case.
    box: pixels of the network's input by which a side of a box may move, and moved: difference of two scores;
    beyond these it is no partner.
    mask_pixels: share of the masks' pixels that must agree.
    stage: share of a stage's largest value by which it may differ; None for any.
    drop: points of average precision that may be lost.
    """

    score: float
    even: float
    missed: float
    spare: int
    box: float
    moved: float
    mask_pixels: float
    stage: float | None
    drop: float


# float32 engines add in another order: measured 1.2e-4 px and 1.6e-6 of a score. Fewer bits move every
# feature, and a weak detection comes and goes with them, so that only sure ones are asked for, and none where
# there is nothing to see.
SAME = Limits(
    score=0.0,
    even=0.5,
    missed=0.01,
    spare=0,
    box=0.01,
    moved=1e-4,
    mask_pixels=0.999,
    stage=1e-3,
    drop=0.1,
)
NEAR = Limits(
    score=0.5,
    even=np.inf,
    missed=0.05,
    spare=1,
    box=np.inf,
    moved=np.inf,
    mask_pixels=0.95,
    stage=None,
    drop=0.2,
)
LIMITS = {
    "fp32": SAME,
    "fp16": NEAR,
    "bf16": NEAR,
    "int8": replace(NEAR, missed=0.15, mask_pixels=0.85, drop=0.5),
}


def limits_of(spec: Spec, tolerance: float = 1.0, max_drop: float | None = None) -> Limits:
    """By the arithmetic of the graph. tolerance: times the usual ones. max_drop: points instead of them."""
    usual = LIMITS[spec.precision]
    return replace(
        usual,
        missed=usual.missed * tolerance,
        box=usual.box * tolerance,
        moved=usual.moved * tolerance,
        mask_pixels=1 - (1 - usual.mask_pixels) * tolerance,
        stage=usual.stage and usual.stage * tolerance,
        drop=usual.drop if max_drop is None else max_drop,
    )


class FedAs(Predictor):
    """A model whose images are prepared as another model's are."""

    def __init__(self, model: Predictor, preprocess: Preprocess) -> None:
        super().__init__(model.backend, model.batch)
        self._spec = replace(model.spec, preprocess=preprocess)

    @property
    def spec(self) -> Spec:
        """What the model file says of itself, but with the other one's preprocessing."""
        return self._spec


@dataclass(frozen=True)
class Seen:
    """One image by both, model and graph. same: pairs within the limits. apart, of: pixels in which the masks
    of all pairs differ, of those in their boxes. fault: what is wrong with the graph's rows by themselves.
    """

    scene: Scene
    agreement: Agreement = Agreement((), (), ())
    same: int = 0
    apart: int = 0
    of: float = 0.0
    fault: str = ""

    @property
    def missed(self) -> int:
        """Detections of either that are not the same in the other."""
        agreement = self.agreement
        return len(agreement.pairs) - self.same + len(agreement.only_a) + len(agreement.only_b)


@dataclass(frozen=True)
class Outcome:
    """What a check found. fault: in what the graph differs, to be read after "differs from the model"; "" if
    in nothing that matters. scene: where that shows.
    """

    check: Check
    fault: str = ""
    scene: Scene | None = None

    @property
    def passed(self) -> bool:
        """Whether the graph is within the limits."""
        return not self.fault


def check(
    model: Predictor,
    graph: Predictor,
    scenes: Sequence[Scene],
    limits: Limits,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Run both on every image alone, as a batch where the graph takes one, and on some again.

    model: its images are prepared as the graph's. watch: told how many runs of how many are done.
    A graph that its engine cannot run, and one whose rows are none, has a fault like one that differs.
    """
    model = FedAs(model, graph.spec.preprocess)
    runs = list(_runs(scenes, graph.spec))
    seen: list[Seen] = []
    known: dict[tuple[int, ...], Raw] = {}
    for done, run in enumerate(runs):
        watch(done, len(runs))
        prepared = [graph.prepare(scene.load()) for scene in run]
        image, size = batch([each.planes for each in prepared], graph.spec.preprocess)
        key = tuple(map(id, run))
        if key not in known:
            known[key] = model.backend.run(image, size)
        found = _ran(graph, image, size)
        if isinstance(found, str):
            return Outcome(_figures(seen, len(scenes)), f"in that {found} ({run[0].name})", run[0])
        geometries = [each.geometry for each in prepared]
        seen += _compared(run, geometries, (model.spec, graph.spec), known[key], found, limits)
    watch(len(runs), len(runs))
    figures = _figures(seen, len(scenes))
    return Outcome(figures, *_fault(seen, figures, limits))


def _runs(scenes: Sequence[Scene], spec: Spec) -> Iterator[tuple[Scene, ...]]:
    """Each image alone; the first again, because what nothing was found in may have left a trace; a batch."""
    yield from ((scene,) for scene in scenes)
    if len(scenes) > 1:
        yield (scenes[0],)
    count = spec.exported.batch if spec.exported else 0
    together = tuple(scenes[: count or 2])
    if count != 1 and len(together) > 1:
        yield together


def _ran(graph: Predictor, image: np.ndarray, size: np.ndarray) -> Raw | str:
    """The graph's rows, or why there are none in words."""
    try:
        return graph.backend.run(image, size)
    except MemoryError:
        raise
    except Exception as error:  # each engine has its own
        return cannot_run(error)


def _compared(
    run: Sequence[Scene],
    geometries: Sequence[Geometry],
    specs: tuple[Spec, Spec],
    raw: Raw,
    found: Raw,
    limits: Limits,
) -> Iterator[Seen]:
    """Each image of one run. raw, found: rows of the model and of the graph."""
    fault = faults_of(found, specs[1], len(run))
    if fault:
        yield Seen(run[0], fault=fault)
        return
    labels = labels_in(*specs)
    for row, (scene, geometry) in enumerate(zip(run, geometries, strict=True)):
        a = Detections.from_raw(raw, row, geometry, specs[0])
        b = Detections.from_raw(found, row, geometry, specs[1])
        yield _seen(scene, a, b, labels, _tolerance(limits, scene, geometry, specs[0]))


def _tolerance(limits: Limits, scene: Scene, geometry: Geometry, spec: Spec) -> Tolerance:
    """In pixels of this image. A detection at the model's own least score may just miss it in the graph."""
    shrunk = max(1.0, geometry.size[0] / geometry.size_net[0], geometry.size[1] / geometry.size_net[1])
    margin = limits.moved if isfinite(limits.moved) else 0.0
    least = max(limits.score, spec.model.box_head.score_over + margin, limits.even if scene.even else 0.0)
    return Tolerance(limits.moved, limits.box * shrunk, least)


def _seen(scene: Scene, a: Detections, b: Detections, labels: np.ndarray, tolerance: Tolerance) -> Seen:
    agreement = compare_detections(a, b, labels, tolerance)
    rows = match(a.boxes, b.boxes, a.labels, labels[b.labels])
    mine, theirs = a[rows[:, 0]], b[rows[:, 1]]
    matters = np.maximum(mine.scores, theirs.scores) >= tolerance.score
    mine, theirs = mine[matters], theirs[matters]
    apart = 0
    for masks in zip(mine.rles(), theirs.rles(), strict=True):
        shared, joint = (int(coco_mask.area(coco_mask.merge(list(masks), both))) for both in (True, False))
        apart += joint - shared
    sides = np.maximum(mine.boxes[:, 2:] - mine.boxes[:, :2], 1)
    partners = [pair.box <= tolerance.box and pair.score <= tolerance.relative for pair in agreement.pairs]
    return Seen(scene, agreement, sum(partners), apart, float(sides.prod(1).sum()))


def cannot_run(error: Exception) -> str:
    """What an engine said of a graph, in one line."""
    words = error.message if isinstance(error, UserError) else str(error)
    return f"its engine fails: {(words.strip().splitlines() or [type(error).__name__])[0]}"


def faults_of(raw: Raw, spec: Spec, images: int) -> str:
    """What is wrong with an engine's rows by themselves, in words; "" if they are as `Raw` has them."""
    count, side = spec.model.box_head.detections, raw.masks.shape[-1] if raw.masks.ndim else 0
    shapes: dict[str, tuple[int, ...]] = {
        "boxes": (images, count, 4),
        "scores": (images, count),
        "labels": (images, count),
        "masks": (images, count, side, side),
    }
    arrays: dict[str, Any] = raw._asdict()
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            found, wanted = (" x ".join(map(str, each)) for each in (arrays[name].shape, shape))
            return f"`{name}` is {found} where it must be {wanted}"
        if not np.isfinite(arrays[name]).all():
            return f"`{name}` is not finite"
    real = raw.scores > 0
    if (real[:, 1:] > real[:, :-1]).any() or (raw.scores > 1).any() or (raw.scores < 0).any():
        return "`scores` is not 0..1 with the empty rows at the end"
    if ((raw.labels < 0) | (raw.labels >= spec.model.classes))[real].any():
        return f"`labels` is not 0..{spec.model.classes - 1}"
    if ((raw.masks < 0) | (raw.masks > 1))[real].any():
        return "`masks` is not 0..1"
    return ""


def _figures(seen: Sequence[Seen], images: int) -> Check:
    """Over all runs."""
    pairs = [pair for each in seen for pair in each.agreement.pairs]
    of = sum(each.of for each in seen)
    return Check(
        images=images,
        matched=sum(each.same for each in seen),
        missed=sum(each.missed for each in seen),
        box_px=max((pair.box for pair in pairs), default=0.0),
        score=max((pair.score for pair in pairs), default=0.0),
        mask_pixels=1 - sum(each.apart for each in seen) / of if of else 1.0,
    )


def _fault(seen: Sequence[Seen], figures: Check, limits: Limits) -> tuple[str, Scene | None]:
    """What is beyond the limits, in words, and the image that shows it best."""
    for each in seen:
        if each.fault:
            return f"in that {each.fault} ({each.scene.name})", each.scene
    count = figures.matched + figures.missed
    allowed = max(limits.missed * count, limits.spare)
    if figures.missed > allowed or (count and not figures.matched):
        worst = max(seen, key=lambda each: each.missed)
        return f"in {figures.missed} of {count} detections, {_in_words(worst)}", worst.scene
    if figures.mask_pixels < limits.mask_pixels:
        worst = max(seen, key=lambda each: each.apart / max(each.of, 1))
        share = f"{100 * figures.mask_pixels:.4g} % of pixels"
        return f"in its masks, which agree on {share} ({worst.scene.name})", worst.scene
    return "", None


def _in_words(seen: Seen) -> str:
    """`boxes by up to 3.1 px, scores by up to 0.02, 2 only in the model, 1 only in the file (1.jpg)`."""
    agreement = seen.agreement
    parts = []
    if agreement.pairs:
        box, score = (max(getattr(pair, name) for pair in agreement.pairs) for name in ("box", "score"))
        parts.append(f"boxes by up to {number(box)} px, scores by up to {number(score)}")
    if agreement.only_a or agreement.only_b:
        parts.append(f"{len(agreement.only_a)} only in the model, {len(agreement.only_b)} only in the file")
    return f"{', '.join(parts)} ({seen.scene.name})"
