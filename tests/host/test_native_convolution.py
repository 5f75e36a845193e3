"""The compiled convolutions against torch's, in every precision."""

import numpy as np
import pytest
import torch

from maskrcnn.host.native.convolution import Convolution, Steps
from maskrcnn.host.native.library import Threads, library, multiplies
from maskrcnn.host.native.network import Layer, Weights, doubled
from maskrcnn.host.native.packing import BYTES, FLOATS, HALVES, Precision, to_float, to_half

pytestmark = pytest.mark.skipif(library() is None, reason="the compiled loops were not built: no C compiler")
ONE = Threads(1)
# Root of the mean square error over the results' standard deviation: float32 rounds at 1e-7, Winograd adds
# ten times that; bfloat16 has 8 bits, int8 7 to 8, and Winograd in bfloat16 6 to 7.
CLOSE = {"fp32": 2e-6, "bf16": 4e-3, "int8": 1.5e-2}
KERNELS = {
    "1x1": (64, 256, 1, Steps()),
    "1x1, outputs that fill no panel": (48, 91, 1, Steps()),
    "1x1 of stride 2": (1024, 64, 1, Steps(2)),
    "3x3 by Winograd": (64, 80, 3, Steps(1, 1)),
    "3x3, few channels": (6, 8, 3, Steps(1, 1)),
    "3x3 of stride 2": (32, 64, 3, Steps(2, 1)),
    "3x3, dilated": (32, 64, 3, Steps(1, 2, 2)),
}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_torch(
    cells: np.ndarray, weight: np.ndarray, bias: np.ndarray, steps: Steps, groups: int = 1
) -> np.ndarray:
    """(B, H, W, C) -> (B, h, w, N) in float64."""
    planes, kernel, added = (torch.from_numpy(each).double() for each in (cells, weight, bias))
    rule = (steps.stride, steps.padding, steps.dilation, groups)
    return (
        torch.nn.functional.conv2d(planes.permute(0, 3, 1, 2), kernel, added, *rule)
        .permute(0, 2, 3, 1)
        .numpy()
    )


def error(mine: np.ndarray, exact: np.ndarray) -> float:
    return float(np.sqrt(((mine - exact) ** 2).mean()) / exact.std())


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("name", KERNELS)
def test_a_convolution_is_torchs_to_the_bits_of_its_precision(name: str, precision: Precision, signed: bool):
    if not multiplies(precision):
        pytest.skip(f"this processor has no instructions for {precision}")
    depth, count, side, steps = KERNELS[name]
    cells = numbers(2, 13, 18, depth) if signed else np.maximum(numbers(2, 13, 18, depth), 0)
    weight, bias = (
        numbers(count, depth, side, side, seed=1) / np.sqrt(depth * side**2),
        numbers(count, seed=2),
    )
    half = precision != "fp32"
    conv = Convolution(weight.astype(np.float32), bias, steps, False, half, False, precision)
    mine = conv(to_half(cells) if half else cells, ONE)
    assert error(mine, by_torch(cells, weight, bias, steps)) < CLOSE[precision]


def test_int8_is_what_int8_multiplies():
    if not multiplies("int8"):
        pytest.skip("this processor has no instructions for int8")
    kinds = {
        name: Convolution(
            numbers(count, depth, side, side), numbers(count), steps, half_in=True, precision="int8"
        ).packed.kind
        for name, (depth, count, side, steps) in KERNELS.items()
    }
    assert kinds["1x1"] == kinds["1x1 of stride 2"] == BYTES
    assert kinds["3x3 by Winograd"] == kinds["3x3 of stride 2"] == HALVES
    assert Convolution(numbers(8, 16, 3, 3), numbers(8), Steps(1, 1)).packed.kind == FLOATS


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("halved", [True, False])
def test_what_stands_beside_is_added_before_relu_and_doubled_if_half_as_large(side: int, halved: bool):
    cells, weight, bias = numbers(2, 13, 18, 16), numbers(64, 16, side, side, seed=1), numbers(64, seed=2)
    beside = numbers(2, 7, 9, 64, seed=3) if halved else numbers(2, 13, 18, 64, seed=3)
    whole = beside.repeat(2, 1).repeat(2, 2)[:, :13, :18] if halved else beside
    steps = Steps(1, side // 2)
    mine = Convolution(weight, bias, steps, relu=True)(cells, ONE, beside)
    np.testing.assert_allclose(mine, np.maximum(by_torch(cells, weight, bias, steps) + whole, 0), atol=3e-4)


@pytest.mark.parametrize(("groups", "width"), [(2, 64), (32, 4), (32, 2), (3, 24)])
def test_groups_keep_apart(groups: int, width: int):
    count = groups * width
    cells, weight, bias = (
        numbers(1, 9, 11, count),
        numbers(count, width, 3, 3, seed=1),
        numbers(count, seed=2),
    )
    layer = Layer(Weights({"a.weight": weight, "a.bias": bias}), "a", 0.0, Steps(1, 1), groups)
    mine = layer(cells, ONE)
    np.testing.assert_allclose(mine, by_torch(cells, weight, bias, Steps(1, 1), groups), atol=3e-4)


@pytest.mark.parametrize("instructions", ["plain", "avx2"])
def test_every_instruction_set_computes_the_same(instructions: str):
    """Not only the best one of this processor."""
    compiled = library()
    assert compiled is not None
    if compiled.maskrcnn_use({"plain": 2, "avx2": 1}[instructions]) == 0:
        pytest.skip(f"this processor has no {instructions}")
    try:
        for side in (1, 3):
            cells, weight, bias = (
                numbers(1, 9, 11, 32),
                numbers(70, 32, side, side, seed=1),
                numbers(70, seed=2),
            )
            mine = Convolution(weight, bias, Steps(1, side // 2))(cells, ONE)
            exact = by_torch(cells, weight, bias, Steps(1, side // 2))
            np.testing.assert_allclose(mine, exact, atol=5e-4)
    finally:
        compiled.maskrcnn_use(-1)


@pytest.mark.parametrize("corners", [True, False])
def test_a_pyramid_is_doubled_between_centres_or_corners(corners: bool):
    ramp = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1)
    row = [0, 0.5, 1, 1.5, 2, 2.5, 3, 3] if corners else [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    assert doubled(ramp, (2, 8), corners)[0, :, :, 0].tolist() == [row, row]


def test_bfloat16_rounds_to_the_nearest_and_of_two_to_the_even_one():
    values = np.float32([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -2.5])
    assert to_float(to_half(values)).tolist() == [1, 1, 1 + 2**-6, 1 + 2**-7, -2.5]
