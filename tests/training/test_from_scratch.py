"""From random weights alone a network learns to outline three shapes."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_loop import CPU, fresh

from maskrcnn.config import (
    AnchorConfig,
    BackboneConfig,
    BoxHeadConfig,
    FPNConfig,
    MaskHeadConfig,
    ModelConfig,
    RPNConfig,
)
from maskrcnn.data.augment import Augment
from maskrcnn.data.content import Content
from maskrcnn.data.dataset import dataset_of
from maskrcnn.data.formats import coco
from maskrcnn.spec import Classes, Preprocess, Spec
from maskrcnn.training.loop import train
from maskrcnn.training.recipe import Training
from maskrcnn.training.validation import validation_of

SIDE = 128
NAMES = ("disc", "rectangle", "triangle")


def draw(folder: Path, count: int, seed: int) -> Content:
    """Noise with one to four shapes of random colours, which may hide a part of each other."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    images, annotations = [], []
    for number in range(1, count + 1):
        image = cv2.resize(rng.integers(60, 196, (16, 16, 3), dtype=np.uint8), (SIDE, SIDE))
        masks: list[tuple[int, np.ndarray]] = []
        for _ in range(rng.integers(1, 5)):
            label = int(rng.integers(3))
            mask = shape(label, rng)
            masks = [(other, seen & ~mask) for other, seen in masks] + [(label, mask)]
            image[mask] = rng.integers(0, 256, 3)
        noise = rng.normal(0, 8, image.shape)
        cv2.imwrite(str(folder / f"{number}.png"), (image + noise).clip(0, 255).astype(np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        for label, mask in masks:
            if mask.sum() > 60:
                annotations.append(annotation(len(annotations) + 1, number, label + 1, mask))
    categories = [{"id": label, "name": name} for label, name in enumerate(NAMES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return coco.read(folder / "instances.json", folder)


def shape(label: int, rng: np.random.Generator) -> np.ndarray:
    """The pixels of a disc, an upright rectangle or a triangle."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    x, y, size = (int(value) for value in (*rng.integers(24, SIDE - 24, 2), rng.integers(12, 30)))
    if label == 0:
        cv2.circle(mask, (x, y), size, 1, -1)
    elif label == 1:
        height = int(size * rng.uniform(0.6, 1.4))
        cv2.rectangle(mask, (x - size, y - height), (x + size, y + height), 1, -1)
    else:
        corners = [(x, y - size), (x - size, y + size), (x + size, y + size)]
        cv2.fillPoly(mask, [np.array(corners, np.int32)], 1)
    return mask.astype(bool)


def annotation(number: int, image: int, category: int, mask: np.ndarray) -> dict[str, object]:
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(changes, prepend=0, append=mask.size).tolist()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [int(value) for value in box],
        "iscrowd": 0,
        "area": int(mask.sum()),
        "segmentation": {"size": [SIDE, SIDE], "counts": counts},
    }


@pytest.mark.slow
def test_three_shapes_are_outlined_with_an_average_precision_of_three_quarters(tmp_path: Path) -> None:
    model = ModelConfig(
        classes=3,
        backbone=BackboneConfig(depth=18, width=32, norm="bn"),
        fpn=FPNConfig(channels=64, norm="bn"),
        anchors=AnchorConfig(sizes=((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))),
        rpn=RPNConfig(pre_nms=200, post_nms=100, pre_nms_training=300, post_nms_training=150, batch=128),
        box_head=BoxHeadConfig(fc_channels=128, batch=48),
        mask_head=MaskHeadConfig(convs=3, channels=64, norm="bn"),
    )
    spec = Spec(model, Preprocess(short=SIDE, long=SIDE), Classes(NAMES, (1, 2, 3)))
    training = Training(
        steps=2600,
        batch=4,
        optimizer="adamw",
        learning_rate=1.5e-3,
        base_batch=0,
        weight_decay=0.02,
        warm_up=100,
        precision="fp32",
        average=0.99,
        freeze_from=0.7,
        augment=Augment(flip=0.5),
        evaluate_every=2600,
        log_every=100,
        save_every=2600,
    )
    torch.manual_seed(0)
    learn, measure = draw(tmp_path / "learn", 1200, seed=1), draw(tmp_path / "measure", 60, seed=2)
    run = replace(training, threads=1)
    trained = train(fresh(spec), spec, dataset_of(learn), run, tmp_path / "run", CPU, validation_of(measure))
    assert trained.judged is not None
    numbers = trained.judged.metrics.numbers()
    assert numbers["segm/AP"] >= 0.75
