"""Operations of `maskrcnn.ops` that repeat themselves, as functions that onnxscript compiles into loops.

B images, n boxes that take part, D rows kept.
"""

# In a compiled function tensors are operands and lists are constants, which type checkers do not know.
# mypy: disable-error-code="type-arg, arg-type, call-overload, operator, type-var, misc, assignment"

from onnxscript import opset18 as op
from onnxscript import script
from onnxscript.onnx_types import FLOAT, INT64


@script(default_opset=op)
def suppressed_softly(
    low: FLOAT[...],
    high: FLOAT[...],
    scores: FLOAT[...],
    groups: INT64[...],
    no_rows: INT64[...],
    no_scores: FLOAT[...],
    keep: INT64[...],
    min_score: FLOAT[...],
    iou: FLOAT[...],
    sigma: FLOAT[...],
    linear: INT64[...],
) -> tuple[INT64[...], FLOAT[...]]:
    """low, high (B, n, 2) corners, scores, groups (B, n) -> no_rows and no_scores (B, D), filled."""
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    areas = op.ReduceProd(high - low, [2], keepdims=0)
    numbers = op.Unsqueeze(op.Range(zero, op.Size(op.Slice(groups, [0], [1], [0])), one), [0])
    ranks = op.Unsqueeze(op.Range(zero, keep, one), [0])
    rows = op.Identity(no_rows)
    kept = op.Identity(no_scores)
    left = op.Identity(scores)
    for rank in range(keep):
        best = op.ArgMax(left, axis=1, keepdims=1)
        score = op.GatherElements(left, best, axis=1)
        here = op.And(op.Equal(ranks, rank), op.Greater(score, min_score))
        rows = op.Where(here, best, rows)
        kept = op.Where(here, score, kept)
        best_low = op.Unsqueeze(op.GatherND(low, best, batch_dims=1), [1])
        best_high = op.Unsqueeze(op.GatherND(high, best, batch_dims=1), [1])
        sides = op.Max(op.Min(high, best_high) - op.Max(low, best_low), op.Constant(value_floats=[0.0]))
        shared = op.ReduceProd(sides, [2], keepdims=0)
        area = op.GatherElements(areas, best, axis=1)
        overlap = shared / op.Max(area + areas - shared, op.Constant(value_floats=[1e-12]))
        together = op.Equal(groups, op.GatherElements(groups, best, axis=1))
        overlap = overlap * op.Cast(together, to=1)
        straight = op.Where(op.Greater(overlap, iou), 1.0 - overlap, op.Constant(value_floats=[1.0]))
        bell = op.Exp(op.Neg(overlap * overlap / sigma))
        left = left * op.Where(op.Greater(linear, zero), straight, bell)
        left = op.Where(op.Equal(numbers, best), op.Constant(value_floats=[-1.0]), left)
    return rows, kept
