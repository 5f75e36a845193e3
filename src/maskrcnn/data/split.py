"""Divides a data set so that every part has its share of every class."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from maskrcnn.data.content import Content, Instance
from maskrcnn.errors import UserError


def split(content: Content, shares: Mapping[str, float], seed: int = 0) -> dict[str, Content]:
    """Parts by name, each picture in exactly one; shares add up to 1.

    Iterative stratification (Sechidis et al. 2011): the rarest class left is dealt out first, each picture to
    the part that still wants that class most. Ties follow the seed.
    """
    if not shares or any(share <= 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"shares are {dict(shares)}", hint="give positive shares that add up to 1")
    if len(content.pictures) < len(shares):
        raise UserError(
            f"{content.path}: has {len(content.pictures)} pictures for {len(shares)} parts",
            hint="ask for fewer",
        )
    chosen = _dealt(content, dict(shares), np.random.default_rng(seed))
    return {
        name: part(content, {image for image, where in chosen.items() if where == name}) for name in shares
    }


def part(content: Content, image_ids: set[int]) -> Content:
    """These pictures with their instances, in their order; all categories stay."""
    return replace(
        content,
        pictures=tuple(picture for picture in content.pictures if picture.id in image_ids),
        instances=tuple(one for one in content.instances if one.image_id in image_ids),
    )


def _dealt(content: Content, shares: dict[str, float], rng: np.random.Generator) -> dict[int, str]:
    """image id -> part."""
    order = [content.pictures[index].id for index in rng.permutation(len(content.pictures))]
    classes_of = _classes_of(content.instances)
    left: dict[int, set[int]] = defaultdict(set)
    for image in order:
        for category in classes_of.get(image, ()):
            left[category].add(image)
    wanted = {name: share * len(order) for name, share in shares.items()}
    wanted_of = {
        category: {name: share * len(images) for name, share in shares.items()}
        for category, images in left.items()
    }
    chosen: dict[int, str] = {}

    def give(image: int, name: str) -> None:
        chosen[image] = name
        wanted[name] -= 1
        for category in classes_of.get(image, ()):
            wanted_of[category][name] -= 1
            left[category].discard(image)

    while any(left.values()):
        rarest = min((category for category in left if left[category]), key=lambda c: (len(left[c]), c))
        for image in [one for one in order if one in left[rarest]]:
            wants = wanted_of[rarest]
            give(image, max(shares, key=lambda name: (wants[name], wanted[name])))
    for image in order:
        if image not in chosen:
            give(image, max(shares, key=lambda name: wanted[name]))
    return chosen


def _classes_of(instances: tuple[Instance, ...]) -> dict[int, Counter[int]]:
    found: dict[int, Counter[int]] = defaultdict(Counter)
    for one in instances:
        found[one.image_id][one.category_id] += 1
    return found
