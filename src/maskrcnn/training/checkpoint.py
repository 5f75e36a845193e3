"""Training checkpoints that are either complete or absent."""

import os
from pathlib import Path
from typing import Any

import torch

from maskrcnn.errors import UserError
from maskrcnn.whole_file import disk_errors_told, whole_file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside the target, then rename, so that an interrupted write leaves the previous checkpoint."""
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def keep_last(path: Path, step: int, count: int) -> None:
    """Leave the last `count` checkpoints: `path` is the newest, older ones have their step in their names."""
    if count <= 1:
        return
    with disk_errors_told(path):
        named = path.with_name(f"{path.stem}-{step:08d}{path.suffix}")
        named.unlink(missing_ok=True)
        os.link(path, named)
        for old in sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))[:-count]:
            old.unlink()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read tensors and plain values; a file that holds anything else is refused and executes nothing."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror})", hint="name a checkpoint of this tool"
        ) from error
    except Exception as error:  # torch raises pickle, zip and runtime errors for damaged files
        raise UserError(
            f"{path}: is not a checkpoint ({error})", hint="name a checkpoint of this tool"
        ) from error
    return state
