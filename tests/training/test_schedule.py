"""The learning rate at chosen steps of a run."""

import pytest

from maskrcnn.training.schedule import factor


def test_warm_up_is_a_straight_line_to_the_peak() -> None:
    assert [factor("cosine", step, 100, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_warm_up_from_a_third_begins_with_it_and_a_constant_one_stays_there() -> None:
    assert [factor("steps", step, 100, 4, begin=0.2) for step in range(5)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0]
    )
    held = [factor("steps", step, 100, 4, begin=0.2, shape="constant") for step in range(5)]
    assert held == [0.2, 0.2, 0.2, 0.2, 1.0]


def test_half_a_cosine_is_half_way_down_in_the_middle_and_zero_at_the_end() -> None:
    assert factor("cosine", 60, 100, 20) == pytest.approx(0.5)
    assert factor("cosine", 100, 100, 20) == pytest.approx(0.0)


def test_steps_fall_to_a_tenth_at_60000_of_90000_and_to_a_hundredth_at_80000() -> None:
    found = [factor("steps", step, 90_000, 1000) for step in (59_999, 60_000, 79_999, 80_000)]
    assert found == pytest.approx([1, 0.1, 0.1, 0.01])


def test_hold_stays_at_the_peak_for_60_of_100_steps_and_then_falls_to_zero() -> None:
    assert [factor("hold", step, 100, 1) for step in (1, 59, 60, 80, 100)] == pytest.approx([1, 1, 1, 0.5, 0])
