"""Parts of a data set keep the shares of its classes, and its figures are those of its boxes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.config import AnchorConfig
from maskrcnn.data.content import Content, Instance, Picture
from maskrcnn.data.split import split
from maskrcnn.data.statistics import anchor_sides, best_iou, describe
from maskrcnn.errors import UserError
from maskrcnn.spec import Preprocess


def content(classes_of: list[list[int]], side: float = 10.0) -> Content:
    """A picture of 100 x 200 for each list, with a square of each class in it."""
    pictures = tuple(Picture(number, f"{number}.png", (100, 200)) for number in range(len(classes_of)))
    instances = tuple(
        Instance(index, image, category, (1, 1, side, side), None)
        for index, (image, category) in enumerate(
            (image, category) for image, listed in enumerate(classes_of) for category in listed
        )
    )
    return Content(Path("set.json"), Path(), "coco", pictures, instances, {1: "common", 2: "rare"})


def test_a_rare_class_is_in_every_part() -> None:
    rare = [[1, 2]] * 4 + [[1]] * 36
    parts = split(content(rare), {"train": 0.75, "val": 0.25}, seed=3)
    assert [len(part.pictures) for part in parts.values()] == [30, 10]
    counts = [Counter(one.category_id for one in part.instances) for part in parts.values()]
    assert counts == [{1: 30, 2: 3}, {1: 10, 2: 1}]


def test_every_picture_is_in_exactly_one_part_and_the_seed_decides_which() -> None:
    whole = content([[1]] * 20 + [[]] * 20)
    parts = split(whole, {"train": 0.5, "val": 0.3, "test": 0.2}, seed=1)
    ids = [picture.id for part in parts.values() for picture in part.pictures]
    assert sorted(ids) == list(range(40))
    assert parts == split(whole, {"train": 0.5, "val": 0.3, "test": 0.2}, seed=1)
    assert parts != split(whole, {"train": 0.5, "val": 0.3, "test": 0.2}, seed=2)


@pytest.mark.parametrize("shares", [{}, {"train": 0.5, "val": 0.4}, {"train": 1.2, "val": -0.2}])
def test_shares_that_do_not_add_up_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(UserError, match="shares are"):
        split(content([[1]] * 3), shares)


def test_figures_of_a_set() -> None:
    # a short side of 200 doubles both sides of a picture of 100 x 200
    found = describe(content([[1, 2], [1], []]), Preprocess(short=200, long=1000), AnchorConfig())
    assert (found.pictures, found.empty, found.instances, found.per_picture) == (3, 1, 3, (0, 1, 2))
    assert [(each.name, each.instances, each.pictures) for each in found.classes] == [
        ("common", 2, 2),
        ("rare", 1, 1),
    ]
    assert found.sizes == (((100, 200), 3),)
    assert (found.small, found.medium, found.large) == (1, 0, 0)
    assert (found.sides[2], found.sides_net[2]) == (10, 20)
    # a square of 20 in one of 32: 400 / 1024 is less than a half
    assert found.anchors_fit == 0 and found.suggestion


def test_the_best_anchor_of_a_box_has_its_shape() -> None:
    anchors = anchor_sides(AnchorConfig(sizes=((32.0,),), ratios=(0.5, 1.0)))
    assert anchors.round(3).tolist() == [[45.255, 22.627], [32, 32]]
    iou = best_iou(np.array([[32.0, 16.0], [64.0, 64.0]]), anchors)
    # 32 x 16 lies inside 45.255 x 22.627 = 1024; 32 x 32 lies inside 64 x 64
    assert iou.tolist() == pytest.approx([512 / 1024, 0.25])
