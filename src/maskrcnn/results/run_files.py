"""The files that all images of a run share: predictions.csv, annotations.xml of CVAT, data.yaml of YOLO."""

from pathlib import Path
from threading import Lock

from maskrcnn.detections import Detections
from maskrcnn.results.files import write_whole
from maskrcnn.results.growing import GrowingText

CSV_FILE = "predictions.csv"
CVAT_FILE = "annotations.xml"
YOLO_FILE = "data.yaml"


class RunFiles:
    """One of each in a folder, begun with the first image and whole after every one; threads may share it.

    Images stand in the order in which they were finished. Raises UserError where the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._table = GrowingText(folder / CSV_FILE)
        self._cvat = GrowingText(folder / CVAT_FILE, end="</annotations>\n")
        self._names_file = folder / YOLO_FILE
        self._names: list[str] | None = None
        self._lock = Lock()

    def add_to_table(self, file_name: str, image_id: int | None, detections: Detections) -> Path:
        """A row for each detection -> predictions.csv."""
        from maskrcnn.results.table import HEAD, rows

        text = rows(detections, file_name, image_id)
        return self._table.add(HEAD, lambda _: text)

    def add_to_cvat(self, file_name: str, detections: Detections) -> Path:
        """An image element with its shapes -> annotations.xml."""
        from maskrcnn.results.cvat import head, image_element, shape_elements

        shapes = shape_elements(detections)
        return self._cvat.add(
            head(detections), lambda number: image_element(number, file_name, detections.size, shapes)
        )

    def name_classes(self, detections: Detections) -> None:
        """Names of all labels; for a model without class names, of those up to the highest that was found."""
        from maskrcnn.results.yolo import data_yaml

        count = max(len(detections.classes), 1 + int(detections.labels.max(initial=-1)))
        names = [detections.class_name(label) for label in range(count)]
        with self._lock:
            if self._names is None or len(names) > len(self._names):
                write_whole(self._names_file, data_yaml(names).encode())
                self._names = names
