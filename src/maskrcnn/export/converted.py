"""Whether a converted model runs, and lost nothing: its truth, the other framework, is not here to ask."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskrcnn.errors import UserError
from maskrcnn.export.check import cannot_run, faults_of
from maskrcnn.export.gate import Asked, Watch, scenes_of
from maskrcnn.export.scenes import Scene
from maskrcnn.export.settle import own_folder, settle
from maskrcnn.export.verify import precision_on, read_annotated
from maskrcnn.predict import Predictor, open_model
from maskrcnn.preprocess import batch
from maskrcnn.weights.convert import convert
from maskrcnn.weights.convert_back import TARGETS, convert_back
from maskrcnn.weights.model_file import read_model_file, read_spec

SUFFIXES = {"wts": ".wts", "mindspore": ".ckpt"}


@dataclass(frozen=True)
class Tried:
    """What became of a converted file. path: where it is; of a rejected one OUT.rejected.

    on: the images that it ran on, in words; found: objects in them. back: the tool whose checkpoint it was
    written as and read from again, bit for bit; "" where there is none for it. precision: name and value,
    0..1. fault: why it was rejected, "" if it was not.
    """

    path: Path
    on: str
    found: int = 0
    back: str = ""
    precision: tuple[tuple[str, float], ...] = ()
    fault: str = ""


def convert_tried(
    out: Path,
    write: Callable[[Path], object],
    asked: Asked,
    style: str | None = None,
    watch: Watch = lambda what, done, total: None,
) -> Tried:
    """Let `write` convert a checkpoint, try it, and give it the name `out` or that of a rejected one.

    style: that the conversion was told. Raises UserError for what the user must change.
    """
    annotated = read_annotated(asked.verify) if asked.verify else None
    scenes, on = scenes_of(asked, annotated)
    with own_folder(out) as folder:
        file = folder / out.name
        write(file)
        model = open_model(file, "cpu", threads=asked.threads)
        found, fault = _run(model, scenes, watch)
        back, lost = _there_and_back(file, folder, style)
        precision: Mapping[str, float] = {}
        if annotated and not fault:
            precision = precision_on(model, annotated, lambda done, total: watch("measuring", done, total))
        path = settle(folder, out, rejected=bool(fault or lost))
    return Tried(path, on, found, back, tuple(precision.items()), fault or lost)


def _run(model: Predictor, scenes: list[Scene], watch: Watch) -> tuple[int, str]:
    """Objects found, and what is wrong with its rows or how it fails."""
    found = 0
    for done, scene in enumerate(scenes):
        watch("trying", done, len(scenes))
        prepared = model.prepare(scene.load())
        try:
            raw = model.backend.run(*batch([prepared.planes], model.spec.preprocess))
        except MemoryError:
            raise
        except Exception as error:
            return found, f"{cannot_run(error)} ({scene.name})"
        fault = faults_of(raw, model.spec, 1)
        if fault:
            return found, f"{fault} ({scene.name})"
        found += int((raw.scores > 0).sum())
    return found, ""


def _there_and_back(file: Path, folder: Path, style: str | None) -> tuple[str, str]:
    """The tool whose checkpoint the file was written as, "" for none; and the tensor that came back other."""
    source = read_spec(file).origin.source
    target = next((name for name, module in TARGETS.items() if source in (name, module)), "")
    back, again = folder / f"back{SUFFIXES.get(target, '.pth')}", folder / "again.safetensors"
    try:
        if not target:
            return "", ""
        convert_back(file, back, target, allow_differences=True)
        convert(back, again, origin=source, style=style)
        before, after = read_model_file(file)[1], read_model_file(again)[1]
    except UserError:
        return "", ""  # what the other tool has no name for, or cannot be told
    finally:
        back.unlink(missing_ok=True)
        again.unlink(missing_ok=True)
    changed = [name for name, values in before.items() if not _same(values, after.get(name))]
    return target, f"`{changed[0]}` is not the same after the way to {target} and back" if changed else ""


def _same(a: np.ndarray, b: np.ndarray | None) -> bool:
    return b is not None and a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
