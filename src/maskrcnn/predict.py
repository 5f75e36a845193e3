"""Opens a model file with the engine that its suffix names, and runs it on images."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import numpy as np

from maskrcnn.detections import Detections, Raw
from maskrcnn.errors import UserError
from maskrcnn.preprocess import Geometry, batch, prepare
from maskrcnn.spec import Spec

# Suffix: module, function that opens a file, extra of the package that installs the engine.
ENGINES = {".safetensors": ("maskrcnn.backends.pytorch", "open_pytorch", "torch")}
CHECKPOINTS = (".pth", ".pt", ".pkl", ".bin", ".ckpt")
EXAMPLE = "example"


class Backend(Protocol):
    """A model on an engine."""

    @property
    def spec(self) -> Spec:
        """What the model file says of itself."""

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """image (B, 3, H, W) in 0..255, size int64 (B, 2) -> Raw of numpy arrays in network pixels."""


@dataclass(frozen=True)
class Prepared:
    """An image ready for the network: planes (3, h, w), 0..255, and the way back to image pixels."""

    planes: np.ndarray
    geometry: Geometry


class Predictor:
    """Images in, Detections out; the backend sees up to `batch` images at a time, of any mixture of sizes.

    most: objects that it can find in one image; None for no limit.
    """

    def __init__(self, backend: Backend, batch: int = 1) -> None:
        if batch < 1:
            raise UserError(f"batch is {batch}", hint="use 1 or more")
        self.backend = backend
        self.batch = batch
        self.most: int | None = backend.spec.model.box_head.detections

    @property
    def spec(self) -> Spec:
        """What the model file says of itself: classes, input, conventions, origin."""
        return self.backend.spec

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """images uint8 (H, W, 3) RGB -> one Detections for each, in order, in the pixels of that image."""
        found: list[Detections] = []
        for start in range(0, len(images), self.batch):
            found += self.detect([self.prepare(image) for image in images[start : start + self.batch]])
        return found

    def prepare(self, image: np.ndarray) -> Prepared:
        """image uint8 (H, W, 3) RGB, resized as the model was trained; safe to call from several threads."""
        return Prepared(*prepare(image, self.spec.preprocess))

    def detect(self, prepared: Sequence[Prepared]) -> list[Detections]:
        """One run of the network: what `prepare` made of some images -> their Detections."""
        image, size = batch([each.planes for each in prepared], self.spec.preprocess)
        raw = self.backend.run(image, size)
        return [Detections.from_raw(raw, row, each.geometry, self.spec) for row, each in enumerate(prepared)]


def open_model(
    path: str | Path, device: str = "auto", batch: int = 1, threads: int | None = None
) -> Predictor:
    """Open a model file, the model that comes with this package as `example`, or a published `zoo:NAME`.

    device: `auto`, `cpu`, or what the engine calls its devices (`cuda`, `cuda:1`, `mps`).
    batch: images that run at once. threads: CPU threads of the engine, None for its own choice.
    Raises UserError for anything that is not a model file, and for an engine that is not installed.
    """
    path = model_path(path)
    module, opener, extra = ENGINES[path.suffix.lower()]
    try:
        open_backend = getattr(import_module(module), opener)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("maskrcnn"):
            raise
        raise UserError(
            f"{path}: needs {error.name}, which is not installed",
            hint=f'install it with `pip install "maskrcnn[{extra}]"`',
        ) from error
    return Predictor(open_backend(path, device=device, threads=threads), batch)


def model_path(path: str | Path) -> Path:
    """The file of a model, which may be named `example` or, if published, `zoo:NAME`.

    Raises UserError if no engine could read it, or if it had to be downloaded and cannot be.
    """
    if str(path) == EXAMPLE:
        path = Path(str(files("maskrcnn").joinpath("example.safetensors")))
    if str(path).startswith("zoo:"):
        from maskrcnn.zoo import model_file

        path = model_file(str(path))
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a model file", hint="name the .safetensors file in it")
    if not path.exists():
        raise UserError(f"{path}: no such model file", hint="check the path, or try the model `example`")
    if path.suffix.lower() in CHECKPOINTS:
        raise UserError(
            f"{path}: is a checkpoint of another tool",
            hint=f"`maskrcnn convert {path} {path.stem}.safetensors` makes a model file of it",
        )
    if path.suffix.lower() not in ENGINES:
        raise UserError(
            f"{path}: no engine reads {path.suffix or 'a file without suffix'}",
            hint=f"a model file ends in {' or '.join(ENGINES)}",
        )
    return path
