"""Weights made of nothing but names and shapes, so that a recording needs no weight file.

A value is the sum of four 16-bit integers of PCG64's raw stream, seeded by the CRC-32 of the tensor's name:
whole numbers until the last multiplication, therefore the same bits on every machine. The recordings beside
this file are what torchvision, detectron2, mmdetection and maskrcnn-benchmark computed with them.
"""

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FOLDER = Path(__file__).parent
IMAGE = FOLDER / "portrait.png"

MIDDLE = 131_070
"""Expected sum of four uniform 16-bit integers."""

UNIT = np.sqrt(3.0) / 65536.0
"""Brings such a sum to variance 1."""


@dataclass(frozen=True)
class Recording:
    """What a framework gave for portrait.png.

    outputs: arrays by name; overrides: our settings of the run; keys: (name, shape, dtype) of every tensor;
    generator: `scale` [[regex, factor]] and `bias` {name: values}; style: what --style is, None
    where a checkpoint tells; checksum: CRC-32 of all tensors; input_crc32: of the normalised, padded input.
    """

    name: str
    keys: tuple[tuple[str, tuple[int, ...], str], ...]
    generator: Mapping[str, Any]
    checksum: str
    style: str | None
    overrides: tuple[str, ...]
    input_crc32: str
    outputs: Mapping[str, Array]

    def state(self) -> dict[str, Array]:
        """Its weights by the names of its framework. Raises ValueError when they are not the recorded."""
        state = {name: tensor(name, shape, dtype, self.generator) for name, shape, dtype in self.keys}
        found = checksum(state)
        if found != self.checksum:
            raise ValueError(f"{self.name}: weights have checksum {found}, recorded were {self.checksum}")
        return state

    def rles(self) -> list[dict[str, Any]]:
        """Binary masks of the detections, as pycocotools reads them."""
        counts = bytes(self.outputs["rle_counts"]).split(b"\n")
        height, width = (int(side) for side in self.outputs["rle_size"])
        return [{"counts": text, "size": [height, width]} for text in counts]


def recording(name: str) -> Recording:
    """Load one of the folders beside this file."""
    facts = json.loads((FOLDER / name / "recording.json").read_text(encoding="utf-8"))
    with np.load(FOLDER / name / "outputs.npz") as file:
        outputs = dict(file)
    keys = tuple((key, tuple(shape), dtype) for key, shape, dtype in facts["keys"])
    rest = {field: facts[field] for field in ("generator", "checksum", "style", "input_crc32")}
    return Recording(name=name, keys=keys, overrides=tuple(facts["overrides"]), outputs=outputs, **rest)


def tensor(name: str, shape: tuple[int, ...], dtype: str, generator: Mapping[str, Any]) -> Array:
    """One tensor: counters are zero, statistics are near 0 and 1, filters are centred with He's variance."""
    if dtype != "float32":
        return np.zeros(shape, dtype)
    if name in generator["bias"]:
        return np.asarray(generator["bias"][name], np.float32).reshape(shape)
    sums = _sums(name, int(np.prod(shape, dtype=np.int64)))
    factor = float(np.prod([f for pattern, f in generator["scale"] if re.search(pattern, name)] or [1.0]))
    if len(shape) == 1:
        return (_vector(name, sums.astype(np.float64) * UNIT) * factor).astype(np.float32)
    return _filters(name, sums.reshape(shape[0], -1), shape, factor).reshape(shape)


def _sums(name: str, count: int) -> NDArray[np.int32]:
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(count).astype("<u8")
    quarters = raw.view("<u2").reshape(count, 4)
    return quarters.sum(axis=1, dtype=np.int32) - MIDDLE


def _vector(name: str, z: Array) -> Array:
    if name.endswith("running_var"):
        return 1 + 0.2 * z.clip(-2.5, 2.5)
    if not name.endswith("weight"):
        return 0.1 * z
    # The last norm of a residual branch is small, or activations grow with depth.
    ends_branch = re.search(r"(^|\.)(bn3|conv3\.norm)\.weight$", name)
    return (1 + 0.1 * z) * (0.3 if ends_branch else 1.0)


def _filters(name: str, rows: NDArray[np.int32], shape: tuple[int, ...], factor: float) -> Array:
    transposed = re.search(r"(conv5_mask|mask_head\.deconv|upsample)\.weight$", name)
    inputs = shape[0] if transposed else rows.shape[1]
    std = float(np.sqrt(2.0 / inputs)) * factor * float(UNIT)
    if transposed or inputs < 16:
        return (rows.astype(np.float64) * std).astype(np.float32)
    means = rows.sum(axis=1, dtype=np.int64) / rows.shape[1]
    out = np.empty(rows.shape, np.float32)
    for row, mean, filled in zip(rows, means, out, strict=True):
        filled[:] = (row - mean) * std
    return out


def checksum(state: Mapping[str, Array]) -> str:
    """CRC-32 over names and values in the order of the names, 8 hexadecimal digits."""
    crc = 0
    for name in sorted(state):
        crc = zlib.crc32(np.ascontiguousarray(state[name]).tobytes(), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"
