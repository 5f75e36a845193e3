"""Learning rate over a run, as a factor of its peak."""

import math
from typing import Literal

Schedule = Literal["cosine", "steps", "hold"]


def factor(schedule: Schedule, step: int, steps: int, warm_up: int) -> float:
    """The factor of one step: a linear warm-up, and then

    cosine: half a cosine down to 0 at the end.
    steps: a tenth from 2/3 of the run on, a hundredth from 8/9 on (Detectron's 1x and 3x).
    hold: the peak, and from 60 % of the run on a straight line to 0; until then its length can be changed.
    """
    if step < warm_up:
        return (step + 1) / warm_up
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))
    if schedule == "steps":
        return 0.1 ** ((3 * step >= 2 * steps) + (9 * step >= 8 * steps))
    return max(0.0, min(1.0, 2.5 * (steps - step) / steps))
