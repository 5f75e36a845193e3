"""Runs a graph that goes from the image to the rows of Raw, on the session of any engine.

B images, H, W size of the network's input, D rows, M side of a mask.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.spec import Exported, Spec

# Arrays by the names of a graph's inputs -> arrays by the names of its outputs.
Session = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
INPUTS = ("image", "size")
OUTPUTS = ("boxes", "scores", "labels", "masks")


class WholeGraph:
    """One graph on one engine. session: runs it. runs_on: engine, version and device, for a person."""

    def __init__(self, spec: Spec, session: Session, runs_on: str = "") -> None:
        self.spec = spec
        self.session = session
        self.runs_on = runs_on
        self.exported = spec.exported or Exported()

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """image (B, 3, H, W) uint8 or float32 in 0..255, size int64 (B, 2) -> Raw of numpy arrays.

        A graph for a fixed number of images runs as often as needed, the last time with blank ones.
        Raises UserError for an input that the graph was not exported for.
        """
        self._check(image)
        planes = np.ascontiguousarray(image, self.exported.image)
        together = self.exported.batch or len(planes)
        runs = [
            self._run(planes[start : start + together], size[start : start + together], together)
            for start in range(0, len(planes), together)
        ]
        return runs[0] if len(runs) == 1 else Raw(*(np.concatenate(part) for part in zip(*runs, strict=True)))

    def _run(self, image: np.ndarray, size: np.ndarray, together: int) -> Raw:
        count = len(image)
        if count < together:
            blank = np.zeros((together - count, *image.shape[1:]), image.dtype)
            image = np.concatenate([image, blank])
            size = np.concatenate([size, np.repeat(size[:1], together - count, axis=0)])
        found = self.session({"image": image, "size": np.ascontiguousarray(size, np.int64)})
        boxes, scores, labels, masks = (found[name][:count] for name in OUTPUTS)
        return Raw(
            boxes.astype(np.float32, copy=False),
            scores.astype(np.float32, copy=False),
            labels.astype(np.int64, copy=False),
            masks.astype(np.float32, copy=False),
        )

    def _check(self, image: np.ndarray) -> None:
        if self.exported.image == "uint8" and image.dtype != np.uint8:
            raise UserError(
                f"the model was exported for uint8 images, and this one is {image.dtype}",
                hint=f"export it without --uint8: the {self.spec.preprocess.filter} filter gives fractions",
            )
        check_size(self.spec, image)


def check_size(spec: Spec, image: np.ndarray) -> None:
    """Raise UserError unless a graph was exported for images of the size of image (B, 3, H, W)."""
    exported, multiple = spec.exported or Exported(), spec.preprocess.pad_multiple
    height, width = image.shape[2:]
    fits = all(
        side == fixed if fixed else side % multiple == 0
        for side, fixed in ((height, exported.height), (width, exported.width))
    )
    if not fits:
        raise UserError(
            f"an input of {height} x {width} pixels, and the model was exported for {_sizes(spec)}",
            hint="leave the size to the model, or export it for other sizes",
        )


def is_foreign(spec: Spec | None) -> bool:
    """Whether the inputs and outputs of a graph are those of another tool. spec: None where it has none."""
    return spec is None or (spec.exported is not None and spec.exported.contract != "maskrcnn")


def runnable_file(path: Path, spec: Spec | None) -> AbstractContextManager[Path]:
    """The graph as engines run it; of another tool's without the operators that only that tool has."""
    if not is_foreign(spec):
        return nullcontext(path)
    from maskrcnn.weights.unpasted_graph import without_pasting

    return without_pasting(path)


def check_names(path: str | Path, inputs: Collection[str], outputs: Collection[str]) -> None:
    """Raise UserError unless a graph has these inputs and outputs of a whole model; more outputs are fine."""
    if set(inputs) != set(INPUTS) or not set(OUTPUTS) <= set(outputs):
        raise UserError(
            f"{path}: goes from {', '.join(inputs)} to {', '.join(outputs)}; a whole model goes from "
            f"{', '.join(INPUTS)} to {', '.join(OUTPUTS)}",
            hint="export it again with `maskrcnn export`",
        )


def _sizes(spec: Spec) -> str:
    exported = spec.exported or Exported()
    multiple = spec.preprocess.pad_multiple
    sides = [str(side) if side else f"multiples of {multiple}" for side in (exported.height, exported.width)]
    return f"{sides[0]} x {sides[1]}"
