"""Our CPU engines against eager PyTorch: same weights, one image, interleaved in one run.

python bench/cpu.py [--neck fpn --engines native native-bf16 --threads 2 --rounds 9 --stages --json]
fpn: R50-FPN of torchvision, as torchvision runs it. c4: R50-C4 in detectron2's arithmetic, our network eager.
From the decoded image to detections with boolean full-size masks on both sides. The processor's seconds stand
beside those of the clock, which a busy machine stretches. --stages: seconds of the parts of each engine
`native` and what share of the processor's peak they reach.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from against_torchvision import as_tensor, counterparts
from calibrated import calibrated_torchvision, photograph_like
from eager_c4 import Eager, calibrated_c4

from maskrcnn.backends.native import NativeBackend, open_native, open_native_bf16, open_native_int8
from maskrcnn.backends.pytorch import open_pytorch
from maskrcnn.detections import Detections
from maskrcnn.flops import count_stages
from maskrcnn.predict import Predictor
from maskrcnn.weights.architecture import parameter_shapes
from maskrcnn.weights.convert import convert

OPENERS: dict[str, Callable[..., NativeBackend]] = {
    "native": open_native,
    "native-bf16": open_native_bf16,
    "native-int8": open_native_int8,
    "pytorch": open_pytorch,
}
# Billions of operations a second of one AVX-512 core at 3.8 GHz, measured by loops without memory.
PEAK = {"native": 243, "native-bf16": 491, "native-int8": 971}


@dataclass(frozen=True)
class Seconds:
    """Of one call, by the clock and of the processor, all threads together."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Peer:
    """Whom we are measured against: a run of the same image, and its weights as a file of ours."""

    run: Callable[[], dict[str, np.ndarray]]
    write: Callable[[Path], None]


def main() -> None:
    """Print for each engine the times, the peer's in theirs and how far the results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("height", 800), ("width", 1216), ("threads", 2), ("rounds", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--neck", default="fpn", choices=["fpn", "c4"])
    parser.add_argument("--engines", nargs="+", default=["native", "native-bf16"], choices=list(OPENERS))
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image = photograph_like(options.height, options.width)
    peer = torchvision_fpn(image) if options.neck == "fpn" else eager_c4(image)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "ours.safetensors")
        peer.write(target)
        ours = {name: Predictor(OPENERS[name](target, "cpu", options.threads)) for name in options.engines}
    runs: dict[str, Callable[[], object]] = {"eager": peer.run}
    for name, predictor in ours.items():
        runs[name] = lambda predictor=predictor: predictor([image])[0].masks()
    expected = peer.run()
    report = {name: distance(predictor([image])[0], expected) for name, predictor in ours.items()}
    seconds = interleaved(runs, options.rounds)
    for name in runs:
        report[name] = summary(seconds["eager"], seconds[name]) | report.get(name, {})
    if options.stages:
        for name in PEAK.keys() & ours.keys():
            report[f"{name} stages"] = stages(ours[name], image, options.rounds, PEAK[name])
    print(
        json.dumps(report) if options.json else "\n".join(f"{name:18} {row}" for name, row in report.items())
    )


def torchvision_fpn(image: np.ndarray) -> Peer:
    """torchvision's own R50-FPN."""
    theirs = calibrated_torchvision(as_tensor(image))

    def run() -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = theirs([as_tensor(image)])[0]
            masks = found["masks"][:, 0] > 0.5
            return {
                "boxes": found["boxes"].numpy(),
                "scores": found["scores"].numpy(),
                "labels": found["labels"].numpy() - 1,
                "masks": masks.numpy(),
            }

    def write(path: Path) -> None:
        source = path.with_suffix(".pth")
        torch.save(theirs.state_dict(), source)
        short, long = sorted(image.shape[:2])
        convert(source, path, settings=[f"preprocess.short={short}", f"preprocess.long={long}"])

    return Peer(run, write)


