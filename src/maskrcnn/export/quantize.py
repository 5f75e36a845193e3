"""Makes an int8 model of a float32 one, whole or in parts, for OpenVINO, ONNX Runtime or TensorRT."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from maskrcnn.backends.parts import GRAPHS
from maskrcnn.errors import UserError
from maskrcnn.export.quantize_inputs import Normalised, Photographs, pooled_features
from maskrcnn.export.quantize_layers import Layer
from maskrcnn.images import ImageFile
from maskrcnn.spec import Spec
from maskrcnn.stored_spec import PARTS_FILE, stored_spec
from maskrcnn.whole_file import shown

Watch = Callable[[str, int, int], None]

# Suffix of what is written: of what it can be made of.
SOURCES = {
    ".xml": (".safetensors", ".onnx", ".xml"),
    ".onnx": (".safetensors", ".onnx"),
    ".parts": (".safetensors", ".parts"),
    ".engine": (".safetensors", ".onnx"),
}
# Suffix of a graph: module that quantises it.
MODULES = {
    ".xml": "maskrcnn.export.quantize_openvino",
    ".onnx": "maskrcnn.export.quantize_onnx",
    ".engine": "maskrcnn.export.quantize_tensorrt",
}
ENGINES = {".xml": "OpenVINO", ".onnx": "ONNX Runtime", ".engine": "TensorRT and IxRT"}


class Graph(Protocol):
    """A float32 graph with what calibrates it."""

    layers: tuple[Layer, ...]

    def write(self, path: Path, kept: Collection[str], description: str) -> None:
        """Write the graph with all layers but the kept ones in int8."""


@dataclass(frozen=True)
class Kept:
    """A layer that stays float32, and why in words."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Made:
    """What became of a model. layers: names of those in int8. images: that it was calibrated on.

    megabytes: of the file with its weights; megabytes_before: of the float32 one.
    """

    engine: str
    layers: tuple[str, ...]
    kept: tuple[Kept, ...]
    images: int
    megabytes: float
    megabytes_before: float


class Calibrated:
    """A float32 model and how large its features get, ready to be written with any layers in int8.

    spec: of what is written. layers: names of all. kept: those that the engine does better to leave.
    """

    def __init__(
        self,
        source: Path,
        out: str,
        files: Sequence[ImageFile],
        watch: Watch = lambda what, done, total: None,
    ) -> None:
        """source: an exported graph, or a `.parts`, in float32. out: suffix of what is to be written; what
        is made for `.engine` can be written as the `.onnx` of it as well.

        files: photographs to calibrate on; they are resized and padded as the model's own description says.
        """
        spec = stored_spec(source)
        assert spec.exported is not None
        self.spec = replace(spec, precision="int8", exported=replace(spec.exported, check=None))
        photographs = Photographs(files, spec, watch)
        self.suffix = out if out != ".parts" else _suffix_in(source)
        module = _module(self.suffix)
        self.graphs: dict[str, Graph] = {}
        if out != ".parts":
            self.graphs[""] = module.Graph(source, photographs, photographs.count)
        else:
            self.graphs = _calibrated_parts(module, source, self.suffix, photographs)
        found = (layer.name for graph in self.graphs.values() for layer in graph.layers)
        self.layers = tuple(dict.fromkeys(found))
        self.kept = tuple(Kept(name, why) for name, why in module.KEPT.items() if name in self.layers)

    def write(self, path: Path, kept: Collection[str] = ()) -> None:
        """Write the model; a `.parts` is a folder, and beside an `.xml` stands its `.bin`.

        kept: layers that stay float32 besides those that do anyway.
        """
        every, text = {*kept, *(each.layer for each in self.kept)}, self.spec.to_json()
        if "" in self.graphs:
            self.graphs[""].write(path, every, text)
            return
        path.mkdir(exist_ok=True)
        for name, graph in self.graphs.items():
            graph.write(path / f"{name}{self.suffix}", every, text)
        (path / PARTS_FILE).write_text(text)


