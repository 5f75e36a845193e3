"""Runs a detector that is three convolutional graphs, on any engine that runs those, with numpy between them.

B images, L levels, A anchors per cell, C channels, P proposals and N detections of one image, D rows of Raw,
M side of a mask, S bins per side.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from maskrcnn.backends.whole_graph import Session
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.host.boxes import pyramid_level
from maskrcnn.host.detect import Found, detect, masks_of
from maskrcnn.host.normalise import normalised
from maskrcnn.host.proposals import Proposer
from maskrcnn.host.roi_align import pool_levels
from maskrcnn.spec import Exported, Spec
from maskrcnn.stored_spec import stored_spec

GRAPHS = ("dense", "box_head", "mask_head")
# Engine: module whose `session(path, device, threads, precision=...)` opens one graph.
ENGINES = {
    "onnxruntime": "maskrcnn.backends.onnx_runtime",
    "openvino": "maskrcnn.backends.openvino_runtime",
    "pplnn": "maskrcnn.backends.pplnn",
}
# Without a choice, the engine that a graph's suffix names.
BY_SUFFIX = {".onnx": "onnxruntime", ".xml": "openvino"}
# Pooled features of more bytes go through a head in several runs: 1000 boxes of C4 would be 800 MB.
MOST_POOLED = 1 << 27


@dataclass(frozen=True)
class Graphs:
    """The three networks. dense: image -> level0.., objectness0.., deltas0..; box_head: features -> logits,
    deltas; mask_head: features -> masks.
    """

    dense: Session
    box_head: Session
    mask_head: Session


@dataclass(frozen=True)
class Maps:
    """What the dense graph makes of one image, finest level first.

    levels: (1, C, h, w) each, views of channels-last memory, those that boxes are pooled from. objectness:
    (A, h, w) logits of each level. deltas: (4 A, h, w) of each level.
    """

    levels: list[np.ndarray]
    objectness: list[np.ndarray]
    deltas: list[np.ndarray]


class PartsBackend:
    """Three graphs and the host between them. runs_on: engine, for a person."""

    def __init__(self, spec: Spec, graphs: Graphs, runs_on: str = "") -> None:
        self.spec = spec
        self.graphs = graphs
        self.runs_on = runs_on
        self.exported = spec.exported or Exported(form="parts")
        self.proposer = Proposer(spec.model)
        fpn = spec.model.neck == "fpn"
        self.scales = [1 / stride for stride in ((4, 8, 16, 32) if fpn else (16,))]

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """image (B, 3, H, W) uint8 or float32 in 0..255, size int64 (B, 2) -> Raw of numpy arrays.

        Graphs for a fixed number of images run as often as needed, the last time with blank ones.
        Raises UserError for an input that the graphs were not exported for.
        """
        self._check(image)
        planes = normalised(image, size, self.spec.model)
        found, masks = [], []
        for maps, limit in zip(self.maps(planes), size, strict=True):
            proposals = self.proposer(maps.objectness, maps.deltas, limit, image.shape[2:])
            logits, deltas = self.classify(maps.levels, proposals)
            found.append(detect(logits, deltas, proposals, limit, self.spec.model))
            masks.append(self.segment(maps.levels, found[-1]))
        return self.rows(found, masks)

    def stages(self, image: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
        """image (1, 3, H, W), size (1, 2) -> arrays by the names and shapes that `maskrcnn.stages` lists."""
        return self.stages_given(image, size, {})

    def stages_given(
        self, image: np.ndarray, size: np.ndarray, given: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """As `stages`, but each stage reads what is given in place of what the stages before it computed."""
        from maskrcnn.backends.parts_stages import stages_given

        return stages_given(self, image, size, given)

    def maps(self, planes: np.ndarray) -> Iterator[Maps]:
        """planes (B, 3, H, W) normalised -> Maps of each image."""
        together = self.exported.batch or len(planes)
        for start in range(0, len(planes), together):
            some = planes[start : start + together]
            blank = np.zeros((together - len(some), *planes.shape[1:]), np.float32)
            found = self.graphs.dense({"image": np.concatenate([some, blank]) if len(blank) else some})
            levels = [_channels_last(level) for level in _numbered(found, "level")]
            for row in range(len(some)):
                yield Maps(
                    [level[row : row + 1] for level in levels],
                    [level[row] for level in _numbered(found, "objectness")],
                    [level[row] for level in _numbered(found, "deltas")],
                )

    def pool(self, levels: Sequence[np.ndarray], boxes: np.ndarray, side: int) -> np.ndarray:
        """levels L x (1, C, h, w), boxes (R, 4) in network pixels -> (R, C, S, S)."""
        habits, count = self.spec.model.conventions, len(self.scales)
        eps = (habits.level_eps_inside, habits.level_eps_outside)
        level_of = pyramid_level(boxes, count, *eps, habits.plus_one)
        samples, aligned = habits.roi_samples, habits.roi_aligned
        return pool_levels(levels, boxes[None], level_of[None], self.scales, side, samples, aligned)

    def classify(self, levels: Sequence[np.ndarray], proposals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """levels, proposals (P, 4) -> logits (P, K + 1), background last, and deltas (P, 4 or 4 K)."""
        model = self.spec.model
        moves = 4 if model.box_head.class_agnostic else 4 * model.classes
        logits = np.zeros((len(proposals), model.classes + 1), np.float32)
        deltas = np.zeros((len(proposals), moves), np.float32)
        for rows in self._blocks(levels, len(proposals), model.box_head.pool_side):
            features = self.pool(levels, proposals[rows], model.box_head.pool_side)
            found = self.graphs.box_head({"features": features})
            logits[rows], deltas[rows] = found["logits"], found["deltas"]
        return logits, deltas

    def segment(self, levels: Sequence[np.ndarray], found: Found) -> np.ndarray:
        """levels, detections -> the mask of each one's class, probabilities (N, M, M)."""
        side = self.spec.model.mask_head.pool_side
        masks = self.no_masks(len(found))
        for rows in self._blocks(levels, len(found), side):
            features = self.pool(levels, found.boxes[rows], side)
            every = self.graphs.mask_head({"features": features})["masks"]
            masks[rows] = masks_of(every, found.labels[rows])
        return masks

    def _blocks(self, levels: Sequence[np.ndarray], count: int, side: int) -> Iterator[slice]:
        most = max(1, MOST_POOLED // (4 * levels[0].shape[1] * side**2))
        return (slice(start, start + most) for start in range(0, count, most))

    def no_masks(self, count: int) -> np.ndarray:
        """Zeros (count, M, M); the head doubles what is pooled, and in C4 res5 has halved it before."""
        pooled = self.spec.model.mask_head.pool_side
        side = 2 * (-(-pooled // 2) if self.spec.model.neck == "c4" else pooled)
        return np.zeros((count, side, side), np.float32)

    def rows(self, found: Sequence[Found], masks: Sequence[np.ndarray]) -> Raw:
        """Of each image the detections, filled up with zeros to D rows."""
        count, most = len(found), self.spec.model.box_head.detections
        raw = Raw(
            np.zeros((count, most, 4), np.float32),
            np.zeros((count, most), np.float32),
            np.zeros((count, most), np.int64),
            np.stack([self.no_masks(most)] * count),
        )
        for row, (each, mask) in enumerate(zip(found, masks, strict=True)):
            rows = slice(len(each))
            raw.boxes[row, rows], raw.scores[row, rows] = each.boxes, each.scores
            raw.labels[row, rows], raw.masks[row, rows] = each.labels, mask
        return raw

    def _check(self, image: np.ndarray) -> None:
        multiple = self.spec.preprocess.pad_multiple
        for side, fixed in zip(image.shape[2:], (self.exported.height, self.exported.width), strict=True):
            if side != fixed if fixed else side % multiple:
                wanted = str(fixed) if fixed else f"a multiple of {multiple}"
                raise UserError(
                    f"an input of {image.shape[2]} x {image.shape[3]} pixels, and the model was exported for "
                    f"{wanted} where it has {side}",
                    hint="leave the size to the model, or export it for other sizes",
                )


def _channels_last(level: np.ndarray) -> np.ndarray:
    """The same (B, C, h, w) as a view of channels-last memory, in which RoIAlign reads whole rows."""
    return np.ascontiguousarray(level.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _numbered(arrays: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    """name0, name1 and so on."""
    count = sum(key.startswith(name) for key in arrays)
    return [arrays[f"{name}{number}"] for number in range(count)]


def open_parts(
    path: str | Path, device: str = "auto", threads: int | None = None, engine: str | None = None
) -> PartsBackend:
    """Open a `.parts` folder.

    device, threads: as the engine takes them. engine: of ENGINES; None for the one that the suffix of the
    graphs names. Raises UserError for a wrong folder, file or device.
    """
    path = Path(path)
    spec = stored_spec(path)
    files = [_graph_file(path, name) for name in GRAPHS]
    chosen = engine or BY_SUFFIX[files[0].suffix]
    if chosen != "openvino" and files[0].suffix == ".xml":
        raise UserError(
            f"{path}: its graphs are .xml files, which {chosen} does not read", hint="leave --engine out"
        )
    for file in files:
        if stored_spec(file).model != spec.model:
            raise UserError(f"{file}: belongs to another model than {path}", hint="export the model again")
    session = import_module(ENGINES[chosen]).session
    graphs = Graphs(*(session(file, device, threads, precision=spec.precision) for file in files))
    return PartsBackend(spec, graphs, f"parts on {chosen}")


def _graph_file(folder: Path, name: str) -> Path:
    for suffix in BY_SUFFIX:
        file = folder / f"{name}{suffix}"
        if file.exists():
            return file
    raise UserError(f"{folder}: has no {name}.onnx or {name}.xml", hint="export the model again")
