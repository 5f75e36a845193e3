"""Which ground truth a box learns, and which boxes take part."""

import torch
from torch import Tensor, tensor

from maskrcnn.config import BoxHeadConfig, RPNConfig
from maskrcnn.model.matching import (
    BACKGROUND,
    IGNORED,
    Sampled,
    Targets,
    match,
    overlap,
    sample,
    sample_anchors,
    sample_proposals,
    without_crowd,
)


def targets(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> Targets:
    masks = torch.zeros((len(boxes), 100, 100), dtype=torch.uint8)
    return Targets(
        tensor(boxes).reshape(-1, 4),
        tensor(labels, dtype=torch.int64),
        masks,
        tensor(crowd or [False] * len(boxes), dtype=torch.bool),
    )


def test_two_boxes_of_100_that_share_50_overlap_by_a_third() -> None:
    found = overlap(tensor([[0.0, 0, 10, 10]]), tensor([[0.0, 5, 10, 15], [20.0, 20, 30, 30]]))
    torch.testing.assert_close(found, tensor([[1 / 3, 0.0]]))


def test_a_candidate_between_the_thresholds_is_ignored_and_at_them_is_not() -> None:
    iou = tensor([[0.7, 0.69, 0.3, 0.29]])
    assert match(iou, 0.7, 0.3, keep_best=False).tolist() == [0, IGNORED, IGNORED, BACKGROUND]


def test_the_best_candidate_of_a_small_object_is_foreground_below_the_threshold_too() -> None:
    iou = tensor([[0.1, 0.2, 0.2, 0.0], [0.8, 0.0, 0.0, 0.0]])
    assert match(iou, 0.7, 0.3, keep_best=True).tolist() == [1, 0, 0, BACKGROUND]


def test_a_rescued_candidate_learns_the_object_that_it_overlaps_most() -> None:
    iou = tensor([[0.4, 0.0], [0.5, 0.6]])
    assert match(iou, 0.7, 0.3, keep_best=True)[0] == 1


def test_without_objects_every_candidate_is_background() -> None:
    assert match(torch.zeros(0, 3), 0.7, 0.3, keep_best=True).tolist() == [BACKGROUND] * 3


def test_background_more_than_half_inside_a_crowd_is_ignored_and_a_positive_there_stays() -> None:
    candidates = tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 10], [5.0, 0, 15, 10], [4.0, 0, 14, 10]])
    crowd = tensor([[0.0, 0, 10, 10]])
    matched = without_crowd(tensor([BACKGROUND, 3, BACKGROUND, BACKGROUND]), crowd, candidates)
    assert matched.tolist() == [IGNORED, 3, BACKGROUND, IGNORED]


def test_positives_are_at_most_their_share_and_negatives_fill_the_rest() -> None:
    matched = tensor([0] * 50 + [BACKGROUND] * 50 + [IGNORED] * 50)
    positive, negative = sample(matched, 20, 0.25, torch.Generator().manual_seed(0))
    assert (len(positive), len(negative)) == (5, 15)
    assert (matched[positive] == 0).all() and (matched[negative] == BACKGROUND).all()
    assert len(set(positive.tolist())) == 5 and len(set(negative.tolist())) == 15


def test_few_positives_are_all_taken_and_the_same_seed_takes_the_same() -> None:
    matched = tensor([0, BACKGROUND] * 3 + [BACKGROUND] * 100)
    draws = [sample(matched, 20, 0.5, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert sorted(draws[0][0].tolist()) == [0, 2, 4] and len(draws[0][1]) == 17
    assert draws[0][1].tolist() == draws[1][1].tolist()


def test_an_anchor_over_a_crowd_trains_nothing() -> None:
    anchors = tensor([[0.0, 0, 20, 20], [50.0, 50, 70, 70], [30.0, 30, 50, 50]])
    found = targets([[0.0, 0, 20, 20], [50, 50, 70, 70]], [3, 3], crowd=[False, True])
    positive, negative, boxes = sample_anchors(anchors, found, RPNConfig(), None)
    assert (positive.tolist(), negative.tolist()) == ([0], [2])
    assert boxes.tolist() == [[0, 0, 20, 20]]


def sampled_rows(proposals: Tensor, found: list[Targets]) -> Sampled:
    real = torch.ones(proposals.shape[:2], dtype=torch.bool)
    return sample_proposals(
        proposals, real, found, 80, BoxHeadConfig(batch=8, positive_fraction=0.5), [None] * len(found)
    )


def test_ground_truth_is_a_proposal_and_background_has_the_label_after_the_last_class() -> None:
    proposals = tensor([[[60.0, 60, 90, 90], [0.0, 0, 10, 10]]])
    sampled = sampled_rows(proposals, [targets([[60.0, 60, 90, 80]], [5])])
    assert sampled.used.tolist() == [[True] * 3 + [False] * 5]
    assert sampled.positive.tolist() == [[True] * 2 + [False] * 6]
    assert sampled.labels[0, :3].tolist() == [5, 5, 80]
    assert sampled.matched[0, 0].tolist() == [60, 60, 90, 80]
    assert sorted(sampled.boxes[0, :2].tolist()) == [[60, 60, 90, 80], [60, 60, 90, 90]]


def test_an_image_without_instances_gives_only_background() -> None:
    sampled = sampled_rows(tensor([[[0.0, 0, 10, 10], [5, 5, 20, 20]]]), [targets([], [])])
    assert sampled.labels[sampled.used].tolist() == [80, 80]
    assert not sampled.positive.any()


def test_rows_of_a_match_count_the_instances_without_crowds() -> None:
    found = targets([[0.0, 0, 50, 50], [60, 60, 90, 90]], [1, 2], crowd=[True, False])
    sampled = sampled_rows(tensor([[[60.0, 60, 90, 90]]]), [found])
    assert sampled.rows[sampled.positive].tolist() == [0, 0]
    assert sampled.labels[sampled.positive].tolist() == [2, 2]
