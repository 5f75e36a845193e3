"""Average precision is what pycocotools says, to the last digit, and what can be worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from small_sets import SmallSet, by_chance, hand_made, of_pycocotools, rectangle

from maskrcnn.errors import UserError
from maskrcnn.evaluation.coco_metrics import evaluate
from maskrcnn.evaluation.metrics import KindMetrics, Metrics
from maskrcnn.evaluation.result_list import results_of

# pycocotools' own, under numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

TWELVE = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def measured(made: SmallSet, **options: object) -> Metrics:
    truth = made.truth()
    return evaluate(truth, results_of(made.items, truth), **options)


def of_kind(metrics: Metrics, kind: str) -> KindMetrics:
    return next(each for each in metrics.kinds if each.kind == kind)


def without_nan(numbers: dict[str, float]) -> list[float]:
    """As pycocotools writes undefined numbers."""
    return [-1 if math.isnan(value) else value for value in numbers.values()]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(6))
def test_the_twelve_numbers_equal_those_of_pycocotools(seed: int, kind: str) -> None:
    made = by_chance(seed)
    numbers = of_kind(measured(made), kind).numbers
    assert list(numbers) == TWELVE
    np.testing.assert_allclose(without_nan(numbers), of_pycocotools(made, kind).stats, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_results_without_boxes_are_taken_as_pycocotools_takes_them(kind: str) -> None:
    made = by_chance(7)
    bare = replace(made, items=[{**item} for item in made.items])
    for item in bare.items:
        del item["bbox"]
    numbers = of_kind(measured(bare), kind).numbers
    np.testing.assert_allclose(without_nan(numbers), of_pycocotools(bare, kind).stats, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_more_than_a_hundred_detections_of_a_class_count_when_asked_for(kind: str) -> None:
    made = by_chance(3, crowded=True)
    found = of_pycocotools(made, kind, most=300).eval
    lifted = of_kind(measured(made, max_detections=300), kind).numbers
    assert list(lifted) == [name.replace("AR100", "AR300") for name in TWELVE]
    precision, recall = found["precision"][..., 0, -1], found["recall"][..., 0, -1]
    assert lifted["AP"] == pytest.approx(precision[precision >= 0].mean(), abs=1e-12)
    assert lifted["AR300"] == pytest.approx(recall[recall >= 0].mean(), abs=1e-12)
    assert lifted["AP"] != of_kind(measured(made), kind).numbers["AP"]


def test_ids_that_are_strings_change_nothing() -> None:
    made = by_chance(1)
    text = SmallSet(
        images=[{**image, "id": f"{image['id']:05d}"} for image in made.images],
        annotations=[
            {**row, "image_id": f"{row['image_id']:05d}", "category_id": f"c{row['category_id']}"}
            for row in made.annotations
        ],
        categories=[{**row, "id": f"c{row['id']}"} for row in made.categories],
        items=[
            {**row, "image_id": f"{row['image_id']:05d}", "category_id": f"c{row['category_id']}"}
            for row in made.items
        ],
    )
    assert measured(text).numbers() == pytest.approx(measured(made).numbers(), abs=0, nan_ok=True)


def test_one_of_two_objects_found_at_an_iou_of_point_eight() -> None:
    """IoU .8 is right at 7 of the 10 thresholds; precision is 1 up to recall .5, 51 of the 101 levels."""
    made = hand_made([((0, 0, 10, 10), 1), ((50, 50, 10, 10), 1)], [((0, 0, 10, 8), 1, 0.9)])
    numbers = measured(made).numbers()
    for kind in ("bbox", "segm"):
        assert numbers[f"{kind}/AP50"] == pytest.approx(51 / 101)
        assert numbers[f"{kind}/AP"] == pytest.approx(7 / 10 * 51 / 101)
        assert numbers[f"{kind}/AR100"] == pytest.approx(7 / 10 * 1 / 2)


def test_a_detection_in_a_crowd_region_is_no_mistake_and_a_crowd_is_no_object() -> None:
    found = [((50, 50, 8, 8), 1, 0.9), ((0, 0, 10, 10), 1, 0.8)]
    objects, crowds = [((0, 0, 10, 10), 1)], [((40, 40, 40, 40), 1)]
    assert measured(hand_made(objects, found, crowds)).numbers()["segm/AP"] == pytest.approx(1)
    assert measured(hand_made(objects, found)).numbers()["segm/AP"] == pytest.approx(0.5)


def test_area_ranges_without_objects_are_undefined_and_so_said() -> None:
    metrics = measured(hand_made([((0, 0, 10, 10), 1)], [((0, 0, 10, 10), 1, 0.9)]))
    assert [name for name, value in metrics.numbers().items() if math.isnan(value)] == [
        f"{kind}/{name}" for kind in ("bbox", "segm") for name in ("APm", "APl", "ARm", "ARl")
    ]
    assert metrics.to_json()["bbox/APl"] is None
    assert any("no object is medium" in note for note in metrics.notes)


def test_a_false_mask_is_small_by_its_box_or_when_asked_by_itself() -> None:
    """A thin false mask of 300 pixels in a box of 50 x 50: medium by its box, small by itself."""
    made = hand_made([((0, 0, 20, 20), 1), ((50, 50, 40, 40), 1)], [((0, 0, 20, 20), 1, 0.8)])
    made.items.append({**rectangle((0, 90, 60, 5), score=0.9), "bbox": [0, 40, 50, 50]})
    by_box, by_mask = measured(made), measured(made, mask_areas=True)
    assert by_box.numbers()["segm/APs"] == pytest.approx(1)
    assert by_mask.numbers()["segm/APs"] == pytest.approx(0.5)
    assert by_mask.numbers()["bbox/APs"] == by_box.numbers()["bbox/APs"]


def test_classes_have_their_own_numbers_in_the_order_of_their_ids() -> None:
    cat, dog = (0, 0, 10, 10), (50, 50, 10, 10)
    metrics = measured(hand_made([(cat, 1), (dog, 2)], [(cat, 1, 0.9)]))
    classes = of_kind(metrics, "bbox").classes
    assert [(each.category_id, each.name, each.objects, each.ap, each.ap50) for each in classes] == [
        (1, "cat", 1, pytest.approx(1), pytest.approx(1)),
        (2, "dog", 1, 0.0, 0.0),
    ]
    assert metrics.numbers()["bbox/AP"] == pytest.approx(0.5)
    assert (metrics.images, metrics.objects, metrics.detections) == (1, 2, 1)


def test_no_detections_are_an_average_precision_of_zero() -> None:
    metrics = measured(hand_made([((0, 0, 10, 10), 1)], []))
    assert metrics.numbers()["segm/AP"] == 0
    assert "there are no detections in the results" in metrics.notes


def test_without_objects_average_precision_is_undefined() -> None:
    metrics = measured(hand_made([], [((0, 0, 10, 10), 1, 0.9)]))
    assert all(math.isnan(metrics.numbers()[f"bbox/{name}"]) for name in TWELVE)
    assert any("no objects" in note for note in metrics.notes)


def test_masks_are_left_out_where_one_side_has_none() -> None:
    made = hand_made([((0, 0, 10, 10), 1)], [((0, 0, 10, 10), 1, 0.9)])
    del made.items[0]["segmentation"]
    metrics = measured(made)
    assert [each.kind for each in metrics.kinds] == ["bbox"]
    assert "there are no masks in the results: only boxes are scored" in metrics.notes
    with pytest.raises(UserError, match="there are no masks in the results"):
        measured(made, kinds=("segm",))


def test_fewer_than_a_hundred_detections_are_refused() -> None:
    with pytest.raises(UserError, match="at most 99 detections"):
        measured(hand_made([], []), max_detections=99)
