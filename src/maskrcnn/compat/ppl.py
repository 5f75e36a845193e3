"""The command line of PPL.NN's sample `run_maskrcnn_onnx`: one image through a graph of mmdetection, drawn.

N detections, H, W size of the image, h, w size of the network's input.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np

from maskrcnn.backends.foreign_graph import Arrays, ForeignGraph
from maskrcnn.compat.verbs import ends_in_words, note
from maskrcnn.errors import UserError
from maskrcnn.images import read_image
from maskrcnn.masks import paste
from maskrcnn.predict import Predictor, open_model
from maskrcnn.preprocess import batch
from maskrcnn.presets import COCO, MEAN_RGB, STD_RGB
from maskrcnn.spec import Exported
from maskrcnn.stored_spec import found_spec

# The sample's size, (height, width), for graphs that take any.
SIZE = (800, 1200)
SCORE = 0.5
DEFAULT_OUT = "test_out.jpg"
SEED = 42
BLACK = (0, 0, 0)
# What missing arguments end the sample with.
MISSING = 1


class Arguments(argparse.ArgumentParser):
    """Ends as the sample does where arguments are missing."""

    def error(self, message: str) -> NoReturn:
        """Say what is missing, and leave."""
        self.print_usage(sys.stderr)
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(MISSING)


def main(words: Sequence[str] | None = None) -> None:
    """Run the sample's command line; it ends with 1 where an argument is missing, 2 for other mistakes.

    words: of the command line, None for those of the process.
    """
    given = _arguments().parse_args(words)
    with ends_in_words():
        _run(given)


def _arguments() -> Arguments:
    parser = Arguments("python -m maskrcnn.compat.ppl", description="Run a Mask R-CNN graph on one image.")
    parser.add_argument("-i", "--in_img_file", type=Path, required=True, help="image to read")
    parser.add_argument(
        "-o", "--out_img_file", type=Path, help=f"picture to write, {DEFAULT_OUT} if left out"
    )
    parser.add_argument(
        "-m", "--onnx_model", type=Path, required=True, help="graph of mmdetection, or a model file"
    )
    parser.add_argument("--engine", help="pplnn if OpenPPL is installed, else onnxruntime")
    parser.add_argument(
        "--exact",
        action="store_true",
        help="as the sample does it: its channel order, its way to enlarge masks, its drawing",
    )
    parser.add_argument(
        "--input-bin",
        type=Path,
        metavar="FILE",
        help="also write what the graph is fed with, as its input.bin",
    )
    return parser


def _run(given: argparse.Namespace) -> None:
    out = given.out_img_file
    if out is None:
        out = Path(DEFAULT_OUT)
        note(f"-o was left out, so {out} is written")
    image = read_image(given.in_img_file)
    opened = open_as_sample(given.onnx_model, given.engine or _engine(given.onnx_model), given.exact)
    if given.input_bin is not None:
        write_input(opened, image, given.input_bin)
    picture, found = drawn_exactly(opened, image) if given.exact else drawn(opened, image)
    _write(out, picture)
    print(f"{given.in_img_file}   {found}   -> {out}")
    print("Run ok", file=sys.stderr)


def _engine(model: Path) -> str | None:
    """PPL.NN for what it runs; None, which is the engine of the suffix, for graphs of other engines."""
    suffix = model.suffix.lower()
    if suffix not in (".onnx", ".parts"):
        return None
    from maskrcnn.backends.pplnn import is_installed

    spec = found_spec(model) if model.exists() else None
    own = spec is not None and (spec.exported or Exported()).contract == "maskrcnn"
    if suffix == ".onnx" and own:
        return None
    if is_installed():
        return "pplnn"
    note("OpenPPL's pyppl is not installed, so ONNX Runtime runs the model")
    return "onnxruntime"


def open_as_sample(path: Path, engine: str | None, exact: bool = False) -> Predictor:
    """A model that is fed as the sample feeds it, unless its file says otherwise.

    exact: blue is where the mean of red is subtracted, whatever the file says.
    Raises UserError as `open_model` does, and for exact where the graph is none of mmdetection.
    """
    predictor = open_model(path, device="cpu", engine=engine)
    graph = predictor.backend
    if not isinstance(graph, ForeignGraph) or graph.contract.name != "mmdetection":
        if exact:
            raise UserError(
                f"{path}: is no graph of mmdetection, and the sample runs no other", hint="leave --exact out"
            )
        return predictor
    spec = graph.spec
    if exact or found_spec(path) is None:
        exported = spec.exported or Exported()
        height, width = exported.height or SIZE[0], exported.width or SIZE[1]
        stretched = replace(spec.preprocess, resize="stretch", short=height, long=width, pad_multiple=1)
        spec = replace(spec, preprocess=replace(stretched, channels="bgr" if exact else "rgb"))
    if exact:
        spec = replace(spec, model=replace(spec.model, mean=MEAN_RGB, std=STD_RGB))
    if not spec.classes.names:
        spec = replace(spec, classes=COCO)
    return Predictor(ForeignGraph(spec, graph.session, graph.contract, graph.runs_on))


def drawn(model: Predictor, image: np.ndarray) -> tuple[np.ndarray, str]:
    """image (H, W, 3) RGB -> the same with what scored over one half, and that in words."""
    from maskrcnn.cli.account import counts
    from maskrcnn.drawing import draw

    detections = model([image])[0].above(SCORE)
    return draw(image, detections, boxes=True), counts(detections)


def drawn_exactly(model: Predictor, image: np.ndarray) -> tuple[np.ndarray, str]:
    """As `drawn`, with the sample's arithmetic from the outputs of the graph on, and its drawing."""
    graph = model.backend
    assert isinstance(graph, ForeignGraph)
    fed, size = _fed(graph, model, image)
    arrays = graph.session(fed)
    rows = arrays["dets" if "dets" in arrays else "boxes"].reshape(-1, 5)
    labels = arrays["labels"].reshape(-1).astype(int)
    masks = arrays["masks"].reshape(-1, *arrays["masks"].shape[-2:])
    if masks.shape[-2:] != (height := int(size[0, 0]), width := int(size[0, 1])):
        masks = paste(masks, rows[:, :4], (height, width), model.spec.model.conventions.mask_paste)
    canvas = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    kept = np.flatnonzero(rows[:, 4] > SCORE)
    names = dict(enumerate(name.replace(" ", "_") for name in model.spec.classes.names))
    names |= {label: f"class_{label + 1}" for label in labels if label not in names}
    for row in kept:
        _draw(canvas, rows[row], f"{names[labels[row]]}: {round(float(rows[row, 4]), 2)}", size[0])
        _tint(canvas, masks[row], _colour(labels[row]))
    return cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB), f"{len(kept)} detections"


