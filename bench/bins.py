"""Files for Ascend: seconds an image, peak memory and bytes of writing bins and of measuring results.

python bench/bins.py IMAGES ANNOTATIONS [--size 1216x1216 --results 40 --folder DIR --json]
Each step is a process of its own: all images of a folder to bins, float32 and bytes; then results of some
images to average precision, with the masks of all 80 classes, with those of the predicted ones alone, and
with the roundings of Ascend's script. Results are made up: 100 boxes an image with smooth masks.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn.backends.contracts.ascend import CLASSES, ROWS, mmdetection_spec
from maskrcnn.compat.ascend.bins import Bins, read_info
from maskrcnn.compat.ascend.outputs import Outputs, save
from maskrcnn.compat.ascend.write import Wrote, write_bins

WHOLE_SET = 5000


def main() -> None:
    """Run every step in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--size", default="1216x1216")
    parser.add_argument("--results", type=int, default=40, help="Images of which there are results.")
    parser.add_argument("--folder", type=Path, help="Where the files go, instead of a temporary folder.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=list(STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(options)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report = {step: in_a_process(step, Path(folder)) for step in STEPS}
    if options.json:
        print(json.dumps(report))
        return
    heads = ("images", "CPU ms/image", "images/s", "peak MB", "MB/image", "GB of 5000")
    print(f"{'':14}" + "".join(f"{head:>14}" for head in heads))
    for step, row in report.items():
        count, each = row["images"], row["mb"] / row["images"]
        values = (count, 1000 * row["cpu"] / count, count / row["seconds"], row["peak_mb"], each)
        print(f"{step:14}" + "".join(f"{value:14.4g}" for value in (*values, each * WHOLE_SET / 1000)))


def in_a_process(step: str, folder: Path) -> dict[str, Any]:
    """What a fresh process measures of one step; its files stay in the folder."""
    command = [sys.executable, __file__, *sys.argv[1:], "--only", step, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One step: its images, megabytes on disk, wall and CPU seconds without imports, and most memory."""
    prepare, step = STEPS[options.only]
    prepare(options)
    wall, cpu = time.perf_counter(), time.process_time()
    images, nbytes = step(options)
    return {
        "images": images,
        "mb": nbytes / 1e6,
        "seconds": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def spec_of(options: argparse.Namespace) -> Any:
    """Of their network at this size."""
    height, width = (int(side) for side in options.size.split("x"))
    return mmdetection_spec((height, width))


def write(dtype: Any) -> Callable[[argparse.Namespace], tuple[int, int]]:
    """All images as bins of this type."""

    def step(options: argparse.Namespace) -> tuple[int, int]:
        from maskrcnn.images import find_images

        folder = options.folder / dtype
        outcomes = list(write_bins(find_images([options.images]), folder, Bins(spec_of(options), dtype)))
        count = sum(isinstance(outcome, Wrote) for outcome in outcomes)
        nbytes = sum(path.stat().st_size for path in folder.iterdir())
        if dtype == "float32":
            for path in folder.iterdir():
                path.unlink()
        return count, nbytes

    return step


def make_results(compact: bool) -> Callable[[argparse.Namespace], None]:
    """Results of some images, of the shapes of their network's outputs."""

    def step(options: argparse.Namespace) -> None:
        load_evaluator(options)
        chance = np.random.default_rng(0)
        height, width = spec_of(options).preprocess.short, spec_of(options).preprocess.long
        for image in read_info(options.folder / "uint8.info")[: options.results]:
            corners = chance.uniform(0, 0.8, (ROWS, 2)) * (width, height)
            sides = np.exp(chance.normal(4.5, 0.8, (ROWS, 2)))
            dets = np.concatenate([corners, corners + sides, -np.sort(-chance.random((ROWS, 1)), 0)], 1)
            labels = chance.integers(0, CLASSES, ROWS).astype(np.int32)
            masks = np.stack([cv2.GaussianBlur(each, (15, 15), 4) for each in chance.random((ROWS, 28, 28))])
            masks = (masks - masks.min()) / (masks.max() - masks.min())
            every = masks[:, None] if compact else np.repeat(masks[:, None], CLASSES, 1)
            outputs = Outputs(dets.astype(np.float32), labels, every.astype(np.float32), CLASSES)
            save(outputs, options.folder / name_of(compact), image.stem, compact=compact)

    return step


def name_of(compact: bool) -> str:
    """Of the folder."""
    return "compact" if compact else "full"


def evaluate(compact: bool, exact: bool) -> Callable[[argparse.Namespace], tuple[int, int]]:
    """Results to average precision."""

    def step(options: argparse.Namespace) -> tuple[int, int]:
        from maskrcnn.compat.ascend.measure import Told, measure, open_results

        folder = options.folder / name_of(compact)
        results = open_results(folder, Told(info=options.folder / "uint8.info", exact=exact))
        measure(results, options.annotations, partial=True)
        return len(results.suffixes), sum(path.stat().st_size for path in folder.iterdir())

    return step


def nothing(options: argparse.Namespace) -> None:
    """There is nothing to make before."""


def load_evaluator(options: argparse.Namespace) -> None:
    """What the first measurement would import."""
    import maskrcnn.evaluation.coco_metrics
    import maskrcnn.results  # noqa: F401


STEPS: dict[str, tuple[Callable[[argparse.Namespace], None], Callable[[argparse.Namespace], tuple[int, int]]]]
STEPS = {
    "write float32": (nothing, write("float32")),
    "write uint8": (nothing, write("uint8")),
    "eval full": (make_results(compact=False), evaluate(compact=False, exact=False)),
    "eval compact": (make_results(compact=True), evaluate(compact=True, exact=False)),
    "eval exact": (load_evaluator, evaluate(compact=True, exact=True)),
}


if __name__ == "__main__":
    main()
