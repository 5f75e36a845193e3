"""Anchors of every public implementation, by hand and from its published numbers."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from maskrcnn.config import AnchorConfig, Conventions
from maskrcnn.model.anchors import Anchors, cell_anchors

HALVES = (0.5, 1.0, 2.0)


def test_exact_anchors_are_centred_and_keep_their_area():
    cell = cell_anchors((32.0,), HALVES, 4, Conventions(anchor_cell="exact"))
    assert cell[0].tolist() == pytest.approx([-22.627417, -11.313708, 22.627417, 11.313708], abs=1e-6)
    assert cell[1].tolist() == [-16, -16, 16, 16]
    assert (cell[:, 2:] - cell[:, :2]).prod(1).tolist() == pytest.approx([1024] * 3, rel=1e-6)


def test_rounded_anchors_are_whole_numbers():
    cell = cell_anchors((32.0,), HALVES, 4, Conventions(anchor_cell="rounded"))
    assert cell.tolist() == [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]


def test_legacy_anchors_are_those_of_detectron():
    fine = cell_anchors((32.0,), HALVES, 4, Conventions(anchor_cell="legacy"))
    coarse = cell_anchors((512.0,), HALVES, 64, Conventions(anchor_cell="legacy"))
    assert fine.tolist() == [[-22, -10, 25, 13], [-14, -14, 17, 17], [-10, -22, 13, 25]]
    assert coarse.tolist() == [[-332, -152, 395, 215], [-224, -224, 287, 287], [-148, -328, 211, 391]]


@pytest.mark.parametrize(("order", "second"), [("size_first", (32, 1.0)), ("ratio_first", (64, 0.5))])
def test_the_order_names_what_runs_slowest(order: str, second: tuple[int, float]):
    cell = cell_anchors((32.0, 64.0), HALVES, 16, Conventions(anchor_order=order))  # type: ignore[arg-type]
    width, height = (cell[1, 2:] - cell[1, :2]).tolist()
    assert (width * height) ** 0.5 == pytest.approx(second[0])
    assert height / width == pytest.approx(second[1])


def test_torchvisions_anchors_are_equal_on_a_level_whose_stride_it_computes_otherwise():
    sizes = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    cells = [(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)]  # 800 // 13 = 61 and not 64
    levels = [torch.zeros(1, 1, *cell) for cell in cells]
    habits = Conventions(anchor_cell="rounded", anchor_order="ratio_first", anchor_stride="from_size")
    mine = Anchors(AnchorConfig(sizes=sizes), (4, 8, 16, 32, 64), habits)(levels, (800, 1216))
    theirs = AnchorGenerator(sizes, (HALVES,) * 5)(
        ImageList(torch.zeros(1, 3, 800, 1216), [(800, 1216)]), levels
    )
    assert torch.equal(torch.cat(mine), theirs[0])
