"""Images become `.bin` files: resized, normalised and written by several threads, as often as needed.

H, W size of the network's input, h, w size of the resized image.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from maskrcnn.compat.ascend.bins import (
    Bins,
    Listed,
    description_of,
    found_bins,
    info_lines,
    info_of,
    stems_for,
    their_stem,
    to_json,
)
from maskrcnn.errors import UserError
from maskrcnn.host.normalise import normalise
from maskrcnn.images import ImageFile
from maskrcnn.preprocess import batch, prepare
from maskrcnn.results.names import stems_of
from maskrcnn.spec import Preprocess
from maskrcnn.stream import Unreadable, in_order
from maskrcnn.whole_file import shown, whole_file

# As their script goes through them.
THEIR_SUFFIXES = (".jpg", ".jpeg", ".JPG", ".JPEG")


@dataclass(frozen=True)
class Wrote:
    """An image whose `.bin` is there. kept: it was there before."""

    listed: Listed
    kept: bool


def in_their_order(files: Sequence[ImageFile]) -> list[ImageFile]:
    """JPEGs by the spelling of their suffix; other images are passed over, as their script does."""
    return [file for suffix in THEIR_SUFFIXES for file in files if file.path.suffix == suffix]


def write_bins(
    files: Sequence[ImageFile], folder: Path, bins: Bins, workers: int = 4, exact: bool = False
) -> Iterator[Wrote | Unreadable]:
    """Write `<stem>.bin` of every image into a folder, in order; what an earlier run wrote whole is kept.

    Beside the folder are left its description and the info file of Ascend's scripts, with the images that
    could be read. exact: stems end at the first dot, and the info file counts as theirs.
    Raises UserError where the folder holds bins that were made otherwise, and for stems that collide.
    """
    stems = _stems(files, exact)
    keep = _claim(folder, bins)

    def write(task: tuple[ImageFile, str]) -> Wrote | Unreadable:
        return _write_one(task, folder, bins, keep)

    wrote = []
    for outcome in in_order(write, zip(files, stems, strict=True), workers, 2 * workers):
        if isinstance(outcome, Wrote):
            wrote.append(outcome.listed)
        yield outcome
    _finish(folder, replace(bins, images=tuple(wrote)), exact)


def planes_of(image: np.ndarray, bins: Bins) -> np.ndarray:
    """image (H, W, 3) uint8 RGB -> what its `.bin` holds: float32 (3, H, W), or uint8 (H, W, 3) RGB."""
    preprocess = bins.spec.preprocess
    if bins.dtype == "uint8":
        preprocess = _of_bytes(preprocess)
    planes, _ = prepare(image, preprocess)
    batched, size = batch([planes], preprocess)
    if bins.dtype == "uint8":
        return cv2.merge(batched[0])
    # A letterbox of the mean colour is float32 already; a copy of it costs as much as the rest.
    return normalise(batched.astype(np.float32, copy=False), size, bins.spec.model)[0]


def _of_bytes(preprocess: Preprocess) -> Preprocess:
    """The same in RGB, around the image the bytes nearest to its colour."""
    fill = preprocess.fill if preprocess.channels == "rgb" else preprocess.fill[::-1]
    red, green, blue = map(round, fill)
    return replace(preprocess, channels="rgb", pad_value=(red, green, blue))


def _write_one(task: tuple[ImageFile, str], folder: Path, bins: Bins, keep: bool) -> Wrote | Unreadable:
    file, stem = task
    path = folder / f"{stem}.bin"
    size = _known_size(file, path, bins) if keep else None
    if size is not None:
        return Wrote(Listed(stem, str(file.path), size), kept=True)
    try:
        image = file.read()
    except UserError as error:
        return Unreadable(file, error)
    planes = planes_of(image, bins)
    with whole_file(path) as temporary:
        planes.tofile(temporary)
    height, width, _ = image.shape
    return Wrote(Listed(stem, str(file.path), (height, width)), kept=False)


def _known_size(file: ImageFile, path: Path, bins: Bins) -> tuple[int, int] | None:
    """(height, width) of an image whose `.bin` is whole; None where it is to be written."""
    from maskrcnn.data.pictures import measure

    try:
        if os.path.getsize(path) != bins.nbytes:
            return None
    except OSError:
        return None
    measured = measure(file.path)
    return None if measured is None else measured.upright


def _stems(files: Sequence[ImageFile], exact: bool) -> list[str]:
    if not exact:
        names = stems_of(files)
        return stems_for([names[file.path] for file in files])
    stems = [their_stem(file.path) for file in files]
    first: dict[str, Path] = {}
    for file, stem in zip(files, stems, strict=True):
        if first.setdefault(stem, file.path) != file.path:
            raise UserError(
                f"{shown(file.path)} and {shown(first[stem])}: both would be {stem}.bin, as names "
                "end at their first dot with --exact",
                hint="leave --exact out",
            )
    return stems


def _claim(folder: Path, bins: Bins) -> bool:
    """Leave word of how the bins are made, before the first of them; whether there was word of it."""
    older = found_bins(folder)
    if older is not None and replace(older, images=()) != bins:
        raise UserError(
            f"{shown(folder)}: holds bins of another model, size or type, as {shown(description_of(folder))} "
            "says",
            hint="name another folder, or delete both",
        )
    with whole_file(description_of(folder)) as temporary:
        temporary.write_text(to_json(bins), encoding="utf-8")
    return older is not None


def _finish(folder: Path, bins: Bins, exact: bool) -> None:
    with whole_file(info_of(folder)) as temporary:
        lines = "".join(info_lines(bins.images, restart=exact))
        temporary.write_text(lines, encoding="utf-8", errors="surrogateescape")
    with whole_file(description_of(folder)) as temporary:
        temporary.write_text(to_json(bins), encoding="utf-8")
