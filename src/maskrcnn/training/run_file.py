"""A run as a file: what to learn from, what to begin with, and how; and how it is resolved."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from maskrcnn.config_file import read_strictly, with_settings
from maskrcnn.data.content import Content
from maskrcnn.data.read import read_annotations
from maskrcnn.data.split import split
from maskrcnn.errors import UserError
from maskrcnn.training.recipe import Training
from maskrcnn.whole_file import whole_file

RESOLVED = "run.yaml"


@dataclass(frozen=True)
class RunFile:
    """One training.

    data: annotations in any format.
    images: folder of their pictures, where it is not beside them.
    val: annotations to evaluate on; without them a share of the data is held out.
    val_images: folder of their pictures.
    val_share: the share that is held out; with 0 nothing is evaluated.
    model: model file to start from, `example`, `zoo:NAME`, or `scratch:NAME` for random weights.
    trunk: checkpoint of a trunk alone that random weights begin with: MindSpore's .ckpt, or a trunk.pt.
    resume_from: checkpoint of a training that this run goes on with: MindSpore's .ckpt, or segmentoly's .pth.
    out: folder of the run.
    mirror: URL of a folder that that of the run is kept like; `out` as a URL stands for both.
    local: folder for the local copies of what is given as a URL; the cache when left out.
    checkpoints_for: `mindspore` writes each checkpoint as MindSpore's .ckpt as well.
    device: auto, cpu, cuda, mps, xpu or npu.
    settings: of the model, such as preprocess.short=480 or model.rpn.post_nms_training=1000.
    """

    data: str = ""
    images: str = ""
    val: str = ""
    val_images: str = ""
    val_share: float = 0.2
    model: str = "example"
    trunk: str = ""
    resume_from: str = ""
    out: str = ""
    mirror: str = ""
    local: str = ""
    checkpoints_for: Literal["", "mindspore"] = ""
    device: str = "auto"
    settings: tuple[str, ...] = ()
    training: Training = field(default_factory=Training)


def read_run(
    path: Path | None, given: dict[str, Any], settings: Iterable[str], preset: str | None = None
) -> RunFile:
    """A run from a preset, then a YAML file, then what was `given` by hand, then settings (training.clip=5).

    Settings that begin with model. or preprocess. are kept for the model.
    """
    from maskrcnn.training.named import over, preset_named  # it is made of run files

    run = RunFile() if preset is None else preset_named(preset)
    if path is not None:
        run = read_strictly(RunFile, over(run, _yaml(path)), path)
    run = replace(run, **{name: value for name, value in given.items() if value is not None})
    of_model = [each for each in settings if each.split(".")[0] in ("model", "preprocess")]
    run = with_settings(run, [each for each in settings if each not in of_model])
    run = replace(run, settings=(*run.settings, *of_model))
    for name in ("data", "out"):
        if not getattr(run, name):
            raise UserError(f"--{name} is missing", hint=f"add --{name}, or `{name}:` to a run file")
    return run


def write_run(run: RunFile, out: Path) -> None:
    """The run with every setting, as `maskrcnn train` reads it."""
    with whole_file(out / RESOLVED) as temporary:
        temporary.write_text(yaml.safe_dump(_plain(asdict(run)), sort_keys=False), encoding="utf-8")


def contents_of(run: RunFile) -> tuple[Content, Content | None]:
    """What to learn from, and what to be measured on."""
    content = read_annotations(Path(run.data), _folder(run.images))
    if run.val:
        return content, read_annotations(Path(run.val), _folder(run.val_images))
    if run.val_share <= 0 or len(content.pictures) < 2:
        return content, None
    parts = split(content, {"train": 1 - run.val_share, "val": run.val_share}, run.training.seed)
    return parts["train"], parts["val"]


def _folder(path: str) -> Path | None:
    return Path(path) if path else None


def _yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", hint="name a run file") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: is not YAML", hint="begin with `data: FOLDER` and `out: FOLDER`") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no settings", hint="begin with `data: FOLDER` and `out: FOLDER`")
    return values


def _plain(value: Any) -> Any:
    """Tuples as lists, which is what YAML has."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value
