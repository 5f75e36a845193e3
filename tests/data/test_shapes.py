"""Outlines come out of the flat arrays as they went in."""

import numpy as np

from maskrcnn.data.shapes import pack

TRIANGLE, SQUARE = [0, 0, 4, 0, 4, 4], [1, 1, 3, 1, 3, 3, 1, 3]
RLE = {"size": [2, 3], "counts": [1, 2, 3]}


def as_lists(shapes: object) -> list[object]:
    found = []
    for row in range(len(shapes)):  # type: ignore[arg-type]
        one = shapes[row]  # type: ignore[index]
        found.append(one if isinstance(one, dict) else [part.ravel().tolist() for part in one])
    return found


def test_polygons_and_masks_keep_their_places() -> None:
    shapes = pack([[TRIANGLE, SQUARE], RLE, [], [SQUARE]])
    packed = {"size": [2, 3], "counts": b"123"}
    assert as_lists(shapes) == [[TRIANGLE, SQUARE], packed, [], [SQUARE]]
    assert as_lists(shapes.take(np.array([3, 1, 0, 3]))) == [[SQUARE], packed, [TRIANGLE, SQUARE], [SQUARE]]
    assert as_lists(shapes + shapes.take(np.array([1]))) == [*as_lists(shapes), packed]


def test_a_line_is_no_polygon() -> None:
    assert as_lists(pack([[[0, 0, 4, 4], TRIANGLE, [0, 0, 4, 0, 4, 4, 9]]])) == [[TRIANGLE, TRIANGLE]]


def test_nothing_chosen_is_an_empty_sequence() -> None:
    assert len(pack([[TRIANGLE]]).take(np.zeros(0, np.int64))) == 0
