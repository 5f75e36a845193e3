"""Training checkpoints that are either complete or absent."""

from pathlib import Path
from typing import Any

import torch

from maskrcnn.errors import UserError
from maskrcnn.whole_file import whole_file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside the target, then rename, so that an interrupted write leaves the previous checkpoint."""
    with whole_file(path) as temporary:
        torch.save(state, temporary)


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
