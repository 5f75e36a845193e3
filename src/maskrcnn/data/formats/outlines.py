"""Round shapes of annotation tools as polygons."""

import math

import numpy as np

POINTS = 64


def circle(x: float, y: float, radius: float) -> list[float]:
    """A polygon [x1, y1, ...] of 64 points on a circle, in the unit of its arguments."""
    return ellipse(x, y, radius, radius)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, turn: float = 0.0) -> list[float]:
    """A polygon of 64 points on an ellipse turned by `turn` radians."""
    angles = np.arange(POINTS) * (2 * math.pi / POINTS)
    along, across = radius_x * np.cos(angles), radius_y * np.sin(angles)
    xs = x + along * math.cos(turn) - across * math.sin(turn)
    ys = y + along * math.sin(turn) + across * math.cos(turn)
    found: list[float] = np.stack([xs, ys], 1).ravel().tolist()
    return found
