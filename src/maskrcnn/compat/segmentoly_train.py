"""`python -m maskrcnn.compat.segmentoly_train`: flags of segmentoly's tools/train.py over `maskrcnn train`.

Options that its train.py does not have follow, and are given to the verb, as `--data DIR` or `--device cpu`.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from maskrcnn.compat.segmentoly_flags import CHECKPOINTS
from maskrcnn.compat.verbs import ends_in_words, note, run_verb
from maskrcnn.errors import UserError

FPN, LIGHT = "ResNet50FPNMaskRCNN", "InstanceSegmentationSecurity0050"
# The last part of the path of a class: our architecture, and what it has otherwise.
ARCHITECTURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ResNet50C4MaskRCNN": ("r50-c4", ()),
    FPN: ("r50-fpn", ()),
    "ResNet50FPNMaskRCNNDemo": ("r50-fpn", ("model.rpn.pre_nms=100", "model.rpn.post_nms=100")),
    "ResNet101FPNMaskRCNN": ("r101-fpn", ()),
    "ResNeXt101FPNMaskRCNN": ("x101-32x8d-fpn", ()),
    "ResNeXt10164x4dFPNMaskRCNN": ("x101-64x4d-fpn", ()),
    "ResNeXt152FPNMaskRCNN": (
        "r152-fpn",
        ("model.backbone.groups=32", "model.backbone.group_width=8"),
    ),
    "ResNet50FPNGNMaskRCNN": (
        "r50-fpn-gn",
        ("model.fpn.conv_bias=true", "model.mask_head.conv_bias=true"),
    ),
    "ResNeXt101PANetMaskRCNN": ("x101-32x8d-panet", ()),
    LIGHT: ("r50-fpn-light", ()),
}
# Flags whose value is one of our settings.
SETTINGS = {
    "weight_decay": "training.weight_decay",
    "momentum": "training.momentum",
    "warmup_iters": "training.warm_up",
    "warmup_factor": "training.warm_up_from",
    "warmup_method": "training.warm_up_shape",
    "gamma": "training.drop",
    "display_interval": "training.log_every",
    "nw": "training.threads",
    "checkpoint_interval": "training.save_every",
    "test_interval": "training.evaluate_every",
}
STEPS = {"": 90_000, LIGHT: 270_000}
# Where the rate drops without --drop_lr, also in a run of other length.
DROPS = {"": (60_000, 80_000), LIGHT: (220_000, 250_000)}
COCO = Path("data/coco")
# Made in the folder of a run, of what it begins with.
START, TRUNK = "start.safetensors", "trunk.pt"
# The stem, res2 and all norms of a trunk that has learnt stay as they are, as in segmentoly.
FROZEN, CONSTANT = "training.freeze_at=2", "model.backbone.norm=frozen_bn"


@dataclass(frozen=True)
class Asked:
    """A command line of train.py, with what its configuration file says. flags: those that are given.

    rest: options for our verb. dry: only say what would be run.
    """

    flags: dict[str, Any] = field(default_factory=dict)
    rest: tuple[str, ...] = ()
    dry: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Train; exit code 2 where the user must change something."""
    with ends_in_words():
        asked = read_arguments(sys.argv[1:] if arguments is None else arguments)
        out = folder_of(asked)
        words = command(asked, out)
        if asked.dry:
            print(f"maskrcnn {' '.join(words)}")
            return
        out.mkdir(parents=True, exist_ok=True)
        if str(out / START) in words:
            run_verb(["convert", str(asked.flags["load_ckpt"]), str(out / START)])
        elif "load_backbone" in asked.flags:
            write_trunk(Path(asked.flags["load_backbone"]), out / TRUNK)
        run_verb(words)


