"""The recipe of the example model: `python -m maskrcnn.training.example --data DIR --out RUN`.

DIR holds two data sets in COCO layout, coco_person_pseudo and coco_train_small, each a folder `images` and
an instances.json. The trunk learns to name crops, then the whole network learns to detect. The same command
goes on after an interruption; a larger --steps goes on longer.
"""

import argparse
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from maskrcnn.config import (
    AnchorConfig,
    BackboneConfig,
    BoxHeadConfig,
    Conventions,
    FPNConfig,
    MaskHeadConfig,
    ModelConfig,
    RPNConfig,
)
from maskrcnn.data.augment import Augment
from maskrcnn.data.dataset import Dataset, dataset_of
from maskrcnn.data.read import read_annotations
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.spec import Classes, Origin, Preprocess, Spec
from maskrcnn.training.initial import initialise, load_trunk
from maskrcnn.training.loop import train
from maskrcnn.training.prior import correct_prior
from maskrcnn.training.recipe import Training
from maskrcnn.training.trunk import TrunkRecipe, train_trunk

# Real annotations are few and complete, a teacher's are many and not: how often the real ones come.
REPEAT_REAL = 2
# Nearly every photograph shows a person; the others come more often, so that guessing one never pays.
REPEAT_WITHOUT_PERSON = 3

# Enough for two digits of the share of objects among proposals.
PRIOR_IMAGES = 100

TRUNK = TrunkRecipe(
    backbone=BackboneConfig(depth=18, width=48, norm="bn"), steps=6600, save_every=375, sides=(64, 80, 96)
)

TRAINING = Training(
    steps=10_400,
    batch=4,
    optimizer="adamw",
    learning_rate=5e-4,
    base_batch=0,
    trunk_rate=0.5,
    weight_decay=0.05,
    schedule="hold",
    warm_up=200,
    clip=5.0,
    average=0.998,
    freeze_from=0.6,
    freeze=("backbone.stem.", "backbone.res2."),
    shorts=((192, 224, 256, 288), (224, 256, 288), (256, 288, 320), (288, 320)),
    augment=Augment(crop=0.5, crop_area=0.25, jitter=0.3),
    save_every=200,
)


def example_spec(classes: Classes) -> Spec:
    """A ResNet-18 of width 48 with a narrow pyramid and heads, for small images."""
    model = ModelConfig(
        classes=len(classes),
        backbone=TRUNK.backbone,
        fpn=FPNConfig(channels=128, norm="bn"),
        anchors=AnchorConfig(sizes=((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))),
        rpn=RPNConfig(pre_nms=500, post_nms=300, pre_nms_training=600, post_nms_training=400),
        # correct_prior lowers scores: its 1.14 makes 0.05, the usual limit, 0.016.
        box_head=BoxHeadConfig(fc_channels=256, batch=64, score_over=0.02),
        mask_head=MaskHeadConfig(channels=128, norm="bn", class_agnostic=True),
        conventions=Conventions(roi_samples=2, clip_to_image=True),
    )
    origin = Origin(source="maskrcnn.training.example", tool_version=version("maskrcnn"))
    return Spec(model, Preprocess(short=320, long=533), classes, precision="fp16", origin=origin)


def example_data(folder: Path) -> tuple[Dataset, Dataset]:
    """Teacher-labelled and real photographs of the recipe."""
    teacher, real = (
        dataset_of(read_annotations(folder / name)) for name in ("coco_person_pseudo", "coco_train_small")
    )
    return teacher, real


def weighted(teacher: Dataset, real: Dataset) -> Dataset:
    """Both data sets with the repetitions of the recipe."""
    dataset = teacher
    for _ in range(REPEAT_REAL):
        dataset = dataset + real
    person = dataset.classes.names.index("person")
    without = [i for i in range(len(dataset)) if person not in dataset.labels[dataset.rows(i)]]
    others = dataset.take(np.array(without, np.int64))
    for _ in range(REPEAT_WITHOUT_PERSON - 1):
        dataset = dataset + others
    return dataset


def main() -> None:
    """Read the arguments and run the recipe."""
    parser = argparse.ArgumentParser(description="Train the example model.")
    parser.add_argument("--data", type=Path, required=True, help="folder with both data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=TRAINING.steps, help="detection steps of 4 images")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    teacher, real = example_data(arguments.data)
    trunk = train_trunk(teacher + real, TRUNK, arguments.out)
    spec = example_spec(real.classes)
    torch.manual_seed(TRAINING.seed)
    model = MaskRCNN(spec.model)
    initialise(model)
    load_trunk(model, trunk)
    dataset = weighted(teacher, real)
    training, device = replace(TRAINING, steps=arguments.steps), torch.device(arguments.device)
    trained = train(model, spec, dataset, training, arguments.out, device)
    correct_prior(trained.path, dataset, images=PRIOR_IMAGES)


if __name__ == "__main__":
    main()
