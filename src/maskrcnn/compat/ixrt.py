"""`python -m maskrcnn.compat.ixrt ACTION`: the command line of IxRT's Mask R-CNN sample over our verbs.

Options that the sample does not have are given to the verb, as `--engine openvino`; `--classes` names the
classes of other weights than COCO's.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from maskrcnn.compat.verbs import ends_in_words, run_verb
from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.predict import Predictor, Prepared

ACTIONS = ("build_engine", "run_engine", "perf", "acc")
IMAGES, ANNOTATIONS = Path("images/val2017"), Path("annotations/instances_val2017.json")
RESULTS = Path("pred_results.json")
SIZE = (800, 1067)
EXACT = "acc as the sample has it: boxes of whole pixels, its masks, and no images without annotations"


@dataclass(frozen=True)
class Asked:
    """A command line of the sample. size: (height, width) of the input, None for its own.

    classes: file of the names of other classes than COCO's, None without. rest: options for our verb.
    """

    action: str
    engine_file: Path
    wts_file: Path | None = None
    test_folder: Path | None = None
    dataset_dir: Path | None = None
    batch: int = 1
    size: tuple[int, int] | None = None
    classes: str | None = None
    fps_target: float = 7.2
    map_target: float = 0.4
    segm_map_target: float = 0.4
    exact: bool = False
    rest: tuple[str, ...] = ()


class Arguments(argparse.ArgumentParser):
    """Wrong flags are told as other mistakes are."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(message, hint=f"`{self.prog} --help` lists the flags")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run an action; exit code 0 done, 1 a target is missed, 2 the user must change something."""
    with ends_in_words():
        asked = read_arguments(sys.argv[1:] if arguments is None else arguments)
        if asked.exact:
            _measure_exactly(asked)
            return
        for words in commands(asked):
            run_verb(words)
        if asked.action == "build_engine":
            print("Build engine done!")


def read_arguments(arguments: Sequence[str]) -> Asked:
    """The sample's flags and their defaults. Raises UserError for what an action lacks."""
    parser = Arguments(prog="python -m maskrcnn.compat.ixrt", allow_abbrev=False)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--wts_file", type=Path, help="of tensorrtx, for build_engine")
    parser.add_argument("--engine_file", type=Path, required=True, help="any file that our engines read")
    parser.add_argument("--test_folder", type=Path, help="images of run_engine")
    parser.add_argument("--dataset_dir", type=Path, help=f"of acc, with {IMAGES} and {ANNOTATIONS}")
    parser.add_argument("--bsz", type=int, default=1, help="images at once")
    parser.add_argument(
        "--img_h", type=int, default=1, help=f"height for build_engine, {SIZE[0]} if left out"
    )
    parser.add_argument("--img_w", type=int, default=1, help=f"width for build_engine, {SIZE[1]} if left out")
    parser.add_argument("--fps_target", type=float, default=7.2)
    parser.add_argument("--map_target", type=float, default=0.4, help="least bbox AP50")
    parser.add_argument("--segm_map_target", type=float, default=0.4, help="least segm AP50")
    parser.add_argument(
        "--classes", help="names for build_engine, where they are not COCO's; not the sample's"
    )
    parser.add_argument("--exact", action="store_true", help=EXACT)
    found, rest = parser.parse_known_args(arguments)
    needed = {"build_engine": "wts_file", "run_engine": "test_folder", "acc": "dataset_dir"}.get(found.action)
    if needed and getattr(found, needed) is None:
        raise UserError(f"{found.action}: --{needed} is missing", hint=f"set --{needed}")
    if found.bsz < 1:
        raise UserError(f"--bsz {found.bsz}: is no number of images", hint="use 1")
    # 1 is the sample's way to say nothing.
    sides = [side if side > 1 else own for side, own in zip((found.img_h, found.img_w), SIZE, strict=True)]
    given = found.img_h > 1 or found.img_w > 1
    if given and found.action != "build_engine":
        print("note: --img_h and --img_w are for build_engine; the file knows its size", file=sys.stderr)
    if found.exact and (found.action != "acc" or rest):
        wrong = " ".join(rest) or found.action
        raise UserError(f"--exact: does not go with {wrong}", hint="it is for acc, without options of ours")
    return Asked(
        found.action,
        found.engine_file,
        found.wts_file,
        found.test_folder,
        found.dataset_dir,
        found.bsz,
        (sides[0], sides[1]) if given else None,
        found.classes,
        found.fps_target,
        found.map_target,
        found.segm_map_target,
        found.exact,
        tuple(rest),
    )


