"""Frames a second: which pictures count, and where they are written."""

import numpy as np
import pytest

from maskrcnn.media.rate import Rate, write_rate


def test_the_first_picture_is_left_out_of_the_rate_of_all() -> None:
    times = iter([100.0, 107.0, 107.5, 108.0])
    rate = Rate(clock=lambda: next(times))
    rate.tick()
    assert (rate.of_all(), rate.of_the_moment()) == (0, 0)
    for _ in range(3):
        rate.tick()
    # the time until the first is not known: 3 more in 8 s
    assert rate.of_all() == 3 / 8


def test_the_rate_of_the_moment_forgets_pictures_before_the_last_thirty() -> None:
    times = iter([0.0, 1000.0, *(1000 + 0.1 * number for number in range(1, 31))])
    rate = Rate(clock=lambda: next(times))
    for _ in range(32):
        rate.tick()
    assert rate.of_the_moment() == pytest.approx(10)


def test_the_rate_stands_at_30_30_in_red_and_grows_with_the_picture() -> None:
    for factor in (1, 3):
        canvas = np.full((480 * factor, 640 * factor, 3), 128, np.uint8)
        write_rate(canvas, 12.34)
        rows, columns = np.nonzero((canvas != 128).any(2))
        red = (canvas[..., 0] > 200) & (canvas[..., 1] < 100)
        assert red.sum() > 200
        assert 25 * factor <= columns.min() <= 33 * factor and rows.max() <= 36 * factor
        assert columns.max() < 200 * factor and rows.min() >= 0
