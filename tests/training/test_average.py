"""The running mean of the weights."""

import torch
from torch import nn

from maskrcnn.training.average import Average


def test_the_first_step_counts_10_of_11_and_the_limit_is_the_decay() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = Average(layer, decay=0.75)
    nn.init.ones_(layer.weight)
    average.update(layer)
    torch.testing.assert_close(average.state["weight"].item(), 10 / 11)
    average.steps = 1000
    average.update(layer)
    torch.testing.assert_close(average.state["weight"].item(), 10 / 11 + 0.25 / 11)


def test_whole_numbers_are_taken_over_as_they_are() -> None:
    norm = nn.BatchNorm2d(2)
    average = Average(norm, decay=0.9)
    norm.num_batches_tracked.fill_(7)
    average.update(norm)
    assert int(average.state["num_batches_tracked"]) == 7
