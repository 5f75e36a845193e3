"""`python -m maskrcnn.compat.mindspore train|eval|infer`: command lines of mindspore-lab's RCNN over ours."""

import json
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from maskrcnn.compat.mindspore_config import MindSporeConfig, merged, read_config
from maskrcnn.compat.mindspore_groups import device_of
from maskrcnn.compat.mindspore_keys import Asked
from maskrcnn.compat.mindspore_log import KINDS, LoggedRun, RcnnLog, coco_table
from maskrcnn.compat.mindspore_recipe import Translation, translate
from maskrcnn.compat.mindspore_results import files_of_processes, lone_file, write_results
from maskrcnn.errors import UserError
from maskrcnn.launch import place_of
from maskrcnn.storage import Mirror, cached_folder, fetched_path, is_url
from maskrcnn.whole_file import shown

INTERRUPTED, WRONG = 130, 2
DATA_DIR = "/cache/data"
SAVE_DIR = "output"
CHECKPOINTS = (".ckpt", ".safetensors")
# Addresses that `maskrcnn predict` reads itself.
OF_PREDICT = ("http://", "https://", "rtsp://", "camera:")


def main(words: Sequence[str] | None = None) -> int:
    """Run one of their command lines; -> 0 done, 1 the answer is no, 2 the user must change something."""
    from maskrcnn.cli.main import in_words, print_error

    try:
        return _run(list(sys.argv[1:] if words is None else words))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        told = in_words(error)
        if told is None or os.environ.get("MASKRCNN_DEBUG"):
            raise
        print_error(told)
        return WRONG


def _run(words: list[str]) -> int:
    verbs: dict[str, Callable[[dict[str, Any]], int]] = {"train": _train, "eval": _eval, "infer": _infer}
    if words[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\n\n`train --help` and so on list their options.")
        return 0
    if not words or words[0].removesuffix(".py") not in verbs:
        raise UserError(
            f"{words[0] if words else 'nothing'}: is none of train, eval and infer",
            hint="python -m maskrcnn.compat.mindspore train --config config/maskrcnn/FILE.yml",
        )
    verb = words[0].removesuffix(".py")
    options, unknown = _parser(verb).parse_known_args(words[1:])
    if unknown and place_of(os.environ).is_first:
        print(f"note: {' '.join(unknown)}: is no option of {verb}.py and is not taken", file=sys.stderr)
    given = {name: value for name, value in vars(options).items() if value is not None}
    return verbs[verb](given)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ArgumentTypeError(f"{text} is neither True nor False")
    return text.lower() == "true"


OPTIONS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "config": ("train eval infer", str, "configuration, .yml with its bases"),
    "exact": (
        "train eval infer",
        _boolean,
        "ours: repeat what their code does otherwise than it is configured",
    ),
    "model": ("train", str, "ours: model file to start from in place of random weights"),
    "seed": ("train infer", int, "of the order of images and of what is drawn"),
    "ms_mode": ("train eval infer", int, "without effect: there is one mode"),
    "ms_loss_scaler": ("train", str, "without effect: float16 has a dynamic scale"),
    "ms_loss_scaler_value": ("train", float, "without effect"),
    "num_parallel_workers": ("train eval", int, "threads that prepare images"),
    "device_target": ("train eval infer", str, "CPU, GPU or Ascend; what is there when left out"),
    "resume_ckpt": ("train", str, ".ckpt to go on from: weights, momentum and step"),
    "ckpt_path": ("eval infer", str, ".ckpt or model file, or a folder of them"),
    "batch_size": ("train eval", int, "images of each process"),
    "mix": ("train eval infer", _boolean, "training in 16 bits; float32 is what evaluates always"),
    "run_eval": ("train", _boolean, "evaluate while training"),
    "eval_parallel": ("train eval", _boolean, "without effect: processes always share an evaluation"),
    "log_interval": ("train", int, "steps between lines"),
    "lr_init": ("train", float, "learning rate"),
    "save_dir": ("train eval infer", str, "folder of results"),
    "imgs": ("infer", str, "image or folder of images"),
    "run_profilor": ("train eval", _boolean, "without effect: maskrcnn bench measures"),
    "enable_modelarts": ("train eval", _boolean, "fetch data_url, and send save_dir to train_url"),
    "data_url": ("train eval", str, "URL of the data set"),
    "ckpt_url": ("train eval", str, "URL of checkpoints to fetch"),
    "train_url": ("train eval", str, "URL that results are sent to"),
    "data_dir": ("train eval", str, f"folder that data_url is fetched to, {DATA_DIR}"),
}
"""Of their train.py, eval.py and infer.py: in which, type, and what it does here."""


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, hint=f"{self.prog} --help")


