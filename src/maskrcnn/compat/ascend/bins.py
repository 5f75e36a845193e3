"""What a folder of `.bin` files holds: the description beside it, and the info file of Ascend's scripts.

H, W size of the network's input.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from maskrcnn.backends.contracts.ascend import SIZE, letterbox, mmdetection_spec
from maskrcnn.config_file import read_strictly
from maskrcnn.errors import UserError
from maskrcnn.preprocess import Geometry, padded_size, prepare
from maskrcnn.spec import Preprocess, Spec
from maskrcnn.whole_file import shown

Size = tuple[int, int]


@dataclass(frozen=True)
class Listed:
    """An image of which there is a `.bin`. stem: of its files. size: (height, width), upright."""

    stem: str
    path: str
    size: Size


@dataclass(frozen=True)
class Bins:
    """How the images of a folder became numbers, and which they are.

    spec: of the network that they are for. dtype: `float32` is normalised planes (3, H, W) in the network's
    channel order, `uint8` is RGB pixels (H, W, 3), as Ascend's AIPP reads them. images: empty until all are
    written.
    """

    spec: Spec = field(default_factory=mmdetection_spec)
    dtype: Literal["float32", "uint8"] = "float32"
    images: tuple[Listed, ...] = ()

    @cached_property
    def size(self) -> Size:
        """(H, W) of every `.bin`."""
        preprocess = self.spec.preprocess
        return padded_size((preprocess.short, preprocess.long), preprocess)

    @property
    def nbytes(self) -> int:
        """Of a `.bin`."""
        return 3 * self.size[0] * self.size[1] * np.dtype(self.dtype).itemsize

    @cached_property
    def by_stem(self) -> dict[str, Listed]:
        """The images by the stem of their files."""
        return {image.stem: image for image in self.images}

    def geometry(self, size: Size) -> Geometry:
        """How an image of (height, width) lies in the network's input."""
        return geometry(size, self.spec.preprocess)

    def size_net(self, size: Size) -> Size:
        """What the network is told of the size of an image of (height, width): in a letterbox all of it."""
        return self.size if self.spec.preprocess.resize == "letterbox" else self.geometry(size).size_net


@lru_cache(maxsize=4096)
def geometry(size: Size, preprocess: Preprocess) -> Geometry:
    """How an image of (height, width) lies in the network's input, without the image."""
    return prepare(np.zeros((*size, 3), np.uint8), preprocess)[1]


def bins_for(
    model: str | None, size: Size | None, centred: bool, dtype: Literal["float32", "uint8"] = "float32"
) -> Bins:
    """The way images become the input of a model; without one that of mmdetection's R50-FPN at Ascend.

    size: (height, width) of every input, None for that of an exported model. centred: letterbox as theirs is.
    Raises UserError for a model that takes any size, and for a size that it does not take.
    """
    if model is None:
        return Bins(mmdetection_spec(size or SIZE), dtype)
    spec = _fixed(model, size)
    exported = spec.exported
    assert exported is not None
    if dtype == "uint8" and spec.preprocess.filter == "torch":
        raise UserError(
            f"{shown(model)}: its images are resized to fractions of a byte (filter torch), which "
            "--uint8 would cut",
            hint="leave --uint8 out",
        )
    if not centred:
        return Bins(spec, dtype)
    window = (exported.height, exported.width)
    return Bins(replace(spec, preprocess=letterbox(spec.preprocess, window, spec.model.mean)), dtype)


def _fixed(model: str, size: Size | None) -> Spec:
    """The description of a model for inputs of one size."""
    from maskrcnn.export.form import Form, described
    from maskrcnn.predict import model_path
    from maskrcnn.stored_spec import found_spec

    path = model_path(model)
    spec = found_spec(path)
    if spec is None:
        return mmdetection_spec(size or SIZE, file=path.name)
    exported = spec.exported
    if exported is not None and exported.height:
        window = (exported.height, exported.width)
        if size not in (None, window):
            raise UserError(
                f"--size {_words(size or SIZE)}: {shown(path)} was exported for {_words(window)}",
                hint="leave --size out",
            )
        return spec
    if size is None:
        raise UserError(
            f"{shown(path)}: takes images of any size, and every .bin has one",
            hint="name it with --size, as --size 1216x1216",
        )
    fixed = described(replace(spec, exported=None), Form(size), path)
    return replace(fixed, precision=spec.precision)


def _words(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def description_of(folder: Path) -> Path:
    """The description of a folder of bins: beside it, so that nothing but bins is in it."""
    return _beside(folder, ".json")


def info_of(folder: Path) -> Path:
    """The info file that goes with a folder of bins."""
    return _beside(folder, ".info")


def _beside(folder: Path, suffix: str) -> Path:
    named = folder if folder.name not in ("", "..") else Path(os.path.abspath(folder))
    return named.parent / f"{named.name}{suffix}"


def to_json(bins: Bins) -> str:
    """The text of a description."""
    return json.dumps(asdict(bins), separators=(",", ":"))


def read_bins(path: Path) -> Bins:
    """A description. Raises UserError for a file that is none."""
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read ({error.strerror})", hint="check the path") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{shown(path)}: is not JSON ({error})", hint="name the file that `maskrcnn bins write` made"
        ) from error
    return read_strictly(Bins, values, shown(path))


def found_bins(folder: Path) -> Bins | None:
    """The description beside a folder of bins; None where there is none."""
    path = description_of(folder)
    return read_bins(path) if path.exists() else None


def info_lines(images: Iterable[Listed], restart: bool = False) -> list[str]:
    """`<index> <path> <width> <height>` of each image. restart: count anew for each suffix."""
    lines, counts = [], Counter[str]()
    for image in images:
        kind = Path(image.path).suffix if restart else ""
        lines.append(f"{counts[kind]} {image.path} {image.size[1]} {image.size[0]}\n")
        counts[kind] += 1
    return lines


def read_info(path: Path) -> tuple[Listed, ...]:
    """The images of an info file, whose paths may have spaces; stems end at the first dot, as theirs do.

    Raises UserError for a line that is no such line.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read ({error.strerror})", hint="check the path") from error
    images = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        parts = line.strip().split(" ")
        try:
            int(parts[0])
            width, height = int(parts[-2]), int(parts[-1])
            if len(parts) < 4 or min(width, height) < 1:
                raise ValueError
        except (ValueError, IndexError):
            raise UserError(
                f"{shown(path)}: line {number} is {shown(line[:60])!r}",
                hint="a line is `<index> <path> <width> <height>`",
            ) from None
        place = " ".join(parts[1:-2])
        images.append(Listed(their_stem(place), place, (height, width)))
    return tuple(images)


def their_stem(path: str | Path) -> str:
    """The name of a file up to its first dot."""
    return Path(path).name.partition(".")[0]


def stems_for(names: Sequence[str]) -> list[str]:
    """A stem for each name of `results.names.stems_of`, without folders and dots, which ais_infer cuts at."""
    stems: list[str] = []
    used: set[str] = set()
    for name in names:
        stem = plain = name.replace("/", "_").replace("\\", "_").replace(".", "_")
        number = 2
        while stem.casefold() in used:
            stem, number = f"{plain}-{number}", number + 1
        used.add(stem.casefold())
        stems.append(stem)
    return stems
