"""Which boxes are taken as detections."""

from dataclasses import replace

import pytest
import torch
from torch import tensor

from maskrcnn.config import BoxHeadConfig, Conventions
from maskrcnn.model.box_head import BoxHead

# Three proposals in an image of 100 x 100, the second of them wholly beyond its right border.
PROPOSALS = tensor([[[10.0, 10, 30, 30], [120, 10, 140, 30], [50, 50, 90, 90]]])


@pytest.mark.parametrize(("smallest", "kept"), [(0.0, [0.9, 0.8]), (0.01, [0.9, 0.7])])
def test_a_box_that_clipping_empties_takes_a_place_unless_there_is_a_smallest_side(
    smallest: float, kept: list[float]
) -> None:
    config = replace(BoxHeadConfig(), detections=2)
    head = BoxHead(8, 1, config, Conventions(detection_min_size=smallest))
    scores = tensor([0.9, 0.8, 0.7])
    logits = torch.stack([scores, 1 - scores], 1).log()
    found = head.detect(
        logits, torch.zeros(3, 1, 4), PROPOSALS, torch.ones(1, 3).bool(), tensor([[100, 100]])
    )
    assert found.scores[0].tolist() == pytest.approx(kept)
