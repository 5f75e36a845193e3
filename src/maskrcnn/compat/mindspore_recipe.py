"""From a configuration of mindspore-lab's RCNN to a run of ours, with a word on every key."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskrcnn.compat import mindspore_groups as groups
from maskrcnn.compat.mindspore_config import MindSporeConfig, merged
from maskrcnn.compat.mindspore_keys import RULES, Asked, Meaning
from maskrcnn.compat.mindspore_transforms import transforms
from maskrcnn.whole_file import shown

# Defaults of their train.py.
DEFAULTS: dict[str, Any] = {
    "seed": 1234,
    "batch_size": 2,
    "lr_init": 0.02,
    "mix": True,
    "run_eval": True,
    "log_interval": 100,
    "epochs": 12,
}
SCRATCH = "scratch:mindspore"
# What their training does whatever its configuration says: the rate is that of an update and not of a batch
# of 16, no mean of the weights, no limit of gradients, norms learn until the end, a checkpoint an epoch.
ALWAYS = (
    "training.base_batch=0",
    "training.average=0",
    "training.clip=0",
    "training.freeze_from=1",
    "training.save_every=0",
    "training.steps=0",
)
GROUPS = (
    groups.start,
    groups.schedule,
    groups.proposals,
    groups.loading,
    groups.options,
    groups.data,
    groups.storing,
    transforms,
)
LONGEST = 60


@dataclass(frozen=True)
class Line:
    """A key, its value, and what it is here; None where no version of theirs is known to have it."""

    key: str
    value: Any
    meaning: Meaning | None

    def __str__(self) -> str:
        value = shown(str(self.value))
        begin = f"{shown(self.key)}: {value if len(value) <= LONGEST else value[: LONGEST - 3] + '...'}"
        if self.meaning is None:
            return f"unknown: {begin}"
        if not self.meaning.kept:
            return f"not done: {begin} ({self.meaning.words})"
        settings = " ".join(self.meaning.settings)
        remark = f" ({self.meaning.words})" if self.meaning.words else ""
        return f"  {begin} -> {settings}{remark}" if settings else f"  {begin}{remark}"


@dataclass(frozen=True)
class Translation:
    """A run of ours. given: fields of a RunFile. settings: of its training and model, as --set takes them.

    lines: of every key. files: the configuration and its bases. notes: sentences on these.
    """

    given: dict[str, Any]
    settings: tuple[str, ...]
    lines: tuple[Line, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    def told(self) -> Iterator[str]:
        """The files, what was taken, what was not, then notes."""
        first, *bases = self.files
        yield f"{shown(first.name)} and {len(bases)} bases"
        for kept in (True, False):
            for line in self.lines:
                if (line.meaning is not None and line.meaning.kept) is kept:
                    yield str(line)
        yield from (f"note: {note}" for note in self.notes)

    def of_model(self) -> tuple[str, ...]:
        """The settings of a finished model, whose norms are constants."""
        return tuple(
            each
            for each in self.settings
            if each.startswith(("model.", "preprocess.")) and not each.startswith("model.backbone.norm=")
        )

    def told_of_model(self) -> Iterator[str]:
        """What of it says something of a model, and keys that are not known."""
        for line in self.lines:
            if line.meaning is None or any(each in self.of_model() for each in line.meaning.settings):
                yield str(line)


def translate(asked: Asked) -> Translation:
    """The run that a configuration describes. Raises UserError for values that mean nothing."""
    asked = replace(asked, config=_complete(asked.config))
    found: dict[str, Meaning] = {}
    for group in GROUPS:
        found |= group(asked)
    lines = []
    for key, value in asked.config.leaves():
        meaning = found[key] if key in found else RULES[key](value) if key in RULES else None
        lines.append(Line(key, value, meaning))
    settings = [each for line in lines if line.meaning for each in line.meaning.settings]
    return Translation(
        _given(asked), (*ALWAYS, *settings), tuple(lines), asked.config.files, asked.config.notes
    )


def _complete(config: MindSporeConfig) -> MindSporeConfig:
    """With the defaults of their options; `lr` and `epochs` stand at the top or below `optimizer`."""
    values = merged(DEFAULTS, config.values)
    below = values.get("optimizer")
    if isinstance(below, dict):
        moved = {key: below[key] for key in ("lr", "epochs") if key in below}
        values = merged(values, moved)
        values["optimizer"] = {key: value for key, value in below.items() if key not in moved}
    return replace(config, values=values)


def _given(asked: Asked) -> dict[str, Any]:
    """Fields of a RunFile that the configuration says."""
    found = groups.given(asked) | {"model": asked.model or SCRATCH}
    target, out, checkpoint = (asked.get(key) for key in ("device_target", "save_dir", "resume_ckpt"))
    pretrained = asked.get("backbone.pretrained")
    if target:
        found["device"] = groups.device_of(target)
    if out:
        found["out"] = str(out)
    if checkpoint:
        found["resume_from"] = str(checkpoint)
    if isinstance(pretrained, str) and pretrained and not asked.model:
        found["trunk"] = pretrained
    return found
