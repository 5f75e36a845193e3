"""Batches are prepared ahead as far as their number and their memory may go."""

import math
import time
from collections.abc import Iterator

import numpy as np
import pytest

from maskrcnn.data.batches import Batch, Instances, in_threads


def most_waiting(ahead: int, room: float, sizes: list[float]) -> int:
    """How many were made, at most, before the use of those before them."""
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        return item

    def used() -> Iterator[int]:
        for count, _ in enumerate(
            in_threads(make, range(len(sizes)), 1, ahead, lambda item: sizes[item], room)
        ):
            time.sleep(0.005)
            yield len(made) - count

    return max(used())


def test_without_a_limit_of_memory_as_many_as_asked_are_ahead() -> None:
    assert most_waiting(5, math.inf, [1.0] * 12) == 6


@pytest.mark.parametrize(("room", "expected"), [(3.0, 4), (2.5, 3), (0.5, 2)])
def test_no_more_are_ahead_than_have_room(room: float, expected: int) -> None:
    """Three of one megabyte in three; of none that fits one is made all the same."""
    assert most_waiting(8, room, [1.0] * 12) == expected


def test_a_larger_one_leaves_room_for_fewer_from_then_on() -> None:
    made: list[int] = []
    sizes = [1.0] * 4 + [4.0] * 12
    ahead = []
    for count, _ in enumerate(
        in_threads(lambda i: made.append(i) or i, range(16), 1, 8, sizes.__getitem__, 8.0)
    ):
        time.sleep(0.005)
        ahead.append(len(made) - count)
    assert max(ahead[:4]) > 4
    # what was ahead before is used up first
    assert max(ahead[10:]) <= 3


def test_all_come_in_order_whatever_the_room() -> None:
    found = list(in_threads(lambda item: item, range(20), 3, 4, lambda item: item, 10.0))
    assert found == list(range(20))


def test_the_memory_of_a_batch_is_that_of_planes_and_masks() -> None:
    none = np.zeros((0, 4), np.float32)
    labels, crowd = np.zeros(0, np.int64), np.zeros(0, bool)
    instances = Instances(none, labels, crowd, np.zeros((2, 8, 8), np.uint8))
    batch = Batch(np.zeros((1, 3, 8, 8), np.uint8), np.array([[8, 8]]), (instances,))
    assert batch.nbytes == 3 * 64 + 2 * 64
