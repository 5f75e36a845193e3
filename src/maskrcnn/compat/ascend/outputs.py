"""The three files that an engine leaves of each `.bin`: boxes with scores, labels, masks.

D rows, K classes, M side of a mask.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from maskrcnn.backends.contracts.ascend import raw_of
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.spec import Spec
from maskrcnn.whole_file import shown, whole_file

Format = Literal["BIN", "NPY", "TXT"]
SUFFIXES: dict[Format, str] = {"BIN": ".bin", "NPY": ".npy", "TXT": ".txt"}
LABEL_TYPES = (np.int32, np.int64)


@dataclass(frozen=True, eq=False)
class Outputs:
    """What an engine found in one image.

    dets: (D, 5) float32 x1, y1, x2, y2 in network pixels, score. labels: int32 (D,).
    masks: (D, K, M, M) float32 of all classes, or (D, 1, M, M) of the labels alone; may be a file.
    classes: K.
    """

    dets: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    classes: int

    @classmethod
    def of_raw(cls, raw: Raw, row: int, classes: int) -> "Outputs":
        """Image `row` of what an engine of ours returned."""
        dets = np.concatenate([raw.boxes[row], raw.scores[row][:, None]], axis=1).astype(np.float32)
        return cls(dets, raw.labels[row].astype(np.int32), raw.masks[row][:, None], classes)

    def raw(self) -> Raw:
        """As our engines return it, best first."""
        return raw_of(self.dets, self.labels, self.masks)

    def compact(self) -> "Outputs":
        """With the masks of the labels alone."""
        if self.masks.shape[1] == 1:
            return self
        rows = np.arange(len(self.labels))
        own = np.asarray(self.masks[rows, self.labels.clip(0, self.masks.shape[1] - 1)])
        return Outputs(self.dets, self.labels, own[:, None], self.classes)


def save(
    outputs: Outputs, folder: Path, stem: str, kind: Format = "BIN", compact: bool = False
) -> list[Path]:
    """Write `<stem>_0`, `_1` and `_2` into a folder, each whole or not at all; returns their paths.

    Masks of all classes of which only the labels' are known take as little of the disk, where it can leave
    out blocks of zeros. compact: write those of the labels alone, (D, 1, M, M).
    """
    outputs = outputs.compact() if compact else outputs
    paths = [folder / f"{stem}_{number}{SUFFIXES[kind]}" for number in range(3)]
    for path, array in zip(paths, (outputs.dets, outputs.labels), strict=False):
        with whole_file(path) as temporary:
            _write(temporary, array, kind)
    with whole_file(paths[2]) as temporary:
        if compact or outputs.masks.shape[1] == outputs.classes:
            _write(temporary, outputs.masks, kind)
        else:
            _write_spread(temporary, outputs, kind)
    return paths


def _write(path: Path, array: np.ndarray, kind: Format) -> None:
    if kind == "TXT":
        _write_text(path, array)
        return
    with open(path, "wb") as file:
        if kind == "NPY":
            np.save(file, array)
        else:
            file.write(np.ascontiguousarray(array).data)


def _write_text(path: Path, array: np.ndarray) -> None:
    """A line for each row of the last axis, a blank after each number, as ais_infer writes them."""
    whole = np.issubdtype(array.dtype, np.integer)
    with open(path, "wb") as file:
        rows = array.reshape(-1, array.shape[-1])
        np.savetxt(file, rows, fmt="%d" if whole else "%f", newline=" \n")


def _write_spread(path: Path, outputs: Outputs, kind: Format) -> None:
    """Masks of the labels alone among zeros for all other classes."""
    count, _, *side = outputs.masks.shape
    shape, rows = (count, outputs.classes, *side), np.arange(count)
    if kind == "TXT":
        whole = np.zeros(shape, np.float32)
    elif kind == "NPY":
        whole = np.lib.format.open_memmap(path, "w+", np.dtype(np.float32), shape)
    else:
        whole = np.memmap(path, np.float32, "w+", shape=shape)
    whole[rows, outputs.labels] = outputs.masks[:, 0]
    if kind == "TXT":
        _write(path, whole, kind)
    else:
        whole.flush()  # type: ignore[attr-defined]


def stems_in(folder: Path) -> dict[str, str]:
    """The stems of which a folder has a `_0` file, and the suffix of each. Raises UserError for no folder."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise UserError(
            f"{shown(folder)}: cannot be read ({error.strerror})", hint="name the folder of the results"
        ) from error
    parts = [os.path.splitext(name) for name in sorted(names) if not name.startswith(".")]
    return {
        base.removesuffix("_0"): suffix
        for base, suffix in parts
        if base.endswith("_0") and suffix in SUFFIXES.values()
    }


