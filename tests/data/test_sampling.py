"""Which images a run sees: all of them, rare classes more often, negatives as asked."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.content import Content, Instance, Picture
from maskrcnn.data.dataset import Dataset, dataset_of
from maskrcnn.data.sampling import epoch_order, repeat_factors, without_negatives


def dataset(classes_of: list[list[int]], crowd: bool = False) -> Dataset:
    """An image of 40 x 60 for each list, with a box of each class in it."""
    pictures = tuple(Picture(number, f"{number}.png", (40, 60)) for number in range(len(classes_of)))
    pairs = [(image, category) for image, listed in enumerate(classes_of) for category in listed]
    instances = tuple(
        Instance(number, image, category, (1, 1, 8, 8), None, crowd)
        for number, (image, category) in enumerate(pairs)
    )
    return dataset_of(Content(Path("x"), Path(), "coco", pictures, instances, {1: "a", 2: "b"}))


def test_a_class_in_one_image_of_a_hundred_comes_as_often_as_the_root_of_its_lack() -> None:
    factors = repeat_factors(dataset([[1, 2]] + [[1]] * 99), threshold=0.04)
    assert factors[0] == pytest.approx(2.0)  # sqrt(0.04 / 0.01)
    assert (factors[1:] == 1).all()
    assert (repeat_factors(dataset([[1]] * 3), threshold=0) == 1).all()


def test_an_image_of_factor_three_comes_three_times_as_often() -> None:
    sizes = np.array([[40, 60]] * 30)
    factors = np.ones(30)
    factors[4] = 3.0
    seen = Counter(
        int(row) for epoch in range(64) for rows in epoch_order(sizes, 1, 0, epoch, factors) for row in rows
    )
    assert sum(seen.values()) == 64 * 30
    # in proportion: 30 draws an epoch, 3 of 32 parts of them of the fourth
    assert seen[4] == pytest.approx(64 * 30 * 3 / 32, rel=0.05)
    assert seen[5] == pytest.approx(64 * 30 * 1 / 32, rel=0.1)


def test_negatives_stay_or_go() -> None:
    mixed = dataset([[1], [], [2], []])
    assert [len(without_negatives(mixed, keep, 0)) for keep in ("all", "none", 1.0, 0.0)] == [4, 2, 4, 2]
    many = dataset([[]] * 200 + [[1]] * 10)
    half = len(without_negatives(many, 0.5, 0)) - 10
    assert 80 < half < 120


def test_an_image_of_crowds_alone_teaches_nothing_and_counts_as_negative() -> None:
    assert len(without_negatives(dataset([[1], []], crowd=True), "none", 0)) == 0
