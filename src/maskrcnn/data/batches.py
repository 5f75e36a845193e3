"""Training batches: which images, at which size, prepared in threads while the network works.

B images, G instances of an image.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import cv2
import numpy as np

from maskrcnn.data.augment import Augment, augment, stretched, zoomed
from maskrcnn.data.dataset import Dataset
from maskrcnn.data.sample import Sample, load
from maskrcnn.data.sampling import epoch_order, repeat_factors
from maskrcnn.preprocess import batch as stack
from maskrcnn.preprocess import prepare
from maskrcnn.spec import Preprocess

Array = np.ndarray
T = TypeVar("T")
S = TypeVar("S")

# An instance this thin has no anchor and no mask to learn from, and its box deltas explode.
SMALLEST_SIDE_NET = 2.0


@dataclass(frozen=True)
class Instances:
    """boxes (G, 4) float32 in network pixels, labels (G,) int64, crowd (G,) bool, masks (G, h, w) uint8."""

    boxes: Array
    labels: Array
    crowd: Array
    masks: Array


@dataclass(frozen=True)
class Batch:
    """image (B, 3, H, W) and size (B, 2) as the network takes them, and the instances of each image.

    images: rows of the data set. places: of each image in the batch of all processes.
    """

    image: Array
    size: Array
    instances: tuple[Instances, ...]
    images: tuple[int, ...] = ()
    places: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory of the planes and of the masks."""
        return self.image.nbytes + sum(each.masks.nbytes for each in self.instances)


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batch of any step from the seed and the step alone, so resuming repeats and skips nothing.

    shorts: short sides in network pixels by equal parts of `steps`, one of a part's is drawn for each batch;
        empty for the preprocessing's own.
    repeat: images of classes in less than this share of the images come more often; 0 for never.
    """

    dataset: Dataset
    preprocess: Preprocess
    augment: Augment
    batch: int
    shorts: tuple[tuple[int, ...], ...] = ()
    steps: int = 1
    seed: int = 0
    repeat: float = 0.0

    def __call__(self, step: int) -> Batch:
        """The batch of this step."""
        return self.part(step, range(len(self.chosen(step))))

    def chosen(self, step: int) -> Array:
        """Rows of the images of a step's whole batch."""
        order = self._epoch(step // self.steps_per_epoch)
        return order[step % self.steps_per_epoch]

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass over the data set."""
        return max(1, len(self.dataset) // self.batch)

    def part(self, step: int, places: Iterable[int]) -> Batch:
        """Some of a step's images, as they are whichever the others are."""
        chosen, preprocess = self.chosen(step), self._preprocess(step)
        places = [place for place in places if place < len(chosen)]
        prepared = [self._prepared(int(chosen[place]), step, place, preprocess) for place in places]
        image, size = stack([planes for planes, _ in prepared], preprocess)
        instances = tuple(instances for _, instances in prepared)
        return Batch(image, size, instances, tuple(int(chosen[place]) for place in places), tuple(places))

    def _prepared(self, row: int, step: int, place: int, preprocess: Preprocess) -> tuple[Array, Instances]:
        rng = np.random.default_rng((self.seed, 1, step, place))
        sample = augment(load(self.dataset, row), self.augment, rng)
        if self.augment.zoom is not None:
            sample, preprocess = zoomed(sample, preprocess, self.augment.zoom, rng)
        if self.augment.sides is not None:
            preprocess = stretched(preprocess, self.augment.sides, rng)
        return to_network(sample, preprocess)

    def _preprocess(self, step: int) -> Preprocess:
        if not self.shorts:
            return self.preprocess
        part = min(len(self.shorts) - 1, step * len(self.shorts) // self.steps)
        short = int(np.random.default_rng((self.seed, 3, step)).choice(self.shorts[part]))
        scale = short / self.preprocess.short
        return replace(self.preprocess, short=short, long=round(self.preprocess.long * scale))

    def _epoch(self, epoch: int) -> list[Array]:
        order = self._orders.get(epoch)
        if order is None:
            order = epoch_order(self.dataset.sizes, self.batch, self.seed, epoch, self._factors)
            # Threads ask for neighbouring steps, of two epochs at most.
            self._orders.update({epoch: order})
            self._orders.pop(epoch - 2, None)
        return order

    @cached_property
    def _orders(self) -> dict[int, list[Array]]:
        return {}

    @cached_property
    def _factors(self) -> Array | None:
        return repeat_factors(self.dataset, self.repeat) if self.repeat > 0 else None


def to_network(sample: Sample, preprocess: Preprocess) -> tuple[Array, Instances]:
    """Resize a sample by the model's own preprocessing -> planes (3, h, w), instances in network pixels."""
    planes, geometry = prepare(sample.image, preprocess)
    boxes = geometry.to_net(sample.boxes).astype(np.float32)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST_SIDE_NET).all(1)
    height, width = geometry.size_net
    masks = np.zeros((int(kept.sum()), *planes.shape[1:]), np.uint8)
    x, y = (round(float(offset)) for offset in geometry.offset_net)
    for row, mask in enumerate(sample.masks[kept]):
        # Linear at 0..255, cut at one half, follows the outline more closely than the nearest pixel.
        shrunk = cv2.resize(mask * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
        masks[row, y : y + height, x : x + width] = shrunk > 127
    return planes, Instances(boxes[kept], sample.labels[kept], sample.crowd[kept], masks)


def in_threads(
    make: Callable[[S], T],
    items: Iterable[S],
    threads: int,
    ahead: int,
    size: Callable[[T], float] = lambda made: 0.0,
    room: float = math.inf,
) -> Iterator[T]:
    """make(item) for every item, in order, up to `ahead` of them finished before their use.

    Fewer where so many of the largest `size` so far would take more than `room`, but always one.
    """
    waiting: deque[Future[T]] = deque()
    largest = 0.0

    def most() -> float:
        """How many may wait; where there is little room one, until the first has shown its size."""
        if room == math.inf:
            return ahead
        return max(1, min(ahead, room // largest)) if largest else 1

    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                while len(waiting) > most():
                    made = waiting.popleft().result()
                    largest = max(largest, size(made))
                    yield made
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
