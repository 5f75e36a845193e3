"""Finds the compiled loops, where they were built, and shares their work out to threads."""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from threading import Lock

import numpy as np

MODULE = "maskrcnn.host.native.compiled"


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions, or None where the package was installed without a compiler."""
    found = find_spec(MODULE)
    if found is None or found.origin is None:
        return None
    try:
        loaded = ctypes.CDLL(found.origin)
    except OSError:
        return None
    loaded.maskrcnn_nms.restype = ctypes.c_int64
    return loaded


def address(array: np.ndarray | None) -> int | None:
    """Where an array's values begin."""
    return None if array is None else array.ctypes.data


def instructions() -> str:
    """The instruction set that the compiled loops use on this processor: `avx512`, `avx2` or `plain`."""
    loaded = library()
    assert loaded is not None
    return ("avx512", "avx2", "plain")[loaded.maskrcnn_instructions()]


def multiplies(precision: str) -> bool:
    """Whether this processor can multiply in `fp32`, `bf16` or `int8` (with bf16 for what is not 1 x 1)."""
    loaded = library()
    kinds = {"fp32": (0,), "bf16": (0, 1), "int8": (0, 1, 2)}[precision]
    return loaded is not None and all(loaded.maskrcnn_multiplies(kind) for kind in kinds)


class Threads:
    """Some threads that work on one loop together, each with memory of its own for what is in between."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or _processors()
        self.lock = Lock()  # of the memory that the loops work in
        self.pool = ThreadPoolExecutor(self.count - 1) if self.count > 1 else None
        self.rooms = [np.empty(0, np.float32) for _ in range(self.count)]

    def run(self, loop: Callable[..., None], work: ctypes.Structure, room: int) -> None:
        """Call the compiled loop in every thread; room: float32 values of memory that each needs."""
        following = ctypes.c_int64(0)
        with self.lock:
            if len(self.rooms[0]) < room:
                self.rooms = [np.empty(room, np.float32) for _ in range(self.count)]
            calls = [
                (ctypes.byref(work), ctypes.byref(following), ctypes.c_void_p(address(each)))
                for each in self.rooms
            ]
            waiting = [self.pool.submit(loop, *call) for call in calls[1:]] if self.pool else []
            loop(*calls[0])
            for each in waiting:
                each.result()


def _processors() -> int:
    """Processors that this process may use; the affinity is known on Linux only."""
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known else os.cpu_count() or 1
