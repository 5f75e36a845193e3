"""Batches hold each image once an epoch, at the network's size, and follow from seed and step alone."""

import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn.data.augment import Augment
from maskrcnn.data.batches import BatchMaker, in_threads, to_network
from maskrcnn.data.dataset import Dataset
from maskrcnn.data.sample import Sample
from maskrcnn.data.sampling import epoch_order
from maskrcnn.data.shapes import pack
from maskrcnn.errors import UserError
from maskrcnn.spec import Classes, Preprocess

HALF = Preprocess(short=20, long=40)


def square_sample() -> Sample:
    """40 x 60, an instance of 20 x 20 and one of 3 x 2."""
    masks = np.zeros((2, 40, 60), np.uint8)
    masks[0, 10:30, 20:40] = 1
    masks[1, 0:2, 0:3] = 1
    boxes = np.array([[20, 10, 40, 30], [0, 0, 3, 2]], np.float32)
    return Sample(np.zeros((40, 60, 3), np.uint8), boxes, np.array([4, 9]), np.array([False, True]), masks)


def test_boxes_and_masks_are_halved_with_the_image_and_what_gets_too_thin_is_left_out() -> None:
    planes, instances = to_network(square_sample(), HALF)
    assert planes.shape == (3, 20, 30)
    assert (instances.boxes.tolist(), instances.labels.tolist()) == ([[10, 5, 20, 15]], [4])
    expected = np.zeros((20, 30), np.uint8)
    expected[5:15, 10:20] = 1
    assert np.array_equal(instances.masks[0], expected)


def test_an_epoch_has_every_image_once_and_no_batch_of_both_orientations_but_one() -> None:
    sizes = np.array([[40, 60]] * 7 + [[60, 40]] * 5)
    batches = epoch_order(sizes, 4, seed=1, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(12))
    assert sum(len({bool(h > w) for h, w in sizes[batch]}) == 2 for batch in batches) == 1


def test_another_epoch_has_another_order() -> None:
    sizes = np.array([[40, 60]] * 16)
    first, second = (np.concatenate(epoch_order(sizes, 4, 1, epoch)).tolist() for epoch in (0, 1))
    assert first != second and sorted(first) == sorted(second)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three noise images of 40 x 60 with one instance each."""
    rng = np.random.default_rng(3)
    files = tuple(tmp_path / f"{n}.png" for n in range(3))
    for file in files:
        cv2.imwrite(str(file), rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    box = np.array([[20, 10, 40, 30]] * 3, np.float32)
    polygon = np.array([[20, 10], [40, 10], [40, 30], [20, 30]], np.float32)
    sizes, ones = np.array([[40, 60]] * 3), np.ones(3, np.int64)
    return Dataset(
        files,
        ones,
        sizes,
        np.arange(4),
        box,
        0 * ones,
        ones == 0,
        pack([[polygon.ravel().tolist()]] * 3),
        Classes(("thing",), (1,)),
    )


def test_a_step_gives_the_same_batch_whenever_it_is_made(dataset: Dataset) -> None:
    maker = BatchMaker(
        dataset, HALF, Augment(crop=1.0, jitter=0.5), 2, shorts=((16, 24), (40,)), steps=8, seed=9
    )
    first = [maker(step) for step in (3, 7)]
    again = [replace(maker)(step) for step in (7, 3)][::-1]
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.instances[0].masks, other.instances[0].masks)


def test_short_sides_follow_the_part_of_the_run(dataset: Dataset) -> None:
    maker = BatchMaker(dataset, HALF, Augment(), 1, shorts=((16,), (32,)), steps=8)
    assert [maker(step).size.tolist()[0] for step in (0, 3, 4, 7, 9)] == [[16, 24]] * 2 + [[32, 48]] * 3


def test_threads_keep_the_order_and_work_ahead() -> None:
    together = threading.Barrier(3, timeout=10)

    def make(item: int) -> int:
        together.wait()  # passes only if three items are in work at the same time
        return item * item

    assert list(in_threads(make, range(6), threads=3, ahead=3)) == [0, 1, 4, 9, 16, 25]


def test_an_error_in_a_thread_is_raised_at_its_item() -> None:
    items = in_threads(lambda item: 1 // (2 - item), range(4), threads=2, ahead=2)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_each_image_has_a_height_and_a_width_of_its_own(dataset: Dataset) -> None:
    stretched = Preprocess(resize="stretch", short=32, long=32, pad_multiple=32)
    sides = ((16, 32, 48), (32, 64))
    maker = BatchMaker(dataset, stretched, Augment(flip=0.0, sides=sides), 3, steps=9)
    found = [tuple(size) for step in range(9) for size in maker(step).size.tolist()]
    assert set(found) == {(height, width) for height in sides[0] for width in sides[1]}
    assert any(len(set(map(tuple, maker(step).size.tolist()))) > 1 for step in range(9))
    batch = maker(0)
    # An instance is as much wider and higher as its image: half of 40 high, a third of 60 wide.
    for (height, width), each in zip(batch.size.tolist(), batch.instances, strict=True):
        x1, y1, x2, y2 = each.boxes[0].tolist()
        assert (x2 - x1, y2 - y1) == pytest.approx((width / 3, height / 2))


def test_heights_and_widths_are_refused_for_images_that_keep_their_shape(dataset: Dataset) -> None:
    maker = BatchMaker(dataset, HALF, Augment(sides=((16,), (32,))), 1)
    with pytest.raises(UserError, match=r"training.augment.sides=.*are for images that are stretched"):
        maker(0)
