"""Runs a model of any engine on `.bin` files, as ais_infer runs one on an NPU.

H, W size of the network's input, B images of one run.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maskrcnn.backends.contracts.ascend import INPUT, in_their_order, letterbox
from maskrcnn.backends.foreign_graph import ForeignGraph
from maskrcnn.compat.ascend.bins import Bins, Listed, Size, found_bins
from maskrcnn.compat.ascend.outputs import Format, Outputs, save
from maskrcnn.compat.ascend.summary import Summary
from maskrcnn.errors import UserError
from maskrcnn.host.normalise import normalised
from maskrcnn.images import natural_order
from maskrcnn.predict import Backend, Predictor
from maskrcnn.whole_file import shown

SUFFIXES = (".bin", ".npy")


@dataclass(frozen=True)
class Manner:
    """How bins are run. loop: times that each input is run. warm_up: runs before, which do not count.

    kind: of the files that are written. compact: with the masks of the predicted classes alone.
    """

    loop: int = 1
    batch: int = 1
    kind: Format = "BIN"
    compact: bool = False
    warm_up: int = 1


@dataclass(frozen=True, eq=False)
class Stored:
    """What a `.bin` holds, as planes (3, H, W) in the network's channel order.

    listed: its image; None where no description says.
    """

    planes: np.ndarray
    listed: Listed | None = None


class Runs(Protocol):
    """A model on an engine, in three steps."""

    def given(self, stored: Sequence[Stored]) -> Any:
        """What was stored of B images -> what the engine takes."""

    def run(self, given: Any) -> Any:
        """The engine alone."""

    def outputs(self, made: Any) -> list[Outputs]:
        """What it returned, image by image."""


class TheirGraph:
    """A graph of their layout, which takes one image as it is stored."""

    def __init__(self, graph: ForeignGraph, bins: Bins) -> None:
        self._graph = graph
        self._bins = bins

    def given(self, stored: Sequence[Stored]) -> list[np.ndarray]:
        """Normalised planes (1, 3, H, W) of each image."""
        return [self._normalised(each)[None] for each in stored]

    def run(self, given: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Image by image."""
        return [self._graph.session({INPUT: planes}) for planes in given]

    def outputs(self, made: list[dict[str, np.ndarray]]) -> list[Outputs]:
        """As they are."""
        found = []
        for arrays in made:
            dets, labels, masks = in_their_order(arrays)
            found.append(Outputs(dets, labels.astype(np.int32), masks, self._graph.spec.model.classes))
        return found

    def _normalised(self, stored: Stored) -> np.ndarray:
        if stored.planes.dtype == np.float32:
            return stored.planes
        size = np.array([_size_net(stored, self._bins)])
        return normalised(stored.planes[None], size, self._bins.spec.model)[0]


class OurModel:
    """Any other model, which takes images in 0..255 and their sizes."""

    def __init__(self, backend: Backend, bins: Bins) -> None:
        self._backend = backend
        self._bins = bins
        exported = backend.spec.exported
        self._bytes = exported is not None and exported.image == "uint8"
        self._flip = backend.spec.preprocess.channels != bins.spec.preprocess.channels

    def given(self, stored: Sequence[Stored]) -> tuple[np.ndarray, np.ndarray]:
        """image (B, 3, H, W) in 0..255, size int64 (B, 2)."""
        image = np.stack([self._pixels(each) for each in stored])
        size = np.array([_size_net(each, self._bins) for each in stored], np.int64)
        return image, size

    def run(self, given: tuple[np.ndarray, np.ndarray]) -> Any:
        """All at once."""
        return self._backend.run(*given)

    def outputs(self, made: Any) -> list[Outputs]:
        """With the masks of the labels alone: these models compute no others."""
        return [
            Outputs.of_raw(made, row, self._backend.spec.model.classes) for row in range(len(made.scores))
        ]

    def _pixels(self, stored: Stored) -> np.ndarray:
        model = self._bins.spec.model
        mean, std = (np.array(each, np.float32)[:, None, None] for each in (model.mean, model.std))
        planes = stored.planes
        if planes.dtype == np.float32:
            planes = planes * std + mean
        if self._bytes:
            planes = np.rint(planes).clip(0, 255).astype(np.uint8)
        return planes[::-1] if self._flip else planes


def _size_net(stored: Stored, bins: Bins) -> Size:
    return bins.size if stored.listed is None else bins.size_net(stored.listed.size)


def runs_of(predictor: Predictor, bins: Bins) -> Runs:
    """How a model is run on bins."""
    backend = predictor.backend
    if isinstance(backend, ForeignGraph) and backend.contract.name == "ascend":
        return TheirGraph(backend, bins)
    return OurModel(backend, bins)


