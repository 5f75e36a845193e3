"""The operations of `maskrcnn.ops` in operators of the ONNX standard, opset 18.

B images, N boxes per image, n of them that take part, G groups, D rows kept, L levels, R boxes to pool per
image, r of them on one level, C channels, S bins per side.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from onnx.numpy_helper import from_array
from onnxscript import opset18

from maskrcnn.export.onnx_loops import suppressed_softly

# A value of the graph that is made; onnxscript's own type is another one in each of its versions.
Value = Any
op: Any = opset18

TO_FLOAT, TO_INT64 = 1, 7
# Below every score; the same number in float16 and bfloat16, to which engines round one side of a comparison.
LOWEST = -32768.0


def translations() -> dict[Callable, Callable]:
    """For the custom_translation_table of `torch.onnx.export`."""
    ours = torch.ops.maskrcnn
    return {
        ours.pool_levels.default: pool_levels,
        ours.nms.default: nms,
        ours.soft_nms.default: soft_nms,
        ours.leading_rows.default: leading_rows,
    }


def pool_levels(
    levels: Sequence[Value],
    boxes: Value,
    level_of: Value,
    scales: Sequence[float],
    side: int,
    samples: int,
    aligned: bool,
) -> Value:
    """`maskrcnn.ops.pool_levels`: each level pools its own boxes only, and Gather restores their order."""
    rois = op.Reshape(boxes, _ints(-1, 4))
    per_image = op.Shape(boxes, start=1, end=2)
    owner = op.Reshape(level_of, _ints(-1))
    pooled, places = [], []
    for number, (level, scale) in enumerate(zip(levels, scales, strict=True)):
        if len(levels) == 1:
            here = _range(op.Size(owner))
        else:
            here = op.Reshape(op.NonZero(op.Equal(owner, _ints(number))), _ints(-1))
        pooled.append(
            op.RoiAlign(
                op.Cast(level, to=TO_FLOAT),
                op.Gather(rois, here),
                op.Div(here, per_image),
                output_height=side,
                output_width=side,
                spatial_scale=scale,
                sampling_ratio=samples,
                mode="avg",
                coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            )
        )
        places.append(here)
    if len(levels) == 1:
        return pooled[0]
    sources = op.Concat(*places, axis=0)
    order = op.ScatterElements(sources, sources, _range(op.Size(sources)))
    return op.Gather(op.Concat(*pooled, axis=0), order)


def nms(
    boxes: Value,
    scores: Value,
    groups: Value,
    iou: float,
    score_over: float,
    keep: int,
    plus_one: bool = False,
    inclusive: bool = False,
) -> Value:
    """`maskrcnn.ops.nms`: a group is a class of NonMaxSuppression, so that no box is moved apart."""
    score_over = max(score_over, LOWEST)
    rows = None
    if score_over > LOWEST:
        boxes, scores, groups, rows = _candidates(boxes, scores, groups, score_over)
    numbers = op.Unsqueeze(_range(op.Add(op.ReduceMax(groups, keepdims=0), _int(1))), _ints(0, 2))
    mine = op.Equal(op.Unsqueeze(groups, _ints(1)), numbers)
    of_groups = op.Where(mine, op.Unsqueeze(scores, _ints(1)), _floats(LOWEST))
    limits = (_ints(keep), _floats(_threshold(iou, inclusive)), _floats(score_over))
    chosen = op.NonMaxSuppression(_corners(boxes, plus_one), of_groups, *limits)
    places = op.Gather(chosen, _ints(0, 2), axis=1)
    kept = op.ScatterND(_filled(LOWEST, op.Shape(scores)), places, op.GatherND(scores, places))
    score, row = op.TopK(op.Pad(kept, _ints(0, 0, 0, keep), _float(LOWEST)), _ints(keep), axis=1)
    if rows is not None:
        score, row = _ties_by_row(score, row)
        row = op.GatherElements(op.Pad(rows, _ints(0, 0, 0, keep)), row, axis=1)
    return op.Where(op.Greater(score, _floats(LOWEST)), row, _ints(-1))


def _threshold(iou: float, inclusive: bool) -> float:
    """Overlaps are compared with the float32 next to iou, on the side that keeps or suppresses iou itself.

    ONNX Runtime suppresses above the number that it is given and OpenVINO from it on; torch compares a
    float32 overlap with a double.
    """
    nearest = np.float32(iou)
    suppressed = inclusive or float(nearest) > iou
    return float(np.nextafter(nearest, np.float32(-np.inf if suppressed else np.inf)))


def _candidates(
    boxes: Value, scores: Value, groups: Value, score_over: float
) -> tuple[Value, Value, Value, Value]:
    """What scores over score_over, in its order, filled up to the image that has most, and to 1.

    boxes (B, N, 4), scores, groups (B, N) -> the same with n in place of N, LOWEST in the scores where there
    is none, and their rows (B, n).
    """
    over = op.Greater(scores, _floats(score_over))
    places = op.Transpose(op.NonZero(over), perm=[1, 0])
    rank = op.Sub(op.CumSum(op.Cast(over, to=TO_INT64), _int(1)), _ints(1))
    image = op.Slice(places, _ints(0), _ints(1), _ints(1))
    ranked = op.Concat(image, op.Unsqueeze(op.GatherND(rank, places), _ints(1)), axis=1)
    room = op.Concat(op.Shape(scores, start=0, end=1), _most(scores, score_over), axis=0)
    row_numbers = op.Gather(places, _int(1), axis=1)
    rows = op.ScatterND(_filled(0, room), ranked, row_numbers)
    found = op.ScatterND(_filled(LOWEST, room), ranked, op.GatherND(scores, places))
    chosen = op.GatherND(boxes, op.Unsqueeze(rows, _ints(2)), batch_dims=1)
    return chosen, found, op.GatherElements(groups, rows, axis=1), rows


def _ties_by_row(scores: Value, rows: Value) -> tuple[Value, Value]:
    """scores (B, D) descending, rows (B, D) -> equal scores by row; OpenVINO's TopK has them in any order."""
    mine, other = _ints(2), _ints(1)
    score, row = op.Unsqueeze(scores, mine), op.Unsqueeze(rows, mine)
    scores_too, rows_too = op.Unsqueeze(scores, other), op.Unsqueeze(rows, other)
    tied = op.And(op.Equal(scores_too, score), op.Less(rows_too, row))
    before = op.Or(op.Greater(scores_too, score), tied)
    place = op.ReduceSum(op.Cast(before, to=TO_INT64), _ints(2), keepdims=0)
    return scores, op.ScatterElements(rows, place, rows, axis=1)


