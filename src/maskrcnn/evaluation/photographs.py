"""The image files of a data set, and what a model finds in them as items of a COCO results list."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.evaluation.class_mapping import ClassMapping
from maskrcnn.evaluation.ground_truth import GroundTruth
from maskrcnn.evaluation.stored_pixels import to_stored_pixels
from maskrcnn.images import ImageFile
from maskrcnn.predict import Predictor
from maskrcnn.spec import Classes
from maskrcnn.stream import Found, Unreadable, predict_files
from maskrcnn.whole_file import shown

Size = tuple[int, int]


@dataclass(frozen=True)
class Photograph:
    """An image of a data set. row: in the ground truth's image_ids.

    turned: the EXIF orientation (2 to 8) that its annotations do not know of; 1 if there is none.
    """

    file: ImageFile
    row: int
    turned: int = 1


def locate(truth: GroundTruth, folder: str | Path) -> list[Photograph]:
    """The files of all images of a data set, with or without objects, by `file_name` below a folder.

    A name that is not there is looked for in subfolders by its last part, where that is clear. Annotations
    hold for the upright picture unless sizes say that they are of the pixels before the EXIF rotation.
    Raises UserError for missing files and for sizes that differ from the annotations.
    """
    from maskrcnn.data.pictures import by_last_part, pictures_below

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{shown(folder)}: no such folder", hint="name the folder of the images")
    below = pictures_below(folder)
    clear = by_last_part(below)
    paths: list[Path | None] = []
    for name in truth.file_names:
        by_part = below.get(clear.get(PurePosixPath(name).name, ""))
        paths.append(folder / name if name and (folder / name).is_file() else by_part)
    _refuse_missing(paths, truth, folder)
    found = [path for path in paths if path is not None]
    turned = _turned(found, [(height, width) for height, width in truth.sizes.tolist()], truth.place)
    return [
        Photograph(ImageFile(path, name), row, orientation)
        for row, (path, name, orientation) in enumerate(zip(found, truth.file_names, turned, strict=True))
    ]


def _refuse_missing(paths: Sequence[Path | None], truth: GroundTruth, folder: Path) -> None:
    missing = [name or "''" for name, path in zip(truth.file_names, paths, strict=True) if path is None]
    if missing:
        raise UserError(
            f"{shown(folder)}: {len(missing)} of {len(paths)} images of {truth.place} are missing, the first "
            f"is {shown(missing[0])}",
            hint="name the folder that the file names of the annotations start from",
        )
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise UserError(
            f"{truth.place}: two images have the file {shown(str(twice[0]))}",
            hint="give every image a file of its own",
        )


def _turned(paths: Sequence[Path], sizes: Sequence[Size], place: str) -> list[int]:
    """The EXIF orientation of each image whose annotations are of the pixels before the rotation; else 1.

    Where sizes leave that open, as for squares and half turns, an image goes with the others of the set.
    """
    from maskrcnn.data.pictures import measure

    measured = [measure(path) for path in paths]
    before = [each is not None and each.stored == size for each, size in zip(measured, sizes, strict=True)]
    after = [each is not None and each.upright == size for each, size in zip(measured, sizes, strict=True)]
    differ = [
        (path, each.upright, size)
        for path, each, size, *fits in zip(paths, measured, sizes, before, after, strict=True)
        if each is not None and min(size) > 0 and not any(fits)
    ]
    if differ:
        path, (height, width), (wanted_height, wanted_width) = differ[0]
        raise UserError(
            f"{shown(path)}: is {width} x {height} pixels, {place} has it as {wanted_width} x {wanted_height}"
            + (f" ({len(differ)} such images)" if len(differ) > 1 else ""),
            hint="use the images that were annotated, at their size",
        )
    kinds = set(zip(before, after, strict=True))
    all_before = (True, False) in kinds and (False, True) not in kinds
    return [
        each.orientation if each is not None and is_before and (all_before or not is_after) else 1
        for each, is_before, is_after in zip(measured, before, after, strict=True)
    ]


def limits_in_words(
    predictor: Predictor, truth: GroundTruth, photographs: Sequence[Photograph], max_detections: int
) -> Iterator[str]:
    """What keeps a model from finding everything, and how annotations were understood."""
    turned = sum(photograph.turned != 1 for photograph in photographs)
    if turned:
        yield f"{turned} images are annotated without their EXIF rotation: detections are turned back"
    most = predictor.most
    if most is None:
        return
    full = int((np.bincount(truth.images, minlength=1) > most).sum())
    if full:
        yield f"{full} images have more than {most} objects, which is the most that the model finds in one"
    elif max_detections > most:
        yield f"the model finds at most {most} objects an image: more than that cannot count"


def predict_items(
    predictor: Predictor, truth: GroundTruth, photographs: Sequence[Photograph], mapping: ClassMapping
) -> Iterator[list[dict[str, Any]]]:
    """Everything that a model finds in each photograph, in order, with the data set's ids, as COCO items.

    Raises UserError for a file that cannot be read: the rest would be the accuracy on another data set.
    """
    of_path = {photograph.file.path: photograph for photograph in photographs}
    classes = Classes(
        names=tuple("" for _ in mapping.category_ids),
        ids=tuple(0 if each is None else each for each in mapping.category_ids),  # type: ignore[misc]
    )
    known = np.array([each is not None for each in mapping.category_ids], bool)

    def items(found: Found) -> list[dict[str, Any]]:
        photograph = of_path[found.file.path]
        detections = replace(found.detections[known[found.detections.labels]], classes=classes)
        image_id: Any = truth.image_ids[photograph.row]
        return in_annotated_pixels(detections, photograph).to_coco(image_id=image_id)

    files = [photograph.file for photograph in photographs]
    for outcome in predict_files(predictor, files, items, keep_images=False):
        if isinstance(outcome, Unreadable):
            raise outcome.error
        yield outcome.written


def in_annotated_pixels(detections: Detections, photograph: Photograph) -> Detections:
    """The detections of an upright picture in the pixels that its annotations are in."""
    if photograph.turned == 1:
        return detections
    return to_stored_pixels(detections, photograph.turned)
