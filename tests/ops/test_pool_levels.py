"""RoIAlign against torchvision's, and pooling from a pyramid."""

import pytest
import torch
import torchvision
from torch import tensor

from maskrcnn.ops.pool_levels import pool_levels, roi_align


def rois_of_all_kinds(count: int = 200) -> torch.Tensor:
    """Boxes on 2 images of 320 x 240 pixels: inside, across the border, empty, thin and far outside."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * tensor([360.0, 280]) - 20
    sides = torch.rand(count, 2, generator=generator) ** 2 * 250
    boxes = torch.cat([corner, corner + sides], 1)
    boxes[0], boxes[1] = tensor([0.0, 0, 0, 0]), tensor([-500.0, -500, -400, -450])
    boxes[2], boxes[3] = tensor([10.0, 10, 10.5, 200]), tensor([318.0, 238, 340, 260])
    return torch.cat([(torch.arange(count) % 2)[:, None], boxes], 1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [0, 1, 2, 3])
@pytest.mark.parametrize(("scale", "side"), [(1 / 4, 7), (1 / 16, 14)])
def test_roi_align_equals_torchvision(scale: float, side: int, samples: int, aligned: bool):
    level = torch.randn(2, 5, int(240 * scale), int(320 * scale), generator=torch.Generator().manual_seed(1))
    rois = rois_of_all_kinds()
    expected = torchvision.ops.roi_align(level, rois, side, scale, samples, aligned)
    # float32 sums of up to a few hundred products in another order
    torch.testing.assert_close(
        roi_align(level, rois, scale, side, samples, aligned), expected, atol=5e-6, rtol=0
    )


def test_roi_align_of_a_ramp_is_the_coordinate_of_the_bin_centre():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8).contiguous()
    pooled = roi_align(ramp, tensor([[0.0, 2, 2, 6, 6]]), 1.0, 2, 0, aligned=True)
    # Bins are 2..4 and 4..6; their centres 3 and 5 lie half a cell past the cell centres.
    assert pooled[0, 0].tolist() == [[2.5, 4.5], [2.5, 4.5]]


def test_each_box_is_pooled_from_its_own_level():
    levels = [torch.full((1, 2, 8, 8), 1.0), torch.full((1, 2, 4, 4), 2.0)]
    boxes = tensor([[[4.0, 4, 12, 12], [4, 4, 12, 12], [0, 0, 0, 0]]])
    pooled = pool_levels(levels, boxes, tensor([[0, 1, 0]]), [0.5, 0.25], 2, 2, True)
    assert pooled.shape == (3, 2, 2, 2)
    assert [row.unique().tolist() for row in pooled] == [[1.0], [2.0], [1.0]]


@pytest.mark.parametrize("samples", [0, 2])
def test_gradient_equals_that_of_torchvision(samples: int):
    level = torch.randn(2, 3, 20, 24, requires_grad=True)
    rois = rois_of_all_kinds(20)
    boxes = torch.stack([rois[::2, 1:], rois[1::2, 1:]])
    owner = torch.zeros(2, 10, dtype=torch.int64)
    pooled = pool_levels([level], boxes, owner, [1 / 16], 3, samples, True)
    weight = torch.randn_like(pooled)
    (mine,) = torch.autograd.grad((pooled * weight).sum(), level)
    rows = torch.cat([rois[::2], rois[1::2]])
    theirs = torchvision.ops.roi_align(level, rows, 3, 1 / 16, samples, True)
    (expected,) = torch.autograd.grad((theirs * weight).sum(), level)
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)


# torch's own check reads .grad of a tensor that is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_it_passes_torchs_checks_of_a_custom_operation():
    levels = [torch.randn(1, 2, 8, 8, requires_grad=True), torch.randn(1, 2, 4, 4, requires_grad=True)]
    boxes = tensor([[[1.0, 1, 9, 9], [2, 2, 15, 15]]])
    torch.library.opcheck(pool_levels, (levels, boxes, tensor([[0, 1]]), [0.5, 0.25], 2, 2, True))
