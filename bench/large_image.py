"""Where the time goes for a 4K image: the share of laying masks on it and of drawing them.

python bench/large_image.py IMAGE... [--model example --height 2160 --width 3840 --score 0.5 --json]
Each image is scaled to that size and stored as JPEG; what is found of that score is pasted (full-size boolean
masks), encoded (COCO RLE) and drawn. CPU milliseconds, the least of the rounds.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from maskrcnn import Detections, draw, open_model, read_image
from maskrcnn.images import decode
from maskrcnn.predict import Predictor


def main() -> None:
    """Print milliseconds of each step and the shares of masks and drawing in both ways to keep masks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+")
    parser.add_argument("--model", default="example")
    for name, default in (("height", 2160), ("width", 3840), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--score", type=float, default=0.5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    predictor = open_model(options.model, device="cpu")
    for path in options.images:
        image = cv2.resize(read_image(path), (options.width, options.height))
        report = {"image": Path(path).name, **measured(predictor, image, options.score, options.rounds)}
        rows = [f"{key:22} {value}" for key, value in report.items()]
        print(json.dumps(report) if options.json else "\n".join(rows), flush=True)


def measured(predictor: Predictor, image: np.ndarray, score: float, count: int) -> dict[str, object]:
    """Least CPU milliseconds of each step in so many rounds, and the shares of masks and drawing."""
    stored = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
    prepared = [predictor.prepare(image)]
    found = predictor.detect(prepared)[0].above(score)
    actions: dict[str, Callable[[], object]] = {
        "decode": lambda: decode(stored, "the image"),
        "resize": lambda: predictor.prepare(image),
        "network": lambda: predictor.detect(prepared),
        "paste": found.masks,
        "rle": found.rles,
        "draw": lambda: draw(image, found),
    }
    rounds = [cpu_ms(actions) for _ in range(count)]
    least = {name: min(each[name] for each in rounds) for name in actions}
    return {
        "size": image.shape[:2],
        "objects": len(found),
        "covered": round(covered(found), 3),
        **{f"{name}_ms": round(value, 1) for name, value in least.items()},
        "share_paste_and_draw": round(share(least, "paste"), 3),
        "share_rle_and_draw": round(share(least, "rle"), 3),
    }


def cpu_ms(actions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Each once, in turn."""
    found = {}
    for name, action in actions.items():
        start = time.process_time()
        action()
        found[name] = 1000 * (time.process_time() - start)
    return found


def share(least: dict[str, float], kept: str) -> float:
    """Of masks kept in that way, and of drawing, in all that is done for an image."""
    whole = sum(least[name] for name in ("decode", "resize", "network", kept, "draw"))
    return (least[kept] + least["draw"]) / whole


def covered(found: Detections) -> float:
    """Sum of the boxes' areas, as a share of the image."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    return float(sides.prod(1).sum() / np.prod(found.size))


if __name__ == "__main__":
    main()
