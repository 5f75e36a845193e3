"""The stages of a model on one image, and how far those of another lie from them.

P proposals, D detections, R rows of either, A anchors per cell, C channels, S bins per side, M mask pixels
per side, K classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from maskrcnn.agreement import Agreement, Tolerance, compare_detections, match
from maskrcnn.detections import Detections, Raw
from maskrcnn.preprocess import Geometry
from maskrcnn.spec import Spec

# In the order in which they are computed. The arrays of a backend's stages for one image: `normalised`
# (1, 3, H, W); `stem`, `res2`..`res5`, `p2`..`p6` (1, C, h, w); of each level that the RPN reads, as in
# `objectness.p2` (1, A, h, w) and `deltas.p2` (1, 4 A, h, w); `proposals` (1, P, 4) in network pixels, zero
# rows at the end; `box_pool` (P, C, S, S), after res5 in a C4 model; `class_logits` (P, K + 1), background
# last; `box_deltas` (P, 1 or K, 4); `detections.boxes`, `.scores`, `.labels` as in Raw; `mask_pool`
# (R, C, S, S) and `masks` (1, R, M, M) of the R rows that have a score. Proposals, detections and masks are
# always there. `input` is what the backend is given, `pasted` what its result is in image pixels.
STAGES = (
    *("input", "normalised", "stem", "res2", "res3", "res4", "res5", "p2", "p3", "p4", "p5", "p6"),
    *("objectness", "deltas", "proposals", "box_pool", "class_logits", "box_deltas", "detections"),
    *("mask_pool", "masks", "pasted"),
)
OF_PROPOSALS = {
    "box_pool": ("proposal", "channel", "y", "x"),
    "class_logits": ("proposal", "class"),
    "box_deltas": ("proposal", "class", "delta"),
}
OF_DETECTIONS = {"mask_pool": ("detection", "channel", "y", "x"), "masks": ("detection", "y", "x")}
# Proposals are ranked, suppressed, and pooled on a level chosen by their size: there a rounding can turn one
# row into another, and this share of rows may differ.
TURNED = 0.01


@dataclass(frozen=True)
class Difference:
    """How far a stage of B lies from that of A.

    largest: absolute difference, NaN where nothing could be compared. of: largest absolute value of A, None
    where `largest` counts image pixels. beyond: share of values, or from the proposals on of rows, that are
    beyond the tolerance. where: place in A's arrays. words: what a number cannot say. fits: False where only
    one has the stage, or the shapes differ.
    """

    largest: float
    of: float | None
    beyond: float
    within: bool
    where: str = ""
    words: str = ""
    image: str = ""
    fits: bool = True

    @property
    def relative(self) -> float:
        """`largest` as a share of `of`; in pixels where there is none."""
        if self.of is None or self.largest == 0:
            return self.largest
        return self.largest / self.of if self.of else float("inf")


@dataclass(frozen=True)
class Axis:
    """One dimension of an array, and what its places are called if not by their number."""

    name: str
    labels: Sequence[object] = ()


@dataclass(frozen=True)
class Rows:
    """Boxes (R, 4) in image pixels, scores (R,), labels (R,), and their rows (R,) in a stage's arrays."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Ran:
    """The stages of one model for one image. name: A or B, for words. image (1, 3, H, W), size (1, 2): the
    network's input.
    """

    name: str
    spec: Spec
    geometry: Geometry
    image: np.ndarray
    size: np.ndarray
    stages: Mapping[str, np.ndarray]

    def detections(self, spec: Spec) -> Detections:
        """What the network returned, in image pixels by the rules of a description."""
        masks = self.stages["masks"]
        boxes, scores, labels = (
            self.stages[f"detections.{part}"][:, : masks.shape[1]] for part in ("boxes", "scores", "labels")
        )
        return Detections.from_raw(Raw(boxes, scores, labels, masks), 0, self.geometry, spec)

    def proposals(self) -> Rows:
        """The real ones."""
        boxes = self.stages["proposals"][0]
        rows = np.flatnonzero((boxes != 0).any(1))
        return Rows(self.geometry.to_image(boxes[rows]), np.ones(len(rows)), np.zeros(len(rows), int), rows)

    def found(self) -> Rows:
        """The rows of Raw that have a score."""
        parts = ("boxes", "scores", "labels")
        boxes, scores, labels = (self.stages[f"detections.{part}"][0] for part in parts)
        rows = np.flatnonzero(scores > 0)
        return Rows(self.geometry.to_image(boxes[rows]), scores[rows], labels[rows], rows)


