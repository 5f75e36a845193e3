"""Finds the layers that must stay float32 for a model to lose little average precision.

B images of one run, D rows of each, N detections of one image, M side of a mask.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from maskrcnn.agreement import box_iou
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.export.quantize import Calibrated, Kept
from maskrcnn.export.quantize_inputs import Photographs
from maskrcnn.export.verify import Annotated, precision_on
from maskrcnn.images import ImageFile
from maskrcnn.predict import open_model

# Photographs on which each layer's share of the error is measured.
RANKED_ON = 8

Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Goal:
    """annotated: where average precision is measured. max_drop: points of it, of boxes or of masks, that may
    be lost. threads: of the engine.
    """

    annotated: Annotated
    max_drop: float
    threads: int | None = None


def layers_to_keep(
    calibrated: Calibrated,
    source: Path,
    out: str,
    files: Sequence[ImageFile],
    goal: Goal,
    kept: Collection[str] = (),
    watch: Watch = lambda what, done, total: None,
) -> tuple[Kept, ...]:
    """Of the layers, worst first, as few as bring the drop within the goal, beside those kept already.

    source, out, files: as for Calibrated. A layer is as bad as what the model finds changes when it alone is
    int8. Raises UserError where all of them are not enough.
    """
    with TemporaryDirectory() as folder:
        # The graph of an engine computes the same on a CPU, and an engine takes minutes to build.
        file = Path(folder) / f"model{'.onnx' if out == '.engine' else out}"
        before = _precision(source, goal)

        def drop(layers: Collection[str]) -> float:
            calibrated.write(file, [*kept, *layers])
            after = _precision(file, goal)
            lost = max(100 * (value - after.get(name, 0.0)) for name, value in before.items())
            watch(f"{lost:+.2f} points lost with {len(layers)} layers put back to float32", 0, 0)
            return lost

        lost = drop(())
        if lost <= goal.max_drop:
            return ()
        alone = Calibrated(source, out, files[:RANKED_ON])
        ranked = _ranked(alone, source, file, files[:RANKED_ON], goal, kept, watch)
        count = _fewest(len(ranked), lambda number: drop([name for name, _ in ranked[:number]]), goal)
    if count == len(ranked):
        raise UserError(
            f"int8 loses {lost:.1f} points of average precision, and no layer can be quantised within "
            f"{goal.max_drop:g}",
            hint="allow more with --max-drop, or calibrate on images like those it is measured on",
        )
    return tuple(Kept(name, f"alone it changes {100 * share:.1f} %") for name, share in ranked[:count])


def changed(before: Raw, after: Raw) -> float:
    """How much of what one run found another did not, 0..1, weighed by score.

    Of each detection counts the best one of its label: overlap, times how near score and mask are.
    """
    lost = total = 0.0
    for row in range(len(before.scores)):
        a, b = (Raw(*(part[row, each.scores[row] > 0] for part in each)) for each in (before, after))
        shares = np.zeros((len(a.scores), 1))
        if len(b.scores):
            same = a.labels[:, None] == b.labels
            shares = box_iou(a.boxes, b.boxes) * same * (1 - np.abs(a.scores[:, None] - b.scores))
            masks = np.abs(a.masks - b.masks[shares.argmax(1)]).mean((1, 2))
            shares *= 1 - masks[:, None]
        lost += float((a.scores * (1 - shares.max(1))).sum())
        total += float(a.scores.sum())
    return lost / total if total else 0.0


def _ranked(
    calibrated: Calibrated,
    source: Path,
    file: Path,
    files: Sequence[ImageFile],
    goal: Goal,
    kept: Collection[str],
    watch: Watch,
) -> list[tuple[str, float]]:
    """Every layer that may be int8 and how much it changes alone, worst first. file: to write to."""
    inputs = list(Photographs(files, calibrated.spec))

    def rows(path: Path) -> list[Raw]:
        backend = open_model(path, "cpu", threads=goal.threads).backend
        return [backend.run(each["image"], each["size"]) for each in inputs]

    truth, shares = rows(source), {}
    wide = {*kept, *(each.layer for each in calibrated.kept)}
    names = [name for name in calibrated.layers if name not in wide]
    for done, name in enumerate(names, start=1):
        calibrated.write(file, [other for other in calibrated.layers if other != name])
        found = rows(file)
        shares[name] = float(np.mean([changed(a, b) for a, b in zip(truth, found, strict=True)]))
        watch("measuring what each layer changes", done, len(names))
    return sorted(shares.items(), key=lambda item: -item[1])


def _fewest(most: int, drop: Callable[[int], float], goal: Goal) -> int:
    """The least number of layers to keep, by bisection; `most` where nothing less will do."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if drop(middle) <= goal.max_drop:
            high = middle
        else:
            low = middle + 1
    return low


def _precision(path: Path, goal: Goal) -> dict[str, float]:
    return precision_on(open_model(path, "cpu", threads=goal.threads), goal.annotated)
