"""Large images in tiles: every object once, whole, with its own box, whatever seams run through it."""

import tracemalloc
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from maskrcnn.detections import Detections, Raw
from maskrcnn.errors import UserError
from maskrcnn.predict import Predictor
from maskrcnn.spec import Classes, Preprocess, Spec
from maskrcnn.tiles import Tile, Tiled, merge, tiled, tiles_over

SIDE = 100
CELLS = 28
DOG, CAT = 0, 1


class Colours:
    """An engine for which every colour is an object: (50 * label + 50, any, 255 * score).

    It sees tiles of 100 x 100 pixels as they are, and halves an image of 200 x 400.
    """

    def __init__(self) -> None:
        self.spec = Spec(
            preprocess=Preprocess(short=SIDE, long=2 * SIDE, pad_multiple=1),
            classes=Classes(("dog", "cat"), (18, 17)),
        )
        self.runs: list[tuple[int, ...]] = []

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """The exact box of the pixels of each colour, best first; ten rows at most."""
        self.runs.append(image.shape)
        raw = Raw(
            np.zeros((len(image), 10, 4), np.float32),
            np.zeros((len(image), 10), np.float32),
            np.zeros((len(image), 10), np.int64),
            np.zeros((len(image), 10, CELLS, CELLS), np.float32),
        )
        for number, planes in enumerate(image):
            found = np.unique(planes.reshape(3, -1), axis=1).T
            found = found[(found[:, 0] > 0) & (found[:, 0] % 50 == 0) & (found[:, 2] > 20)]
            for row, colour in enumerate(sorted(found.tolist(), key=lambda colour: -colour[2])[:10]):
                inside = (planes == np.array(colour)[:, None, None]).all(axis=0)
                ys, xs = inside.any(axis=1).nonzero()[0], inside.any(axis=0).nonzero()[0]
                x1, y1, x2, y2 = box = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
                crop = inside[y1:y2, x1:x2].astype(np.float32)
                raw.boxes[number, row] = box
                raw.scores[number, row] = colour[2] / 255
                raw.labels[number, row] = colour[0] // 50 - 1
                raw.masks[number, row] = cv2.resize(crop, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
        return raw


def scene(height: int, width: int) -> np.ndarray:
    """A black image."""
    return np.zeros((height, width, 3), np.uint8)


def draw(
    image: np.ndarray, box: tuple[int, int, int, int], label: int = DOG, shade: int = 1, blue: int = 204
) -> None:
    """Put an object of that box, x1, y1, x2, y2, into an image; shade tells it from its neighbours."""
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = (50 * label + 50, shade, blue)


def seen(image: np.ndarray, full_frame: bool = False, overlap: float = 0.2, batch: int = 4) -> Detections:
    (found,) = Tiled(Predictor(Colours(), batch), SIDE, overlap, full_frame)([image])
    return found


def iou(mask: np.ndarray, other: np.ndarray) -> float:
    return float((mask & other).sum() / (mask | other).sum())


def test_tiles_are_evenly_apart_overlap_as_asked_and_end_with_the_image() -> None:
    tiles = tiles_over((100, 250), side=100, overlap=0.2)
    # Steps of at most 80: three tiles would reach to 260, so they stand 75 apart.
    assert tiles == (Tile(0, 0, 100, 100), Tile(75, 0, 100, 100), Tile(150, 0, 100, 100))
    for length in range(1, 700):
        starts = [tile.x for tile in tiles_over((1, length), side=64, overlap=0.25)]
        assert starts[0] == 0
        assert starts[-1] + 64 == length or (length <= 64 and starts == [0])
        assert all(later - earlier <= 49 for earlier, later in pairwise(starts))


def test_tiles_of_a_narrow_image_are_as_wide_as_it_is() -> None:
    assert tiles_over((180, 60), 100, 0.2) == (Tile(0, 0, 60, 100), Tile(0, 80, 60, 100))


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 60, 50),  # in one tile
        (40, 30, 160, 70),  # across the seam of two tiles
        (30, 20, 150, 170),  # across the seams of four tiles
        (5, 40, 395, 75),  # along all five tiles of a row
    ],
)
def test_an_object_across_any_number_of_tiles_is_one_with_its_exact_box(box: tuple[int, ...]) -> None:
    image = scene(180, 400)
    draw(image, box)  # type: ignore[arg-type]
    found = seen(image)
    assert found.boxes.tolist() == [list(box)]
    assert found.scores.tolist() == [np.float32(0.8)]
    assert found.size == (180, 400)
    assert iou(found.masks()[0], image[..., 0] > 0) > 0.98


def test_the_mask_of_a_disc_cut_by_two_seams_is_the_disc() -> None:
    image = scene(180, 180)
    cv2.circle(image, (90, 90), 60, (50, 1, 204), -1)
    found = seen(image)
    assert found.boxes.tolist() == [[30, 30, 151, 151]]
    assert iou(found.masks()[0], image[..., 0] > 0) > 0.985


