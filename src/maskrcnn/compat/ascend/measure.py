"""COCO average precision of an engine's files, of which a few are in memory at a time."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn.compat.ascend.bins import Bins, Listed, Size, bins_for, read_info
from maskrcnn.compat.ascend.evaluate import Results, Written, items, listed_images, results_below
from maskrcnn.compat.ascend.outputs import stems_in
from maskrcnn.compat.ascend.summary import described_by, described_results
from maskrcnn.errors import UserError
from maskrcnn.whole_file import shown

if TYPE_CHECKING:
    from maskrcnn.evaluation.ground_truth import GroundTruth
    from maskrcnn.evaluation.metrics import Metrics


@dataclass(frozen=True)
class Told:
    """What the user says of results that do not say it themselves.

    info: the info file or description that was written with the bins. model: that they are of. size: (height,
    width) of the network's input. exact: read them with the roundings of Ascend's script.
    """

    info: Path | None = None
    model: str | None = None
    size: Size | None = None
    exact: bool = False


def open_results(folder: Path, told: Told) -> Results:
    """A folder of results, or one with such a folder in it, as ais_infer makes them.

    What is not said anywhere is taken to be mmdetection's R50-FPN in a letterbox of 1216 x 1216.
    Raises UserError for a folder without results.
    """
    folder = results_below(folder)
    bins = _described(folder, told)
    if told.exact and bins.spec.preprocess.resize != "letterbox":
        raise UserError(
            f"--exact: the bins of {shown(folder)} are no letterbox, as those of Ascend's script are",
            hint="leave it out",
        )
    if told.info is not None and not bins.images:
        bins = replace(bins, images=read_info(told.info))
    return Results(folder, bins, stems_in(folder), told.exact)


def _described(folder: Path, told: Told) -> Bins:
    """What a run of ours has left, then the description of the bins; a model that is named says the rest."""
    found = described_results(folder) or (described_by(told.info) if told.info else None)
    if found is None:
        return bins_for(told.model, told.size, centred=True)
    if told.size not in (None, found.size):
        height, width = found.size
        raise UserError(
            f"{shown(folder)}: its bins are {height}x{width}, as was written with them",
            hint="leave --size out",
        )
    if told.model is None:
        return found
    spec = bins_for(told.model, found.size, centred=True).spec
    return replace(found, spec=replace(spec, preprocess=found.spec.preprocess))


def measure(
    results: Results,
    annotations: Path,
    partial: bool = False,
    written: Written | None = None,
    save: Path | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> "Metrics":
    """Score the results of all images of a data set, with its ids.

    partial: measure on the images that have results, where others have none. written: pictures and text files
    to leave on the way. save: a file for the COCO results list. watch: told how many of how many are done.
    Raises UserError for images without results, unless partial.
    """
    from maskrcnn.evaluation.class_mapping import map_classes
    from maskrcnn.evaluation.coco_metrics import evaluate
    from maskrcnn.evaluation.ground_truth import read_ground_truth
    from maskrcnn.evaluation.result_list import results_of
    from maskrcnn.results import GrowingList

    spec = results.bins.spec
    truth = read_ground_truth(annotations)
    images = listed_images(truth, results.bins.images, results.suffixes)
    truth, images, notes = _present(truth, images, annotations, results, partial)
    mapping = map_classes(spec.classes, spec.model.classes, truth)
    with ExitStack() as stack:
        listed = stack.enter_context(GrowingList(save)) if save else None

        def each() -> Iterator[dict[str, Any]]:
            groups = items(results, truth, images, mapping, written)
            for done, group in enumerate(groups, start=1):
                if listed is not None:
                    listed.add(group)
                yield from group
                watch(done, len(images))

        found = results_of(each(), truth, shown(results.folder))
    return evaluate(truth, replace(found, notes=(*notes, *mapping.notes, *found.notes)))


def _present(
    truth: "GroundTruth",
    images: Sequence[Listed | None],
    annotations: Path,
    results: Results,
    partial: bool,
) -> tuple["GroundTruth", list[Listed | None], tuple[str, ...]]:
    """The data set and its images, without those that have no results, and what is to be said of it."""
    missing = [row for row, image in enumerate(images) if image is None]
    if not missing:
        return truth, list(images), ()
    count = f"{len(missing)} of {len(images)} images of {truth.place} have no results"
    first = shown(truth.file_names[missing[0]] or str(truth.image_ids[missing[0]]))
    if not partial or len(missing) == len(images):
        hint = "run the engine on their bins, or measure on the others with --partial"
        if len(missing) == len(images):
            hint = "name the info file that was written with the bins, with --info"
        raise UserError(f"{shown(results.folder)}: {count}, the first is {first}", hint=hint)
    left_out = {truth.image_ids[row] for row in missing}
    note = f"{count} and are left out, the first is {first}: this is the accuracy on another data set"
    return _without(annotations, left_out), [image for image in images if image is not None], (note,)


def _without(annotations: Path, image_ids: set[Any]) -> "GroundTruth":
    """A data set without some images."""
    from maskrcnn.evaluation.ground_truth import ground_truth_of

    content = json.loads(annotations.read_bytes())
    images = [image for image in content["images"] if image["id"] not in image_ids]
    kept = [each for each in content["annotations"] if each.get("image_id") not in image_ids]
    return ground_truth_of(images, kept, content["categories"], shown(annotations))
