"""Examines annotations: what would stop or spoil a training, each fault with its file and annotation."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from maskrcnn.data.content import Content, Instance, Picture, bounds
from maskrcnn.data.pictures import Measured, measure, pictures_below
from maskrcnn.data.sample import run_lengths

Severity = Literal["error", "warning", "note"]

# A box this much beyond the picture, or off its outline, is rounding (pixels).
TOLERANCE = 1.5
# Share of crowds above which they are an annotation tool's brush strokes and not crowds: COCO has 1 %.
CROWDS = 0.05


@dataclass(frozen=True)
class Finding:
    """One fault. kind: its name, the same for all faults of the sort; place: file and item."""

    severity: Severity
    kind: str
    place: str
    message: str


SEVERITIES: dict[str, Severity] = {
    "unusable entry": "error",
    "duplicate image id": "error",
    "duplicate annotation id": "error",
    "unknown image": "error",
    "unknown category": "error",
    "missing file": "error",
    "unreadable file": "error",
    "size mismatch": "error",
    "rotated by EXIF": "error",
    "degenerate box": "error",
    "mask of another size": "error",
    "empty mask": "error",
    "outside the image": "error",
    "duplicate file name": "warning",
    "duplicate category name": "warning",
    "short polygon": "warning",
    "box beyond the image": "warning",
    "box off its outline": "warning",
    "duplicate instance": "warning",
    "brushed crowds": "warning",
    "unused category": "warning",
    "no segmentation": "warning",
    "skipped shape": "warning",
    "tiny instance": "note",
    "image without instances": "note",
    "picture without entry": "note",
}
"""Every kind of fault. An error stops a training or makes it learn something wrong."""


def examine(content: Content) -> list[Finding]:
    """All faults, errors first. Reads the header of every picture, and no pixels."""
    measured = {picture.id: measure(content.folder / picture.file_name) for picture in content.pictures}
    found = [
        *_of_pictures(content, measured),
        *_of_categories(content),
        *_of_instances(content),
        *_of_the_whole(content),
    ]
    order = ("error", "warning", "note")
    return sorted(found, key=lambda finding: order.index(finding.severity))


def faults_of(one: Instance, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Kind and words for what is wrong with one instance on a picture of this (height, width)."""
    x, y, width, height = one.bbox
    if not all(math.isfinite(value) for value in one.bbox) or width <= 0 or height <= 0:
        yield "degenerate box", f"has the box {width:g} x {height:g} at {x:g}, {y:g}"
        return
    rows, columns = size
    if x >= columns or y >= rows or x + width <= 0 or y + height <= 0:
        yield "outside the image", f"has its box at {x:g}, {y:g}, the picture is {columns} x {rows}"
        return
    beyond = max(-x, -y, x + width - columns, y + height - rows)
    if beyond > TOLERANCE:
        yield "box beyond the image", f"reaches {beyond:g} pixels beyond the picture of {columns} x {rows}"
    if min(width, height) < 1:
        yield "tiny instance", f"is {width:g} x {height:g} pixels"
    if one.segmentation is None:
        yield "no segmentation", "has a box and no outline"
    elif isinstance(one.segmentation, dict):
        yield from _faults_of_rle(one, size)
    else:
        yield from _faults_of_polygons(one)