def test_an_object_that_two_tiles_see_whole_comes_once() -> None:
    image = scene(100, 180)
    draw(image, (84, 40, 96, 52))  # tiles cover 0..100 and 80..180
    found = seen(image)
    assert found.boxes.tolist() == [[84, 40, 96, 52]]
    assert found.roi_masks.shape == (1, CELLS, CELLS)


def test_the_tile_that_sees_an_object_whole_gives_it() -> None:
    image = scene(100, 180)
    draw(image, (30, 40, 88, 60))  # the second tile has 80..88 of it
    found = seen(image)
    assert found.boxes.tolist() == [[30, 40, 88, 60]]
    assert found.roi_masks.shape == (1, CELLS, CELLS)


def test_two_touching_objects_of_a_class_at_a_seam_stay_two() -> None:
    image = scene(100, 180)
    draw(image, (40, 30, 90, 60), shade=1)
    draw(image, (90, 30, 150, 60), shade=2)
    found = seen(image)
    assert sorted(found.boxes.tolist()) == [[40, 30, 90, 60], [90, 30, 150, 60]]


def test_objects_of_two_classes_are_not_joined() -> None:
    """The first tile takes for a dog what the second takes for a cat."""

    class Undecided(Colours):
        def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
            raw = super().run(image, size)
            return raw._replace(labels=raw.labels + np.arange(len(image))[:, None])

    image = scene(100, 180)
    draw(image, (40, 30, 150, 60))
    (found,) = Tiled(Predictor(Undecided(), batch=2), SIDE, full_frame=False)([image])
    assert sorted(zip(found.names(), found.boxes.tolist(), strict=True)) == [
        ("cat", [80, 30, 150, 60]),
        ("dog", [40, 30, 100, 60]),
    ]


def test_nothing_found_is_an_empty_result_of_the_image() -> None:
    found = seen(scene(150, 330), full_frame=True)
    assert (len(found), found.size, found.rles()) == (0, (150, 330), [])


def test_an_image_that_one_tile_holds_is_predicted_as_without_tiles() -> None:
    image = scene(90, 100)
    draw(image, (13, 20, 71, 55))
    draw(image, (40, 60, 80, 90), CAT, blue=150)
    plain = Predictor(Colours())
    (alone,), (found,) = plain([image]), Tiled(plain, SIDE)([image])
    assert found.boxes.tobytes() == alone.boxes.tobytes()
    assert found.roi_masks.tobytes() == alone.roi_masks.tobytes()
    assert found.rles() == alone.rles()


def test_tiles_go_through_the_network_in_batches_and_the_whole_image_by_itself() -> None:
    backend = Colours()
    Tiled(Predictor(backend, batch=4), SIDE)([scene(180, 260)])
    assert backend.runs == [(1, 3, 100, 144), (4, 3, 100, 100), (2, 3, 100, 100)]


def test_tiles_may_be_seen_in_several_views() -> None:
    from maskrcnn.evaluation.views import Views

    image = scene(100, 180)
    draw(image, (30, 20, 150, 70))
    views = Views(Predictor(Colours(), batch=2), flip=True)
    (found,) = Tiled(views, SIDE, full_frame=False)([image])
    assert found.boxes.tolist() == [[30, 20, 150, 70]]


def test_results_go_class_by_class_where_the_model_has_them_so() -> None:
    backend = Colours()
    own = backend.spec.model
    in_classes = replace(own, conventions=replace(own.conventions, detection_order="class"))
    backend.spec = replace(backend.spec, model=in_classes)
    image = scene(100, 180)
    draw(image, (10, 20, 50, 70), CAT, shade=1, blue=250)
    draw(image, (100, 20, 150, 70), DOG, shade=2, blue=100)
    (found,) = Tiled(Predictor(backend), SIDE)([image])
    assert found.names() == ["dog", "cat"]


def test_the_best_comes_first_and_a_joined_object_has_the_best_score_of_its_parts() -> None:
    class Brighter(Colours):
        def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
            raw = super().run(image, size)
            return raw._replace(scores=raw.scores * np.array([[0.5], [0.75], [1]], np.float32)[: len(image)])

    image = scene(100, 260)
    draw(image, (40, 10, 150, 40), shade=1, blue=204)
    draw(image, (10, 50, 30, 80), CAT, shade=2, blue=255)
    draw(image, (200, 50, 230, 80), shade=3, blue=153)
    (found,) = Tiled(Predictor(Brighter(), batch=3), SIDE, full_frame=False)([image])
    # In tiles of weight 0.5, 0.75 and 1: 0.8 * 0.75, 0.6 * 1 and 1 * 0.5.
    assert found.scores.tolist() == pytest.approx([0.6, 0.6, 0.5], rel=1e-6)
    assert sorted(found.boxes.tolist()) == [[10, 50, 30, 80], [40, 10, 150, 40], [200, 50, 230, 80]]
    assert found.names()[2] == "cat"


