"""Images a second by batch, and by runs side by side: those of one engine in turns, engine after engine.

python bench/throughput.py MODEL[@ENGINE]... [--images FOLDER --batches 1,2,4,8 --streams 2 --threads 2]
Streams are OpenVINO's where a model runs on it, and else threads that share the engine. CPU times tell more
than images a second where other programs run. Three engines on a small model take two minutes.
"""

import argparse
import json
import sys
from typing import Any

from maskrcnn.bench.measure import measure
from maskrcnn.bench.timing import Measured, Setting
from maskrcnn.images import find_images

HEAD = ("model", "batch", "streams", "images/s", "CPU ms an image", "p50 ms a run", "memory MB")


def main() -> None:
    """Print a row for each batch of each model, and for each number of streams at batch 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL[@ENGINE]")
    parser.add_argument("--images")
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8])
    parser.add_argument("--streams", type=numbers, default=[2])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--loop", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ways = [(batch, 1) for batch in options.batches] + [(1, streams) for streams in options.streams]
    images = [image.path for image in find_images([options.images])] if options.images else []
    rows: list[dict[str, Any]] = []
    for word in options.models:
        model, _, engine = word.partition("@")
        settings = [
            Setting(model, batch, options.threads, streams, engine=engine or None) for batch, streams in ways
        ]
        print(f"measuring {word}", file=sys.stderr)
        report = measure(settings, images[: options.loop * max(options.batches)], options.loop, warm_up=1)
        for failure in report.failed:
            print(failure.message, file=sys.stderr)
        rows += [row(word, each) for each in report.models]
    print(json.dumps(rows) if options.json else table(rows))


def row(word: str, measured: Measured) -> dict[str, Any]:
    """What is shown of one way to run a model."""
    images = measured.setting.batch * len(measured.runs)
    cpu = sum(each.cpu for each in measured.rounds)
    values = (
        word,
        measured.setting.batch,
        measured.setting.streams,
        round(measured.fps, 2),
        round(1000 * cpu / images, 1),
        round(measured.latency().p50, 1),
        round((measured.memory or 0) / 1e6),
    )
    return dict(zip(HEAD, values, strict=True))


def table(rows: list[dict[str, Any]]) -> str:
    """The same for a person."""
    cells = [HEAD, *(tuple(map(str, each.values())) for each in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells
    )


def numbers(text: str) -> list[int]:
    """`1,2` -> [1, 2]."""
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