def soft_nms(
    boxes: Value,
    scores: Value,
    groups: Value,
    iou: float,
    score_over: float,
    keep: int,
    linear: bool,
    sigma: float,
    min_score: float,
    plus_one: bool = False,
) -> tuple[Value, Value]:
    """`maskrcnn.ops.soft_nms`: a Loop whose every turn keeps the best box of each image."""
    boxes, scores, groups, rows = _candidates(boxes, scores, groups, score_over)
    low, high = _low_and_high(boxes, plus_one)
    room = op.Concat(op.Shape(scores, start=0, end=1), _ints(keep), axis=0)
    limits = (_int(keep), _floats(min_score), _floats(iou), _floats(sigma), _ints(int(linear)))
    nothing = _filled(-1, room), _filled(0.0, room)
    kept, decayed = suppressed_softly(low, high, scores, groups, *nothing, *limits)
    found = op.GatherElements(rows, op.Max(kept, _ints(0)), axis=1)
    return op.Where(op.Less(kept, _ints(0)), kept, found), decayed


def leading_rows(boxes: Value, labels: Value, scores: Value) -> tuple[Value, Value]:
    """`maskrcnn.export.graph.leading_rows`: Slice at the largest number of real rows, or at 1."""
    count = _most(scores, 0.0)
    first, axis = _ints(0), _ints(1)
    return op.Slice(boxes, first, count, axis), op.Slice(labels, first, count, axis)


def _most(scores: Value, over: float) -> Value:
    """scores (B, N) -> (1,), how many are over in the image that has most, or 1."""
    counts = op.ReduceSum(op.Cast(op.Greater(scores, _floats(over)), to=TO_INT64), _ints(1))
    return op.Max(op.Reshape(op.ReduceMax(counts, keepdims=0), _ints(1)), _ints(1))


def _corners(boxes: Value, plus_one: bool) -> Value:
    """boxes (B, N, 4) whose ordinary areas are those wanted; inverted sides, which overlap nothing, are 0."""
    low, high = _low_and_high(boxes, plus_one)
    return op.Concat(low, op.Max(low, high), axis=2)


def _low_and_high(boxes: Value, plus_one: bool) -> tuple[Value, Value]:
    """boxes (B, N, 4) -> their corners (B, N, 2) each; a pixel x covers x to x + 1 where plus_one."""
    low = op.Slice(boxes, _ints(0), _ints(2), _ints(2))
    high = op.Slice(boxes, _ints(2), _ints(4), _ints(2))
    return low, op.Add(high, _floats(1.0)) if plus_one else high


def _range(count: Value) -> Value:
    return op.Range(_int(0), count, _int(1))


def _filled(value: int | float, shape: Value) -> Value:
    """value everywhere in a tensor of that shape, int64 or float32 as the value is."""
    dtype = np.int64 if isinstance(value, int) else np.float32
    return op.ConstantOfShape(shape, value=from_array(np.array([value], dtype)))


def _ints(*values: int) -> Value:
    return op.Constant(value_ints=list(values))


def _int(value: int) -> Value:
    return op.Constant(value_int=value)


def _floats(*values: float) -> Value:
    return op.Constant(value_floats=list(values))


def _float(value: float) -> Value:
    return op.Constant(value_float=value)
