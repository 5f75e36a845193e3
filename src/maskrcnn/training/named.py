"""Trainings that have names, for `maskrcnn train --preset`: what a run begins with."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from maskrcnn.data.augment import Augment
from maskrcnn.errors import UserError
from maskrcnn.training.recipe import Training
from maskrcnn.training.run_file import RunFile

# Of Detectron: proposals that train the heads, and losses that are linear beyond these distances.
_DETECTRON = (
    "model.rpn.pre_nms_training=2000",
    "model.rpn.post_nms_training=2000",
    "model.rpn.smooth_l1_beta=0.1111111111111111",
    "model.box_head.smooth_l1_beta=1.0",
)
# Small masks, fewer samples, and squares.
_LIGHT = (
    "model.mask_head.pool_side=7",
    "model.box_head.batch=256",
    "preprocess.resize=stretch",
    "preprocess.short=480",
    "preprocess.long=480",
)

# Of these each image has one for its height and one for its width.
_SIDES = (416, 448, 480, 512, 544)

# Its defaults, which are those of Detectron's 1x: 8 passes over COCO.
_TRAINING = Training(
    steps=90_000,
    batch=16,
    learning_rate=0.02,
    base_batch=16,
    schedule="steps",
    milestones=(60 / 90, 80 / 90),
    warm_up=1000,
    warm_up_from=0.33,
    clip=0.0,
    average=0.0,
    precision="fp32",
    augment=Augment(flip=0.0),
    threads=4,
    save_every=10_000,
    evaluate_every=10_000,
)

PRESETS: dict[str, RunFile] = {
    "segmentoly": RunFile(
        model="scratch:segmentoly/r50-fpn",
        settings=(*_DETECTRON, "preprocess.short=800", "preprocess.long=1333"),
        training=_TRAINING,
    ),
    # Its light network for 480 x 480.
    "segmentoly-0050": RunFile(
        model="scratch:segmentoly/r50-fpn-light",
        settings=(*_DETECTRON, *_LIGHT),
        training=replace(
            _TRAINING,
            steps=270_000,
            batch=32,
            base_batch=32,
            milestones=(220 / 270, 250 / 270),
            warm_up_from=0.333,
            augment=Augment(flip=0.5, sides=(_SIDES, _SIDES)),
            log_every=50,
        ),
    ),
}


def preset_named(name: str) -> RunFile:
    """Raises UserError where there is none."""
    if name not in PRESETS:
        raise UserError(f"--preset {name}: there is none", hint=f"choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def over(preset: RunFile, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a run file says, in place of what the preset says; `settings` come after the preset's."""
    whole = _over(asdict(preset), values)
    given = values.get("settings")
    if isinstance(given, list | tuple):
        whole["settings"] = [*preset.settings, *given]
    return whole


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    mixed = {**below, **above}
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            mixed[name] = _over(below[name], value)
    return mixed
