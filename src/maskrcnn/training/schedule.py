"""Learning rate over a run, as a factor of its peak."""

import math
from collections.abc import Sequence
from typing import Literal

Schedule = Literal["cosine", "steps", "hold"]
WarmUp = Literal["linear", "constant"]


def factor(
    schedule: Schedule,
    step: int,
    steps: int,
    warm_up: int,
    milestones: Sequence[float] = (2 / 3, 8 / 9),
    begin: float = 0.0,
    drop: float = 0.1,
    shape: WarmUp = "linear",
) -> float:
    """The factor of one step: a warm-up by a line that begins at `begin`, or by `begin` itself, and then

    cosine: half a cosine down to 0 at the end.
    steps: `drop` times as much from each milestone, a share of the run, on (Detectron: 2/3 and 8/9).
    hold: the peak, and from 60 % of the run on a straight line to 0; until then its length can be changed.
    """
    if step < warm_up:
        # A line that begins at 0 would waste its first step.
        share = 0.0 if shape == "constant" else (step if begin else step + 1) / warm_up
        return begin + (1 - begin) * share
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))
    if schedule == "steps":
        # Rounded up, so that a share written in decimals falls on the step that it means.
        return drop ** sum(step >= math.ceil(milestone * steps - 1e-6) for milestone in milestones)
    return max(0.0, min(1.0, 2.5 * (steps - step) / steps))