def _parser(verb: str) -> ArgumentParser:
    parser = _Parser(f"python -m maskrcnn.compat.mindspore {verb}", allow_abbrev=False)
    for name, (verbs, kind, words) in OPTIONS.items():
        if verb in verbs.split():
            # An earlier eval.py spells it so.
            spellings = ["--ckpt_path", "--checkpoint_path"] if name == "ckpt_path" else [f"--{name}"]
            parser.add_argument(*spellings, dest=name, type=kind, help=words, required=name == "config")
    return parser


def _train(given: dict[str, Any]) -> int:
    from maskrcnn.cli.train import learn
    from maskrcnn.training.loop import CHECKPOINT
    from maskrcnn.training.run_file import read_run

    asked = _asked(given, {"save_dir": SAVE_DIR})
    translation = translate(asked)
    _tell(translation.told())
    run = read_run(None, translation.given, translation.settings)
    out, url = _saved_to(asked)
    run = replace(run, checkpoints_for="mindspore", out=str(out), mirror=url)
    if url:
        run = replace(run, resume_from=_brought(url, out, run.resume_from))
    holds = (out / CHECKPOINT).exists()
    if holds and out.resolve() not in Path(run.resume_from).resolve().parents:
        raise UserError(
            f"{url or out}: already holds a run",
            hint=f"name another {'place' if url else '--save_dir'}, or go on with one of its checkpoints by "
            "--resume_ckpt",
        )
    log, training = RcnnLog.begun(out, print), run.training
    # A run's own checkpoint has what MindSpore's has, and more.
    learn(run, holds, lambda told: LoggedRun(told, log, training.epochs, training.batch, asked.exact))
    return 0


def _saved_to(asked: Asked) -> tuple[Path, str]:
    """The folder of results, and the URL of the store that it is sent to; "" for none."""
    named = str(asked.get("save_dir"))
    if is_url(named):
        return cached_folder(named), named
    url = asked.get("train_url") if asked.get("enable_modelarts") else ""
    return Path(named), str(url or "")


def _brought(url: str, folder: Path, checkpoint: str) -> str:
    """Bring what an earlier job has left in the store: this machine may be another one.

    checkpoint: to go on from; -> the one of the folder, where it is a URL of the same place.
    """
    mirror, begin = Mirror(url, folder), f"{url.rstrip('/')}/"
    if mirror.exists():
        mirror.fetch()
    return str(folder / checkpoint.removeprefix(begin)) if checkpoint.startswith(begin) else checkpoint


def _eval(given: dict[str, Any]) -> int:
    from maskrcnn.evaluation.ground_truth import read_ground_truth

    asked = _asked({**given, "run_eval": True}, {"save_dir": SAVE_DIR})
    translation = translate(asked)
    _tell(translation.told_of_model())
    if not translation.given.get("val"):
        raise UserError("data.val_anno_path is missing", hint="name the annotations in the configuration")
    annotations, images = (_fetch(translation.given[name]) for name in ("val", "val_images"))
    (save_dir, url), checkpoints = _saved_to(asked), _checkpoints(asked)
    truth, log = read_ground_truth(annotations), RcnnLog.begun(save_dir, print)
    options = ["--annotations", str(annotations), "--images", str(images), "--json"]
    options += ["--batch", str(given.get("batch_size", 1)), *_device(given)]
    shared = asked.processes > 1 and asked.get("infer.eval_parallel") is not False
    worst = 0
    for path in checkpoints:
        if shared:
            results = files_of_processes(save_dir, path, asked.processes, alone=len(checkpoints) == 1)
        else:
            results = [lone_file(save_dir)]
        with TemporaryDirectory(prefix="maskrcnn-") as folder:
            model, found = _model_of(path, translation, Path(folder), truth.names), Path(folder, "found.json")
            _tell([shown(path)])
            with redirect_stdout(StringIO()) as printed:
                code = _verb(path, "eval", str(model), *options, "--save", str(found))
            if printed.getvalue():
                write_results(found, results, truth)
                _log_evaluation(log, path, json.loads(printed.getvalue()), results)
        worst = max(worst, code)
        if worst == INTERRUPTED:
            break
    _send(save_dir, url)
    return worst


def _log_evaluation(log: RcnnLog, path: Path, numbers: dict[str, Any], results: list[Path]) -> None:
    log.info(f"eval {shown(path)}")
    log.info(f"eval dataset size, {numbers['images']}")
    log.info(f"Save bbox prediction result. {', '.join(shown(each) for each in results)}")
    for kind in KINDS:
        log.info(coco_table(kind, numbers))
    log.info("Finish inference...")


