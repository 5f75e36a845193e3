"""Images a second by batch, and by runs side by side, of models in turns.

python bench/throughput.py MODEL... [--images FOLDER --batches 1,2,4,8 --streams 2 --threads 2 --loop 10]
Streams are OpenVINO's where a model runs on it, and else threads that share the engine.
"""

import argparse

from maskrcnn.bench import measure
from maskrcnn.cli.bench import lines
from maskrcnn.images import find_images
from maskrcnn.timing import Setting


def main() -> None:
    """Print a table for each model: a row for each batch, and for each number of streams at batch 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--images")
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8])
    parser.add_argument("--streams", type=numbers, default=[2])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--engine")
    parser.add_argument("--loop", type=int, default=10)
    options = parser.parse_args()
    ways = [(batch, 1) for batch in options.batches] + [(1, streams) for streams in options.streams]
    images = [image.path for image in find_images([options.images])] if options.images else []
    for model in options.models:
        settings = [
            Setting(model, batch, options.threads, streams, engine=options.engine) for batch, streams in ways
        ]
        report = measure(settings, images[: options.loop * max(options.batches)], options.loop)
        for failure in report.failed:
            print(failure.message)
        print("\n".join(lines(report)), "\n")


def numbers(text: str) -> list[int]:
    """`1,2` -> [1, 2]."""
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
