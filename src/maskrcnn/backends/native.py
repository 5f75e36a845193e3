"""Runs a `.safetensors` model file on a CPU with loops compiled at installation: no engine and no torch."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.host.boxes import pyramid_level
from maskrcnn.host.detect import Found, detect
from maskrcnn.host.native.heads import BoxHead, MaskHead, RPNHead
from maskrcnn.host.native.library import Threads, library, multiplies
from maskrcnn.host.native.network import Trunk, Weights
from maskrcnn.host.native.packing import Precision
from maskrcnn.host.native.regions import pool_levels
from maskrcnn.host.native.res5 import Res5
from maskrcnn.host.normalise import normalised
from maskrcnn.host.proposals import Proposer
from maskrcnn.spec import Spec
from maskrcnn.weights.model_file import read_model_file

# Pooled features of more bytes go through the heads in several runs: 1000 boxes of C4 would be 800 MB.
MOST_POOLED = 1 << 27
INSTRUCTIONS = {"fp32": "", "bf16": "AVX512_BF16", "int8": "AVX512_VNNI and AVX512_BF16"}
BORDER = 3  # cells around the image that the stem's 7 x 7 kernel reaches


class NativeBackend:
    """One model on the CPU."""

    def __init__(
        self,
        spec: Spec,
        tensors: Mapping[str, np.ndarray],
        threads: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.spec = spec
        config, weights = spec.model, Weights(tensors, precision)
        self.threads = Threads(threads)
        self.trunk = Trunk(weights, config)
        self.rpn = RPNHead(weights, config)
        self.propose = Proposer(config)
        self.res5 = Res5(weights, config) if config.neck == "c4" else None
        self.box_head = BoxHead(weights, config)
        self.mask_head = MaskHead(weights, config)
        self.scales = [1 / stride for stride in ((4, 8, 16, 32) if config.neck == "fpn" else (16,))]

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """image (B, 3, H, W) uint8 or float32 in 0..255, size int64 (B, 2) -> Raw of numpy arrays."""
        levels = self.trunk(self._bordered(image, size), self.threads)
        proposals = self._proposals(levels, size, image.shape[2:])
        maps = levels if self.res5 is None else self.res5.maps(levels[0], self.threads)
        found = self._detect(maps, proposals, size)
        return self._with_masks(maps, found)

    def _bordered(self, image: np.ndarray, size: np.ndarray) -> np.ndarray:
        """image (B, 3, H, W) -> normalised (B, H + 6, W + 6, 3), zeros around it."""
        count, _, height, width = image.shape
        bordered = np.zeros((count, height + 2 * BORDER, width + 2 * BORDER, 3), np.float32)
        inside = bordered[:, BORDER:-BORDER, BORDER:-BORDER]
        inside[:] = normalised(image, size, self.spec.model).transpose(0, 2, 3, 1)
        return bordered

    def _proposals(
        self, levels: list[np.ndarray], size: np.ndarray, padded: tuple[int, int]
    ) -> list[np.ndarray]:
        """levels L x (B, H, W, C) -> of each image (P, 4) in network pixels."""
        maps = [[part.transpose(0, 3, 1, 2) for part in self.rpn(level, self.threads)] for level in levels]
        return [
            self.propose([each[row] for each, _ in maps], [each[row] for _, each in maps], size[row], padded)
            for row in range(len(size))
        ]

    def _detect(self, maps: list[np.ndarray], proposals: list[np.ndarray], size: np.ndarray) -> list[Found]:
        side = self.spec.model.box_head.pool_side
        found = [self.box_head(cells, self.threads) for cells in self._pooled(maps, proposals, side)]
        logits, deltas = (np.concatenate(parts) for parts in zip(*found, strict=True))
        ends = np.cumsum([len(each) for each in proposals])[:-1]
        images = zip(np.split(logits, ends), np.split(deltas, ends), proposals, size, strict=True)
        return [detect(*each, self.spec.model) for each in images]

    def _pooled(self, maps: list[np.ndarray], boxes: list[np.ndarray], side: int) -> Iterator[np.ndarray]:
        """boxes B x (R, 4) in network pixels -> some at a time (r, S, S, C), through a res5."""
        habits, count = self.spec.model.conventions, len(self.scales)
        every = np.concatenate(boxes)
        image_of = np.repeat(np.arange(len(boxes)), [len(each) for each in boxes])
        eps = (habits.level_eps_inside, habits.level_eps_outside)
        level_of = pyramid_level(every, count, *eps, habits.plus_one)
        most = max(1, MOST_POOLED // (maps[0].itemsize * maps[-1].shape[3] * side**2))
        for start in range(0, max(len(every), 1), most):
            some = slice(start, start + most)
            pool = partial(
                pool_levels,
                boxes=every[some],
                image_of=image_of[some],
                level_of=level_of[some],
                scales=self.scales,
                side=side,
                samples=habits.roi_samples,
                aligned=habits.roi_aligned,
                threads=self.threads,
            )
            yield pool(maps[:count]) if self.res5 is None else self.res5(maps, pool, self.threads)

    def _with_masks(self, maps: list[np.ndarray], found: list[Found]) -> Raw:
        config, rows = self.spec.model, self.spec.model.box_head.detections
        labels, done = np.concatenate([each.labels for each in found]), 0
        parts: list[np.ndarray] = []
        for cells in self._pooled(maps, [each.boxes for each in found], config.mask_head.pool_side):
            parts.append(self.mask_head(cells, labels[done : done + len(cells)], self.threads))
            done += len(cells)
        masks = np.concatenate(parts)
        ends = np.cumsum([len(each) for each in found])[:-1]
        filled = Raw(
            np.zeros((len(found), rows, 4), np.float32),
            np.zeros((len(found), rows), np.float32),
            np.zeros((len(found), rows), np.int64),
            np.zeros((len(found), rows, *masks.shape[1:]), np.float32),
        )
        for row, (each, mask) in enumerate(zip(found, np.split(masks, ends), strict=True)):
            for part, values in zip(filled, (each.boxes, each.scores, each.labels, mask), strict=True):
                part[row, : len(values)] = values
        return filled


def open_native(
    path: str | Path, device: str = "auto", threads: int | None = None, precision: Precision = "fp32"
) -> NativeBackend:
    """Open a model file. device: `auto` or `cpu`. threads: None for as many as there are processors.

    precision: of the arithmetic. Raises UserError for a wrong file or device, where the loops were not
    compiled, and for a precision that this processor has no instructions for.
    """
    if library() is None:
        raise UserError(
            "the engine `native` was not compiled when this package was installed",
            hint="install a C compiler (gcc or clang) and then this package again",
        )
    if not multiplies(precision):
        raise UserError(
            f"this processor has no instructions for {precision} ({INSTRUCTIONS[precision]})",
            hint="use --engine native",
        )
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: the engine `native` runs on a CPU", hint="use --device cpu")
    spec, tensors = read_model_file(path)
    if spec.model.roi_levels == "all":
        raise UserError(
            f"{path}: is a PANet, and the engine `native` has neither RoIs of all levels nor deformable "
            "convolutions",
            hint="use --engine pytorch, or export it to .onnx for ONNX Runtime or to .xml for OpenVINO",
        )
    if spec.model.neck == "fpn" and (spec.model.fpn.bottom_up is not None or spec.model.rpn.conv_side != 3):
        raise UserError(
            f"{path}: has a bottom-up path or an RPN of 1 x 1 convolutions, unlike the engine `native`",
            hint="use --engine pytorch, or export it",
        )
    return NativeBackend(spec, tensors, threads, precision)


def open_native_bf16(path: str | Path, device: str = "auto", threads: int | None = None) -> NativeBackend:
    """As open_native, in bfloat16: half the memory, twice the multiplications a second."""
    return open_native(path, device, threads, "bf16")


def open_native_int8(path: str | Path, device: str = "auto", threads: int | None = None) -> NativeBackend:
    """As open_native, in int8 where a kernel is 1 x 1 and else in bfloat16.

    Nothing is calibrated: every cell of a map and every output of a layer has its own scale.
    """
    return open_native(path, device, threads, "int8")
