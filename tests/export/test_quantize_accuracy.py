"""Which layers go back to float32: by what each changes, and as few as the goal needs."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.export import quantize_accuracy
from maskrcnn.export.quantize_accuracy import Goal, changed, layers_to_keep

# Points that each layer costs in int8.
COSTS = {"backbone.stem": 0.1, "rpn.conv1": 0.05, "rpn.deltas": 0.6, "box_head.deltas": 0.4}


def raw(scores: list[float], left: float = 0.0, label: int = 0, mask: float = 1.0) -> Raw:
    """One image whose detections are 10 x 10 boxes side by side, the first one at `left`."""
    count = len(scores)
    boxes = np.array([[left + 20 * i, 0, left + 20 * i + 10, 10] for i in range(count)], np.float32)
    return Raw(
        boxes.reshape(1, count, 4),
        np.array([scores], np.float32),
        np.full((1, count), label),
        np.full((1, count, 2, 2), mask, np.float32),
    )


def test_the_same_detections_have_not_changed() -> None:
    assert changed(raw([0.9, 0.5, 0.0]), raw([0.9, 0.5, 0.0])) == 0


def test_a_lost_detection_counts_by_its_score() -> None:
    assert changed(raw([0.6, 0.2]), raw([0.6, 0.0])) == pytest.approx(0.25)
    assert changed(raw([0.6]), raw([0.0])) == 1
    assert changed(raw([0.0]), raw([0.6])) == 0  # nothing was there to change


def test_another_label_is_a_lost_detection() -> None:
    assert changed(raw([0.6]), raw([0.6], label=1)) == 1


def test_overlap_score_and_mask_count_together() -> None:
    # Moved by 2 of 10 pixels: 80 shared of 120. Score 0.1 off. A fifth off in every pixel of the mask.
    found = changed(raw([0.5]), raw([0.4], left=2.0, mask=0.8))
    assert found == pytest.approx(1 - 80 / 120 * 0.9 * 0.8)


class Fake:
    """A calibrated model that writes down which layers it was told to keep."""

    layers = tuple(COSTS)
    kept = ()
    spec = None

    def __init__(self, *_: object) -> None:
        pass

    def write(self, path: Path, kept: Collection[str] = ()) -> None:
        path.write_text(" ".join(kept))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[set[str]]:
    """The layers that were in int8 each time that average precision was measured."""
    seen: list[set[str]] = []

    def precision(path: Path, goal: Goal) -> dict[str, float]:
        if path.name == "float.onnx":
            return {"bbox/AP": 0.4, "segm/AP": 0.3}
        kept = path.read_text().split()
        seen.append(set(COSTS) - set(kept))
        return {"bbox/AP": 0.4 - sum(COSTS[name] for name in seen[-1]) / 100, "segm/AP": 0.3}

    def ranked(*_: object) -> list[tuple[str, float]]:
        return sorted(COSTS.items(), key=lambda item: -item[1])

    monkeypatch.setattr(quantize_accuracy, "Calibrated", Fake)
    monkeypatch.setattr(quantize_accuracy, "_precision", precision)
    monkeypatch.setattr(quantize_accuracy, "_ranked", ranked)
    return seen


def kept(max_drop: float) -> list[str]:
    goal = Goal(None, max_drop)  # type: ignore[arg-type]
    found = layers_to_keep(Fake(), Path("float.onnx"), ".onnx", [], goal)  # type: ignore[arg-type]
    return [each.layer for each in found]


def test_where_the_drop_is_small_enough_nothing_goes_back_and_nothing_is_ranked(
    measured: list[set[str]],
) -> None:
    assert kept(1.2) == []
    assert len(measured) == 1


@pytest.mark.parametrize(
    ("max_drop", "layers"),
    [
        (0.56, ["rpn.deltas"]),
        (0.5, ["rpn.deltas", "box_head.deltas"]),
        (0.1, ["rpn.deltas", "box_head.deltas", "backbone.stem"]),
    ],
)
def test_as_few_layers_go_back_as_the_goal_needs_the_worst_first(
    measured: list[set[str]], max_drop: float, layers: list[str]
) -> None:
    assert kept(max_drop) == layers


def test_a_goal_that_only_float32_reaches_is_refused(measured: list[set[str]]) -> None:
    with pytest.raises(UserError, match="no layer can be quantised within 0.01"):
        kept(0.01)
