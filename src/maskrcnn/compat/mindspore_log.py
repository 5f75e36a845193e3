"""The log of mindspore-lab's RCNN: its lines on losses, times and average precision, for who searches it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from maskrcnn.evaluation.metrics import coco_names
from maskrcnn.whole_file import disk_errors_told

if TYPE_CHECKING:
    from maskrcnn.training.progress import Line, Watch

NAME = "RCNN_%Y-%m-%d_time_%H_%M_%S_rank_0.log"
KINDS = ("bbox", "segm")
MOST = 100
UNDEFINED = -1.0
# What stands in the brackets of COCO's summary: IoU, area and detections that count.
AREAS = ("small", "medium", "large")
ROWS = (
    *((iou, "all", MOST) for iou in ("0.50:0.95", "0.50", "0.75")),
    *(("0.50:0.95", area, MOST) for area in AREAS),
    *(("0.50:0.95", "all", most) for most in (1, 10, MOST)),
    *(("0.50:0.95", area, MOST) for area in AREAS),
)


@dataclass(frozen=True)
class RcnnLog:
    """Their logger: lines with time and level go to a file, and to `tell`.

    Raises UserError where the disk refuses.
    """

    path: Path
    tell: Callable[[str], None]

    @classmethod
    def begun(cls, save_dir: Path, tell: Callable[[str], None]) -> Self:
        """That of a command that starts at this time, in `logs`, as their process 0 names it."""
        return cls(save_dir / "logs" / f"{datetime.now():{NAME}}", tell)

    def info(self, message: str) -> None:
        """A line; the first one makes the file."""
        at = datetime.now()
        line = f"{at:%Y-%m-%d %H:%M:%S},{at.microsecond // 1000:03d} [INFO] {message}"
        with disk_errors_told(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        self.tell(line)


def coco_table(kind: str, numbers: Mapping[str, float | None]) -> str:
    """COCO's summary below their headline. numbers: by our names, `bbox/AP`; None or NaN where undefined."""
    rows = [f"\n=============coco eval {kind} result========="]
    for name, (iou, area, most) in zip(coco_names(MOST), ROWS, strict=True):
        value = numbers.get(f"{kind}/{name}")
        known = UNDEFINED if value is None or math.isnan(value) else value
        title, short = ("Average Precision", "(AP)") if name.startswith("AP") else ("Average Recall", "(AR)")
        rows.append(
            f" {title:<18} {short} @[ IoU={iou:<9} | area={area:>6s} | maxDets={most:>3d} ] = {known:0.3f}"
        )
    return "\n".join([*rows, ""])


@dataclass
class LoggedRun:
    """A watcher of a training that also writes their lines. told: who is told besides.

    batch: images of a step. exact: the last step of a pass is counted as 0, as theirs is.
    """

    told: "Watch"
    log: RcnnLog
    epochs: float
    batch: int
    exact: bool = False
    _pass: int = 1

    def begins(self, step: int, steps: int) -> None:
        """The first line."""
        self.told.begins(step, steps)
        self._pass = max(1, round(steps / self.epochs))
        self.log.info("Start Training")

    def line(self, line: "Line", steps: int) -> None:
        """A line on losses, means since the last one, or the tables of an evaluation."""
        self.told.line(line, steps)
        if "total" in line:
            self.log.info(self._losses({name: float(value or 0) for name, value in line.items()}))
            return
        for kind in KINDS:
            if f"{kind}/AP" in line:
                self.log.info(coco_table(kind, line))

    def says(self, words: str) -> None:
        """Only to who is told besides."""
        self.told.says(words)

    def _losses(self, line: Mapping[str, float]) -> str:
        step = int(line["step"])
        epoch = math.ceil(step / self._pass)
        within = step % self._pass if self.exact else step - (epoch - 1) * self._pass
        of_proposals = line["rpn_objectness"] + line["rpn_deltas"]
        of_boxes = line["box_classes"] + line["box_deltas"] + line["mask"]
        rate = line["images_per_second"]
        cost = 1000 * self.batch / rate if rate else math.inf
        return (
            f"Epoch {epoch}/{self.epochs:g}, step {within}/{self._pass}, loss: {line['total']:.4f}, "
            f"loss_rpn: {of_proposals:.4f}, loss_rcnn: {of_boxes:.4f}, cost {cost:.2f} ms"
        )
