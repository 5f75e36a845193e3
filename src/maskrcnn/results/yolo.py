"""Label files of the YOLO family for segmentation, and the data.yaml that names their classes."""

from collections.abc import Sequence

from maskrcnn.detections import Detections
from maskrcnn.polygons import joined, outlines


def label_lines(detections: Detections) -> list[str]:
    """`label x y x y ...` of each object that has a pixel: corners as fractions of width and height.

    Several parts and holes become one ring by bridges of no width; what it encloses is the mask exactly.
    """
    height, width = detections.size
    lines = []
    for label, crop in zip(detections.labels.tolist(), detections.crops(), strict=True):
        parts = outlines(*crop)
        if parts:
            # Six decimals: a hundredth of a pixel where a side has 20000.
            fractions = (joined(parts) / (width, height)).ravel().tolist()
            lines.append(f"{label}" + " %.6f" * len(fractions) % tuple(fractions))
    return lines


def data_yaml(names: Sequence[str]) -> str:
    """The description of a data set whose images stand in `images`, beside `labels`."""
    import yaml

    contents = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(names))}
    return yaml.safe_dump(contents, allow_unicode=True, sort_keys=False)