def bins_of(predictor: Predictor, folder: Path | None, size: Size | None) -> Bins:
    """What a folder holds, as the file beside it says; without one, bins as Ascend's script makes them.

    folder: or one of the bins in it. size: (height, width) of the input, where neither that file nor the
    model says. Raises UserError without any, and where model and bins differ in size.
    """
    exported = predictor.spec.exported
    window = (exported.height, exported.width) if exported and exported.height else None
    if folder is not None and folder.is_file():
        folder = folder.parent
    found = found_bins(folder) if folder else None
    if found is not None:
        if window not in (None, found.size) or size not in (None, found.size):
            height, width = window or size or found.size
            raise UserError(
                f"{shown(folder or '')}: its bins are {found.size[0]} x {found.size[1]}, and "
                f"{height} x {width} are asked for",
                hint="write bins for this model with `maskrcnn bins write`",
            )
        return found
    wanted = window or size
    if wanted is None:
        raise UserError(
            "the model takes images of any size, and nothing says which the bins have",
            hint="name it with --size, as --size 1216x1216",
        )
    spec = predictor.spec
    return Bins(replace(spec, preprocess=letterbox(spec.preprocess, wanted, spec.model.mean)))


def files_in(folder: Path) -> list[Path]:
    """The bins of a folder, or the file itself. Raises UserError where there is none."""
    if folder.is_file():
        return [folder]
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
    except OSError as error:
        raise UserError(
            f"{shown(folder)}: cannot be read ({error.strerror})", hint="name the folder of the bins"
        ) from error
    if not found:
        raise UserError(f"{shown(folder)}: holds no .bin", hint="`maskrcnn bins write` writes them")
    return sorted(found, key=lambda path: natural_order(path.name))


def run_bins(
    engine: Runs,
    bins: Bins,
    files: Sequence[Path],
    out: Path | None,
    manner: Manner,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Run every file and write what is found to `out` as `<stem>_0`, `_1`, `_2`.

    A batch is in memory at a time. watch: told how many of how many files are done. Raises UserError for a
    file of another size.
    """
    compute: list[float] = []
    before: list[float] = []
    after: list[float] = []
    became = []
    for start in range(0, len(files), manner.batch):
        group = files[start : start + manner.batch]
        stored = [read_bin(path, bins) for path in group]
        given = _timed(before, engine.given, stored)
        for _ in range(0 if start else manner.warm_up):
            engine.run(given)
        for _ in range(manner.loop):
            made = _timed(compute, engine.run, given)
        found = _timed(after, engine.outputs, made)
        written = []
        for path, outputs in zip(group, found, strict=True):
            if out is not None:
                written += save(outputs, out, path.stem, manner.kind, manner.compact)
        became.append(([str(path) for path in group], [str(path) for path in written]))
        watch(start + len(group), len(files))
    return Summary(compute, before, after, manner.batch, became)


def run_alone(engine: Runs, bins: Bins, manner: Manner, random: bool = False) -> Summary:
    """Run the engine without any input: on zeros, which are the mean colour, or on noise."""
    shape = (3, *bins.size)
    chance = np.random.default_rng(0)
    planes = chance.standard_normal(shape, np.float32) if random else np.zeros(shape, np.float32)
    before: list[float] = []
    compute: list[float] = []
    after: list[float] = []
    given = _timed(before, engine.given, [Stored(planes)] * manner.batch)
    for _ in range(manner.warm_up):
        engine.run(given)
    for _ in range(manner.loop):
        made = _timed(compute, engine.run, given)
    _timed(after, engine.outputs, made)
    return Summary(compute, before, after, manner.batch)


def read_bin(path: Path, bins: Bins) -> Stored:
    """What a `.bin` or `.npy` holds. Raises UserError for another size than the description says."""
    try:
        numbers = (
            np.load(path, allow_pickle=False)
            if path.suffix.lower() == ".npy"
            else np.fromfile(path, np.uint8)
        )
    except OSError as error:
        raise UserError(
            f"{shown(path)}: cannot be read ({error.strerror})", hint="check its permissions"
        ) from error
    except ValueError as error:
        raise UserError(f"{shown(path)}: is no .npy ({error})", hint="write it again") from error
    sizes = {bins.nbytes // np.dtype(bins.dtype).itemsize * width: width for width in (4, 1)}
    if numbers.nbytes not in sizes:
        height, width = bins.size
        raise UserError(
            f"{shown(path)}: is {numbers.nbytes} bytes, and 3 x {height} x {width} numbers are "
            f"{bins.nbytes} as {bins.dtype}",
            hint="write it again, or name the size with --size",
        )
    values = np.ascontiguousarray(numbers).reshape(-1)
    if sizes[numbers.nbytes] == 4:
        planes = values.view(np.float32).reshape(3, *bins.size)
    else:
        planes = _planes(values.view(np.uint8).reshape(*bins.size, 3), bins.spec.preprocess.channels)
    return Stored(planes, bins.by_stem.get(path.stem))


def _planes(pixels: np.ndarray, channels: str) -> np.ndarray:
    """pixels (H, W, 3) RGB -> (3, H, W)."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return planes if channels == "rgb" else planes[::-1]


def _timed(times: list[float], function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns; its milliseconds are added to times."""
    begun = time.perf_counter()
    found = function(*arguments)
    times.append(1000 * (time.perf_counter() - begun))
    return found