def write_input(model: Predictor, image: np.ndarray, out: Path) -> None:
    """What the graph is fed with for image (H, W, 3) RGB: float32 (1, 3, h, w), little-endian, no header.

    Raises UserError where the model is no graph of another tool.
    """
    from maskrcnn.results.files import write_whole

    graph = model.backend
    if not isinstance(graph, ForeignGraph):
        raise UserError("--input-bin: the model is no graph of mmdetection", hint="leave it out")
    (array,) = _fed(graph, model, image)[0].values()
    write_whole(out, array.astype("<f4", copy=False).tobytes())


def _fed(graph: ForeignGraph, model: Predictor, image: np.ndarray) -> tuple[Arrays, np.ndarray]:
    planes, size = batch([model.prepare(image).planes], model.spec.preprocess)
    return graph.contract.feed(graph.spec, planes, size), size


def _draw(canvas: np.ndarray, row: np.ndarray, text: str, size: np.ndarray) -> None:
    """A rectangle whose corners are cut to whole pixels twice: of the network's input, then of the image."""
    scales = [size[1] / canvas.shape[1], size[0] / canvas.shape[0]] * 2
    left, top, right, bottom = (int(int(v) / scale) for v, scale in zip(row[:4], scales, strict=True))
    cv2.rectangle(canvas, (left, top), (right, bottom), BLACK, 2)
    cv2.putText(canvas, text, (left, top), cv2.FONT_HERSHEY_COMPLEX_SMALL, 1.0, BLACK)


def _tint(canvas: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    """mask (h, w) is enlarged or shrunk between its pixels, and where it is not nought it is drawn."""
    height, width = canvas.shape[:2]
    inside = cv2.resize(mask.astype(np.uint8), (width, height)) > 0
    canvas[inside] = (0.5 * colour + 0.5 * canvas[inside]).astype(np.uint8)


def _colour(label: int) -> np.ndarray:
    """Blue, green, red of a class: drawn in the order of the classes, always from the same seed."""
    numbers = np.random.RandomState(SEED)
    return [numbers.randint(0, 256, (1, 3), np.uint8) for _ in range(label + 1)][label]


def _write(out: Path, picture: np.ndarray) -> None:
    from maskrcnn.results.files import write_whole

    try:
        _, contents = cv2.imencode(out.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise UserError(
            f"{out}: no kind of picture ends in {out.suffix or 'nothing'}", hint="let it end in .jpg"
        ) from error
    write_whole(out, contents.tobytes())


if __name__ == "__main__":
    main()
