"""A data set of drawn rectangles on noise, and a network small enough to train on it in seconds."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn.config import (
    AnchorConfig,
    BackboneConfig,
    BoxHeadConfig,
    FPNConfig,
    MaskHeadConfig,
    ModelConfig,
    RPNConfig,
)
from maskrcnn.data.dataset import Dataset, dataset_of
from maskrcnn.data.formats import coco
from maskrcnn.spec import Classes, Preprocess, Spec

CLASSES = Classes(("bright", "dark"), (3, 7))


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six images, one bright and one dark rectangle each."""
    return draw_shapes(tmp_path_factory.mktemp("shapes"), 6)


def draw_shapes(folder: Path, count: int) -> Dataset:
    """`count` PNG images of 96 x 80 and their annotations."""
    rng = np.random.default_rng(5)
    images, annotations = [], []
    for number in range(count):
        image = rng.integers(100, 156, (80, 96, 3), dtype=np.uint8)
        for category, level, left in ((3, 250, 4), (7, 5, 52)):
            x, y = left + int(rng.integers(0, 8)), int(rng.integers(4, 36))
            image[y : y + 36, x : x + 30] = level
            polygon = [x, y, x + 30, y, x + 30, y + 36, x, y + 36]
            row = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": category, "iscrowd": 0}
            annotations.append(row | {"bbox": [x, y, 30, 36], "area": 1080, "segmentation": [polygon]})
        cv2.imwrite(str(folder / f"{number}.png"), image)
        images.append({"id": number + 1, "file_name": f"{number}.png", "width": 96, "height": 80})
    categories = [{"id": i, "name": name} for name, i in zip(CLASSES.names, CLASSES.ids, strict=True)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return dataset_of(coco.read(folder / "instances.json", folder))


@pytest.fixture
def spec() -> Spec:
    """A network of 0.2 M parameters."""
    model = ModelConfig(
        classes=2,
        backbone=BackboneConfig(depth=18, width=8, norm="bn"),
        fpn=FPNConfig(channels=16, norm="bn"),
        anchors=AnchorConfig(sizes=((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))),
        rpn=RPNConfig(pre_nms=50, post_nms=50, pre_nms_training=50, post_nms_training=50, batch=64),
        box_head=BoxHeadConfig(fc_channels=32, batch=32),
        mask_head=MaskHeadConfig(convs=1, channels=16, norm="bn"),
    )
    return Spec(model, Preprocess(short=80, long=160), CLASSES)