def _infer(given: dict[str, Any]) -> int:
    asked = _asked(given, {"save_dir": SAVE_DIR, "imgs": "imgs"})
    translation = translate(asked)
    _tell(translation.told_of_model())
    (save_dir, url), worst = _saved_to(asked), 0
    for path in _checkpoints(asked):
        with TemporaryDirectory(prefix="maskrcnn-") as folder:
            model = _model_of(path, translation, Path(folder), asked.get("data.names") or ())
            out, images = str(save_dir), str(asked.get("imgs"))
            if not images.startswith(OF_PREDICT):
                images = str(_fetch(images))
            worst = max(worst, _verb(path, "predict", str(model), images, "--out", out, *_device(given)))
        if worst == INTERRUPTED:
            break
    _send(save_dir, url)
    return worst


def _send(folder: Path, url: str) -> None:
    if not url or not place_of(os.environ).is_first:
        return
    try:
        Mirror(url, folder).send()
    except UserError as error:
        raise UserError(f"{error.message}; the results are in {shown(folder)}", error.hint) from error


def _fetch(place: str) -> Path:
    """A path of this machine: of a URL that of a copy."""
    return fetched_path(place, lambda words: _tell([words]))


def _asked(given: dict[str, Any], defaults: dict[str, Any]) -> Asked:
    """Configuration and options as one; of ModelArts what is in the store is fetched first."""
    exact = given.get("exact", False)
    config = read_config(Path(given["config"]), exact)
    ours = ("config", "exact", "model")
    options = {name: value for name, value in given.items() if name not in ours}
    config = replace(config, values=merged(merged(defaults, config.values), options))
    if config.get("enable_modelarts"):
        config = _fetched(config)
    return Asked(config, "", given.get("model", ""), place_of(os.environ).count, exact)


def _fetched(config: MindSporeConfig) -> MindSporeConfig:
    """The configuration with `dataset_dir` below `data_dir`, where the data set of `data_url` is then."""
    folder = Path(config.get("data_dir", DATA_DIR))
    checkpoints = Path(config.get("ckpt_dir", folder.parent / "ckpt"))
    for key, place in (("data_url", folder), ("ckpt_url", checkpoints)):
        if config.get(key):
            count = Mirror(config.get(key), place).fetch()
            if place_of(os.environ).is_first:
                print(f"{config.get(key)}: {count} files fetched to {place}", file=sys.stderr)
    below = folder / str(config.get("data.dataset_dir", ""))
    return replace(config, values=merged(config.values, {"data": {"dataset_dir": str(below)}}))


def _tell(lines: Iterable[str]) -> None:
    if place_of(os.environ).is_first:
        print("\n".join(lines), file=sys.stderr)


def _checkpoints(asked: Asked) -> list[Path]:
    """The file that is named, or those of the folder, in the order of their names."""
    named = asked.get("ckpt_path")
    if not named:
        raise UserError("--ckpt_path is missing", hint="name a .ckpt, a model file or a folder of them")
    path = _fetch(named)
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.iterdir() if each.suffix in CHECKPOINTS)
    if not found:
        raise UserError(f"{path}: holds no .ckpt", hint="name the folder `checkpoints` of a training")
    return found


def _model_of(path: Path, translation: Translation, folder: Path, names: Sequence[str]) -> Path:
    """A model file of a .ckpt, in the folder, with these classes and thresholds and sizes as configured."""
    from maskrcnn.weights.convert import convert

    if path.suffix == ".safetensors":
        return path
    classes = folder / "classes.txt"
    classes.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    model = folder / f"{path.stem}.safetensors"
    settings = translation.of_model()
    convert(path, model, origin="mindspore", classes=classes if names else None, settings=settings)
    return model


def _device(given: dict[str, Any]) -> list[str]:
    if "device_target" not in given:
        return []
    place, device = place_of(os.environ), device_of(given["device_target"])
    # Of several GPUs each process is given its own by the verb.
    return ["--device", f"{device}:{place.local}" if device == "npu" and place.count > 1 else device]


def _verb(checkpoint: Path, *words: str) -> int:
    """One of our own commands in this process; -> its exit code."""
    from maskrcnn.cli.main import app

    # Processes of one command know each other by it: the names of a temporary file and of results differ.
    sys.argv = ["maskrcnn", words[0], str(checkpoint)]
    return int(app(list(words), prog_name="maskrcnn", standalone_mode=False) or 0)


if __name__ == "__main__":
    sys.exit(main())