def eager_c4(image: np.ndarray) -> Peer:
    """Our own network without any of what makes our engines faster."""
    eager: Eager = calibrated_c4(image)

    def run() -> dict[str, np.ndarray]:
        found = eager.detect(image)
        return {
            "boxes": found.boxes,
            "scores": found.scores,
            "labels": found.labels,
            "masks": found.masks(),
        }

    return Peer(run, eager.write)


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[Seconds]]:
    """All in turn, so that a slow moment of the machine meets all of them."""
    seconds: dict[str, list[Seconds]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            clock, processor = time.perf_counter(), time.process_time()
            run()
            seconds[name].append(Seconds(time.perf_counter() - clock, time.process_time() - processor))
    return seconds


def summary(theirs: list[Seconds], mine: list[Seconds]) -> dict[str, float]:
    """Medians of the clock, least of the processor, and how often mine fits into theirs."""
    ratios = [a.clock / b.clock for a, b in zip(theirs, mine, strict=True)]
    least = [min(each.processor for each in times) for times in (theirs, mine)]
    return {
        "clock_s": round(statistics.median(each.clock for each in mine), 3),
        "processor_s": round(least[1], 3),
        "ratio_clock": round(statistics.median(ratios), 2),
        "ratio_processor": round(least[0] / least[1], 2),
    }


def distance(found: Detections, expected: dict[str, np.ndarray]) -> dict[str, float]:
    """How far the detections lie from the peer's, each from its nearest of the same class."""
    order = counterparts(found, expected["boxes"], expected["labels"])
    return {
        "detections": len(found),
        "of": len(expected["scores"]),
        "boxes_px": float(np.abs(found.boxes[order] - expected["boxes"]).max()),
        "scores": float(np.abs(found.scores[order] - expected["scores"]).max()),
        "mask_pixels_equal": float((found.masks()[order] == expected["masks"]).mean()),
    }


def stages(predictor: Predictor, image: np.ndarray, rounds: int, peak: float) -> dict[str, str]:
    """Least processor ms of each part of the network, its GFLOP, and the share of the peak of one core."""
    backend = predictor.backend
    assert isinstance(backend, NativeBackend)
    shapes = parameter_shapes(predictor.spec.model)
    found = len(predictor([image])[0])
    size = (-(-image.shape[0] // 32) * 32, -(-image.shape[1] // 32) * 32)
    counted = count_stages(predictor.spec.model, shapes, size, 1000, found)
    gflops = {stage.name: stage.gflops for stage in counted}
    gflops["trunk"] = gflops.pop("backbone") + gflops.pop("fpn", 0.0)
    least: dict[str, float] = {}
    parts = {
        "trunk": "trunk",
        "rpn": "rpn",
        "box_head": "box_head",
        "mask_head": "mask_head",
        "propose": "propose",
    }
    if "res5.0.conv1.weight" in shapes:
        # C4's res5 runs on the boxes of both heads.
        parts |= dict.fromkeys(("box_head", "mask_head", "res5"), "heads with res5")
        gflops["heads with res5"] = gflops.pop("box_head") + gflops.pop("mask_head")
    for _ in range(rounds):
        spent = dict.fromkeys(parts.values(), 0.0)
        with watched(backend, parts, spent):
            start = time.process_time()
            predictor([image])[0].masks()
            spent["rest"] = time.process_time() - start - sum(spent.values())
        least = {name: min(least.get(name, 9e9), value) for name, value in spent.items()}
    return {
        name: f"{1e3 * value:.0f} ms"
        + (f", {gflops[name]:.0f} GFLOP, {gflops[name] / value / peak:.0%} of peak" if name in gflops else "")
        for name, value in least.items()
    }


class watched:  # noqa: N801
    """While it lasts, calls of a backend's parts add their processor seconds to `spent`."""

    def __init__(self, backend: NativeBackend, parts: dict[str, str], spent: dict[str, float]) -> None:
        self.backend, self.parts, self.spent = backend, parts, spent
        self.usual = {name: getattr(backend, name) for name in parts}

    def __enter__(self) -> None:
        for name, part in self.usual.items():
            setattr(self.backend, name, self._timed(name, part))

    def __exit__(self, *_: object) -> None:
        for name, part in self.usual.items():
            setattr(self.backend, name, part)

    def _timed(self, name: str, part: Callable[..., object]) -> "Timed":
        return Timed(part, self.spent, self.parts[name])


@dataclass(frozen=True)
class Timed:
    """A part of a network: its calls and those of its methods add their processor seconds to spent[name]."""

    part: Callable[..., object]
    spent: dict[str, float]
    name: str

    def __call__(self, *arguments: object) -> object:
        start = time.process_time()
        value = self.part(*arguments)
        self.spent[self.name] += time.process_time() - start
        return value

    def __getattr__(self, method: str) -> "Timed":
        return Timed(getattr(self.part, method), self.spent, self.name)


if __name__ == "__main__":
    main()
