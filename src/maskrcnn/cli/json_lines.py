"""Detections of one image or frame as one line of JSON."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskrcnn.detections import Detections


def json_line(
    source: str,
    detections: "Detections",
    frame: int | None = None,
    seconds: float | None = None,
    dropped: int | None = None,
) -> str:
    """source: as the user named it. frame: counts from 0, seconds: its time; both null for an image.

    dropped: frames of a camera left out before this one; only a camera has it.
    """
    place: dict[str, Any] = {"source": source, "frame": frame, "timestamp": seconds}
    if dropped is not None:
        place["dropped"] = dropped
    return json.dumps({**place, **detections.to_json()}, separators=(",", ":"))