def read_arguments(arguments: Sequence[str]) -> Asked:
    """train.py's flags; a file of --load_cfg goes before them, as there. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m maskrcnn.compat.segmentoly_train",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--model", help=f"path of a class, {FPN} when left out")
    parser.add_argument("--dataset", help="coco2017 in data/coco, or --data of ours")
    for name in ("load_cfg", "save_cfg", "load_ckpt", "load_backbone"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--output_dir", type=Path, help="outputs when left out")
    for name in ("bs", "bs_per_gpu", "max_iter", "display_interval", "nw", "warmup_iters"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("checkpoint_interval", "test_interval"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("lr", "weight_decay", "momentum", "warmup_factor", "gamma"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--warmup_method", choices=("linear", "constant"))
    parser.add_argument("--drop_lr", type=int, nargs="*")
    parser.add_argument("--max_image_size", type=int, nargs=2)
    parser.add_argument("--mean_pixel", type=float, nargs=3)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--dry_run", action="store_true", help="only print the command of ours")
    found, rest = parser.parse_known_args(arguments)
    flags = vars(found)
    dry = flags.pop("dry_run", False)
    loaded, saved = flags.pop("load_cfg", None), flags.pop("save_cfg", None)
    if loaded is not None:
        flags |= read_cfg(loaded, {action.dest for action in parser._actions})
    elif saved is not None:
        write_cfg(saved, flags)
    return Asked({name: value for name, value in flags.items() if value is not None}, tuple(rest), dry)


def read_cfg(path: Path, known: set[str]) -> dict[str, Any]:
    """A flat YAML file of flags. Raises UserError for what is no flag."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror})", hint="name a file of --save_cfg"
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: is not YAML", hint="name a file of --save_cfg") from error
    unknown = sorted(map(str, set(values) - known)) if isinstance(values, dict) else ["no flags"]
    if unknown:
        raise UserError(f"{path}: has {', '.join(unknown)}", hint=f"known are {', '.join(sorted(known))}")
    values = {name: None if value == "None" else value for name, value in values.items()}
    return {name: value for name, value in values.items() if name not in ("load_cfg", "save_cfg", "help")}


def write_cfg(path: Path, flags: dict[str, Any]) -> None:
    """The flags that are given, as a flat YAML file."""
    from maskrcnn.whole_file import whole_file

    plain = {name: str(value) if isinstance(value, Path) else value for name, value in flags.items()}
    with whole_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def folder_of(asked: Asked) -> Path:
    """`outputs/MaskRCNN/Nov21-12-30-00`; with --resume the newest of these that holds a run.

    With --resume and a checkpoint of their training it must be a run that went on with this checkpoint; a
    first one is in a folder of its own.
    """
    runs, theirs = Path(asked.flags.get("output_dir", "outputs")) / "MaskRCNN", gone_on_with(asked.flags)
    began = runs / time.strftime("%b%d-%H-%M-%S")
    if not asked.flags.get("resume"):
        return began
    found = sorted(runs.glob("*/checkpoint.pt"), key=lambda path: path.stat().st_mtime)
    if theirs is not None:
        found = [path for path in found if _resumed_from(path.parent) == str(theirs)]
        return found[-1].parent if found else began
    if not found:
        raise UserError(f"{runs}: holds no run to resume", hint="leave --resume out, or add --load_ckpt")
    return found[-1].parent


def gone_on_with(flags: dict[str, Any]) -> Path | None:
    """The checkpoint of their training that --resume goes on with; None for a run of ours."""
    path = Path(flags.get("load_ckpt", ""))
    if not flags.get("resume") or path.suffix.lower() not in CHECKPOINTS:
        return None
    from maskrcnn.training.segmentoly import is_training

    return path if is_training(path) else None


