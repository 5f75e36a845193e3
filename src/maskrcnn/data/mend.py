"""Mends annotations: everything that can be decided without a person is put right or left out, and said."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from maskrcnn.data.content import Content, Instance, Picture, Segmentation, bounds
from maskrcnn.data.doctor import faults_of, is_polygon, twin_key
from maskrcnn.data.pictures import measure
from maskrcnn.data.sample import bitmap
from maskrcnn.data.shapes import pack
from maskrcnn.masks import encode

Crowds = Literal["keep", "instance"]

FATAL = ("degenerate box", "outside the image", "mask of another size", "empty mask")
"""Faults with which an instance is left out."""


def mend(content: Content, crowds: Crowds = "keep") -> tuple[Content, dict[str, int]]:
    """A copy without errors, and how often each thing was done.

    Pictures that are missing, unreadable or of another size than annotated are left out with their
    instances; outlines drawn on the unrotated picture are turned with it. crowds: `instance` makes instances
    of RLE with iscrowd 1, which CVAT writes for every brush stroke.
    """
    done: Counter[str] = Counter()
    pictures, turns = _pictures(content, done)
    instances = tuple(_instances(content, pictures, turns, crowds, done))
    return replace(content, pictures=tuple(pictures.values()), instances=instances, skipped=()), dict(done)


def _pictures(content: Content, done: Counter[str]) -> tuple[dict[int, Picture], dict[int, int]]:
    """Usable pictures by id, and the EXIF orientation of those annotated as stored."""
    usable: dict[int, Picture] = {}
    turns: dict[int, int] = {}
    for picture in content.pictures:
        header = measure(content.folder / picture.file_name)
        if picture.id in usable:
            done["left out: picture with the id of another"] += 1
        elif header is None:
            done["left out: picture missing or unreadable"] += 1
        elif picture.size == header.upright:
            usable[picture.id] = picture
        elif picture.size == header.stored:
            usable[picture.id] = replace(picture, size=header.upright)
            turns[picture.id] = header.orientation
            done["turned: outlines drawn before the EXIF rotation"] += 1
        else:
            done["left out: picture of another size than annotated"] += 1
    return usable, turns


def _instances(
    content: Content, pictures: dict[int, Picture], turns: dict[int, int], crowds: Crowds, done: Counter[str]
) -> Iterator[Instance]:
    stored = {picture.id: picture.size for picture in content.pictures}
    used_ids: set[int] = set()
    seen: set[tuple[int, int, str]] = set()
    next_id = 1 + max((one.id for one in content.instances), default=0)
    for one in content.instances:
        if one.image_id not in pictures or one.category_id not in content.categories:
            done["left out: instance of no listed image or category"] += 1
            continue
        if twin_key(one) in seen:
            done["left out: instance annotated twice"] += 1
            continue
        seen.add(twin_key(one))
        mended = _mended(one, stored[one.image_id], done)
        if mended is None:
            continue
        if one.image_id in turns:
            mended = turned(mended, stored[one.image_id], turns[one.image_id])
        if crowds == "instance" and mended.crowd and isinstance(mended.segmentation, dict):
            mended = replace(mended, crowd=False)
            done["made instances: brush strokes marked as crowds"] += 1
        if mended.id in used_ids:
            mended, next_id = replace(mended, id=next_id), next_id + 1
            done["renumbered: annotation with the id of another"] += 1
        used_ids.add(mended.id)
        yield mended


def _mended(one: Instance, size: tuple[int, int], done: Counter[str]) -> Instance | None:
    """One instance with its polygons of three points and more, and its box in the picture."""
    if isinstance(one.segmentation, list):
        good = [part for part in one.segmentation if is_polygon(part)]
        if len(good) < len(one.segmentation):
            done["removed: polygon of fewer than three points"] += 1
            one = replace(one, segmentation=good or None)
            if not good:
                done["left out: instance without an outline"] += 1
                return None
    fatal = next((kind for kind, _ in faults_of(one, size) if kind in FATAL), None)
    if fatal:
        done[f"left out: {fatal}"] += 1
        return None
    boxed = _box_of(one, size)
    if max(abs(a - b) for a, b in zip(boxed, one.bbox, strict=True)) > 0.01:
        kinds = {kind for kind, _ in faults_of(one, size)}
        if kinds & {"box beyond the image", "box off its outline"}:
            done["corrected: box"] += 1
            return replace(one, bbox=boxed)
    return one


def _box_of(one: Instance, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box of the outline, or its own, cut at the edges of the picture."""
    x, y, width, height = bounds(one.segmentation) if isinstance(one.segmentation, list) else one.bbox
    x1, y1 = min(max(x, 0.0), size[1]), min(max(y, 0.0), size[0])
    x2, y2 = min(max(x + width, 0.0), size[1]), min(max(y + height, 0.0), size[0])
    return x1, y1, x2 - x1, y2 - y1


def turned(one: Instance, size: tuple[int, int], orientation: int) -> Instance:
    """An instance on the stored picture of this (height, width) as it lies on the upright one."""
    x, y, width, height = one.bbox
    corners = turn_points(np.array([[x, y], [x + width, y + height]]), size, orientation)
    (x1, y1), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
    return replace(
        one,
        bbox=(x1, y1, x2 - x1, y2 - y1),
        segmentation=_turned_outline(one.segmentation, size, orientation),
    )


def _turned_outline(
    segmentation: Segmentation | None, size: tuple[int, int], orientation: int
) -> Segmentation | None:
    if segmentation is None:
        return None
    if isinstance(segmentation, list):
        return [
            turn_points(np.array(part).reshape(-1, 2), size, orientation).ravel().tolist()
            for part in segmentation
        ]
    stored = bitmap(pack([segmentation])[0], size)
    rows, columns = np.nonzero(stored)
    upright = (size[1], size[0]) if orientation in (5, 6, 7, 8) else size
    # centres of pixels turn as points do
    points = turn_points(np.stack([columns + 0.5, rows + 0.5], 1), size, orientation)
    mask = np.zeros(upright, bool)
    mask[points[:, 1].astype(int), points[:, 0].astype(int)] = True
    return encode(mask, 0, 0, upright)


def turn_points(points: np.ndarray, size: tuple[int, int], orientation: int) -> np.ndarray:
    """points (P, 2) x, y on a stored picture of (height, width) -> on the upright one (EXIF 2.3, table 5)."""
    height, width = size
    x, y = points[:, 0], points[:, 1]
    found = {
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }.get(orientation, (x, y))
    return np.stack(found, 1)
