"""The lists `item_transforms` of mindspore-lab's RCNN configuration: flip, resize, normalise, planes."""

from collections.abc import Mapping
from typing import Any

from maskrcnn.compat.mindspore_keys import Asked, Meaning, left_out, setting
from maskrcnn.errors import UserError

TRAIN, EVAL = "data.train_transforms.item_transforms", "data.eval_transforms.item_transforms"
KNOWN = ("RandomFlip", "Resize", "NormalizeImage", "TransposeImage", "LabelsPadding")


def transforms(asked: Asked) -> Mapping[str, Meaning]:
    """Of training the flip alone, of evaluation the rest: a model has one input.

    Their training turns the normalised planes round (bgr2rgb of an image that is RGB already) and their
    evaluation does not; here both have the evaluation's, or with `exact` the training's.
    """
    train, test = _listed(asked, TRAIN), _listed(asked, EVAL)
    found = {}
    taken = train if asked.exact else test
    if train:
        flip = setting("training.augment.flip", train.get("RandomFlip", {}).get("prob", 0))
        found[TRAIN] = Meaning((flip, *(_input(train, asked.exact) if asked.exact or not test else ())))
        others = [name for name in train if name not in KNOWN]
        if others:
            found[TRAIN] = left_out(f"there is no {', '.join(others)}; the others are taken")
    if test:
        resized = train.get("Resize", test.get("Resize")) == test.get("Resize")
        settings = () if taken is train else _input(test, False)
        words = "" if resized else "training has the same size; it is the evaluation's"
        found[EVAL] = Meaning(settings, words)
    return found


def _input(steps: Mapping[str, dict[str, Any]], turned: bool) -> tuple[str, ...]:
    found = [setting("preprocess.channels", "bgr" if turned else "rgb")]
    resize = steps.get("Resize", {})
    if "target_size" in resize:
        height, width = _numbers("Resize.target_size", resize["target_size"], 2)
        rule = "fit_window" if resize.get("keep_ratio", True) else "stretch"
        found += [setting("preprocess.resize", rule)]
        found += [setting("preprocess.short", int(height)), setting("preprocess.long", int(width))]
    normal = steps.get("NormalizeImage", {})
    factor = 255.0 if normal.get("is_scale") else 1.0
    for name in ("mean", "std"):
        if name in normal:
            values = [
                round(factor * value, 6) for value in _numbers(f"NormalizeImage.{name}", normal[name], 3)
            ]
            found.append(setting(f"model.{name}", values[::-1] if turned else values))
    return tuple(found)


def _listed(asked: Asked, key: str) -> dict[str, dict[str, Any]]:
    """Name -> arguments of each step. Raises UserError where it is no list of such."""
    steps = asked.get(key)
    if steps is None:
        return {}
    if not isinstance(steps, list) or not all(isinstance(each, dict) for each in steps):
        raise UserError(f"{key}: is no list of steps", hint="write it like [RandomFlip: {prob: 0.5}]")
    found = {name: values or {} for each in steps for name, values in each.items()}
    for name, values in found.items():
        if not isinstance(values, dict):
            raise UserError(f"{key}: {name}: {values}: has no names", hint="write it like {prob: 0.5}")
    return found


def _numbers(key: str, values: Any, count: int) -> list[float]:
    fits = isinstance(values, list) and len(values) == count
    if not fits or not all(isinstance(value, int | float) and value > 0 for value in values):
        raise UserError(f"{key}: {values}: is no list of {count} numbers", hint="correct the configuration")
    return [float(value) for value in values]
