"""Which category of a data set each class of a model is."""

from dataclasses import dataclass

from maskrcnn.errors import UserError
from maskrcnn.evaluation.ground_truth import DatasetId, GroundTruth
from maskrcnn.spec import Classes
from maskrcnn.whole_file import shown

LISTED = 5


@dataclass(frozen=True)
class ClassMapping:
    """category_ids: by label of the model, None for a class that the data set lacks. notes: in words."""

    category_ids: tuple[DatasetId | None, ...]
    notes: tuple[str, ...]


def map_classes(classes: Classes, outputs: int, truth: GroundTruth) -> ClassMapping:
    """By id where the names agree, else by name; only a model without names is taken by its ids alone.

    classes: of the model, whose ids are label + 1 where it has none. outputs: how many classes it finds.
    Raises UserError if no class is in the data set.
    """
    names = [classes.names[label] if label < len(classes.names) else "" for label in range(outputs)]
    ids = [classes.ids[label] if label < len(classes.ids) else label + 1 for label in range(outputs)]
    name_of = {each: _plain(name) for each, name in zip(truth.category_ids, truth.names, strict=True)}
    id_of = {_plain(name): each for each, name in zip(truth.category_ids, truth.names, strict=True) if name}
    named = any(names)

    def category(label: int) -> DatasetId | None:
        name = _plain(names[label])
        if not named:
            return ids[label] if ids[label] in name_of else None
        return ids[label] if name and name_of.get(ids[label]) == name else id_of.get(name)

    found = tuple(category(label) for label in range(outputs))
    if all(each is None for each in found):
        raise UserError(
            f"0 of {outputs} classes of the model ({_some(names, ids)}) are among the {len(truth.names)} "
            f"categories of {truth.place} ({_some(list(truth.names), list(truth.category_ids))})",
            hint="use the annotations of a data set with the model's classes, or give them the same names",
        )
    return ClassMapping(found, tuple(_notes(found, names, ids, truth)))


def _notes(
    found: tuple[DatasetId | None, ...], names: list[str], ids: list[int], truth: GroundTruth
) -> list[str]:
    notes = []
    if not any(names):
        notes.append("the model has no class names: its classes are taken by their numbers")
    moved = [label for label, each in enumerate(found) if each is not None and each != ids[label]]
    if moved:
        notes.append(f"{len(moved)} classes have another id in {truth.place} and are taken by their names")
    strange = [label for label, each in enumerate(found) if each is None and names[label]]
    if strange:
        listed = _some([names[label] for label in strange], [ids[label] for label in strange])
        notes.append(f"{len(strange)} classes of the model are not in {truth.place}: {listed}")
    absent = [row for row, each in enumerate(truth.category_ids) if each not in found]
    if absent:
        listed = _some([truth.names[row] for row in absent], [truth.category_ids[row] for row in absent])
        notes.append(f"the model does not know {len(absent)} of {len(truth.names)} classes: {listed}")
    return notes


def _plain(name: str) -> str:
    """`Dining_Table` is `dining table`."""
    return " ".join(name.replace("_", " ").casefold().split())


def _some(names: list[str], ids: list[int] | list[DatasetId]) -> str:
    """The first names, a number where there is none."""
    listed = [shown(name or str(each)) for name, each in zip(names, ids, strict=True)]
    return ", ".join(listed[:LISTED]) + (", ..." if len(listed) > LISTED else "")
