"""Average precision of a model on annotated images, before and after something was done to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, Literal

from maskrcnn.data.formats import coco
from maskrcnn.data.read import read_annotations
from maskrcnn.errors import UserError
from maskrcnn.evaluation.class_mapping import map_classes
from maskrcnn.evaluation.ground_truth import GroundTruth, ground_truth_of
from maskrcnn.evaluation.photographs import Photograph, locate, predict_items
from maskrcnn.evaluation.result_list import results_of
from maskrcnn.images import ImageFile
from maskrcnn.predict import Predictor

KINDS: tuple[Literal["bbox", "segm"], ...] = ("bbox", "segm")


@dataclass(frozen=True, eq=False)
class Annotated:
    """A data set to measure on. photographs: of all its images, in order."""

    truth: GroundTruth
    photographs: tuple[Photograph, ...]

    def some(self, count: int) -> list[ImageFile]:
        """At most so many of its images, spread evenly."""
        step = max(1, -(-len(self.photographs) // count))
        return [photograph.file for photograph in self.photographs[::step]]


def read_annotated(path: Path) -> Annotated:
    """Annotations of any known format, and their images. Raises UserError for what cannot be measured on."""
    content = read_annotations(path)
    lists = coco.content(content)
    truth = ground_truth_of(lists["images"], lists["annotations"], lists["categories"], str(path))
    if not len(truth.images):
        raise UserError(f"{path}: has no objects to measure on", hint="name annotated images")
    return Annotated(truth, tuple(locate(truth, content.folder)))


def precision_on(
    model: Predictor, annotated: Annotated, watch: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, float]:
    """`bbox/AP` and `segm/AP`, 0..1, as `maskrcnn eval` measures them; without those that are undefined.

    watch: told after each image how many of how many are done.
    """
    from maskrcnn.evaluation.coco_metrics import evaluate

    truth, total = annotated.truth, len(annotated.photographs)
    mapping = map_classes(model.spec.classes, model.spec.model.classes, truth)

    def items() -> Iterator[dict[str, Any]]:
        groups = predict_items(model, truth, annotated.photographs, mapping)
        for done, group in enumerate(groups, start=1):
            yield from group
            watch(done, total)

    numbers = evaluate(truth, results_of(items(), truth, "the model"), KINDS).numbers()
    names = [f"{kind}/AP" for kind in KINDS]
    return {name: numbers[name] for name in names if not isnan(numbers.get(name, float("nan")))}
