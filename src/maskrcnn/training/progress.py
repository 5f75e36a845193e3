"""What a run tells while it goes on: lines of metrics.jsonl, TensorBoard, and whoever watches."""

import json
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from maskrcnn.model.losses import LOSS_NAMES

Line = dict[str, float | int | None]


class Watch(Protocol):
    """Who is told; all methods are called by the first process only."""

    def begins(self, step: int, steps: int) -> None:
        """The run starts, or goes on, at a step."""

    def line(self, line: Line, steps: int) -> None:
        """A line of metrics.jsonl was written."""

    def says(self, words: str) -> None:
        """Something worth a sentence happened."""


class Silent:
    """Nobody."""

    def begins(self, step: int, steps: int) -> None:
        """Nothing."""

    def line(self, line: Line, steps: int) -> None:
        """Nothing."""

    def says(self, words: str) -> None:
        """Nothing."""


@dataclass
class Window:
    """What happened since the last line. waited: seconds in which the network had no batch."""

    began: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    losses: list[Tensor] = field(default_factory=list)
    timed: int = 0

    def summary(self, batch: int) -> Line:
        """Mean losses, images a second and the share of time without a batch."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        means = torch.stack(self.losses).mean(0).tolist()
        return {
            **{name: round(mean, 5) for name, mean in zip(LOSS_NAMES, means, strict=True)},
            "images_per_second": round(self.timed * batch / seconds, 2),
            "data_wait": round(self.waited / seconds, 3),
        }


class Log:
    """metrics.jsonl and TensorBoard of a run's folder; use it in a `with`.

    Lines after `step` are of steps that will be done again, and are taken out.
    """

    def __init__(self, out: Path, step: int) -> None:
        self._path = out / "metrics.jsonl"
        kept = [line for line in read_metrics(out) if int(line["step"] or 0) <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        if not self._path.exists() or self._path.read_text(encoding="utf-8") != text:
            self._path.write_text(text, encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._board: Any = _board(out, step)

    def write(self, line: Line) -> None:
        """Append a line, and send its numbers to TensorBoard."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in line.items():
                if name != "step" and value is not None:
                    self._board.add_scalar(_tag(name), value, line["step"])

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Show uint8 (H, W, 3) RGB in TensorBoard."""
        if self._board is not None:
            self._board.add_image(f"predictions/{name}", image, step, dataformats="HWC")

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(out: Path) -> list[Line]:
    """The lines of a run so far; a last one that was cut off is left out."""
    path = out / "metrics.jsonl"
    lines: list[Line] = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def memory(device: torch.device) -> float:
    """The most memory used so far in GB: of the GPU, or of this process."""
    if device.type in ("cuda", "npu"):
        accelerator = getattr(torch, device.type)
        return round(accelerator.max_memory_allocated(device) / 1e9, 2)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(used * (1 if sys.platform == "darwin" else 1024) / 1e9, 2)


def _board(out: Path, step: int) -> Any:
    """TensorBoard's writer where it is installed; points after `step` are replaced."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"), purge_step=step + 1 if step else None)


def _tag(name: str) -> str:
    if "/" in name:
        return name
    return f"loss/{name}" if name in LOSS_NAMES else f"run/{name}"