def same_classes(labels: np.ndarray, count: int) -> bool:
    """Whether each of A's `count` classes is one class of B. labels: as `labels_in` returns them."""
    return len(labels) == count and set(labels.tolist()) == set(range(count))


def given_to(b: Spec, labels: np.ndarray, a: Ran) -> dict[str, np.ndarray]:
    """A's stages with classes in the order of B; without those that need classes where B has others."""
    stages, count = dict(a.stages), a.spec.model.classes
    if not same_classes(labels, count):
        of_classes = ("class_logits", "box_deltas", "detections")
        return {name: values for name, values in stages.items() if not name.startswith(of_classes)}
    stages["class_logits"] = stages["class_logits"][:, [*labels, count]]
    if not b.model.box_head.class_agnostic and stages["box_deltas"].shape[1] == count:
        stages["box_deltas"] = stages["box_deltas"][:, labels]
    stages["detections.labels"] = np.argsort(labels)[stages["detections.labels"]]
    return stages


def compare_runs(
    a: Ran, b: Ran, labels: np.ndarray, tolerance: Tolerance, agreement: Agreement | None = None
) -> dict[str, Difference]:
    """Every stage that one of them has, in order. labels: as `labels_in(a.spec, b.spec)` returns them.

    agreement: of the final detections, where each model ran by itself from the image on. Without it b was
    given the values of a: rows are compared as they stand, and the comparison ends where a stage does not fit
    because what follows could not be given.
    """
    fed = agreement is None
    if agreement is None:
        numbers = np.arange(max(a.spec.model.classes, b.spec.model.classes))
        agreement = compare_detections(a.detections(a.spec), a.detections(b.spec), numbers, tolerance)
    runs = _Runs(a, b, labels, tolerance, fed, agreement)
    found: dict[str, Difference] = {}
    for name in STAGES[1:] if fed else STAGES:
        difference = runs.difference(name)
        if difference is None:
            continue
        found[name] = difference
        ends = name == "box_deltas" and not same_classes(labels, a.spec.model.classes)
        if fed and (ends or not difference.fits):
            break
    return found


