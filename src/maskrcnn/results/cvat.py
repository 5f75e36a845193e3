"""The file `CVAT for images 1.1`, which CVAT takes as annotations of a task."""

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.masks import tight
from maskrcnn.polygons import outlines

# What XML 1.0 cannot hold, not even escaped.
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def head(detections: Detections) -> str:
    """Everything before the first image: the version and the labels, each with a text attribute `score`, and
    `track_id` for frames of a video.
    """
    names = dict.fromkeys(detections.class_name(label) for label in range(len(detections.classes)))
    attributes = "".join(
        f"<attribute><name>{attribute}</name><mutable>False</mutable><input_type>text</input_type>"
        "<default_value></default_value><values></values></attribute>"
        for attribute in ("score", *(("track_id",) if detections.tracks is not None else ()))
    )
    labels = "".join(
        f"<label><name>{escape(_legal(name))}</name><type>any</type><attributes>{attributes}</attributes>"
        "</label>\n"
        for name in names
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        f"<meta><task><mode>annotation</mode><labels>\n{labels}</labels></task></meta>\n"
    )


def image_element(number: int, file_name: str, size: tuple[int, int], shapes: Sequence[str]) -> str:
    """An image with its shapes; CVAT finds it by name."""
    height, width = size
    opening = f'<image id="{number}" name={_quoted(file_name)} width="{width}" height="{height}">\n'
    return opening + "".join(f"{shape}\n" for shape in shapes) + "</image>\n"


def shape_elements(detections: Detections) -> list[str]:
    """A `polygon` each; a `mask` for what has holes or several parts, a `box` for what has no pixel."""
    elements = []
    rows = zip(
        detections.names(),
        detections.scores.tolist(),
        detections.boxes,
        detections.crops(),
        detections.track_ids(),
        strict=True,
    )
    for number, (name, score, box, crop, track) in enumerate(rows, start=1):
        kind, attributes = _shape(box, *tight(*crop))
        place = " ".join(f'{key}="{value}"' for key, value in attributes.items())
        # The better one on top.
        order = len(detections) - number
        followed = f'<attribute name="track_id">{track}</attribute>' if track is not None else ""
        elements.append(
            f'<{kind} label={_quoted(name)} source="file" occluded="0" {place} z_order="{order}">'
            f'<attribute name="score">{round(score, 5)}</attribute>{followed}</{kind}>'
        )
    return elements


def _shape(box: np.ndarray, crop: np.ndarray, x: int, y: int) -> tuple[str, dict[str, object]]:
    parts = outlines(crop, x, y)
    if not parts:
        values = box.astype(np.float64).round(2).tolist()
        return "box", dict(zip(("xtl", "ytl", "xbr", "ybr"), values, strict=True))
    if len(parts) == 1 and not parts[0].holes:
        return "polygon", {"points": ";".join(f"{x},{y}" for x, y in parts[0].outer.tolist())}
    height, width = crop.shape
    runs = ", ".join(map(str, _runs(crop)))
    return "mask", {"rle": runs, "left": x, "top": y, "width": width, "height": height}


def _runs(crop: np.ndarray) -> list[int]:
    """Lengths of the runs 0, 1, 0, ... along the rows; the first may be 0."""
    flat = np.concatenate([[False], crop.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(changes, prepend=0, append=crop.size).tolist()


def _quoted(text: str) -> str:
    return quoteattr(_legal(text))


def _legal(text: str) -> str:
    return NO_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
