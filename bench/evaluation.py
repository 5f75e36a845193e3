"""Our evaluation of a results list against pycocotools: seconds, CPU seconds, peak memory, and whether equal.

python bench/evaluation.py [--images 5000 --detections 400000 --folder DIR --without-pycocotools --json]
From the two files to the twelve numbers of boxes and of masks on both sides, each in a process of its own;
ours counts precision, recall and confusion as well. The files are made first, as COCO's are on average:
480 x 640 pixels, 7 objects an image of 80 classes, polygons of 30 corners, 2 % crowd regions.
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

import numpy as np
from pycocotools import mask as coco_mask

HEIGHT, WIDTH, CLASSES = 480, 640, 80
# Corners: of annotated outlines, and of detected ones, whose masks are pixels.
OBJECTS, CROWDS, CORNERS, FOUND_CORNERS = 7, 0.02, 30, 100
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def main() -> None:
    """Make the files, run both evaluations and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=400_000)
    parser.add_argument("--folder", type=Path, help="Keep the files here, or take those that are here.")
    parser.add_argument("--without-pycocotools", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=list(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(SIDES[options.only], options.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "results.json").exists():
            make_files(folder, options.images, options.detections)
        report: dict[str, Any] = {
            side: in_a_process(side, folder)
            for side in SIDES
            if side == "maskrcnn" or not options.without_pycocotools
        }
    numbers = [each.pop("numbers") for each in report.values()]
    if len(numbers) == 2:
        report["largest_difference"] = max(abs(a - b) for a, b in zip(*numbers, strict=True))
    report["numbers"] = [round(number, 6) for number in numbers[0]]
    print(json.dumps(report) if options.json else "\n".join(f"{key:20} {report[key]}" for key in report))


def in_a_process(side: str, folder: Path) -> dict[str, Any]:
    """What a fresh process measures of one side."""
    command = [sys.executable, __file__, "--only", side, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(run: Callable[[Path], list[float]], folder: Path) -> dict[str, Any]:
    """One side: its numbers, wall and CPU seconds with imports, and the most memory of the process."""
    wall = time.perf_counter()
    numbers = run(folder)
    return {
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time(), 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "numbers": numbers,
    }


def ours(folder: Path) -> list[float]:
    """Boxes first, then masks."""
    from maskrcnn.evaluation.coco_metrics import evaluate
    from maskrcnn.evaluation.ground_truth import read_ground_truth
    from maskrcnn.evaluation.result_list import read_results

    truth = read_ground_truth(folder / "annotations.json")
    numbers = evaluate(truth, read_results(folder / "results.json", truth)).numbers()
    return [numbers[f"{kind}/{name}"] for kind in ("bbox", "segm") for name in NAMES]


def theirs(folder: Path) -> list[float]:
    """The same by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(folder / "annotations.json"))
    found = truth.loadRes(str(folder / "results.json"))
    numbers: list[float] = []
    for kind in ("bbox", "segm"):
        run = COCOeval(truth, found, kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
        numbers += [float(number) for number in run.stats]
    return numbers


SIDES = {"maskrcnn": ours, "pycocotools": theirs}


def make_files(folder: Path, images: int, detections: int) -> None:
    """annotations.json and results.json; half of the detections are near an object."""
    chance = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    with open(folder / "results.json", "w", encoding="utf-8") as file:
        before = "["
        for image in range(1, images + 1):
            objects = [_ellipse(chance) for _ in range(chance.poisson(OBJECTS))]
            annotations += [
                _annotation(chance, each, image, len(annotations) + number)
                for number, each in enumerate(objects, start=1)
            ]
            for _ in range(detections // images):
                file.write(before + json.dumps(_detection(chance, objects, image), separators=(",", ":")))
                before = ",\n"
        file.write("]")
    contents = {
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "height": HEIGHT, "width": WIDTH}
            for number in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)],
    }
    (folder / "annotations.json").write_text(json.dumps(contents), encoding="utf-8")


def _ellipse(chance: np.random.Generator) -> np.ndarray:
    """Centre x, y, half axes x, y in pixels, and class (5,)."""
    radius = np.exp(chance.normal(3.2, 1))
    centre = chance.uniform(0, WIDTH), chance.uniform(0, HEIGHT)
    axes = np.maximum(radius * chance.uniform(0.6, 1.6, 2), 2)
    return np.array([*centre, *axes, chance.integers(1, CLASSES + 1)])


def _outline(chance: np.random.Generator, ellipse: np.ndarray, roughness: float, corners: int) -> list[float]:
    angles = np.arange(corners) * 2 * np.pi / corners
    radii = 1 + roughness * chance.standard_normal(corners)
    x = np.clip(ellipse[0] + ellipse[2] * radii * np.cos(angles), 0, WIDTH - 1)
    y = np.clip(ellipse[1] + ellipse[3] * radii * np.sin(angles), 0, HEIGHT - 1)
    return np.stack([x, y], axis=1).ravel().round(2).tolist()


def _annotation(chance: np.random.Generator, ellipse: np.ndarray, image: int, number: int) -> dict[str, Any]:
    outline = _outline(chance, ellipse, 0.05, CORNERS)
    rle = coco_mask.frPyObjects([outline], HEIGHT, WIDTH)[0]
    crowd = bool(chance.random() < CROWDS)
    return {
        "id": number,
        "image_id": image,
        "category_id": int(ellipse[4]),
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": float(coco_mask.area(rle)),
        "iscrowd": int(crowd),
        "segmentation": _text(rle) if crowd else [outline],
    }


def _detection(chance: np.random.Generator, objects: list[np.ndarray], image: int) -> dict[str, Any]:
    if objects and chance.random() < 0.5:
        ellipse = objects[chance.integers(len(objects))].copy()
        ellipse[:2] += ellipse[2:4] * chance.normal(0, 0.15, 2)
        ellipse[2:4] *= np.exp(chance.normal(0, 0.15, 2))
        if chance.random() < 0.3:
            ellipse[4] = chance.integers(1, CLASSES + 1)
        score = chance.beta(2, 2)
    else:
        ellipse, score = _ellipse(chance), chance.beta(1, 4)
    rle = coco_mask.frPyObjects([_outline(chance, ellipse, 0.05, FOUND_CORNERS)], HEIGHT, WIDTH)[0]
    return {
        "image_id": image,
        "category_id": int(ellipse[4]),
        "bbox": coco_mask.toBbox(rle).tolist(),
        "score": float(score),
        "segmentation": _text(rle),
    }


def _text(rle: dict[str, Any]) -> dict[str, Any]:
    return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}


if __name__ == "__main__":
    main()
