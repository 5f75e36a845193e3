"""What ais_infer tells of a run: times in milliseconds, throughput, and which files became which."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.compat.ascend.bins import Bins, read_bins
from maskrcnn.config_file import read_strictly
from maskrcnn.errors import UserError
from maskrcnn.whole_file import shown, whole_file

# Spelt as ais_infer spells it, in the folder of the results.
SUMMARY = "sumary.json"
# What ais_bench, which came after it, adds to the name of that folder.
BESIDE = "_summary.json"
# What Ascend's program does not write: how to read the results.
OURS = "maskrcnn"
PERCENTILE = "percentile(99%)"
# How a description begins.
BEGIN = b'{"spec":'


@dataclass(frozen=True)
class Summary:
    """A run. compute: of the engine, milliseconds of each run; to_engine, from_engine: of making its input
    and of laying out what it returned. batch: images of a run. files: read and written, of each run.
    """

    compute: Sequence[float]
    to_engine: Sequence[float]
    from_engine: Sequence[float]
    batch: int
    files: Sequence[tuple[Sequence[str], Sequence[str]]] = ()

    @property
    def throughput(self) -> float:
        """Images per second of the engine alone."""
        return 1000 * self.batch / float(np.mean(self.compute))

    def values(self) -> dict[str, Any]:
        """As `sumary.json` has them."""
        return {
            "filesinfo": {
                str(number): {"infiles": list(read), "outfiles": list(written)}
                for number, (read, written) in enumerate(self.files)
            },
            "NPU_compute_time": _statistics(self.compute),
            "H2D_latency": _statistics(self.to_engine),
            "D2H_latency": _statistics(self.from_engine),
            "throughput": self.throughput,
            "npu_compute_time_list": list(self.compute),
        }

    def lines(self, bench: bool = False) -> list[str]:
        """As ais_infer logs them, or ais_bench."""
        latencies = {
            "H2D_latency": self.to_engine,
            "NPU_compute_time": self.compute,
            "D2H_latency": self.from_engine,
        }
        how = "(1000*batchsize/NPU_compute_time)"
        if bench:
            how = f"1000*batchsize.mean({self.batch})/NPU_compute_time.mean({float(np.mean(self.compute))})"
        return [
            "-----------------Performance Summary------------------",
            *(f"{name} (ms): {_words(_statistics(times))}" for name, times in latencies.items()),
            f"throughput {how}: {self.throughput}",
            "------------------------------------------------------",
        ]


def write_summary(
    summary: Summary, folder: Path, arguments: dict[str, Any], results: Bins, bench: bool = False
) -> None:
    """Write `sumary.json` into a folder of results, or FOLDER_summary.json beside it, as ais_bench does.

    results: how they are to be read.
    """
    contents = summary.values() | {"args": arguments, OURS: asdict(results)}
    with whole_file(_beside(folder) if bench else folder / SUMMARY) as temporary:
        temporary.write_text(json.dumps(contents, indent=1), encoding="utf-8")


def _beside(folder: Path) -> Path:
    return folder.parent / f"{folder.name}{BESIDE}"


def described_results(folder: Path) -> Bins | None:
    """How the results in a folder are to be read, of a run of ours; None for those of ais_infer."""
    for path in (folder / SUMMARY, _beside(folder)):
        try:
            values = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{shown(path)}: cannot be read ({error})", hint="delete it") from error
        found = values.get(OURS) if isinstance(values, dict) else None
        return None if found is None else read_strictly(Bins, found, shown(path))
    return None


def described_by(info: Path) -> Bins | None:
    """The description that goes with an info file of ours, or is itself named; None for one of Ascend's.

    Raises UserError for one whose images are not all written.
    """
    path = info.with_suffix(".json")
    if info != path and not _is_of_bins(path):
        return None
    found = read_bins(path)
    if not found.images:
        raise UserError(
            f"{shown(path)}: not all of its images are written", hint="run `maskrcnn bins write` again"
        )
    return found


def _is_of_bins(path: Path) -> bool:
    """Annotations may have the name of an info file, too."""
    try:
        with open(path, "rb") as file:
            return file.read(len(BEGIN)) == BEGIN
    except OSError:
        return False


def _statistics(times: Sequence[float]) -> dict[str, float]:
    """Of milliseconds; the count is ais_bench's."""
    array = np.asarray(times, np.float64)
    return {
        "min": float(array.min()),
        "max": float(array.max()),
        "mean": float(array.mean()),
        "median": float(np.median(array)),
        PERCENTILE: float(np.percentile(array, 99)),
        "count": len(array),
    }


def _words(statistics: dict[str, float]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in statistics.items() if name != "count")
