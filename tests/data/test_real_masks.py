"""Masks of real COCO annotations, against pycocotools."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle

from maskrcnn.data.augment import tight_boxes
from maskrcnn.data.dataset import dataset_of
from maskrcnn.data.formats import coco
from maskrcnn.data.sample import load

pytestmark = pytest.mark.data


def expected(segmentation: object, height: int, width: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools 2.0.11 under numpy 2
        if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
            return rle.decode(segmentation)
        found = rle.frPyObjects(segmentation, height, width)
        return rle.decode(rle.merge(found) if isinstance(found, list) else found)


@pytest.mark.parametrize("name", ["coco_val215", "coco_person_pseudo"])
def test_every_mask_of_thirty_photographs_equals_pycocotools_and_fills_its_box(
    data_dir: Path, name: str
) -> None:
    folder = data_dir / name
    dataset = dataset_of(coco.read(folder / "instances.json", folder / "images"))
    annotations = json.loads((folder / "instances.json").read_text())["annotations"]
    compared = 0
    for index in range(30):
        sample = load(dataset, index)
        height, width = sample.image.shape[:2]
        theirs = [a for a in annotations if a["image_id"] == dataset.ids[index]]
        assert len(theirs) == len(sample.masks)
        for mask, annotation in zip(sample.masks, theirs, strict=True):
            assert np.array_equal(mask, expected(annotation["segmentation"], height, width))
        filled = np.count_nonzero(sample.masks, axis=(1, 2)) > 0
        # COCO boxes polygons before they become pixels, so sides differ by fractions of one.
        distance = np.abs(tight_boxes(sample.masks[filled]) - sample.boxes[filled])
        assert np.median(distance) <= 1
        compared += len(theirs)
    assert compared > 150
