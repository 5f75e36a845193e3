"""Annotations and detections made by hand or by chance, and what pycocotools says of them."""

import contextlib
import copy
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn.evaluation.ground_truth import GroundTruth, ground_truth_of

Item = dict[str, Any]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SmallSet:
    """The lists of a COCO annotation file, and a COCO results list for it."""

    images: list[Item]
    annotations: list[Item]
    categories: list[Item]
    items: list[Item]

    def truth(self) -> GroundTruth:
        return ground_truth_of(self.images, self.annotations, self.categories)


def rectangle(box: Box, image_id: int = 1, category_id: int = 1, **more: Any) -> Item:
    """An annotation or a detection whose mask is its box x, y, width, height in an image of 100 x 100."""
    x, y, width, height = box
    mask = np.zeros((100, 100), np.uint8, order="F")
    mask[round(y) : round(y + height), round(x) : round(x + width)] = 1
    rle = coco_mask.encode(mask)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(box),
        "segmentation": {"size": [100, 100], "counts": rle["counts"].decode()},
        **more,
    }


def hand_made(
    objects: list[tuple[Box, int]], found: list[tuple[Box, int, float]], crowds: list[tuple[Box, int]] = ()
) -> SmallSet:
    """One image of 100 x 100, objects (box, class) of classes 1 and 2, detections (box, class, score)."""
    annotations = [
        rectangle(box, category_id=category, id=number, area=box[2] * box[3], iscrowd=int(crowd))
        for number, (box, category, crowd) in enumerate(
            [(*each, False) for each in objects] + [(*each, True) for each in crowds], start=1
        )
    ]
    return SmallSet(
        images=[{"id": 1, "height": 100, "width": 100, "file_name": "1.jpg"}],
        annotations=annotations,
        categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        items=[rectangle(box, category_id=category, score=score) for box, category, score in found],
    )


def by_chance(seed: int, crowded: bool = False) -> SmallSet:
    """Forty small images with all that makes COCO's rules differ.

    Crowd regions as both kinds of RLE, equal scores, images without objects, doubled annotations, areas on
    the borders of the ranges and with fractions, a class without objects. crowded: hundreds of detections of
    a class in an image.
    """
    chance = np.random.default_rng(seed)
    made = SmallSet([], [], [{"id": number, "name": f"class {number}"} for number in range(1, 7)], [])
    for image_id in chance.permutation(1000)[:40].tolist():
        height, width = chance.integers(20, 160, 2).tolist()
        made.images.append({"id": image_id, "height": height, "width": width})
        for _ in range(chance.integers(0, 8)):
            _add_object(made, chance, crowded)
    order = chance.permutation(len(made.items)).tolist()
    made.items[:] = [made.items[row] for row in order]
    return made


def _add_object(made: SmallSet, chance: np.random.Generator, crowded: bool) -> None:
    image = made.images[-1]
    mask = _speckled(chance, image["height"], image["width"])
    rle = coco_mask.encode(mask)
    bbox = coco_mask.toBbox(rle).tolist()
    area = float(coco_mask.area(rle)) + float(chance.choice([0, 0.5]))
    x, y, width, height = bbox
    segmentation: Any = [[x, y, x + width + 0.3, y, x + width, y + height, x, y + height + 0.7]]
    if crowd := bool(chance.random() < 0.2):
        text = rle["counts"].decode()
        counts = text if chance.random() < 0.5 else _run_lengths(mask)
        segmentation = {"size": [image["height"], image["width"]], "counts": counts}
    annotation = {
        "image_id": image["id"],
        "category_id": int(chance.integers(1, 6)),
        "bbox": bbox,
        "area": float(chance.choice([1024, 9216, 0, 1023.5])) if chance.random() < 0.1 else area,
        "iscrowd": int(crowd),
        "segmentation": segmentation,
    }
    for _ in range(2 if chance.random() < 0.1 else 1):
        made.annotations.append({**annotation, "id": len(made.annotations) + 1})
    for _ in range(chance.integers(0, 250) if crowded and chance.random() < 0.1 else chance.integers(0, 4)):
        shifted = np.roll(mask, chance.integers(-3, 4, 2), (0, 1))
        found = shifted if chance.random() < 0.8 else _speckled(chance, image["height"], image["width"])
        found_rle = coco_mask.encode(np.asfortranarray(found))
        moved = coco_mask.toBbox(found_rle) + chance.normal(0, 0.5, 4)
        right = chance.random() < 0.8
        made.items.append(
            {
                "image_id": image["id"],
                "category_id": annotation["category_id"] if right else int(chance.integers(1, 7)),
                "bbox": bbox if chance.random() < 0.3 else moved.tolist(),
                "score": round(float(chance.random()), int(chance.choice([1, 5]))),
                "segmentation": {
                    "size": [image["height"], image["width"]],
                    "counts": found_rle["counts"].decode(),
                },
            }
        )


def _speckled(chance: np.random.Generator, height: int, width: int) -> np.ndarray:
    x, y = chance.integers(0, width - 5), chance.integers(0, height - 5)
    wide, high = chance.integers(1, width - x + 1), chance.integers(1, height - y + 1)
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[y : y + high, x : x + wide] = chance.random((high, wide)) < 0.8
    return mask


def _run_lengths(mask: np.ndarray) -> list[int]:
    flat = mask.ravel(order="F")
    lengths = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths


def of_pycocotools(made: SmallSet, kind: str, most: int = 100) -> COCOeval:
    """A finished COCOeval."""
    made = copy.deepcopy(made)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": made.images,
            "annotations": made.annotations,
            "categories": made.categories,
        }
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(made.items), kind)
        run.params.maxDets = [1, 10, most]
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run
