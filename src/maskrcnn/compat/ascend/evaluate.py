"""From an engine's files to detections, COCO items, drawn pictures and text files, one image at a time.

D rows, N detections.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.compat.ascend.bins import Bins, Listed, Size, stems_for, their_stem
from maskrcnn.compat.ascend.exact import exact_geometry, exact_rles
from maskrcnn.compat.ascend.outputs import load, stems_in
from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.results.files import write_picture, write_whole
from maskrcnn.spec import Classes, Spec
from maskrcnn.stream import in_order
from maskrcnn.whole_file import shown

if TYPE_CHECKING:
    from maskrcnn.evaluation.class_mapping import ClassMapping
    from maskrcnn.evaluation.ground_truth import GroundTruth

# Below it their text files and pictures show nothing.
SCORE = 0.05
WORKERS = 4


@dataclass(frozen=True)
class Results:
    """A folder of results. bins: how they are to be read. suffixes: by stem. exact: with their roundings."""

    folder: Path
    bins: Bins
    suffixes: dict[str, str]
    exact: bool = False

    def detections(self, image: Listed) -> tuple[Detections, list[dict[str, Any]] | None]:
        """What was found in an image, best first; and with exact the masks as COCO RLE, which differ."""
        outputs = load(self.folder, image.stem, self.suffixes[image.stem], self.bins.spec)
        raw = outputs.raw()
        if not self.exact:
            lies = self.bins.geometry(image.size)
            return Detections.from_raw(raw, 0, lies, self.bins.spec), None
        window = self.bins.size
        lies = exact_geometry(image.size, window)
        detections = Detections.from_raw(raw, 0, lies, _as_they_are(self.bins.spec))
        return detections, exact_rles(raw, image.size, window)


def _as_they_are(spec: Spec) -> Spec:
    """Boxes are neither clipped nor sorted."""
    conventions = replace(spec.model.conventions, clip_to_image=False, detection_order="score")
    return replace(spec, model=replace(spec.model, conventions=conventions))


@dataclass(frozen=True)
class Written:
    """Where an image's pictures and text go. score: the least that they show."""

    folder: Path
    draw: bool = False
    score: float = SCORE


def results_below(folder: Path) -> Path:
    """The folder with the results: itself, or of those in it the one that was made last."""
    if not folder.is_dir() or stems_in(folder):
        stems_in(folder)
        return folder
    inside = [path for path in folder.iterdir() if path.is_dir() and stems_in(path)]
    if not inside:
        raise UserError(
            f"{shown(folder)}: holds no results, files like NAME_0.bin",
            hint="name the folder that `maskrcnn bins run` or ais_infer wrote",
        )
    return max(inside, key=lambda path: (path.stat().st_mtime_ns, path.name))


def listed_images(
    truth: "GroundTruth", known: Sequence[Listed], stems: dict[str, str]
) -> list[Listed | None]:
    """The results of each image of a data set; None where there are none.

    known: the images that were made into bins, by whose paths they are found; without any by names. Raises
    UserError where an image had another size than the annotations say.
    """
    by_path = _by_path(known)
    found: list[Listed | None] = []
    for name, (height, width) in zip(truth.file_names, truth.sizes.tolist(), strict=True):
        image = _among(by_path, name) if known else _named(name, (height, width), stems)
        if image is None or image.stem not in stems:
            found.append(None)
            continue
        if (height, width) != image.size and min(height, width) > 0:
            raise UserError(
                f"{shown(image.path)}: was {image.size[1]} x {image.size[0]} pixels, {truth.place} has it as "
                f"{width} x {height}",
                hint="use the images that were annotated, at their size and upright",
            )
        found.append(image)
    return found


def _by_path(known: Sequence[Listed]) -> dict[str, list[Listed]]:
    by_name: dict[str, list[Listed]] = {}
    for image in known:
        by_name.setdefault(PurePosixPath(Path(image.path).as_posix()).name, []).append(image)
    return by_name


def _among(by_name: dict[str, list[Listed]], name: str) -> Listed | None:
    """The image whose path ends with a name; by the last part alone where that is clear."""
    same = by_name.get(PurePosixPath(name).name, [])
    exact = [image for image in same if f"/{Path(image.path).as_posix()}".endswith(f"/{name}")]
    return exact[0] if len(exact) == 1 else (same[0] if len(same) == 1 else None)


def _named(name: str, size: Size, stems: dict[str, str]) -> Listed | None:
    last = PurePosixPath(name)
    for stem in (last.stem, stems_for([last.stem])[0], their_stem(name)):
        if stem in stems:
            return Listed(stem, name, size)
    return None


def items(
    results: Results,
    truth: "GroundTruth",
    images: Sequence[Listed | None],
    mapping: "ClassMapping",
    written: Written | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """COCO items of each image that has results, in order, of which a few are in memory at a time.

    written: pictures and text files to leave on the way.
    """
    ids = tuple(0 if each is None else each for each in mapping.category_ids)
    known = np.array([each is not None for each in mapping.category_ids], bool)
    mapped = Classes(tuple("" for _ in ids), ids)  # type: ignore[arg-type]
    rows = [(row, image) for row, image in enumerate(images) if image is not None]

    def read(task: tuple[int, Listed]) -> list[dict[str, Any]]:
        return _items_of(task, results, truth, known, mapped, written)

    yield from in_order(read, rows, WORKERS, 2 * WORKERS)


def _items_of(
    task: tuple[int, Listed],
    results: Results,
    truth: "GroundTruth",
    known: np.ndarray,
    mapped: Classes,
    written: Written | None,
) -> list[dict[str, Any]]:
    row, image = task
    detections, rles = results.detections(image)
    if written is not None:
        write_seen(detections, image, written)
    counts = known[detections.labels]
    image_id: Any = truth.image_ids[row]
    if rles is None:
        return replace(detections[counts], classes=mapped).to_coco(image_id=image_id)
    boxes = replace(detections[counts], classes=mapped)
    chosen = [rle for rle, counted in zip(rles, counts.tolist(), strict=True) if counted]
    nothing = replace(boxes, roi_masks=np.zeros((len(boxes), 1, 1), np.float32))
    return [
        {**item, "segmentation": rle}
        for item, rle in zip(nothing.to_coco(image_id=image_id), chosen, strict=True)
    ]


def write_seen(detections: Detections, image: Listed, written: Written) -> None:
    """`<stem>.txt` with lines `class score x1 y1 x2 y2`, and the picture with what was found in it."""
    good = detections.above(written.score)
    lines = "".join(text_lines(good))
    write_whole(written.folder / f"{image.stem}.txt", lines.encode())
    if written.draw:
        from maskrcnn.drawing import draw
        from maskrcnn.images import read_image

        picture = draw(read_image(image.path), good)
        write_picture(written.folder / image.stem, Path(image.path).suffix, picture)


def text_lines(detections: Detections) -> Iterator[str]:
    """`class score x1 y1 x2 y2` of each, in image pixels; names may have spaces, as theirs may."""
    rows = zip(detections.names(), detections.scores.tolist(), detections.boxes.tolist(), strict=True)
    for name, score, box in rows:
        yield f"{name} {score:.6f} {' '.join(f'{side:.3f}' for side in box)}\n"