def load(folder: Path, stem: str, suffix: str, spec: Spec) -> Outputs:
    """What was saved of one `.bin`, by us or by ais_infer; masks stay in their file.

    Raises UserError for a missing file, for one of another size than the description says, and for numbers
    that are no detections.
    """
    rows, classes = spec.model.box_head.detections, spec.model.classes
    paths = [folder / f"{stem}_{number}{suffix}" for number in range(3)]
    dets = _array(paths[0], np.float32)
    if dets.size != rows * 5:
        raise _wrong(paths[0], f"{dets.size} numbers", f"{rows} x 5")
    dets = dets.reshape(rows, 5)
    if not np.isfinite(dets).all():
        raise _wrong(paths[0], "numbers that are not finite", "boxes and scores")
    labels = _labels(paths[1], rows)
    strange = labels[(dets[:, 4] > 0) & ((labels < 0) | (labels >= classes))]
    if len(strange):
        raise _wrong(paths[1], f"the label {strange[0]}", f"0 to {classes - 1}")
    masks, side = _array(paths[2], np.float32), mask_side(spec)
    channels = {rows * count * side * side: count for count in (1, classes)}.get(masks.size)
    if channels is None:
        wanted = " or ".join(f"{rows} x {count} x {side} x {side}" for count in (classes, 1))
        raise _wrong(paths[2], f"{masks.size} numbers", wanted)
    return Outputs(dets, labels, masks.reshape(rows, channels, side, side), classes)


def mask_side(spec: Spec) -> int:
    """M of a model."""
    pooled = spec.model.mask_head.pool_side
    return pooled if spec.model.neck == "c4" else 2 * pooled


def _labels(path: Path, rows: int) -> np.ndarray:
    """int32, or int64 as graphs have them that `label_to_int32` never saw."""
    if path.suffix != ".bin":
        labels = _array(path, np.float32)
        if labels.size != rows:
            raise _wrong(path, f"{labels.size} numbers", str(rows))
        return labels.reshape(-1).astype(np.int32)
    kinds = {rows * np.dtype(kind).itemsize: kind for kind in LABEL_TYPES}
    size = _size(path)
    if size not in kinds:
        raise _wrong(path, f"{size} bytes", f"{rows} int32")
    return np.fromfile(path, kinds[size]).astype(np.int32)


def _array(path: Path, kind: type) -> np.ndarray:
    """The numbers of a file, not read before they are used where that can be."""
    size = _size(path)
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix == ".txt":
            return np.loadtxt(path, dtype=np.float32).reshape(-1)
        if size == 0 or size % np.dtype(kind).itemsize:
            raise ValueError(f"{size} bytes")
        return np.memmap(path, kind, "r")
    except ValueError as error:
        raise UserError(
            f"{shown(path)}: is not whole ({error})", hint="run the engine on its .bin again"
        ) from error


def _size(path: Path) -> int:
    try:
        return os.path.getsize(path)
    except OSError as error:
        raise UserError(
            f"{shown(path)}: cannot be read ({error.strerror})", hint="run the engine on its .bin again"
        ) from error


def _wrong(path: Path, found: str, wanted: str) -> UserError:
    return UserError(
        f"{shown(path)}: holds {found} where the model has {wanted}",
        hint="name the model that made it with --model",
    )
