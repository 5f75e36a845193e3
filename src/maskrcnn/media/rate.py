"""How many pictures a second are done, and how it is written into them."""

import time
from collections import deque
from collections.abc import Callable

import cv2
import numpy as np

# Pictures over which the rate of the moment is a mean.
WINDOW = 30
# Left end and base line of the text at 640 x 480, in pixels, and its colours, RGB.
PLACE = (30, 30)
RED, DARK = (255, 60, 50), (20, 20, 20)


class Rate:
    """Pictures a second; the first is left out, for engines prepare themselves in it. clock: in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: float | None = None
        self._done = 0
        self._last: deque[float] = deque(maxlen=WINDOW + 1)

    def tick(self) -> None:
        """One more is done."""
        at = self._clock()
        if self._first is None:
            self._first = at
        else:
            self._done += 1
        self._last.append(at)

    def of_the_moment(self) -> float:
        """Over the last WINDOW pictures; 0 before the second."""
        took = self._last[-1] - self._last[0] if self._last else 0.0
        return (len(self._last) - 1) / took if took > 0 else 0.0

    def of_all(self) -> float:
        """Over all pictures; 0 before the second."""
        took = self._last[-1] - self._first if self._first is not None else 0.0
        return self._done / took if took > 0 else 0.0


def write_rate(picture: np.ndarray, rate: float) -> None:
    """Write `12.5 fps` into the upper left of uint8 (H, W, 3) RGB, in place; larger in larger pictures."""
    scale = max(0.5, float(np.sqrt(picture.shape[0] * picture.shape[1] / (640 * 480))))
    place = (round(PLACE[0] * scale), round(PLACE[1] * scale))
    for colour, width in ((DARK, 5), (RED, 2)):
        thickness = max(1, round(width * scale))
        cv2.putText(
            picture, f"{rate:.1f} fps", place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA
        )