def quantize(
    source: Path,
    path: Path,
    files: Sequence[ImageFile],
    keep: Sequence[str] = (),
    verify: Path | None = None,
    max_drop: float | None = None,
    threads: int | None = None,
    watch: Watch = lambda what, done, total: None,
    symmetric: bool = False,
) -> Made:
    """Write to `path` what a float32 graph, or a `.parts`, is in int8.

    files: photographs to calibrate on. keep: layers that stay float32. verify: annotated images on which at
    most `max_drop` points of average precision may be lost, for which further layers are put back to float32;
    None for either leaves that out. threads: of the engine that measures it. watch: told what is done.
    symmetric: an `.onnx` that TensorRT and IxRT can build.
    An interruption may leave half of it: `gate.write_checked` gives a folder for that, and checks the model.
    Raises UserError for what the user must change.
    """
    out = ".engine" if symmetric else path.suffix.lower()
    calibrated = Calibrated(source, out, files, watch)
    kept = (*calibrated.kept, *checked_layers(keep, calibrated.layers))
    if verify is not None and max_drop is not None:
        from maskrcnn.export.quantize_accuracy import Goal, layers_to_keep
        from maskrcnn.export.verify import read_annotated

        goal = Goal(read_annotated(verify), max_drop, threads)
        kept += layers_to_keep(calibrated, source, out, files, goal, keep, watch)
    names = {each.layer for each in kept}
    calibrated.write(path, names)
    layers = tuple(name for name in calibrated.layers if name not in names)
    sizes = (_megabytes(each) for each in (path, source))
    return Made(ENGINES[calibrated.suffix], layers, kept, len(files), *sizes)


@contextmanager
def float_graph(model: Path, out: Path) -> Iterator[Path]:
    """The float32 graph that `out` is made of: the model itself, or what a `.safetensors` is exported to.

    A `.parts` is then one for OpenVINO. Raises UserError where `out` cannot be made of the model.
    """
    suffix, wanted = model.suffix.lower(), out.suffix.lower()
    if wanted not in SOURCES:
        raise UserError(
            f"{shown(out)}: a quantised model is written as {', '.join(SOURCES)}",
            hint="give it one of these suffixes",
        )
    if suffix not in SOURCES[wanted]:
        raise UserError(
            f"{shown(model)}: no {wanted} can be made of it",
            hint=f"quantise the .safetensors file, or a {SOURCES[wanted][-1]} model",
        )
    _module(wanted if wanted in MODULES else ".xml")  # what is missing is told before an export
    if suffix != ".safetensors":
        _refuse_what_is_no_float32(model, stored_spec(model))
        yield model
        return
    with TemporaryDirectory() as folder:
        yield _exported(model, Path(folder), wanted)


def checked_layers(names: Sequence[str], known: Collection[str]) -> tuple[Kept, ...]:
    """Layers that a user keeps. Raises UserError for a name that is none."""
    for name in names:
        if name not in known:
            raise UserError(f"--keep {name}: there is no such layer", hint=f"choose from {', '.join(known)}")
    return tuple(Kept(name, "as you asked") for name in names)


def _calibrated_parts(module: Any, source: Path, suffix: str, photographs: Photographs) -> dict[str, Graph]:
    pooled = pooled_features(source, photographs)
    if not all(pooled.values()):
        raise UserError(
            "nothing is found in the images of --calibrate, where the mask head is calibrated",
            hint="take photographs like those that the model was trained on",
        )
    files = {name: source / f"{name}{suffix}" for name in GRAPHS}
    dense = module.Graph(files["dense"], Normalised(photographs), photographs.count, "dense")
    heads = {name: module.Graph(files[name], met, len(met), name) for name, met in pooled.items()}
    return {"dense": dense, **heads}


def _exported(model: Path, folder: Path, wanted: str) -> Path:
    if wanted == ".parts":
        from maskrcnn.export.parts import export_parts

        export_parts(model, folder / "model.parts", suffix=".xml")
        return folder / "model.parts"
    from maskrcnn.export.onnx import export_onnx

    export_onnx(model, folder / "model.onnx")
    return folder / "model.onnx"


def _refuse_what_is_no_float32(model: Path, spec: Spec) -> None:
    if spec.precision == "int8":
        raise UserError(f"{shown(model)}: is quantised already", hint="use the model that it was made of")
    if spec.precision != "fp32":
        raise UserError(
            f"{shown(model)}: was exported in {spec.precision}, and int8 is made of float32",
            hint="export it again without --precision",
        )
    if spec.exported is None:
        raise UserError(f"{shown(model)}: is no exported graph", hint="export it with `maskrcnn export`")


def _suffix_in(folder: Path) -> str:
    return next(suffix for suffix in MODULES if (folder / f"{GRAPHS[0]}{suffix}").exists())


def _module(suffix: str) -> Any:
    if suffix == ".xml":
        # NNCF reports its use as OpenVINO does, unless this was imported before.
        import_module("maskrcnn.backends.silent_openvino")
    # NNCF imports torch where it finds it, which then logs that there is no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    return import_module(MODULES[suffix])


def _megabytes(path: Path) -> float:
    """Of a file, an `.xml` with its `.bin`, or a folder."""
    beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path, *beside]
    return sum(each.stat().st_size for each in files) / 1e6
