"""Lets an exported whole graph tell what its stages compute, in a copy of it that gives them out."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from maskrcnn.backends.whole_graph import OUTPUTS, Session
from maskrcnn.detections import Raw
from maskrcnn.export.stage_names import PREFIX
from maskrcnn.predict import Backend, Predictor
from maskrcnn.spec import Spec

REJECTED = ".rejected"
# Whose stages can be looked at, by suffix.
GRAPHS = (".onnx", ".xml")


class StagedGraph:
    """A graph that also tells its stages, as `maskrcnn.compare.Staged` has them."""

    def __init__(self, backend: Backend, session: Session) -> None:
        self._backend = backend
        self._session = session

    @property
    def spec(self) -> Spec:
        """What the file says of itself."""
        return self._backend.spec

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """As the graph without the stages, in which the engine may join more of its nodes."""
        return self._backend.run(image, size)

    def stages(self, image: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
        """image (1, 3, H, W), size (1, 2) -> arrays by the names and shapes that `maskrcnn.stages` lists."""
        exported = self.spec.exported
        assert exported is not None
        together = exported.batch or 1
        contract = getattr(self._backend, "contract", None)  # of a graph for another tool, image by image
        if contract is None:
            planes = np.repeat(np.ascontiguousarray(image, exported.image), together, axis=0)
            found = self._session({"image": planes, "size": np.repeat(size, together, axis=0)})
            rows = [found[name] for name in OUTPUTS]
        else:
            found = self._session(contract.feed(self.spec, image, size))
            rows = contract.read(self.spec, found, size)
        # Rows of all images lie one after the other, those of the first in front.
        values = {
            name.removeprefix(PREFIX): value[: len(value) // together]
            for name, value in found.items()
            if name.startswith(PREFIX)
        }
        boxes, scores, labels, masks = (row[:1] for row in rows)
        count = int((scores > 0).sum())
        values |= {"detections.boxes": boxes, "detections.scores": scores, "detections.labels": labels}
        values["masks"] = masks[:, :count]
        if "box_deltas" in values:
            values["box_deltas"] = values["box_deltas"].reshape(len(values["box_deltas"]), -1, 4)
        if "mask_pool" in values:
            values["mask_pool"] = values["mask_pool"][:count]
        return values


@contextmanager
def named_plainly(path: str | Path) -> Iterator[str | Path]:
    """A name by which engines know what a rejected file is; any other path as it is."""
    path = Path(path) if str(path).endswith(REJECTED) else path
    if not isinstance(path, Path) or not path.exists():
        yield path
        return
    with TemporaryDirectory(prefix="maskrcnn-") as folder:
        plain = Path(folder, path.name.removesuffix(REJECTED))
        os.symlink(path.absolute(), plain)
        weights = path.with_name(f"{plain.stem}.bin{REJECTED}")
        if plain.suffix == ".xml" and weights.exists():
            os.symlink(weights.absolute(), plain.with_suffix(".bin"))
        yield plain


def with_stages(
    model: Predictor, path: str | Path, open_again: Callable[[str | Path], Predictor]
) -> Predictor:
    """The same model, telling its stages where its file is a graph that has them named; else as it is.

    open_again: opens a file as the model was opened.
    """
    path = Path(path)
    if path.suffix.lower() not in GRAPHS:
        return model
    with TemporaryDirectory(prefix="maskrcnn-") as folder:
        copy = Path(folder, path.name)
        copied = {".onnx": _copy_onnx, ".xml": _copy_openvino}[path.suffix.lower()]
        if not copied(path, copy):
            return model
        session: Any = getattr(open_again(copy).backend, "session", None)
    return model if session is None else Predictor(StagedGraph(model.backend, session), model.batch)


def open_staged(
    path: str | Path, open_one: Callable[[str | Path], Predictor], stages: bool = True
) -> Predictor:
    """Open a file, which may be a rejected one, with its stages if they are wanted and it can tell them."""
    with named_plainly(path) as plain:
        model = open_one(plain)
        return with_stages(model, plain, open_one) if stages else model


def _copy_onnx(path: Path, copy: Path) -> bool:
    """Write the graph with its stages as further outputs; False where it has none."""
    try:
        import onnx
    except ModuleNotFoundError:
        return False
    model = onnx.load(path)
    names = [name for node in model.graph.node for name in node.output if name.startswith(PREFIX)]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    if f"{PREFIX}proposals" not in names:
        return False
    onnx.save(model, copy)
    return True


def _copy_openvino(path: Path, copy: Path) -> bool:
    """The same for an OpenVINO network, whose values keep the names that they had in ONNX."""
    from maskrcnn.backends.silent_openvino import openvino

    model = openvino.Core().read_model(path)
    names = {
        name
        for node in model.get_ops()
        for port in node.outputs()
        for name in port.names
        if name.startswith(PREFIX)
    }
    if f"{PREFIX}proposals" not in names:
        return False
    model.add_outputs(sorted(names))
    openvino.save_model(model, copy, compress_to_fp16=False)
    return True