def _resumed_from(run: Path) -> str:
    """What the run file of a folder says that it went on with."""
    from maskrcnn.training.run_file import RESOLVED

    try:
        said = yaml.safe_load((run / RESOLVED).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ""
    return str(said.get("resume_from", "")) if isinstance(said, dict) else ""


def command(asked: Asked, out: Path) -> list[str]:
    """The words of `maskrcnn train` that do what is asked in a folder. Raises UserError."""
    flags = asked.flags
    name = str(flags.get("model", FPN)).rpartition(".")[2]
    if name not in ARCHITECTURES:
        raise UserError(f"--model {name}: cannot be trained here", hint=f"choose {', '.join(ARCHITECTURES)}")
    preset = "segmentoly-0050" if name == LIGHT else "segmentoly"
    words = ["train", "--preset", preset, *_data(flags, asked.rest), "--out", str(out)]
    theirs = gone_on_with(flags)
    words += ["--resume"] if flags.get("resume") and (theirs is None or out.exists()) else []
    words += _set([f"resume_from={theirs}"]) if theirs is not None else []
    words += _start(flags, name, out)
    steps = flags.get("max_iter", STEPS.get(name, STEPS[""]))
    words += ["--steps", str(steps)]
    words += ["--batch", str(flags["bs"])] if "bs" in flags else []
    settings = [f"{ours}={flags[theirs]}" for theirs, ours in SETTINGS.items() if theirs in flags]
    if "lr" in flags:
        settings += [f"training.learning_rate={flags['lr']}", "training.base_batch=0"]
    if "drop_lr" in flags or "max_iter" in flags:
        drops = flags.get("drop_lr", DROPS.get(name, DROPS[""]))
        shares = ", ".join(f"{step / steps:.9g}" for step in drops)
        settings.append(f"training.milestones=[{shares}]")
    if "max_image_size" in flags:
        short, long = flags["max_image_size"]
        settings += [f"preprocess.short={short}", f"preprocess.long={long}"]
    if "bs_per_gpu" in flags:
        settings.append(f"training.accumulate={_parts(flags)}")
    return [*words, *_set(settings), *asked.rest]


def _data(flags: dict[str, Any], rest: Sequence[str]) -> list[str]:
    if "--data" in rest:
        return []
    if flags.get("dataset", "coco2017") != "coco2017":
        raise UserError(f"--dataset {flags['dataset']}: is unknown", hint="use coco2017, or --data FOLDER")
    words = []
    for split, option, images in (("train2017", "--data", "--images"), ("val2017", "--val", "--val-images")):
        words += [option, str(COCO / "annotations" / f"instances_{split}.json")]
        words += [images, str(COCO / "images" / split)]
    return words


def _start(flags: dict[str, Any], name: str, out: Path) -> list[str]:
    """What the network begins with: a checkpoint, a trunk and random heads, or random numbers alone."""
    constant = [] if name == "ResNet50FPNGNMaskRCNN" else [CONSTANT]
    if "load_ckpt" in flags:
        path = Path(flags["load_ckpt"])
        converts = path.suffix.lower() in CHECKPOINTS
        words = ["--model", str(out / START if converts else path)]
        return [*words, *_set([*constant, FROZEN])]
    architecture, settings = ARCHITECTURES[name]
    words = ["--model", f"scratch:segmentoly/{architecture}"]
    if "mean_pixel" in flags:
        settings = (*settings, f"model.mean=[{', '.join(map(str, flags['mean_pixel']))}]")
    if "load_backbone" in flags:
        settings = (*settings, f"trunk={out / TRUNK}", *constant, FROZEN)
    else:
        # Random layers that never learn would be of no use, so none is frozen.
        note("the network begins with random numbers: --load_backbone or --load_ckpt give it better ones")
    return [*words, *_set(settings)]


def _set(settings: Iterable[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _parts(flags: dict[str, Any]) -> int:
    from maskrcnn.launch import place_of

    return max(1, math.ceil(flags.get("bs", 16) / flags["bs_per_gpu"] / place_of(os.environ).count))


def write_trunk(path: Path, out: Path) -> None:
    """A trunk of Detectron (.pkl) or of segmentoly (.pth) as the trunk.pt that a run begins with."""
    import torch

    from maskrcnn.config import ModelConfig
    from maskrcnn.training.checkpoint import save_checkpoint
    from maskrcnn.weights.readers import read_checkpoint
    from maskrcnn.weights.rewrite import rewrite
    from maskrcnn.weights.source import filled_statistics
    from maskrcnn.weights.sources import caffe2, segmentoly

    tensors = read_checkpoint(path).tensors
    if "conv1_w" in tensors:
        found = rewrite(tensors, caffe2.TABLE, str(path)).tensors
    else:
        named = {f"backbone.{name.removeprefix('backbone.')}": each for name, each in tensors.items()}
        named = {name: each for name, each in named.items() if name.startswith("backbone.stages.")}
        if not named:
            raise UserError(
                f"{path}: holds no trunk", hint="name R-50.pkl, or a .pth that segmentoly converted"
            )
        found = rewrite(named, segmentoly.TABLE, str(path)).tensors
    if not any("_gn_" in name for name in tensors):
        found = filled_statistics(found, ModelConfig())
    backbone = {
        name.removeprefix("backbone."): torch.from_numpy(each.copy())
        for name, each in found.items()
        if name.startswith("backbone.") and not name.endswith("num_batches_tracked")
    }
    save_checkpoint(out, {"backbone": backbone})


if __name__ == "__main__":
    main()
