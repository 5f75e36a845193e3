"""What the demo and the test of segmentoly share: their flags, the model that these mean, and our verbs."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from maskrcnn.compat.verbs import note, run_verb
from maskrcnn.errors import UserError

CHECKPOINTS = (".pth", ".pt", ".pkl")
# Of each way to resize: ours, whose two numbers mean the same.
RESIZES = {"fit_max": "shortest_edge", "fit_window": "fit_window", "size": "stretch"}


@dataclass(frozen=True)
class Model:
    """The network of a command line.

    weights: .pth, .pkl or a model file of ours, or the .bin of a graph. graph: .xml, None for weights alone.
    resize: one of RESIZES with its two numbers, None for what the file says. mean, rgb: of the input.
    """

    weights: Path
    graph: Path | None = None
    resize: tuple[str, int, int] | None = None
    mean: tuple[float, float, float] | None = None
    rgb: bool = False

    def settings(self) -> list[str]:
        """What the flags change of the model's own input."""
        changed = []
        if self.resize is not None:
            mode, first, second = self.resize
            changed += [f"preprocess.resize={RESIZES[mode]}"]
            changed += [f"preprocess.short={first}", f"preprocess.long={second}"]
        if self.mean is not None and self.graph is None:
            changed.append(f"model.mean=[{', '.join(map(str, self.mean))}]")
        if self.rgb:
            changed.append("preprocess.channels=rgb")
        return changed


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Those that stand before the sub-command."""
    parser.add_argument("--dataset", default="coco_2017_val", help="coco_2017_val or coco_2017_train")
    parser.add_argument("--ckpt", type=Path, required=True, help="weights: .pth, .pkl, .safetensors, or .bin")
    parser.add_argument("--mean_pixel", type=float, nargs=3, help="the model's own when left out")
    parser.add_argument("--rgb", action="store_true", help="the network takes RGB")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--fit_max", "--fix_max", type=int, nargs=2, metavar=("SCALE", "MAXSIZE"))
    sizes.add_argument("--fit_window", type=int, nargs=2, metavar=("MAXHEIGHT", "MAXWIDTH"))
    sizes.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))


def add_engines(parser: argparse.ArgumentParser, batch: bool) -> None:
    """The sub-commands. batch: whether pytorch takes --batch_size."""
    engines = parser.add_subparsers(dest="engine", required=True, metavar="pytorch|openvino")
    pytorch = engines.add_parser("pytorch", allow_abbrev=False)
    pytorch.add_argument("--model", required=True, help="a hint only: the weights say what they are of")
    pytorch.add_argument("--show_flops", action="store_true")
    pytorch.add_argument("--show_layers_flops", action="store_true")
    if batch:
        pytorch.add_argument("--batch_size", type=int, default=1)
    openvino = engines.add_parser("openvino", aliases=["OpenVINO", "OpenVINO™"], allow_abbrev=False)
    openvino.add_argument("--model", required=True, type=Path, help=".xml")
    openvino.add_argument("-d", "--device", default="CPU")
    openvino.add_argument("-l", "--cpu_extension")
    openvino.add_argument("-pp", "--plugin_dir")
    openvino.add_argument("--show_pc", "--show_performance_counters", action="store_true")


def model_of(found: argparse.Namespace) -> Model:
    """The network that parsed flags name. Raises UserError for a .bin that is not of its .xml."""
    given = [(mode, *getattr(found, mode)) for mode in RESIZES if getattr(found, mode)]
    mean = None if found.mean_pixel is None else tuple(found.mean_pixel)
    model = Model(found.ckpt, None, given[0] if given else None, mean, found.rgb)
    if found.engine == "pytorch":
        return model
    graph = found.model
    if found.ckpt.resolve() != graph.with_suffix(".bin").resolve():
        raise UserError(
            f"--ckpt {found.ckpt}: is not the .bin of {graph}",
            hint=f"OpenVINO reads it as {graph.with_suffix('.bin')}",
        )
    for flag in ("cpu_extension", "plugin_dir"):
        if getattr(found, flag):
            note(f"--{flag} is left out: OpenVINO has its CPU code inside, and runs these operators itself")
    if found.show_pc:
        note(f"--show_pc: `maskrcnn bench {graph} --layers` shows the time of each layer")
    return replace(model, graph=graph)


def run_prepared(model: Model, commands: Callable[[str], Iterable[Sequence[str]]]) -> None:
    """Our verbs on a model; commands: name of its file -> what to run."""
    with TemporaryDirectory(prefix="maskrcnn-segmentoly-") as folder:
        for words in commands(prepared(model, Path(folder))):
            run_verb(words)


def prepared(model: Model, folder: Path) -> str:
    """The file that our verbs open: the one that is named, or one made of it in `folder` as the flags say."""
    if model.graph is not None:
        return _prepared_graph(model, model.graph, folder)
    if model.weights.suffix.lower() in CHECKPOINTS:
        out = folder / f"{model.weights.stem}.safetensors"
        run_verb(["convert", str(model.weights), str(out), *_set(model.settings())])
        return str(out)
    if not model.settings():
        return str(model.weights)
    from maskrcnn.config_file import with_settings
    from maskrcnn.predict import model_path
    from maskrcnn.weights.model_file import read_model_file, write_model_file

    path = model_path(str(model.weights))
    spec, tensors = read_model_file(path)
    write_model_file(folder / path.name, with_settings(spec, model.settings()), tensors)
    return str(folder / path.name)


def _prepared_graph(model: Model, graph: Path, folder: Path) -> str:
    from maskrcnn.predict import open_model

    settings = model.settings()
    if not settings:
        return str(graph)
    exported = open_model(graph, "cpu", engine="openvino").spec.exported
    if exported is None or exported.contract == "maskrcnn":
        note(f"{graph} says itself how it is fed: {', '.join(settings)} are left out")
        return str(graph)
    if exported.height and model.resize is not None and model.resize[0] == "fit_window":
        if model.resize[1:] != (exported.height, exported.width):
            note(f"images are fitted into {exported.height} x {exported.width}, the input of {graph}")
        settings = replace(model, resize=None).settings()
    if not settings:
        return str(graph)
    run_verb(["convert", str(graph), str(folder / graph.name), *_set(settings)])
    return str(folder / graph.name)


def _set(settings: Iterable[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]
