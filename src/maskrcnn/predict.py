"""Opens a model file with the engine that its suffix names, and runs it on images."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from maskrcnn.detections import Detections, Raw
from maskrcnn.errors import UserError
from maskrcnn.preprocess import Geometry, batch, prepare
from maskrcnn.spec import Spec

PARTS = ".parts"
CHECKPOINTS = (".pth", ".pt", ".pkl", ".bin", ".ckpt")
EXAMPLE = "example"


@dataclass(frozen=True)
class Engine:
    """module, opener: function that opens a file, imported on use. suffixes: of the files that it reads."""

    module: str
    opener: str
    suffixes: tuple[str, ...]


# A file runs on the first that reads its suffix, unless another is asked for by name.
ENGINES = {
    "pytorch": Engine("maskrcnn.backends.pytorch", "open_pytorch", (".safetensors",)),
    "pytorch-compiled": Engine("maskrcnn.backends.pytorch", "open_compiled", (".safetensors",)),
    "native": Engine("maskrcnn.backends.native", "open_native", (".safetensors",)),
    "native-bf16": Engine("maskrcnn.backends.native", "open_native_bf16", (".safetensors",)),
    "native-int8": Engine("maskrcnn.backends.native", "open_native_int8", (".safetensors",)),
    "onnxruntime": Engine("maskrcnn.backends.onnx_runtime", "open_onnx_runtime", (".onnx", PARTS)),
    "openvino": Engine("maskrcnn.backends.openvino_runtime", "open_openvino", (".xml", ".onnx", PARTS)),
    "tensorrt": Engine("maskrcnn.backends.tensorrt_runtime", "open_tensorrt", (".engine",)),
    "pplnn": Engine("maskrcnn.backends.pplnn", "open_pplnn", (PARTS, ".onnx")),
}
# Package that an engine imports: how to install it.
INSTALL = {
    "torch": 'install it with `pip install "maskrcnn[torch]"`',
    "torchvision": 'install it with `pip install "maskrcnn[torch]"`',
    "onnxruntime": 'install it with `pip install "maskrcnn[onnx]"`',
    "openvino": 'install it with `pip install "maskrcnn[openvino]"`',
    "tensorrt": "install TensorRT 10 or later of NVIDIA or IxRT of Iluvatar, and `pip install cuda-python`",
    "cuda": "install it with `pip install cuda-python`",
}


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
    path: str | Path,
    device: str = "auto",
    batch: int = 1,
    threads: int | None = None,
    engine: str | None = None,
) -> Predictor:
    """Open a model file, the model that comes with this package as `example`, or a published `zoo:NAME`.

    device: `auto`, `cpu`, or what the engine calls its devices (`cuda`, `cuda:1`, `mps`, `npu`).
    batch: images that run at once; never fewer than a model needs that was exported for a fixed number.
    threads: CPU threads of the engine, None for its own choice.
    engine: one of ENGINES, None for the one that the suffix names.
    Raises UserError for anything that is not a model file, and for an engine that is not installed.
    """
    path = file_for(path, engine)
    try:
        backend = _open(path, device, threads, engine)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in INSTALL:
            raise
        missing = isinstance(error, ModuleNotFoundError)
        reason = "is not installed" if missing else f"cannot be loaded ({error})"
        raise UserError(f"{path}: needs {package}, which {reason}", hint=INSTALL[package]) from error
    exported = backend.spec.exported
    return Predictor(backend, max(batch, exported.batch) if exported and batch > 0 else batch)


def file_for(model: str | Path, engine: str | None) -> Path:
    """The file that an engine opens; the example model has one with PyTorch and one without."""
    return _example_graph() if _is_graph_wanted(model, engine) else model_path(model)


def _is_graph_wanted(path: str | Path, engine: str | None) -> bool:
    """Whether this is the example model, for an engine that reads graphs or, by itself, without torch."""
    if str(path) != EXAMPLE:
        return False
    return find_spec("torch") is None if engine is None else engine in ("onnxruntime", "openvino")


def _example_graph() -> Path:
    """Holds no weights; engines find them in example.safetensors beside it."""
    return Path(str(files("maskrcnn").joinpath("example.onnx")))


def _open(path: Path, device: str, threads: int | None, engine: str | None) -> Backend:
    suffix = path.suffix.lower()
    if engine is not None and engine not in ENGINES:
        raise UserError(f"--engine {engine}: there is none", hint=f"choose from {', '.join(ENGINES)}")
    fitting = [name for name, each in ENGINES.items() if suffix in each.suffixes]
    if engine is not None and engine not in fitting:
        raise UserError(
            f"{path}: {engine} reads {' and '.join(ENGINES[engine].suffixes)}",
            hint=f"`maskrcnn export` writes them; {suffix} is read by {' and '.join(fitting)}",
        )
    if suffix == PARTS:
        open_parts = import_module("maskrcnn.backends.parts").open_parts
        return open_parts(path, device=device, threads=threads, engine=engine)
    chosen = ENGINES[engine or fitting[0]]
    return getattr(import_module(chosen.module), chosen.opener)(path, device=device, threads=threads)


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
    suffix = path.suffix.lower()
    if path.is_dir() and suffix != PARTS:
        raise UserError(f"{path}: is a folder, not a model file", hint="name the .safetensors file in it")
    if not path.exists():
        raise UserError(f"{path}: no such model file", hint="check the path, or try the model `example`")
    if suffix in CHECKPOINTS:
        raise UserError(
            f"{path}: is a checkpoint of another tool",
            hint=f"`maskrcnn convert {path} {path.stem}.safetensors` makes a model file of it",
        )
    known = dict.fromkeys(each for engine in ENGINES.values() for each in engine.suffixes)
    if suffix not in known:
        raise UserError(
            f"{path}: no engine reads {path.suffix or 'a file without suffix'}",
            hint=f"a model file ends in {', '.join(known)}",
        )
    return path
