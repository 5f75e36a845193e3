"""Where the results of a run go and which files are written for each image."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskrcnn.detections import Detections
from maskrcnn.drawing import draw
from maskrcnn.errors import UserError
from maskrcnn.images import ImageFile
from maskrcnn.results import files
from maskrcnn.results.run_files import RunFiles
from maskrcnn.stream import Found
from maskrcnn.whole_file import disk_errors_told, shown

KINDS = ("image", "json", "coco", "masks", "labelme", "geojson", "yolo", "cvat", "csv")
COCO_FILE = "predictions.json"
# Folders of their own: a JSON file beside another, and the layout in which YOLO trainers look for labels.
LABELME_FOLDER, YOLO_FOLDER = "labelme", "labels"


@dataclass(frozen=True)
class Written:
    """paths: the files that hold an image's results, the picture first. coco: its items of the COCO list.

    notes: a sentence for each format that could not hold everything.
    """

    paths: tuple[Path, ...]
    coco: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Output:
    """Where and what to write for each image.

    kinds: some of KINDS. score: the least for everything but the COCO list.
    coco_score: the least for the COCO list, whose average precision needs the low ones as well.
    stems: by image path, names of the files to write without suffix. image_ids: by image path, for the lists.
    boxes: whether pictures have them as well.
    """

    folder: Path
    kinds: tuple[str, ...]
    score: float
    coco_score: float
    stems: Mapping[Path, str]
    image_ids: Mapping[Path, int]
    boxes: bool = False
    _shared: RunFiles = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_shared", RunFiles(self.folder))

    def check_folder(self, images: Sequence[ImageFile]) -> None:
        """Make the folder. Raises UserError if that fails, or if a picture would replace its source."""
        with disk_errors_told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for image in images:
            stem = self.folder / self.stems[image.path]
            if stem.resolve() == image.path.with_suffix("").resolve():
                raise UserError(
                    f"--out {shown(self.folder)}: the results would take the place of {shown(image.path)}",
                    hint="choose another folder",
                )

    def only(self, kinds: tuple[str, ...]) -> "Output":
        """The same run, whose shared files grow on, writing some kinds only."""
        other = copy(self)
        object.__setattr__(other, "kinds", kinds)
        return other

    def write(self, found: Found) -> Written:
        """Write the files of one image, each whole or not at all, and its share of the files of the run.

        Threads may write side by side. Raises UserError if the disk refuses.
        """
        good = found.detections.above(self.score)
        name, image_id = found.file.name, self.image_ids.get(found.file.path)
        paths, notes = self._own_files(found, good), []
        if "yolo" in self.kinds:
            labels, left_out = self._yolo(found.file, good)
            paths.append(labels)
            if left_out:
                notes.append(
                    f"{shown(labels)}: {left_out} of {len(good)} objects are left out, their masks are empty"
                )
        if "csv" in self.kinds:
            paths.append(self._shared.add_to_table(name, image_id, good))
        if "cvat" in self.kinds:
            paths.append(self._shared.add_to_cvat(name, good))
        coco: list[dict[str, Any]] = []
        if "coco" in self.kinds:
            coco = found.detections.above(self.coco_score).to_coco(image_id=image_id, file_name=name)
        return Written(tuple(paths), tuple(coco), tuple(notes))

    def _own_files(self, found: Found, good: Detections) -> list[Path]:
        file, stem = found.file, self.stems[found.file.path]
        here = self.folder / stem
        paths = []
        if "image" in self.kinds and found.image is not None:
            drawn = draw(found.image, good, self.boxes)
            paths.append(files.write_picture(here, file.path.suffix, drawn))
        if "json" in self.kinds:
            described = {"file_name": file.name, **good.to_json()}
            paths.append(files.write_json(files.with_suffix(here, ".json"), described))
        if "masks" in self.kinds:
            paths.append(files.write_whole(files.with_suffix(here, ".masks.png"), good.to_png()))
            names = files.mask_names(file.name, good)
            paths.append(files.write_json(files.with_suffix(here, ".masks.json"), names))
        if "labelme" in self.kinds:
            path = files.with_suffix(self.folder / LABELME_FOLDER / stem, ".json")
            paths.append(files.write_json(path, good.to_labelme(files.way_to(file, path.parent))))
        if "geojson" in self.kinds:
            path = files.with_suffix(here, ".geojson")
            paths.append(files.write_json(path, good.to_geojson(file.name)))
        return paths

    def _yolo(self, file: ImageFile, good: Detections) -> tuple[Path, int]:
        """The label file and how many objects are not in it."""
        from maskrcnn.results.yolo import label_lines

        self._shared.name_classes(good)
        lines = label_lines(good)
        path = files.with_suffix(self.folder / YOLO_FOLDER / self.stems[file.path], ".txt")
        files.write_whole(path, "".join(f"{line}\n" for line in lines).encode())
        return path, len(good) - len(lines)
