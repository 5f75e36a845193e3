"""Predicts many image files with bounded memory: reading, the network and writing overlap."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.images import ImageFile
from maskrcnn.predict import Predictor, Prepared

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Found:
    """What the network found in one file, for a writer.

    image: uint8 (H, W, 3) RGB, None when the caller does not want it.
    milliseconds: of resizing and the network.
    """

    file: ImageFile
    image: np.ndarray | None
    detections: Detections
    milliseconds: float


@dataclass(frozen=True)
class Unreadable:
    """A file that is no readable image, and why."""

    file: ImageFile
    error: UserError


@dataclass(frozen=True)
class Finished(Generic[Made]):
    """A file that is done with: what was found, without its image, and what the writer returned."""

    found: Found
    written: Made


def predict_files(
    predictor: Predictor,
    files: Iterable[ImageFile],
    write: Callable[[Found], Made],
    keep_images: bool = True,
    overlap: bool = True,
) -> Iterator[Finished[Made] | Unreadable]:
    """Every file in order, read and written by threads while the network runs in the caller's.

    A file that cannot be read does not stop the others; what `write` raises does. At most about two batches
    of images are in memory, however many files there are. overlap: begin with further files before one is
    done; without it each outcome comes as early as it can, as a camera needs.
    """
    workers = min(4, os.cpu_count() or 1)
    window = predictor.batch + 1 if overlap else 1

    def read(file: ImageFile) -> _Read | Unreadable:
        return _read(file, predictor, keep_images)

    def finish(found: Found | Unreadable) -> Finished[Made] | Unreadable:
        if isinstance(found, Unreadable):
            return found
        written = write(found)
        return Finished(Found(found.file, None, found.detections, found.milliseconds), written)

    ahead = in_order(read, files, workers, window)
    found = _detect(predictor, ahead, predictor.batch if overlap else 1)
    yield from in_order(finish, found, workers, window)


def in_order(
    function: Callable[[Given], Made], items: Iterable[Given], workers: int, window: int
) -> Iterator[Made]:
    """function(item) of each item, in order, computed by threads for up to `window` items at a time.

    The items are taken in the caller's thread, and only as results are asked for.
    """
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix=function.__name__)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            while waiting and (len(waiting) >= window or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Read:
    file: ImageFile
    image: np.ndarray | None
    prepared: Prepared
    milliseconds: float


def _read(file: ImageFile, predictor: Predictor, keep_image: bool) -> _Read | Unreadable:
    try:
        image = file.read()
    except UserError as error:
        return Unreadable(file, error)
    start = time.perf_counter()
    prepared = predictor.prepare(image)
    return _Read(file, image if keep_image else None, prepared, 1000 * (time.perf_counter() - start))


def _detect(
    predictor: Predictor, read: Iterable[_Read | Unreadable], together: int
) -> Iterator[Found | Unreadable]:
    """Run the network on groups of files, which stay in order."""
    read = iter(read)
    while group := list(islice(read, together)):
        start = time.perf_counter()
        good = [each for each in group if isinstance(each, _Read)]
        found = iter(predictor.detect([each.prepared for each in good]) if good else [])
        share = 1000 * (time.perf_counter() - start) / max(len(good), 1)
        for each in group:
            if isinstance(each, _Read):
                yield Found(each.file, each.image, next(found), each.milliseconds + share)
            else:
                yield each
