"""NMS with a fixed number of rows, hard and soft, as operations that an exporter can translate.

B images, N boxes per image, D rows kept.
"""

import math

import torch
from torch import Tensor
from torchvision.ops import batched_nms


@torch.library.custom_op("maskrcnn::nms", mutates_args=())
def nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    iou: float,
    score_over: float,
    keep: int,
    plus_one: bool = False,
    inclusive: bool = False,
) -> Tensor:
    """Greedy NMS inside each group; only boxes scoring above score_over take part.

    boxes (B, N, 4), scores (B, N), groups (B, N) -> rows int64 (B, keep), best first, -1 where there is none.
    plus_one: widths are x2 - x1 + 1; inclusive: a box is suppressed at IoU == iou too.
    """
    rows = torch.full((boxes.shape[0], keep), -1, dtype=torch.int64, device=boxes.device)
    threshold = _threshold(iou, inclusive)
    corners = _widened(boxes, plus_one)
    for image in range(boxes.shape[0]):
        candidates = (scores[image] > score_over).nonzero()[:, 0]
        kept = batched_nms(
            corners[image, candidates], scores[image, candidates], groups[image, candidates], threshold
        )[:keep]
        rows[image, : len(kept)] = candidates[kept]
    return rows


@nms.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    iou: float,
    score_over: float,
    keep: int,
    plus_one: bool = False,
    inclusive: bool = False,
) -> Tensor:
    return boxes.new_empty((boxes.shape[0], keep), dtype=torch.int64)


@torch.library.custom_op("maskrcnn::soft_nms", mutates_args=())
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    iou: float,
    score_over: float,
    keep: int,
    linear: bool,
    sigma: float,
    min_score: float,
    plus_one: bool = False,
) -> tuple[Tensor, Tensor]:
    """Soft-NMS (Bodla et al. 2017) inside each group, on boxes scoring above score_over.

    Each kept box multiplies the scores of the remaining ones of its group by 1 - IoU where IoU > iou
    (linear) or by exp(-IoU^2 / sigma) (gaussian); boxes that fall to min_score or below are dropped.
    boxes (B, N, 4), scores (B, N), groups (B, N) -> rows int64 (B, keep), -1 where there is none, and their
    decayed scores (B, keep), 0 where there is none, best first.
    """
    rows = torch.full((boxes.shape[0], keep), -1, dtype=torch.int64, device=boxes.device)
    decayed = scores.new_zeros((boxes.shape[0], keep))
    corners = _widened(boxes, plus_one)
    for image in range(boxes.shape[0]):
        candidates = (scores[image] > score_over).nonzero()[:, 0]
        box, score, group = (
            corners[image, candidates],
            scores[image, candidates].clone(),
            groups[image, candidates],
        )
        for rank in range(min(keep, len(candidates))):
            best = int(score.argmax())
            if score[best] <= min_score:
                break
            rows[image, rank], decayed[image, rank] = candidates[best], score[best]
            overlap = _iou_with(box[best], box) * (group == group[best])
            if linear:
                score *= torch.where(overlap > iou, 1 - overlap, 1.0)
            else:
                score *= torch.exp(-overlap.square() / sigma)
            score[best] = -1
    return rows, decayed


@soft_nms.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    iou: float,
    score_over: float,
    keep: int,
    linear: bool,
    sigma: float,
    min_score: float,
    plus_one: bool = False,
) -> tuple[Tensor, Tensor]:
    return (
        boxes.new_empty((boxes.shape[0], keep), dtype=torch.int64),
        scores.new_empty((boxes.shape[0], keep)),
    )


def _threshold(iou: float, inclusive: bool) -> float:
    """torchvision suppresses where a float32 IoU > a double; just below float32(iou) that means >=."""
    return math.nextafter(float(torch.tensor(iou, dtype=torch.float32)), 0.0) if inclusive else iou


def _widened(boxes: Tensor, plus_one: bool) -> Tensor:
    """Pixels x1..x2 cover x1 to x2 + 1, and ordinary areas of that are the +1 areas."""
    return boxes + boxes.new_tensor([0, 0, 1, 1]) if plus_one else boxes


def _iou_with(box: Tensor, boxes: Tensor) -> Tensor:
    """box (4,), boxes (N, 4) -> IoU (N,)."""
    sides = (torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2])).clamp(min=0)
    intersection = sides.prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return intersection / ((box[2:] - box[:2]).prod() + areas - intersection).clamp(min=1e-12)
