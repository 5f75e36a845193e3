"""Training batches: which images, at which size, prepared in threads while the network works.

B images, G instances of an image.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np

from maskrcnn.data.augment import Augment, augment
from maskrcnn.data.coco import Dataset
from maskrcnn.data.sample import Sample, load
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
    """image (B, 3, H, W) and size (B, 2) as the network takes them, and the instances of each image."""

    image: Array
    size: Array
    instances: tuple[Instances, ...]


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batch of any step from the seed and the step alone, so resuming repeats and skips nothing.

    shorts: short sides in network pixels by equal parts of `steps`, one of a part's is drawn for each batch;
        empty for the preprocessing's own.
    """

    dataset: Dataset
    preprocess: Preprocess
    augment: Augment
    batch: int
    shorts: tuple[tuple[int, ...], ...] = ()
    steps: int = 1
    seed: int = 0

    def __call__(self, step: int) -> Batch:
        """The batch of this step."""
        per_epoch = max(1, len(self.dataset) // self.batch)
        chosen = epoch_order(self.dataset.sizes, self.batch, self.seed, step // per_epoch)[step % per_epoch]
        rng = np.random.default_rng((self.seed, 1, step))
        preprocess = self.preprocess
        if self.shorts:
            part = min(len(self.shorts) - 1, step * len(self.shorts) // self.steps)
            short = int(rng.choice(self.shorts[part]))
            preprocess = replace(
                preprocess, short=short, long=round(preprocess.long * short / preprocess.short)
            )
        prepared = [
            to_network(augment(load(self.dataset, int(i)), self.augment, rng), preprocess) for i in chosen
        ]
        image, size = stack([planes for planes, _ in prepared], preprocess)
        return Batch(image, size, tuple(instances for _, instances in prepared))


def epoch_order(sizes: Array, batch: int, seed: int, epoch: int) -> list[Array]:
    """sizes (I, 2) -> rows of images, `batch` at a time, each image once but for a remainder.

    Upright and wide images are kept apart where possible, which saves padding.
    """
    rng = np.random.default_rng((seed, 0, epoch))
    order = rng.permutation(len(sizes))
    upright = sizes[order, 0] > sizes[order, 1]
    groups = [order[upright], order[~upright]]
    rest = np.concatenate([group[len(group) // batch * batch :] for group in groups])
    full = [
        group[start : start + batch] for group in groups for start in range(0, len(group) - batch + 1, batch)
    ]
    full += [rest[start : start + batch] for start in range(0, len(rest) - batch + 1, batch)]
    if not full:
        full = [order]
    return [full[i] for i in rng.permutation(len(full))]


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


def in_threads(make: Callable[[S], T], items: Iterable[S], threads: int, ahead: int) -> Iterator[T]:
    """make(item) for every item, in order, up to `ahead` of them finished before their use."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