def _faults_of_rle(one: Instance, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    assert isinstance(one.segmentation, dict)
    height, width = one.segmentation["size"]
    if (height, width) != size:
        yield (
            "mask of another size",
            f"has a mask of {width} x {height}, the picture is {size[1]} x {size[0]}",
        )
        return
    counts = one.segmentation["counts"]
    try:
        lengths = run_lengths(counts) if isinstance(counts, str) else counts
        total, inside = sum(int(run) for run in lengths), sum(int(run) for run in lengths[1::2])
    except (ValueError, IndexError, TypeError, UnicodeEncodeError):
        total, inside = -1, 0
    if total != height * width:
        yield "mask of another size", f"has a mask of {total} pixels, the picture has {height * width}"
    elif inside == 0:
        yield "empty mask", "has a mask without pixels"


def _faults_of_polygons(one: Instance) -> Iterator[tuple[str, str]]:
    assert isinstance(one.segmentation, list)
    good = [part for part in one.segmentation if is_polygon(part)]
    if len(good) < len(one.segmentation):
        short = next(part for part in one.segmentation if not is_polygon(part))
        yield "short polygon", f"has a polygon of {len(short)} numbers"
    if not good:
        yield "empty mask", "has no polygon of three points"
        return
    x, y, width, height = bounds(good)
    off = max(
        abs(x - one.bbox[0]),
        abs(y - one.bbox[1]),
        abs(x + width - one.bbox[0] - one.bbox[2]),
        abs(y + height - one.bbox[1] - one.bbox[3]),
    )
    if not math.isfinite(off):
        yield "empty mask", "has a polygon with a coordinate that is no number"
    elif off > TOLERANCE + 0.02 * max(width, height):
        yield "box off its outline", f"has a box {off:.1f} pixels off its polygons"


def is_polygon(part: list[float]) -> bool:
    """Whether these are three points or more."""
    return len(part) >= 6 and len(part) % 2 == 0


def _of_pictures(content: Content, measured: dict[int, Measured | None]) -> Iterator[Finding]:
    ids = Counter(picture.id for picture in content.pictures)
    names = Counter(picture.file_name for picture in content.pictures)
    for picture in content.pictures:
        place = f"{content.path}: image {picture.id} ({picture.file_name})"
        if ids[picture.id] > 1:
            yield finding("duplicate image id", place, f"is one of {ids[picture.id]} with this id")
        if names[picture.file_name] > 1:
            yield finding(
                "duplicate file name", place, f"is one of {names[picture.file_name]} with this name"
            )
        path, header = content.folder / picture.file_name, measured[picture.id]
        if header is None:
            kind = "unreadable file" if path.is_file() else "missing file"
            words = "is no readable picture" if path.is_file() else "is not there"
            yield finding(kind, place, f"{path} {words}")
        elif picture.size != header.upright:
            yield _size_fault(picture, header, place)


def _size_fault(picture: Picture, header: Measured, place: str) -> Finding:
    said = f"is annotated as {picture.size[1]} x {picture.size[0]}"
    is_now = f"the file is {header.upright[1]} x {header.upright[0]}"
    if picture.size == header.stored:
        return finding("rotated by EXIF", place, f"{said}, as it is stored; upright, by its EXIF, {is_now}")
    return finding("size mismatch", place, f"{said}, {is_now}")


def _of_categories(content: Content) -> Iterator[Finding]:
    used = Counter(one.category_id for one in content.instances)
    names = Counter(content.categories.values())
    for number, name in sorted(content.categories.items()):
        place = f"{content.path}: category {number} ({name})"
        if not used[number]:
            yield finding("unused category", place, "has no instance")
        if names[name] > 1:
            yield finding("duplicate category name", place, f"is one of {names[name]} with this name")


def _of_instances(content: Content) -> Iterator[Finding]:
    pictures = {picture.id: picture for picture in content.pictures}
    ids = Counter(one.id for one in content.instances)
    seen: set[tuple[int, int, str]] = set()
    for one in content.instances:
        place = one.place or f"{content.path}: annotation {one.id}"
        if ids[one.id] > 1:
            yield finding("duplicate annotation id", place, f"is one of {ids[one.id]} with the id {one.id}")
        if one.category_id not in content.categories:
            yield finding(
                "unknown category", place, f"has category_id {one.category_id}, which is not listed"
            )
        if one.image_id not in pictures:
            yield finding("unknown image", place, f"has image_id {one.image_id}, which is not listed")
            continue
        twin = twin_key(one)
        if twin in seen:
            yield finding("duplicate instance", place, "has the outline of another of its category")
        seen.add(twin)
        for kind, words in faults_of(one, pictures[one.image_id].size):
            yield finding(kind, place, words)


def twin_key(one: Instance) -> tuple[int, int, str]:
    """Equal for instances that were annotated twice."""
    return one.image_id, one.category_id, repr((one.bbox, one.segmentation))


def _of_the_whole(content: Content) -> Iterator[Finding]:
    place = str(content.path)
    for words in content.skipped:
        kind = "unusable entry" if content.format == "coco" else "skipped shape"
        yield finding(kind, place, words.removeprefix(f"{place}: "))
    crowds = [one for one in content.instances if one.crowd and isinstance(one.segmentation, dict)]
    if len(crowds) > CROWDS * max(len(content.instances), 1):
        share = 100 * len(crowds) / len(content.instances)
        yield finding(
            "brushed crowds",
            place,
            f"{len(crowds)} of {len(content.instances)} annotations ({share:.0f} %) are RLE with iscrowd 1, "
            "as CVAT exports brush strokes; crowds are not learnt from (--crowds instance changes that)",
        )
    with_instances = {one.image_id for one in content.instances}
    empty = [picture for picture in content.pictures if picture.id not in with_instances]
    if empty:
        count = f"{len(empty)} of {len(content.pictures)} images have no instance"
        yield finding("image without instances", place, f"{count}, the first is {empty[0].file_name}")
    listed = {(content.folder / picture.file_name).resolve() for picture in content.pictures}
    others = [path for path in pictures_below(content.folder).values() if path.resolve() not in listed]
    inside = not any(picture.file_name.startswith("..") for picture in content.pictures)
    if others and inside and content.format != "labelme":
        yield finding(
            "picture without entry", place, f"{len(others)} pictures are not listed, such as {others[0]}"
        )


def finding(kind: str, place: str, message: str) -> Finding:
    """A fault with the severity of its kind."""
    return Finding(SEVERITIES[kind], kind, place, message)


def count_by_kind(findings: list[Finding]) -> dict[str, list[Finding]]:
    """Findings by kind, in the order of their first."""
    found: dict[str, list[Finding]] = defaultdict(list)
    for each in findings:
        found[each.kind].append(each)
    return dict(found)
