"""`python -m maskrcnn.compat.segmentoly_test`: flags of segmentoly's tools/test.py over `maskrcnn eval`.

Options that the test does not have follow, and are given to the verb, as `--annotations FILE --images DIR`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskrcnn.compat.segmentoly_flags import (
    Model,
    add_engines,
    add_model_flags,
    model_of,
    run_prepared,
)
from maskrcnn.compat.verbs import ends_in_words
from maskrcnn.errors import UserError

DATA = Path("data/coco")
SPLITS = {"coco_2017_val": "val2017", "coco_2017_train": "train2017"}


@dataclass(frozen=True)
class Asked:
    """A command line of the test. flops: "", "stages" or "layers". rest: options for our verb."""

    model: Model
    dataset: str
    batch: int
    flops: str
    device: str
    rest: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure; exit code 1 where a limit of --at-least is missed, 2 where the user must change something."""
    with ends_in_words():
        asked = read_arguments(sys.argv[1:] if arguments is None else arguments)
        run_prepared(asked.model, lambda model: commands(asked, model))


def read_arguments(arguments: Sequence[str]) -> Asked:
    """The test's flags and their defaults. Raises UserError."""
    parser = argparse.ArgumentParser(prog="python -m maskrcnn.compat.segmentoly_test", allow_abbrev=False)
    add_model_flags(parser)
    parser.add_argument("--nw", type=int, default=8, help="images are read by threads of our own number")
    add_engines(parser, batch=True)
    found, rest = parser.parse_known_args(arguments)
    pytorch = found.engine == "pytorch"
    if found.dataset not in SPLITS and "--annotations" not in rest:
        raise UserError(
            f"--dataset {found.dataset}: is unknown",
            hint=f"choose from {', '.join(SPLITS)}, or add --annotations FILE --images FOLDER",
        )
    flops = "layers" if pytorch and found.show_layers_flops else "stages"
    return Asked(
        model_of(found),
        found.dataset,
        found.batch_size if pytorch else 1,
        flops if pytorch and (found.show_flops or found.show_layers_flops) else "",
        "auto" if pytorch else found.device.lower(),
        tuple(rest),
    )


def commands(asked: Asked, model: str) -> list[list[str]]:
    """Our verbs and their options that do what is asked of a model file, in order."""
    costs = [["info", model, *(["--flops"] if asked.flops == "layers" else [])]] if asked.flops else []
    data: list[str] = []
    if "--annotations" not in asked.rest:
        split = SPLITS[asked.dataset]
        data = ["--annotations", str(DATA / "annotations" / f"instances_{split}.json")]
        data += ["--images", str(DATA / "images" / split)]
    words = ["eval", model, *data, "--batch", str(asked.batch), "--device", asked.device]
    return [*costs, [*words, *asked.rest]]


if __name__ == "__main__":
    main()
