"""Average precision of one model under segmentoly's resize modes, landscape and portrait pictures apart.

python bench/resize_modes.py ANNOTATIONS.json [--model example --short 320 --long 533 --threads 1 --json]
`fit_max` keeps the short side, `fit_window` fits into the landscape window that a network of a fixed size
has, `fit_window` of a square is what their page advises to export for portraits, `size` stretches. The
images lie beside the annotations or in a folder below. Cost: mean pixels of the network's input.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.evaluation.class_mapping import map_classes
from maskrcnn.evaluation.coco_metrics import evaluate
from maskrcnn.evaluation.ground_truth import GroundTruth, ground_truth_of
from maskrcnn.evaluation.photographs import predict_items
from maskrcnn.evaluation.result_list import results_of
from maskrcnn.export.check import FedAs
from maskrcnn.export.verify import Annotated, read_annotated
from maskrcnn.predict import Predictor, open_model
from maskrcnn.preprocess import padded_size, resized_size
from maskrcnn.spec import Preprocess

PARTS: dict[str, Callable[[int, int], bool]] = {
    "all": lambda height, width: True,
    "landscape": lambda height, width: width >= height,
    "portrait": lambda height, width: height > width,
}


@dataclass(frozen=True)
class Measured:
    """One mode. cost: mean megapixels of the input. precision: by part and metric, 0..1."""

    mode: str
    cost: float
    precision: dict[str, dict[str, float]]


def main() -> None:
    """Measure every mode and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--model", default="example")
    parser.add_argument("--short", type=int, default=320)
    parser.add_argument("--long", type=int, default=533)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = open_model(options.model, "cpu", threads=options.threads)
    annotated = read_annotated(options.annotations)
    found = []
    for mode, rule in modes(model.spec.preprocess, options.short, options.long).items():
        print(mode, file=sys.stderr)
        found.append(measured(mode, FedAs(model, rule), annotated))
    if options.json:
        print(json.dumps([each.__dict__ for each in found], indent=2))
        return
    for each in found:
        rows = (f"{part} {_percent(numbers)}" for part, numbers in each.precision.items())
        print(f"{each.mode:22}{each.cost:6.3f} MP   {'   '.join(rows)}")


def modes(own: Preprocess, short: int, long: int) -> dict[str, Preprocess]:
    """Name -> rule, of windows whose sides are multiples of the padding."""
    high, wide = (-(-side // own.pad_multiple) * own.pad_multiple for side in (short, long))
    window = replace(own, resize="fit_window", short=high, long=wide, pad_to_window=True)
    return {
        f"fit_max {short} {long}": replace(own, resize="shortest_edge", short=short, long=long),
        f"fit_window {high} {wide}": window,
        f"fit_window {wide} {wide}": replace(window, short=wide),
        f"size {high} {wide}": replace(own, resize="stretch", short=high, long=wide),
    }


def measured(mode: str, model: Predictor, annotated: Annotated) -> Measured:
    """Predict all images once, and evaluate each part of them."""
    truth, rule = annotated.truth, model.spec.preprocess
    mapping = map_classes(model.spec.classes, model.spec.model.classes, truth)
    items = [item for group in predict_items(model, truth, annotated.photographs, mapping) for item in group]
    sizes = [(int(height), int(width)) for height, width in truth.sizes]
    inputs = [padded_size(resized_size(size, rule), rule) for size in sizes]
    precision = {}
    for part, holds in PARTS.items():
        kept = {image for image, size in zip(truth.image_ids, sizes, strict=True) if holds(*size)}
        if kept:
            precision[part] = _precision(part_of(truth, kept), [i for i in items if i["image_id"] in kept])
    return Measured(mode, float(np.mean([height * width for height, width in inputs])) / 1e6, precision)


def part_of(truth: GroundTruth, kept: set[Any]) -> GroundTruth:
    """The same data set with some of its images."""
    rows = [row for row, image in enumerate(truth.image_ids) if image in kept]
    annotations = np.flatnonzero(np.isin(truth.images, rows))
    images = [
        {
            "id": truth.image_ids[row],
            "file_name": truth.file_names[row],
            "height": int(truth.sizes[row][0]),
            "width": int(truth.sizes[row][1]),
        }
        for row in rows
    ]
    assert truth.masks is not None
    lists = [
        {
            "id": int(number) + 1,
            "image_id": truth.image_ids[truth.images[number]],
            "category_id": truth.category_ids[truth.labels[number]],
            "bbox": truth.bboxes[number].tolist(),
            "area": float(truth.areas[number]),
            "iscrowd": int(truth.crowd[number]),
            "segmentation": _rle(truth, int(number)),
        }
        for number in annotations
    ]
    categories = [
        {"id": each, "name": name} for each, name in zip(truth.category_ids, truth.names, strict=True)
    ]
    return ground_truth_of(images, lists, categories, truth.place)


def _rle(truth: GroundTruth, number: int) -> dict[str, Any]:
    assert truth.masks is not None
    counts = truth.masks[number]
    size = truth.sizes[truth.images[number]].tolist()
    return {"size": size, "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _precision(truth: GroundTruth, items: list[dict[str, Any]]) -> dict[str, float]:
    numbers = evaluate(truth, results_of(iter(items), truth, "the model"), ("bbox", "segm")).numbers()
    return {name: numbers[name] for name in ("bbox/AP", "segm/AP")}


def _percent(numbers: dict[str, float]) -> str:
    return " / ".join(f"{100 * value:.1f}" for value in numbers.values())


if __name__ == "__main__":
    main()
