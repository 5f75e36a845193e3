"""Runs a graph whose inputs and outputs are those of another tool, and knows it by their names.

B images, H, W size of the network's input, D rows, M side of a mask.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from maskrcnn.backends.whole_graph import INPUTS, OUTPUTS, Session, check_size
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.spec import Exported, Spec

# A graph without a description is that of the first whose names fit.
MODULES = {
    "ascend": "maskrcnn.backends.contracts.ascend",
    "mmdetection": "maskrcnn.backends.contracts.mmdetection",
    "segmentoly": "maskrcnn.backends.contracts.segmentoly",
    "model-api": "maskrcnn.backends.contracts.model_api",
    "torchvision": "maskrcnn.backends.contracts.torchvision",
}
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Interface:
    """Names and shapes of a graph's inputs and outputs, in its order; a side is 0 where it may be any."""

    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Contract:
    """How a tool feeds its graphs and what they return, image by image.

    fits: whether a graph is one of that tool, by the names and ranks of its inputs and outputs.
    describe: path, interface -> what its file does not say: input, normalisation, classes.
    feed: spec, image (1, 3, H, W) in 0..255, size int64 (1, 2) -> arrays by the names of the inputs.
    read: spec, arrays by the names of the outputs, size int64 (1, 2) -> Raw of one image, network pixels.
    named: session, interface -> a session with the names that feed and read have, for a tool whose graphs
        may have others; None where they are the graph's.
    refused: engines that compute its graphs wrongly, by the first word of runs_on, and what they do.
    """

    name: str
    fits: Callable[[Interface], bool]
    describe: Callable[[Path, Interface], Spec]
    feed: Callable[[Spec, np.ndarray, np.ndarray], Arrays]
    read: Callable[[Spec, Arrays, np.ndarray], Raw]
    named: Callable[[Session, Interface], Session] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)


class ForeignGraph:
    """One graph of another tool on one engine. runs_on: engine, version and device, for a person."""

    def __init__(self, spec: Spec, session: Session, contract: Contract, runs_on: str = "") -> None:
        self.spec = spec
        self.session = session
        self.contract = contract
        self.runs_on = runs_on

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """image (B, 3, H, W) uint8 or float32 in 0..255, size int64 (B, 2) -> Raw of numpy arrays.

        Raises UserError for an input that the graph was not made for.
        """
        check_size(self.spec, image)
        found = [self._run(image[row : row + 1], size[row : row + 1]) for row in range(len(image))]
        return (
            found[0] if len(found) == 1 else Raw(*(np.concatenate(part) for part in zip(*found, strict=True)))
        )

    def _run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        return self.contract.read(self.spec, self.session(self.contract.feed(self.spec, image, size)), size)


def filled(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, masks: np.ndarray, rows: int) -> Raw:
    """boxes (N, 4), scores (N,), labels (N,), masks (N, M, M) of one image -> Raw, zero after the N of its
    D rows.
    """
    parts = []
    for values, dtype in ((boxes, np.float32), (scores, np.float32), (labels, np.int64), (masks, np.float32)):
        part = np.zeros((1, rows, *values.shape[1:]), dtype)
        part[0, : len(values)] = values
        parts.append(part)
    return Raw(*parts)


def check_count(spec: Spec, count: int) -> None:
    """Raise UserError where a graph found more objects in one image than its description allows."""
    most = spec.model.box_head.detections
    if count > most:
        raise UserError(
            f"{count} objects in one image, and the model's description allows {most}",
            hint=f"`maskrcnn convert MODEL OUT --set model.box_head.detections={count}` allows more",
        )


def open_foreign(
    path: Path, spec: Spec | None, session: Session, interface: Interface, runs_on: str
) -> ForeignGraph:
    """A graph that is not in our form: spec is its description, None where it has none.

    Raises UserError where no contract knows it, and where the engine computes such graphs wrongly.
    """
    contract = _contract(spec.exported or Exported()) if spec else recognised(path, interface)
    engine = runs_on.partition(" ")[0]
    if engine in contract.refused:
        raise UserError(
            f"{path}: is a graph of {contract.name}, and {runs_on} {contract.refused[engine]}",
            hint="run the .onnx with --engine onnxruntime, or export its checkpoint here",
        )
    if contract.named is not None:
        session = contract.named(session, interface)
    return ForeignGraph(spec or contract.describe(path, interface), session, contract, runs_on)


def recognised(path: Path, interface: Interface) -> Contract:
    """The contract that a graph without a description keeps. Raises UserError where none does."""
    for module in MODULES.values():
        contract: Contract = import_module(module).CONTRACT
        if contract.fits(interface):
            return contract
    names = f"from {', '.join(interface.inputs)} to {', '.join(interface.outputs)}"
    raise UserError(
        f"{path}: goes {names}, and has no maskrcnn description, so it is not known how to feed it",
        hint=f"read are graphs of {', '.join(MODULES)} and those from {', '.join(INPUTS)} to "
        f"{', '.join(OUTPUTS)} that `maskrcnn export` writes",
    )


def _contract(exported: Exported) -> Contract:
    return import_module(MODULES[exported.contract]).CONTRACT
