"""`python -m maskrcnn.compat.segmentoly_demo`: flags of segmentoly's tools/demo.py over `maskrcnn predict`.

Options that the demo does not have follow, and are given to the verb, as `--save image` or `--frames 100`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from maskrcnn.compat.segmentoly_flags import (
    Model,
    add_engines,
    add_model_flags,
    model_of,
    run_prepared,
)
from maskrcnn.compat.verbs import ends_in_words


@dataclass(frozen=True)
class Asked:
    """A command line of the demo. flops: "", "stages" or "layers". rest: options for our verb."""

    model: Model
    source: str
    score: float
    delay: int
    show_fps: bool
    boxes: bool
    flops: str
    device: str
    rest: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo; exit code 2 where the user must change something."""
    with ends_in_words():
        asked = read_arguments(sys.argv[1:] if arguments is None else arguments)
        run_prepared(asked.model, lambda model: commands(asked, model))


def read_arguments(arguments: Sequence[str]) -> Asked:
    """The demo's flags and their defaults. Raises UserError."""
    parser = argparse.ArgumentParser(prog="python -m maskrcnn.compat.segmentoly_demo", allow_abbrev=False)
    add_model_flags(parser)
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument("-v", "--video", help="file, or number of a camera")
    sources.add_argument("-i", "--images", help="file or folder")
    parser.add_argument("--show_scores", action="store_true", help="they are always drawn")
    parser.add_argument("--show_boxes", action="store_true", help="beside masks")
    parser.add_argument("--show_fps", action="store_true")
    parser.add_argument("-pt", "--prob_threshold", type=float, default=0.5)
    parser.add_argument("--delay", type=int, default=0, help="milliseconds; 0 waits for a key")
    add_engines(parser, batch=False)
    found, rest = parser.parse_known_args(arguments)
    pytorch = found.engine == "pytorch"
    flops = "layers" if pytorch and found.show_layers_flops else "stages"
    return Asked(
        model_of(found),
        found.images or (f"camera:{found.video}" if found.video.isdigit() else found.video),
        found.prob_threshold,
        found.delay,
        found.show_fps,
        found.show_boxes,
        flops if pytorch and (found.show_flops or found.show_layers_flops) else "",
        "auto" if pytorch else found.device.lower(),
        tuple(rest),
    )


def commands(asked: Asked, model: str) -> list[list[str]]:
    """Our verbs and their options that do what is asked of a model file, in order."""
    costs = [["info", model, *(["--flops"] if asked.flops == "layers" else [])]] if asked.flops else []
    shown = [] if "--show" in asked.rest else ["--show", "auto"]
    words = ["predict", model, asked.source, "--score", f"{asked.score:g}", "--device", asked.device]
    words += [*shown, "--delay", str(asked.delay), *(["--show-fps"] if asked.show_fps else [])]
    words += ["--boxes"] if asked.boxes else []
    return [*costs, [*words, *asked.rest]]


if __name__ == "__main__":
    main()
