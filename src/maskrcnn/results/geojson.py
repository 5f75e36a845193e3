"""GeoJSON (RFC 7946) in pixels of the image."""

from typing import Any

import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.polygons import Part, outlines


def geojson(detections: Detections, file_name: str | None = None) -> dict[str, Any]:
    """A FeatureCollection: a Polygon or MultiPolygon each, in pixels; x goes right, y goes down.

    By the right-hand rule outer rings have positive area in x, y and holes negative. An object without a
    pixel has no geometry; every `bbox` is the box. Objects of a video have the property `track_id`.
    """
    place = {"file_name": file_name} if file_name is not None else {}
    height, width = detections.size
    rows = zip(
        detections.names(),
        detections.category_ids(),
        detections.scores.tolist(),
        detections.boxes.astype(np.float64).round(3).tolist(),
        detections.crops(),
        detections.track_ids(),
        strict=True,
    )
    followed = detections.tracks is not None
    features = [
        {
            "type": "Feature",
            "bbox": box,
            "properties": {
                "name": name,
                "category_id": category,
                "score": round(score, 5),
                **({"track_id": track} if followed else {}),
            },
            "geometry": _geometry(outlines(*crop)),
        }
        for name, category, score, box, crop, track in rows
    ]
    return {
        "type": "FeatureCollection",
        "image": {**place, "height": int(height), "width": int(width), "axes": "x right, y down, in pixels"},
        "features": features,
    }


def _geometry(parts: tuple[Part, ...]) -> dict[str, Any] | None:
    polygons = [[_closed(ring) for ring in (part.outer, *part.holes)] for part in parts]
    if not polygons:
        return None
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _closed(ring: np.ndarray) -> list[list[int]]:
    return [*ring.tolist(), ring[0].tolist()]