def commands(asked: Asked) -> Iterator[list[str]]:
    """Our verbs and their options that do what is asked, in order."""
    engine_file, batch = str(asked.engine_file), ["--batch", str(asked.batch)]
    if asked.action == "build_engine":
        yield from _build(asked)
    elif asked.action == "run_engine":
        yield ["predict", engine_file, str(asked.test_folder), "--score", "0.05", *batch, *asked.rest]
    elif asked.action == "perf":
        target = f"fps={asked.fps_target:g}"
        options = ["--warm-up", "5", "--loop", "20", *batch, "--at-least", target, "--metric-result"]
        yield ["bench", engine_file, *options, *asked.rest]
    else:
        annotations, images = _data_set(asked)
        limits = [word for text in _limits(asked) for word in ("--at-least", text)]
        data = ["--annotations", str(annotations), "--images", str(images), "--save", str(RESULTS)]
        yield ["eval", engine_file, *data, *batch, *limits, "--metric-result", *asked.rest]


def _build(asked: Asked) -> Iterator[list[str]]:
    """A model file beside the engine, and then the engine; a .safetensors file is the model file itself."""
    model = asked.engine_file.with_suffix(".safetensors")
    height, width = asked.size or SIZE
    window = (
        ["--set", f"preprocess.short={height}", "--set", f"preprocess.long={width}"] if asked.size else []
    )
    names = ["--classes", asked.classes] if asked.classes else []
    yield ["convert", str(asked.wts_file), str(model), "--style", "ixrt", *window, *names]
    if model != asked.engine_file:
        # What is made for a CPU is fp32, unless --precision follows.
        precision = ["--precision", "fp16"] if asked.engine_file.suffix == ".engine" else []
        form = ["--size", f"{height}x{width}", "--batch", str(asked.batch), *precision]
        yield ["export", str(model), str(asked.engine_file), *form, *asked.rest]


def _data_set(asked: Asked) -> tuple[Path, Path]:
    assert asked.dataset_dir is not None
    return asked.dataset_dir / ANNOTATIONS, asked.dataset_dir / IMAGES


def _limits(asked: Asked) -> list[str]:
    return [f"bbox/AP50={asked.map_target:g}", f"segm/AP50={asked.segm_map_target:g}"]


class SampleDetections(Detections):
    """Detections whose boxes are whole pixels, with masks resized into them as the sample does."""

    def crops(self) -> Iterator[tuple[np.ndarray, int, int]]:
        """Each mask in its box: bool (h, w), and the box's first column x and row y."""
        import cv2

        for roi_mask, box in zip(self.roi_masks, self.boxes.astype(int).tolist(), strict=True):
            x1, y1, x2, y2 = box
            # Bytes before the resize and a threshold of 127 after it, not a probability over one half.
            part = cv2.resize((roi_mask * 255).astype(np.uint8), (x2 - x1, y2 - y1))
            yield part > 127, x1, y1


class SamplePredictor(Predictor):
    """Finds what the sample would write down of the same rows of a network."""

    def detect(self, prepared: Sequence[Prepared]) -> list[Detections]:
        """One run of the network -> for each image its detections with boxes cut to whole pixels."""
        found = []
        for each in super().detect(prepared):
            whole = SampleDetections(**vars(replace(each, boxes=np.trunc(each.boxes))))
            sides = whole.boxes[:, 2:] - whole.boxes[:, :2]
            found.append(whole[(sides > 0).all(1)])
        return found


def _measure_exactly(asked: Asked) -> None:
    """`acc` with what the sample does otherwise than COCO's tools."""
    from time import perf_counter

    from maskrcnn.cli.eval import counted, limit_of, metric_lines, tell
    from maskrcnn.evaluation.class_mapping import map_classes
    from maskrcnn.evaluation.coco_metrics import evaluate
    from maskrcnn.evaluation.ground_truth import read_ground_truth
    from maskrcnn.evaluation.photographs import locate, predict_items
    from maskrcnn.evaluation.result_list import results_of
    from maskrcnn.predict import open_model
    from maskrcnn.whole_file import whole_file

    annotations, images = _data_set(asked)
    truth, start = read_ground_truth(annotations), perf_counter()
    annotated = set(truth.images.tolist())
    photographs = [each for each in locate(truth, images) if each.row in annotated]
    opened = open_model(asked.engine_file, batch=asked.batch)
    predictor = SamplePredictor(opened.backend, opened.batch)
    mapping = map_classes(predictor.spec.classes, predictor.spec.model.classes, truth)
    groups = counted(predict_items(predictor, truth, photographs, mapping), len(photographs))
    items = [item for group in groups for item in group]
    seconds = perf_counter() - start
    with whole_file(RESULTS) as temporary:
        temporary.write_text(json.dumps(items), encoding="utf-8")
    limits = [limit_of(text) for text in _limits(asked)]
    metrics = evaluate(truth, results_of(items, truth, str(RESULTS)))
    tell(metrics, limits, extra=metric_lines(metrics, limits, seconds))


if __name__ == "__main__":
    main()
