"""Deformable convolutions read where their offsets point to, inside the map and beside it."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from maskrcnn.ops.deform_conv import deform_conv


def drawn(stride: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (2, 8, 11, 14), offsets of up to some cells, weight (5, 8, 3, 3), bias (5,)."""
    torch.manual_seed(0)
    size = (10 // stride + 1, 13 // stride + 1)
    return (
        torch.randn(2, 8, 11, 14),
        3 * torch.randn(2, 18, *size),
        torch.randn(5, 8, 3, 3),
        torch.randn(5),
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_it_is_that_of_torchvision(stride: int) -> None:
    x, offsets, weight, bias = drawn(stride)
    wanted = deform_conv2d(x, offsets, weight, bias, stride, 1)
    # Values of up to 40; float32 of torchvision is 2e-5 from float64 here.
    torch.testing.assert_close(deform_conv(x, offsets, weight, bias, stride), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_its_gradients_are_those_of_torchvision(stride: int) -> None:
    inputs = [each.double().requires_grad_() for each in drawn(stride)]
    x, offsets, weight, bias = inputs
    theirs = torch.autograd.grad(
        deform_conv2d(x, offsets, weight, bias, stride, 1).square().sum(), inputs, create_graph=False
    )
    leaves = [each.detach().float().requires_grad_() for each in inputs]
    x, offsets, weight, bias = leaves
    ours = torch.autograd.grad(deform_conv(x, offsets, weight, bias, stride).square().sum(), leaves)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() < 2e-4 * other.abs().max()


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_without_offsets_it_is_an_ordinary_convolution(stride: int, held: bool) -> None:
    x, offsets, weight, bias = drawn(stride)
    wanted = torch.nn.functional.conv2d(x, weight, bias, stride, padding=1)
    found = deform_conv(x, offsets * 0, weight, bias, stride, held)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("cell", "offset", "held", "faded"),
    [
        (1, 0.25, 2.25, 2.25),  # a quarter of the way from 2 to 3
        (0, -0.5, 0.0, 0.5),  # before the first cell, which is 1
        (2, 0.5, 3.0, 1.5),  # after the last, which is 3
        (2, 0.99, 3.0, 0.03),
        (2, 1.0, 0.0, 0.0),
        (0, -1.0, 0.0, 0.0),
        (1, -9.0, 0.0, 0.0),
        (1, 9.0, 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_beside_the_map_a_sample_fades_or_is_held(
    cell: int, offset: float, held: float, faded: float, axis: int
) -> None:
    """A column or a row 1, 2, 3, read by the middle tap of the kernel alone."""
    x = torch.tensor([1.0, 2.0, 3.0]).reshape((1, 1, 3, 1) if axis == 0 else (1, 1, 1, 3))
    offsets = torch.zeros(1, 18, *x.shape[2:])
    offsets[0, 2 * 4 + axis] = offset
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1.0
    found = [deform_conv(x, offsets, weight, None, 1, rule).flatten()[cell].item() for rule in (True, False)]
    assert found == pytest.approx([held, faded], abs=1e-5)


def test_offsets_in_half_precision_move_samples_in_float32() -> None:
    """The grid of a row of 300 cells would have steps of a whole cell in bfloat16."""
    x = torch.arange(300.0).reshape(1, 1, 1, 300).to(torch.bfloat16)
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.bfloat16)
    weight[0, 0, 1, 1] = 1.0
    found = deform_conv(x, torch.zeros(1, 18, 1, 300, dtype=torch.bfloat16), weight, None, 1)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, x, atol=0, rtol=2**-8)
