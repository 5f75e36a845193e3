"""What a measurement was made on: processor, cores, load, and the memory of this process."""

import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Share of the cores that other programs keep busy from which wall times are no longer those of the program.
BUSY = 0.25
# Packages whose version changes times; those that a process has imported are told.
PACKAGES = ("torch", "torchvision", "onnxruntime", "openvino", "tensorrt", "numpy", "cv2")
DISTRIBUTIONS = {"cv2": "opencv-python-headless"}


@dataclass(frozen=True)
class Machine:
    """cpu: its name. cores: that this process may use. load: programs that ran or waited, on average of the
    last minute; None where the system does not tell.
    """

    cpu: str
    cores: int
    load: float | None
    system: str
    python: str

    @property
    def busy(self) -> bool:
        """Whether other programs take a good part of the processor."""
        return self.load is not None and self.load > BUSY * self.cores

    def words(self) -> str:
        """`AMD EPYC, 2 cores, load 0.1, Linux, Python 3.12.3`."""
        load = [] if self.load is None else [f"load {self.load:.1f}"]
        cores = f"{self.cores} core{'s' * (self.cores != 1)}"
        return ", ".join([self.cpu, cores, *load, self.system, f"Python {self.python}"])


def this_machine() -> Machine:
    """As it is at this moment."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    try:
        load = round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        load = None
    return Machine(_cpu_name(), cores, load, platform.system(), platform.python_version())


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory() -> int | None:
    """Bytes that this process has had in memory at most; None where the system does not tell.

    On Linux not from getrusage, whose figure a process inherits from the one that started it.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def imported_versions() -> dict[str, str]:
    """Versions of those packages that change times and that this process has imported."""
    found = {}
    for name in PACKAGES:
        if name in sys.modules:
            with suppress(PackageNotFoundError):
                found[name] = version(DISTRIBUTIONS.get(name, name))
    return found
