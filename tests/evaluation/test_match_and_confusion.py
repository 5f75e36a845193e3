"""Detections take objects best score first; rows of the confusion are objects, columns detections."""

import numpy as np
import pytest
from small_sets import by_chance, hand_made, of_pycocotools

from maskrcnn.evaluation.matching import match
from maskrcnn.evaluation.result_list import results_of

BOX, ELSEWHERE = (0, 0, 10, 10), (50, 50, 10, 10)
CAT, DOG = 1, 2

pytestmark = [
    pytest.mark.parametrize("kind", ["bbox", "segm"]),
    # pycocotools' own, under numpy 2.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def confusion(
    kind: str, objects: list, found: list, crowds: list = (), score: float = 0.5
) -> list[list[int]]:
    made = hand_made(objects, found, crowds)
    truth = made.truth()
    return match(truth, results_of(made.items, truth), kind, score, 100).confusion.tolist()


def test_a_cat_found_as_a_dog(kind: str) -> None:
    assert confusion(kind, [(BOX, CAT)], [(BOX, DOG, 0.9)]) == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_a_missed_cat_and_an_invented_dog(kind: str) -> None:
    found = confusion(kind, [(BOX, CAT)], [(ELSEWHERE, DOG, 0.9)])
    assert found == [[0, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_the_best_score_takes_the_object_and_the_second_is_invented(kind: str) -> None:
    found = confusion(kind, [(BOX, CAT)], [(BOX, CAT, 0.8), ((0, 0, 10, 6), DOG, 0.9)])
    assert found == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_of_objects_that_overlap_equally_its_own_class_is_taken(kind: str) -> None:
    for order in ([CAT, DOG], [DOG, CAT]):
        found = confusion(kind, [(BOX, each) for each in order], [(BOX, DOG, 0.9)])
        assert found == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_an_iou_of_one_half_is_enough_and_less_is_not(kind: str) -> None:
    assert confusion(kind, [(BOX, CAT)], [((0, 0, 10, 5), CAT, 0.9)])[0] == [1, 0, 0]
    assert confusion(kind, [(BOX, CAT)], [((0, 0, 10, 4), CAT, 0.9)])[0] == [0, 0, 1]


def test_detections_below_the_score_are_not_there(kind: str) -> None:
    found = [(BOX, CAT, 0.5)]
    assert confusion(kind, [(BOX, CAT)], found, score=0.5)[0] == [1, 0, 0]
    assert confusion(kind, [(BOX, CAT)], found, score=0.51)[0] == [0, 0, 1]


def test_crowds_are_neither_missed_nor_is_what_lies_in_them_invented(kind: str) -> None:
    crowd = [((40, 40, 40, 40), CAT)]
    assert confusion(kind, [], [(ELSEWHERE, CAT, 0.9)], crowd) == [[0, 0, 0]] * 3
    assert confusion(kind, [], [(BOX, CAT, 0.9)], crowd) == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_an_image_with_objects_and_crowds_only(kind: str) -> None:
    crowd = [((40, 40, 40, 40), CAT)]
    assert confusion(kind, [(BOX, DOG)], [(BOX, DOG, 0.9)], crowd) == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(("seed", "most"), [(1, 100), (2, 100), (3, 100), (4, 10)])
def test_within_classes_matches_are_those_of_pycocotools(kind: str, seed: int, most: int) -> None:
    """By class: the scores of right, of wrong and of ignored detections at an IoU of 0.5."""
    made = by_chance(seed, crowded=most == 10)
    truth = made.truth()
    results = results_of(made.items, truth)
    matching = match(truth, results, kind, 0.5, most)
    theirs: dict[tuple[int, str], list[float]] = {}
    for image in of_pycocotools(made, kind, most).evalImgs:
        if image is not None and image["aRng"] == [0, 1e10]:
            for score, by, ignored in zip(
                image["dtScores"], image["dtMatches"][0], image["dtIgnore"][0], strict=True
            ):
                what = "ignored" if ignored else "right" if by else "wrong"
                theirs.setdefault((image["category_id"], what), []).append(score)
    ours: dict[tuple[int, str], list[float]] = {}
    beyond = len(results) - sum(map(len, theirs.values()))
    for score, label, right, ignored in zip(
        results.scores, results.labels, matching.right, matching.ignored, strict=True
    ):
        what = "ignored" if ignored else "right" if right else "wrong"
        ours.setdefault((int(label) + 1, what), []).append(score)
    for category in range(1, 7):
        for what in ("right", "wrong"):
            key = category, what
            assert sorted(ours.get(key, [])) == sorted(theirs.get(key, []))
    assert np.count_nonzero(matching.ignored) == beyond + sum(
        len(scores) for (_, what), scores in theirs.items() if what == "ignored"
    )
    assert beyond > 0 if most == 10 else beyond == 0