class _Runs:
    """Two runs whose rows are paired."""

    def __init__(
        self, a: Ran, b: Ran, labels: np.ndarray, tolerance: Tolerance, fed: bool, agreement: Agreement
    ) -> None:
        self.a, self.b, self.labels, self.tolerance = a, b, labels, tolerance
        self.agreement = agreement
        self.names = (a.name, b.name)
        self.turned = 0.0 if fed else TURNED
        pairs = [(a.proposals(), b.proposals()), (a.found(), self._in_a(b.found()))]
        self.proposals, self.detections = pairs
        if fed:
            self.rows = [(mine.rows, mine.rows) for mine, _ in pairs]
        else:
            self.rows = [_matched_rows(mine, theirs, tolerance.score) for mine, theirs in pairs]

    def _in_a(self, rows: Rows) -> Rows:
        return replace(rows, labels=self.labels[rows.labels])

    def difference(self, name: str) -> Difference | None:
        """One stage; None where neither model has it."""
        if name == "proposals":
            return compare_rows(*self.proposals, self.tolerance, TURNED, self.names)
        if name == "detections":
            return compare_rows(*self.detections, self.tolerance, names=self.names)
        if name == "pasted":
            return compare_pasted(self.agreement, self.tolerance)
        keys = [key for key in {**self.a.stages, **self.b.stages} if key.partition(".")[0] == name]
        if self.a.spec.model.neck == self.b.spec.model.neck:
            # Both have the stage, but the engine of one may not tell what goes on inside a graph.
            keys = [key for key in keys if key in self.a.stages and key in self.b.stages]
        return worst([self._array(name, key) for key in keys]) if keys else None

    def _array(self, name: str, key: str) -> Difference:
        owners = [run.name for run in (self.a, self.b) if key in run.stages]
        if len(owners) == 1:
            return _misfit(f"only in {owners[0]}")
        a, b = self.a.stages[key], self.b.stages[key]
        relative = self.tolerance.relative
        if name in OF_PROPOSALS:
            mine, theirs = self.rows[0]
            classes: list[str] = []
            if name != "box_pool":
                a, b, classes = self._shared_classes(a, b, background=name == "class_logits")
            axes = [Axis(word, classes if word == "class" else ()) for word in OF_PROPOSALS[name]]
            axes[0] = Axis("proposal", mine.tolist())
            return compare_arrays(a[mine], b[theirs], axes, relative, self.turned, self.names)
        if name in OF_DETECTIONS:
            mine, theirs = self.rows[1]
            rows = (a[0], b[0]) if name == "masks" else (a, b)
            axes = [Axis(word) for word in OF_DETECTIONS[name]]
            axes[0] = Axis("detection", mine.tolist())
            return compare_arrays(rows[0][mine], rows[1][theirs], axes, relative, self.turned, self.names)
        level = key.partition(".")[2]
        axes = [Axis("anchor" if name == "objectness" else "channel"), Axis("y"), Axis("x")]
        difference = compare_arrays(a[0], b[0], axes, relative, names=self.names)
        if not level or not difference.where:
            return difference
        return replace(difference, where=f"{level}, {difference.where}")

    def _shared_classes(
        self, a: np.ndarray, b: np.ndarray, background: bool
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """The columns of the classes that both have, in the order of A, and their names."""
        count_a, count_b = self.a.spec.model.classes, self.b.spec.model.classes
        if (a.shape[1], b.shape[1]) != (count_a + background, count_b + background):
            return a, b, []
        theirs = sorted(np.flatnonzero(self.labels >= 0).tolist(), key=lambda label: self.labels[label])
        mine = self.labels[theirs].tolist()
        known = self.a.spec.classes.names
        names = [(known[label] if label < len(known) else "") or str(label) for label in mine]
        if background:
            return a[:, [*mine, count_a]], b[:, [*theirs, count_b]], [*names, "background"]
        return a[:, mine], b[:, theirs], names


def _matched_rows(a: Rows, b: Rows, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Those of pairs of which one has at least that score."""
    mine, theirs = match(a.boxes, b.boxes, a.labels, b.labels).T
    matters = np.maximum(a.scores[mine], b.scores[theirs]) >= least
    return a.rows[mine[matters]], b.rows[theirs[matters]]


def compare_arrays(
    a: np.ndarray,
    b: np.ndarray,
    axes: Sequence[Axis],
    relative: float,
    turned: float = 0.0,
    names: tuple[str, str] = ("A", "B"),
) -> Difference:
    """Arrays of equal shape, value by value; `axes` name the dimensions.

    relative: share of the largest value of a that a value may differ by. turned: above 0, that share of the
    rows (first dimension) may differ by more. names: of the two in words.
    """
    if a.shape != b.shape:
        shapes = [" x ".join(map(str, each.shape)) for each in (a, b)]
        return _misfit(f"{names[0]} is {shapes[0]}, {names[1]} {shapes[1]}")
    if a.size == 0:
        return Difference(float("nan"), None, 0.0, True, words="no rows")
    a, b = a.astype(np.float32), b.astype(np.float32)
    finite = np.isfinite(a) & np.isfinite(b)
    if not finite.all():
        owners = [name for name, values in zip(names, (a, b), strict=True) if not np.isfinite(values).all()]
        where = _place(int(np.argmin(finite)), a.shape, axes)
        words = f"not finite in {' and '.join(sorted(owners))}"
        return Difference(float("nan"), None, float(1 - finite.mean()), False, where, words)
    apart = np.abs(a - b)
    of = float(np.abs(a).max())
    far = apart > relative * of
    beyond = float((far.reshape(len(a), -1).any(1) if turned else far).mean())
    place = int(apart.argmax())
    where = _place(place, a.shape, axes) if apart.flat[place] else ""
    return Difference(float(apart.flat[place]), of, beyond, beyond <= turned, where)


def _misfit(words: str) -> Difference:
    return Difference(float("nan"), None, 1.0, False, words=words, fits=False)


def _place(index: int, shape: tuple[int, ...], axes: Sequence[Axis]) -> str:
    """`channel 17, y 12, x 40` of the index into a flattened array."""
    places = np.unravel_index(index, shape)
    pairs = zip(axes, (int(place) for place in places), strict=True)
    return ", ".join(f"{axis.name} {axis.labels[at] if axis.labels else at}" for axis, at in pairs)


def compare_rows(
    a: Rows, b: Rows, tolerance: Tolerance, turned: float = 0.0, names: tuple[str, str] = ("A", "B")
) -> Difference:
    """Boxes as sets: rows that matter for the tolerance need a partner of their label that is near enough.

    turned: share of the rows that may be without. names: of the two in words.
    """
    pairs = match(a.boxes, b.boxes, a.labels, b.labels)
    mine, theirs = pairs.T
    matters = np.maximum(a.scores[mine], b.scores[theirs]) >= tolerance.score
    mine, theirs = mine[matters], theirs[matters]
    moved = np.abs(a.boxes[mine] - b.boxes[theirs]).max(axis=1, initial=0)
    scores = np.abs(a.scores[mine] - b.scores[theirs])
    far = (moved > tolerance.box) | (scores > tolerance.relative)
    alone = [
        int((np.delete(each.scores, used) >= tolerance.score).sum())
        for each, used in zip((a, b), pairs.T, strict=True)
    ]
    beyond = (int(far.sum()) + sum(alone)) / max(len(mine) + sum(alone), 1)
    words = f"{len(mine)} matched"
    if any(alone):
        words += f", {alone[0]} only in {names[0]}, {alone[1]} only in {names[1]}"
    if not (np.isfinite(a.boxes).all() and np.isfinite(b.boxes).all()):
        words += ", not all finite"
    if len(scores) and scores.max() > 0:
        words += f", scores within {scores.max():.1e}"
    at = int(moved.argmax()) if len(moved) else 0
    where = f"row {a.rows[mine[at]]}" if len(moved) and moved[at] else ""
    return Difference(float(moved.max(initial=0)), None, beyond, beyond <= turned, where, words)


def compare_pasted(agreement: Agreement, tolerance: Tolerance) -> Difference:
    """Masks in image pixels; `largest` is how far the outline of one moved."""
    pairs = agreement.pairs
    bad = [pair for pair in pairs if not pair.within(tolerance)]
    alone = len(agreement.only_a) + len(agreement.only_b)
    beyond = (len(bad) + alone) / max(len(pairs) + alone, 1)
    farthest = max(pairs, key=lambda pair: pair.outline, default=None)
    if farthest is None:
        return Difference(float("nan"), None, beyond, beyond == 0, words="no pairs")
    where = f"{farthest.name} {farthest.score_a:.2f}" if farthest.outline else ""
    words = f"mask IoU from {min(pair.mask_iou for pair in pairs):.4f}"
    return Difference(farthest.outline, None, beyond, beyond == 0, where, words)


def worst(differences: Iterable[Difference]) -> Difference:
    """The one that is farthest beyond, in a list of at least one."""

    def weigh(difference: Difference) -> tuple[bool, bool, float]:
        unknown = bool(np.isnan(difference.largest))
        wrong = not difference.within
        return wrong, wrong and unknown, -1.0 if unknown else difference.relative

    return max(differences, key=weigh)
