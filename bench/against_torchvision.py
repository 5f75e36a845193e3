"""Our PyTorch engine against torchvision eager: same weights, one image, interleaved, the median of the
pairs.

python bench/against_torchvision.py [--height 800 --width 1216 --threads 2 --pairs 9 --json]
From the decoded image to detections with boolean full-size masks on both sides.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from calibrated import calibrated_torchvision, photograph_like

from maskrcnn import open_model
from maskrcnn.detections import Detections
from maskrcnn.weights.convert import convert


def main() -> None:
    """Print both medians, their ratio and how far the results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("height", 800), ("width", 1216), ("threads", 2), ("pairs", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image = photograph_like(options.height, options.width)
    theirs = calibrated_torchvision(as_tensor(image))

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "torchvision.pth"), Path(folder, "ours.safetensors")
        torch.save(theirs.state_dict(), source)
        short, long = sorted((options.height, options.width))
        settings = [f"preprocess.short={short}", f"preprocess.long={long}"]
        convert(source, target, settings=settings)
        ours = open_model(target, device="cpu")

    def run_theirs() -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            found = theirs([as_tensor(image)])[0]
            return found | {"masks": found["masks"][:, 0] > 0.5}

    def run_ours() -> tuple:
        detections = ours([image])[0]
        return detections, detections.masks()

    expected, (found, masks) = run_theirs(), run_ours()
    order = counterparts(found, expected["boxes"].numpy(), expected["labels"].numpy() - 1)
    seconds = interleaved(run_theirs, run_ours, options.pairs)
    report = {
        "image": [options.height, options.width],
        "threads": options.threads,
        "detections": [len(expected["scores"]), len(found)],
        "boxes_px": float(np.abs(found.boxes[order] - expected["boxes"].numpy()).max()),
        "scores": float(np.abs(found.scores[order] - expected["scores"].numpy()).max()),
        "mask_pixels_equal": float((masks[order] == expected["masks"].numpy()).mean()),
        "torchvision_s": statistics.median(a for a, _ in seconds),
        "maskrcnn_s": statistics.median(b for _, b in seconds),
        "ratio": statistics.median(a / b for a, b in seconds),
        "ratios": [round(a / b, 2) for a, b in seconds],
    }
    print(
        json.dumps(report)
        if options.json
        else "\n".join(f"{key:18} {value}" for key, value in report.items())
    )


def counterparts(found: Detections, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each of boxes (N, 4) the row of its label with the nearest box: equal scores may swap ranks."""
    far = 1e9 * (found.labels != labels[:, None])
    return (np.abs(found.boxes - boxes[:, None]).sum(2) + far).argmin(1)


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """What torchvision wants: (3, H, W) float32 in 0..1."""
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def interleaved(a: Callable[[], object], b: Callable[[], object], pairs: int) -> list[tuple[float, float]]:
    """Wall seconds of a and b in turn, so that a slow moment of the machine meets both."""
    seconds = []
    for _ in range(pairs):
        start = time.perf_counter()
        a()
        middle = time.perf_counter()
        b()
        seconds.append((middle - start, time.perf_counter() - middle))
    return seconds


if __name__ == "__main__":
    main()