def test_an_object_larger_than_its_tiles_comes_from_the_whole_image() -> None:
    image = scene(200, 400)
    draw(image, (20, 20, 380, 180))
    found = seen(image, full_frame=True)
    assert found.boxes.tolist() == [[20, 20, 380, 180]]
    assert found.roi_masks.shape == (1, CELLS, CELLS)
    # Without it the parts of all tiles are joined.
    found = seen(image)
    assert found.boxes.tolist() == [[20, 20, 380, 180]]
    assert found.roi_masks.shape == (1, 3 * CELLS, 3 * CELLS)


def test_what_fits_into_the_overlap_is_not_taken_from_the_whole_image() -> None:
    class OnlyWhole(Colours):
        def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
            raw = super().run(image, size)
            return raw if image.shape[3] == 200 else raw._replace(scores=0 * raw.scores)

    image = scene(200, 400)
    draw(image, (20, 20, 40, 40), shade=1)
    draw(image, (60, 20, 82, 40), shade=2)
    (found,) = Tiled(Predictor(OnlyWhole()), SIDE)([image])
    assert found.boxes.tolist() == [[60, 20, 82, 40]]


def test_a_mask_that_was_not_joined_stays_the_same_to_a_pixel_beside_one_that_was() -> None:
    image = scene(100, 180)
    cv2.circle(image, (40, 30), 25, (50, 1, 204), -1)
    alone = seen(image)
    draw(image, (40, 70, 150, 90), shade=2, blue=153)
    both = seen(image)
    assert (len(both), both.roi_masks.shape) == (2, (2, 3 * CELLS, 3 * CELLS))
    assert both.boxes[0].tolist() == alone.boxes[0].tolist()
    assert (both.masks()[0] != alone.masks()[0]).sum() <= 4


@pytest.mark.parametrize("rule", ["pixel_centres", "expanded"])
def test_joining_keeps_masks_of_either_way_to_paste(rule: str) -> None:
    ellipse = cv2.ellipse(np.zeros((CELLS, CELLS), np.float32), (14, 14), (9, 12), 20, 0, 360, 1.0, -1)

    def of_tile(*boxes: tuple[float, float, float, float]) -> Detections:
        return Detections(
            np.array(boxes, np.float32),
            np.array([0.9, 0.5], np.float32)[: len(boxes)],
            np.zeros(len(boxes), np.int64),
            np.stack([np.ones_like(ellipse), ellipse][: len(boxes)]),
            (100, 100),
            mask_paste=rule,  # type: ignore[arg-type]
        )

    first, second = of_tile((60, 10, 100, 40), (12.3, 50.6, 77.9, 93.2)), of_tile((0, 10, 30, 40))
    found = merge((100, 180), (Tile(0, 0, 100, 100), Tile(80, 0, 100, 100)), [first, second], None, 0.5)
    assert found.boxes.tolist() == [[60, 10, 110, 40], first.boxes[1].tolist()]
    plain = replace(first, size=(100, 180))[1].masks()[0]
    assert iou(found.masks()[1], plain) > 0.99


def test_a_hundred_megapixels_take_little_more_memory_than_the_image() -> None:
    image = scene(10_000, 10_000)
    draw(image, (990, 990, 1030, 1030))

    class Quick(Colours):
        def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
            if image.any():
                return super().run(image, size)
            self.runs.append(image.shape)
            return Raw(*(np.zeros((len(image), 1, *rest), kind) for rest, kind in EMPTY))

    backend = Quick()
    backend.spec = Spec(preprocess=Preprocess(short=500, long=500, pad_multiple=1))
    tracemalloc.start()
    try:
        (found,) = Tiled(Predictor(backend, batch=8), 1000)([image])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 1
    assert sum(run[0] for run in backend.runs) == 1 + 13 * 13
    # Of 300 MB: some resized tiles and a whole one.
    assert most < 60e6


EMPTY = (((4,), np.float32), ((), np.float32), ((), np.int64), ((CELLS, CELLS), np.float32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("big", "tiles of 'big'"),
        ("640,much", "tiles of '640,much'"),
        ("8", "a tile of 8 pixels"),
        ("640,1.5", "an overlap of 1.5"),
        ("640,nan", "an overlap of nan"),
    ],
)
def test_tiles_that_cannot_be_are_refused_with_their_value(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiled(Predictor(Colours()), text)


def test_tiles_are_written_as_side_and_overlap() -> None:
    predictor = Predictor(Colours(), batch=3)
    assert (tiled(predictor, "640").side, tiled(predictor, "640").overlap) == (640, 0.2)
    assert (tiled(predictor, "320,0.5").side, tiled(predictor, "320,0.5").overlap) == (320, 0.5)
