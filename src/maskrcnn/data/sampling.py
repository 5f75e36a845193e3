"""Which images make up each batch of a run: shuffled, upright and wide ones apart, rare classes more often.

I images, K classes.
"""

from typing import Literal

import numpy as np

from maskrcnn.data.dataset import Dataset

Array = np.ndarray
Negatives = Literal["all", "none"] | float


def without_negatives(dataset: Dataset, keep: Negatives, seed: int) -> Dataset:
    """Images without an instance that is not a crowd: all of them stay, none, or this share of them."""
    share = {"all": 1.0, "none": 0.0}[keep] if isinstance(keep, str) else float(keep)
    if share >= 1:
        return dataset
    learnt = np.concatenate([[0], np.cumsum(~dataset.crowd)])
    empty = learnt[dataset.first[1:]] == learnt[dataset.first[:-1]]
    dropped = np.random.default_rng((seed, 2)).random(len(dataset)) >= share
    return dataset.take(np.flatnonzero(~(empty & dropped)))


def repeat_factors(dataset: Dataset, threshold: float) -> Array:
    """(I,) float64: how often an image should come, for the rarest class in it (Gupta et al. 2019, LVIS).

    A class in the share f of the images asks for sqrt(threshold / f), at least 1; 0 makes all of them 1.
    """
    factors = np.ones(len(dataset))
    if threshold <= 0:
        return factors
    image = np.repeat(np.arange(len(dataset)), np.diff(dataset.first))
    for label in range(len(dataset.classes)):
        having = np.unique(image[(dataset.labels == label) & ~dataset.crowd])
        if len(having):
            asked = np.sqrt(threshold * len(dataset) / len(having))
            factors[having] = np.maximum(factors[having], asked)
    return factors


def epoch_order(sizes: Array, batch: int, seed: int, epoch: int, factors: Array | None = None) -> list[Array]:
    """sizes (I, 2) -> rows of images, `batch` at a time; an epoch has as many batches as fit into I images.

    Each image comes once but for a remainder, or with factors (I,) in proportion to them. Upright and wide
    images are kept apart where possible, which saves padding.
    """
    rng = np.random.default_rng((seed, 0, epoch))
    drawn = np.arange(len(sizes)) if factors is None else _systematic(factors, rng)
    order = drawn[rng.permutation(len(drawn))]
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


def _systematic(factors: Array, rng: np.random.Generator) -> Array:
    """As many images as there are, each as often as its factor asks, to the whole number above or below."""
    ends = np.cumsum(factors) * (len(factors) / factors.sum())
    marks = np.arange(len(factors)) + rng.random()
    return np.minimum(np.searchsorted(ends, marks, side="right"), len(factors) - 1)
