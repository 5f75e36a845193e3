"""Outlines along pixel edges give their masks back, and are rings as the geometry standards have them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from skimage.draw import polygon
from skimage.measure import label

from maskrcnn import polygons
from maskrcnn.masks import paste_crop, tight
from maskrcnn.polygons import Part, area, joined, outlines

GOLDEN = Path(__file__).parent / "golden"


def drawn(text: str) -> np.ndarray:
    """A mask from rows of `.` and `#`, parted by spaces."""
    return np.array([[c == "#" for c in row] for row in text.split()])


def rings(parts: tuple[Part, ...]) -> list[np.ndarray]:
    return [ring for part in parts for ring in (part.outer, *part.holes)]


def filled(ring: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres a ring encloses, by scikit-image; a pixel's centre has whole numbers there."""
    mask = np.zeros(size, bool)
    mask[polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, size)] = True
    return mask


def noise(count: int, seed: int) -> list[np.ndarray]:
    """Random masks of up to 12 x 12 pixels, full of holes, parts and corners that touch."""
    random = np.random.default_rng(seed)
    return [
        random.random((random.integers(1, 13), random.integers(1, 13))) < random.choice([0.3, 0.5, 0.8])
        for _ in range(count)
    ]


def test_the_outline_of_one_pixel_is_its_four_corners_clockwise_on_the_screen():
    (part,) = outlines(np.ones((1, 1), bool), 5, 7)
    assert part.outer.tolist() == [[5, 7], [6, 7], [6, 8], [5, 8]]
    assert (part.outer.dtype, part.holes) == (np.int32, ())


def test_only_corners_are_points_of_an_outline():
    (part,) = outlines(drawn("####. ####. ##### #####"), 0, 0)
    assert part.outer.tolist() == [[0, 0], [4, 0], [4, 2], [5, 2], [5, 4], [0, 4]]


def test_a_hole_is_a_ring_of_its_own_the_other_way_round():
    (part,) = outlines(drawn("##### #...# #...# #####"), 0, 0)
    assert part.outer.tolist() == [[0, 0], [5, 0], [5, 4], [0, 4]]
    (hole,) = part.holes
    assert {tuple(corner) for corner in hole.tolist()} == {(1, 1), (1, 3), (4, 3), (4, 1)}
    assert (area(part.outer), area(hole)) == (20, -6)


def test_an_island_in_a_hole_is_a_part_of_its_own():
    island, ring = sorted(outlines(drawn("##### #...# #.#.# #...# #####"), 0, 0), key=lambda p: area(p.outer))
    assert (area(island.outer), island.holes) == (1, ())
    assert [area(hole) for hole in ring.holes] == [-9]


def test_pixels_that_touch_by_a_corner_only_are_two_parts():
    for text in ("#. .#", ".# #."):
        assert [len(part.outer) for part in outlines(drawn(text), 0, 0)] == [4, 4]


def test_a_part_that_closes_over_a_corner_has_a_hole_and_no_outline_that_touches_itself():
    for text in (".## #.# ###", "##. #.# ###", "### #.# ##.", "### #.# .##"):
        (part,) = outlines(drawn(text), 0, 0)
        assert [area(part.outer), *map(area, part.holes)] == [8, -1]


def test_an_empty_mask_has_no_outline():
    for shape in ((3, 4), (0, 4), (3, 0)):
        assert outlines(np.zeros(shape, bool), 0, 0) == ()


def test_filling_the_outlines_gives_the_mask_back_to_the_pixel():
    for mask in noise(500, seed=1):
        size = (mask.shape[0] + 5, mask.shape[1] + 6)
        expected = np.zeros(size, int)
        expected[2 : 2 + len(mask), 3 : 3 + mask.shape[1]] = mask
        found = np.zeros(size, int)
        for ring in rings(outlines(mask, 3, 2)):
            found += np.int64(np.sign(area(ring))) * filled(ring, size)
        assert np.array_equal(found, expected)


def test_parts_are_the_components_of_pixels_that_share_edges_and_rings_pass_no_point_twice():
    for mask in noise(500, seed=2):
        parts = outlines(mask, 0, 0)
        assert len(parts) == label(mask, connectivity=1).max()
        assert sum(area(ring) for ring in rings(parts)) == mask.sum()
        for part in parts:
            assert area(part.outer) > 0
            assert all(area(hole) < 0 for hole in part.holes)
        for ring in rings(parts):
            assert len(np.unique(ring, axis=0)) == len(ring)
            turns = np.roll(ring, -1, axis=0) - ring
            assert (np.abs(np.sign(turns)).sum(axis=1) == 1).all()  # along the edges of pixels
            assert (
                np.sign(turns)[:, 0] != np.sign(np.roll(turns, 1, axis=0))[:, 0]
            ).all()  # and round a corner


def test_one_joined_ring_encloses_the_mask_to_the_pixel():
    for mask in noise(500, seed=3):
        parts = outlines(mask, 0, 0)
        if parts:
            ring = joined(parts)
            assert area(ring) == mask.sum()
            assert np.array_equal(filled(ring, mask.shape), mask)


def test_a_mask_that_is_looked_at_in_blocks_has_the_same_outlines(monkeypatch: pytest.MonkeyPatch):
    masks = noise(50, seed=4)
    expected = [rings(outlines(mask, 0, 0)) for mask in masks]
    bridges = [joined(outlines(mask, 0, 0)) if mask.any() else None for mask in masks]
    monkeypatch.setattr(polygons, "MOST_AT_ONCE", 1)
    for mask, rings_expected, bridge in zip(masks, expected, bridges, strict=True):
        found = rings(outlines(mask, 0, 0))
        assert all(np.array_equal(*pair) for pair in zip(found, rings_expected, strict=True))
        if bridge is not None:
            assert np.array_equal(joined(outlines(mask, 0, 0)), bridge)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("source", ["torchvision", "detectron2", "mmdetection"])
def test_coco_s_own_rasteriser_gives_recorded_masks_back_to_the_pixel(source: str):
    size = (642, 430)
    with np.load(GOLDEN / "masks_portrait.npz") as recorded:
        boxes, roi_masks = recorded[f"{source}/boxes"], recorded[f"{source}/roi_masks"]
    rule = "expanded" if source == "torchvision" else "pixel_centres"
    corners = 0
    for roi_mask, box in zip(roi_masks, boxes, strict=True):
        crop, x, y = paste_crop(roi_mask, box, size, rule)
        found = np.zeros(size, int)
        for ring in rings(outlines(crop, x, y)):
            corners += len(ring)
            rle = coco_mask.frPyObjects([ring.ravel().astype(float).tolist()], *size)[0]
            found += np.int64(np.sign(area(ring))) * coco_mask.decode(rle)
        expected = np.zeros(size, int)
        expected[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        assert np.array_equal(found, expected)
    assert corners > 1000


def test_a_tight_window_holds_the_mask_and_no_empty_border():
    mask = np.zeros((6, 8), bool)
    mask[2, 3], mask[4, 6] = True, True
    crop, x, y = tight(mask, 10, 20)
    assert (crop.shape, x, y) == ((3, 4), 13, 22)
    assert np.argwhere(crop).tolist() == [[0, 0], [2, 3]]
    assert tight(np.zeros((6, 8), bool), 10, 20)[0].shape == (0, 0)


def test_an_outline_encloses_half_a_pixel_more_all_round_than_opencv_s_contour():
    mask = np.ones((10, 20), bool)
    (contour,), _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    assert cv2.contourArea(contour) == 9 * 19
    assert area(outlines(mask, 0, 0)[0].outer) == mask.sum() == 200
