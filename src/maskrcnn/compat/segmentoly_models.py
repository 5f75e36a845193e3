"""`python -m maskrcnn.compat.segmentoly_models`: what segmentoly's tools/download_pretrained_weights.py
downloads and converts, as commands over our zoo; it prints them and needs no network.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskrcnn.compat.verbs import ends_in_words, note

FOLDER = Path("data/pretrained_models")


@dataclass(frozen=True)
class Published:
    """A model of segmentoly's zoo. zoo: its name in ours; path: of its file, without folder and suffix."""

    zoo: str
    path: str


DETECTRON, BENCHMARK = "coco/detectron", "coco/maskrcnn_benchmark"
MODELS = (
    Published("detectron/R50-C4-2x", f"{DETECTRON}/mask_rcnn_resnet50_c4_2x"),
    Published("detectron/R50-FPN-2x", f"{DETECTRON}/mask_rcnn_resnet50_fpn_2x"),
    Published("detectron/R101-FPN-2x", f"{DETECTRON}/mask_rcnn_resnet101_fpn_2x"),
    Published("detectron/X101-64x4d-FPN-1x", f"{DETECTRON}/mask_rcnn_resnext101_64x4d_fpn_1x"),
    Published("detectron/X101-32x8d-FPN-1x", f"{DETECTRON}/mask_rcnn_resnext101_32x8d_fpn_1x"),
    Published("detectron/X152-32x8d-FPN-IN5k-1.44x", f"{DETECTRON}/mask_rcnn_resnext152_32x8d_fpn_1x"),
    Published("maskrcnn-benchmark/R50-C4-1x", f"{BENCHMARK}/mask_rcnn_resnet50_c4_1x"),
    Published("maskrcnn-benchmark/R50-FPN-1x", f"{BENCHMARK}/mask_rcnn_resnet50_fpn_1x"),
    Published("maskrcnn-benchmark/R101-FPN-1x", f"{BENCHMARK}/mask_rcnn_resnet101_fpn_1x"),
    Published("maskrcnn-benchmark/X101-32x8d-FPN-1x", f"{BENCHMARK}/mask_rcnn_resnext101_32x8d_fpn_1x"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line of shell for each model and each of its files."""
    with ends_in_words():
        for line in commands(read_arguments(sys.argv[1:] if arguments is None else arguments)):
            print(line)


def read_arguments(arguments: Sequence[str]) -> Path:
    """The script's flags -> the folder for the models. Raises UserError for a zoo of another kind."""
    parser = argparse.ArgumentParser(prog="python -m maskrcnn.compat.segmentoly_models", allow_abbrev=False)
    parser.add_argument("--model_zoo", type=Path, help="not read: the list is that of segmentoly's own file")
    parser.add_argument("--output_dir", type=Path, default=FOLDER)
    parser.add_argument("-mo", "--model_optimizer", help="not needed")
    found = parser.parse_args(arguments)
    if found.model_zoo is not None:
        note(f"--model_zoo {found.model_zoo} is not read; `maskrcnn convert` takes checkpoints of your own")
    if found.model_optimizer is not None:
        note("--model_optimizer is not needed: `maskrcnn export` writes OpenVINO networks itself")
    return Path(found.output_dir)


def commands(folder: Path) -> list[str]:
    """Our verbs that give what the script does: the weights, and a network for OpenVINO in the folder."""
    return [
        line
        for model in MODELS
        for line in (
            f"maskrcnn zoo {model.zoo} --get",
            f"maskrcnn export zoo:{model.zoo} {folder / 'ir' / model.path}.xml --contract segmentoly "
            "--size 800x1344",
        )
    ]


if __name__ == "__main__":
    main()
