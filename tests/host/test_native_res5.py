"""C4's res5 with its first convolutions on the whole map, against the same after RoIAlign."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from export.networks import SMALL

from maskrcnn.config import BackboneConfig, ModelConfig
from maskrcnn.host.native.library import Threads, library
from maskrcnn.host.native.network import Stage, Weights
from maskrcnn.host.native.packing import Precision, to_float, to_half
from maskrcnn.host.native.regions import pool_levels
from maskrcnn.host.native.res5 import Res5
from maskrcnn.weights.architecture import parameter_shapes

pytestmark = pytest.mark.skipif(library() is None, reason="the compiled loops were not built: no C compiler")
ONE = Threads(1)
STRIDES = {
    "stride in 1x1": SMALL["c4"].backbone,
    "stride in 3x3": BackboneConfig(50, width=8, group_width=8),
}
# The whole image, two across its edge, whose samples count zero outside the map, and a thin one.
BOXES = np.float32([[0, 0, 320, 240], [-30, -20, 40, 50], [100, 90, 101, 200], [300, 200, 400, 300]])
IMAGES = np.array([0, 1, 1, 0])


def random_res5(config: ModelConfig, precision: Precision) -> Weights:
    """Of convolutions that keep the spread of their input, and norms that scale and shift it."""
    rng = np.random.default_rng(1)
    tensors = {}
    for name, shape in parameter_shapes(config).items():
        if name.startswith("res5."):
            values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
            tensors[name] = (np.abs(values) if ".norm." in name and "bias" not in name else values).astype(
                "f4"
            )
    return Weights(tensors, precision)


def level(precision: Precision) -> np.ndarray:
    """(2, 15, 20, C) of values as after ReLU, a quarter of them zeros."""
    cells = np.maximum(np.random.default_rng(0).standard_normal((2, 15, 20, 128)) + 0.7, 0)
    return cells.astype(np.float32) if precision == "fp32" else to_half(cells.astype(np.float32))


@pytest.mark.parametrize("name", STRIDES)
@pytest.mark.parametrize(("precision", "close"), [("fp32", 1e-5), ("bf16", 0.03)])
def test_the_map_first_gives_what_the_boxes_first_give(name: str, precision: Precision, close: float):
    config = replace(SMALL["c4"], backbone=STRIDES[name])
    weights = random_res5(config, precision)
    cells, rows = level(precision), np.zeros(4, np.int64)
    rule = (BOXES, IMAGES, rows, [1 / 16], 14, 0, True, ONE)
    boxes_first = Stage(weights, "res5", 2, 1, config.backbone)(pool_levels([cells], *rule), ONE)
    res5 = Res5(weights, config)
    keys = ("boxes", "image_of", "level_of", "scales", "side", "samples", "aligned", "threads")
    pool = partial(pool_levels, **dict(zip(keys, rule, strict=True)))
    map_first = res5(res5.maps(cells, ONE), pool, ONE)
    if precision != "fp32":
        boxes_first, map_first = to_float(boxes_first), to_float(map_first)
    assert map_first.shape == (4, 7, 7, 256)
    # Sums in another order; in bfloat16 one more rounding of each value to eight bits, through three blocks.
    assert np.abs(map_first - boxes_first).max() < close * boxes_first.max()
