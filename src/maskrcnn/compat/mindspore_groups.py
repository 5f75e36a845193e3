"""Keys of mindspore-lab's RCNN configuration that mean something together: schedule, proposals, data."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrcnn.compat.mindspore_keys import Asked, Meaning, left_out, setting
from maskrcnn.compat.mindspore_passes import Pass, pass_of
from maskrcnn.errors import UserError
from maskrcnn.storage import Mirror, fetched_path, is_url

Meanings = Mapping[str, Meaning]

DEVICES = {"CPU": "cpu", "GPU": "cuda", "Ascend": "npu"}
# Elements of a queue of MindSpore where nobody says.
PREFETCH = 16
ANNOTATIONS = ("annotations/", "annotation/")


def start(asked: Asked) -> Meanings:
    """What the trunk begins with, and how much of it learns; random weights are never frozen."""
    found = {}
    pretrained = asked.get("backbone.pretrained")
    if asked.model:
        found["backbone.pretrained"] = Meaning(words=f"in place of it {asked.model}")
    elif isinstance(pretrained, str) and pretrained:
        found["backbone.pretrained"] = Meaning(words="the trunk's weights are read from it")
    elif pretrained:
        found["backbone.pretrained"] = left_out(
            "weights of MindCV are not downloaded; name a trunk's .ckpt here, or a model with --model"
        )
    else:
        found["backbone.pretrained"] = Meaning(words="random weights")
    taught = bool(asked.model) or isinstance(pretrained, str) and bool(pretrained)
    for key, stages in (("backbone.frozen_2stage", 2), ("backbone.frozen", 5)):
        if not asked.get(key):
            found[key] = Meaning(words="always so unless it is set")
        elif taught or asked.exact:
            found[key] = Meaning((setting("training.freeze_at", stages),))
        else:
            found[key] = left_out("random weights are not frozen")
    return found


def schedule(asked: Asked) -> Meanings:
    """Epochs, and milestones as shares of them; with `exact` their epochs are longer than a pass."""
    epochs, marks = number(asked, "epochs"), asked.get("lr.milestones")
    counted = _pass_of(asked) if asked.exact else None
    settings, words = [setting("training.epochs", epochs)], ""
    if counted is not None:
        settings.append(setting("training.steps", round(epochs * counted.steps)))
        words = f"each of {counted.steps} steps: {counted.length} rounded up by log_interval"
    found = {"epochs": Meaning(tuple(settings), words)}
    if marks is not None:
        if not isinstance(marks, list) or not all(isinstance(each, int | float) for each in marks):
            raise UserError(f"lr.milestones: {marks}: is no list of epochs", hint="write it like [8, 11]")
        # Theirs count in passes.
        share = 1.0 if counted is None else counted.length / counted.steps
        found["lr.milestones"] = Meaning(
            (
                setting("training.schedule", "steps"),
                setting("training.milestones", [share * each / epochs for each in marks]),
            ),
            "shares of the run",
        )
    return found


def _pass_of(asked: Asked) -> Pass | None:
    place = given(asked).get("data", "")
    path = fetched_path(place, lambda words: None)
    batch, interval = int(number(asked, "batch_size")), int(number(asked, "log_interval"))
    return pass_of(path, batch, asked.processes, interval)


def proposals(asked: Asked) -> Meanings:
    """Of prediction those of `test_proposal`; their code takes those of `train_proposal` there as well."""
    train, test = (f"rpn_head.{name}_proposal." for name in ("train", "test"))
    taken, other = (train, test) if asked.exact else (test, train)
    ours = {
        "pre_nms_top_n": "model.rpn.pre_nms",
        "post_nms_top_n": "model.rpn.post_nms",
        "nms_thresh": "model.rpn.nms_iou",
        "min_size": "model.conventions.rpn_min_size",
    }
    found = {f"{taken}{name}": (setting(path, asked.get(f"{taken}{name}")),) for name, path in ours.items()}
    meanings = {key: Meaning(settings) for key, settings in found.items()}
    for name in ("nms_thresh", "min_size"):
        same = asked.get(f"{train}{name}") == asked.get(f"{test}{name}")
        both = Meaning(words="the same in training and prediction")
        meanings[f"{other}{name}"] = both if same else left_out(f"one for both: that of {taken[:-1]}")
    for name in ("pre_nms_top_n", "post_nms_top_n"):
        value = asked.get(f"{train}{name}")
        training = setting(f"{ours[name]}_training", value)
        before = found[f"{taken}{name}"] if asked.exact else ()
        meanings[f"{train}{name}"] = Meaning((*before, training))
        if asked.exact:
            meanings[f"{test}{name}"] = Meaning(words="their code never reads it")
    threshold = asked.get("bbox_head.bbox_assigner.bg_thresh")
    same = threshold == asked.get("bbox_head.bbox_assigner.fg_thresh")
    meanings["bbox_head.bbox_assigner.bg_thresh"] = (
        Meaning(words="always fg_thresh") if same else left_out("what is below fg_thresh is background")
    )
    return meanings


def loading(asked: Asked) -> Meanings:
    """The queue of prepared images: how long, and how much memory it may take."""
    found = {}
    for place in ("", "data."):
        length, room = asked.get(f"{place}prefetch_size"), asked.get(f"{place}max_rowsize")
        if length is not None:
            found[f"{place}prefetch_size"] = Meaning((setting("training.ahead", length),), "batches")
        if room is None:
            continue
        sizes = room if isinstance(room, list) and room else [room]
        if not all(isinstance(size, int | float) for size in sizes):
            raise UserError(f"{place}max_rowsize: {room}: is no number of MB", hint="write it like 6")
        largest = max(sizes)
        if largest <= 0:
            found[f"{place}max_rowsize"] = Meaning(words="no limit")
            continue
        queue = length if isinstance(length, int) and length > 0 else PREFETCH
        found[f"{place}max_rowsize"] = Meaning(
            (setting("training.ahead_mb", queue * largest),), f"{queue} of {largest} MB"
        )
    return found


def options(asked: Asked) -> Meanings:
    """What their train.py takes as options, and a configuration file may have as well."""
    target, mix = asked.get("device_target"), asked.get("mix")
    batch = int(number(asked, "batch_size"))
    half = "fp16" if asked.exact or target == "Ascend" else "bf16"
    words = "" if asked.processes == 1 else f"{asked.processes} processes of {batch}"
    found = {
        "batch_size": Meaning((setting("training.batch", batch * asked.processes),), words),
        "lr_init": Meaning(
            (setting("training.learning_rate", number(asked, "lr_init")),), "of any batch; theirs was 8 x 2"
        ),
        "mix": Meaning((setting("training.precision", half if mix else "fp32"),)),
        "run_eval": Meaning(words="ten times in the run" if asked.get("run_eval") else "nothing is held out"),
        "eval_parallel": Meaning(words="processes always share an evaluation"),
    }
    if target is not None:
        found["device_target"] = Meaning(words=f"--device {device_of(target)}")
    return found


def device_of(target: str) -> str:
    """Our name of their device. Raises UserError for an unknown one."""
    if str(target) not in DEVICES:
        raise UserError(f"device_target: {target}: is no device", hint=f"choose {', '.join(DEVICES)}")
    return DEVICES[target]


def storing(asked: Asked) -> Meanings:
    """Folders, the object store and checkpoints: read by who calls."""
    found = {key: Meaning(words="taken") for key in ("save_dir", "resume_ckpt", "ckpt_path", "imgs")}
    words = "taken" if asked.get("enable_modelarts") else "only with enable_modelarts True"
    keys = ("enable_modelarts", "data_url", "train_url", "ckpt_url", "data_dir", "ckpt_dir")
    return found | {key: Meaning(words=words) for key in keys}


def number(asked: Asked, key: str) -> float:
    """A positive number, also where YAML has a text as of 1e-3. Raises UserError."""
    value = asked.get(key)
    try:
        found = float(value)
        if not (math.isfinite(found) and found > 0) or isinstance(value, bool):
            raise ValueError
    except (TypeError, ValueError):
        raise UserError(f"{key}: {value}: is no positive number", hint="correct the configuration") from None
    return found


def data(asked: Asked) -> Meanings:
    """Where annotations and images are: see `given`."""
    replaced = bool(asked.data) and given(asked).get("data") == asked.data
    keys = ("dataset_dir", "train_img_dir", "train_anno_path", "val_img_dir", "val_anno_path")
    found = {f"data.{key}": Meaning(words="in place of it --data" if replaced else "taken") for key in keys}
    if asked.data:
        found["data.dataset_dir"] = Meaning(words="in place of it --data")
    found["data.nc"] = Meaning(words="as many as the annotations have")
    return found


def given(asked: Asked) -> dict[str, Any]:
    """Fields of a RunFile: annotations and images of both sets, as paths or URLs.

    Folders of annotations are called `annotation` in their README and `annotations` in their configuration;
    either is taken.
    """
    root = asked.data or _path(asked, "dataset_dir")
    train, val = _path(asked, "train_anno_path"), _path(asked, "val_anno_path")
    share = {} if asked.get("run_eval") else {"val_share": 0.0}
    if not train or not root or asked.data and _missing(_located(root, train)):
        return share | ({"data": asked.data} if asked.data else {})
    found = share | {"data": _located(root, train), "images": _joined(root, _path(asked, "train_img_dir"))}
    if asked.get("run_eval") and val:
        found |= {"val": _located(root, val), "val_images": _joined(root, _path(asked, "val_img_dir"))}
    return found


def _path(asked: Asked, name: str) -> str:
    """A path below `data`, "" where there is none. Raises UserError for anything else."""
    value = asked.get(f"data.{name}")
    if value is not None and not isinstance(value, str):
        raise UserError(f"data.{name}: {value}: is no path", hint="correct the configuration")
    return value or ""


def _located(root: str, path: str) -> str:
    """The path below the root, with the other name of the folder of annotations where only that is there."""
    first, second = ANNOTATIONS
    other = path.replace(second, first) if second in path else path.replace(first, second)
    found = _joined(root, path)
    return _joined(root, other) if _missing(found) and not _missing(_joined(root, other)) else found


def _joined(root: str, path: str) -> str:
    if not path:
        return root
    return f"{root.rstrip('/')}/{path}" if is_url(root) else str(Path(root).expanduser() / path)


def _missing(place: str) -> bool:
    return not (Mirror(place, Path()).exists() if is_url(place) else Path(place).exists())
