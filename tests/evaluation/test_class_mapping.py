"""A model's classes find their categories by id where names agree, else by name, and never by guess."""

import pytest

from maskrcnn.errors import UserError
from maskrcnn.evaluation.class_mapping import ClassMapping, map_classes
from maskrcnn.evaluation.ground_truth import ground_truth_of
from maskrcnn.spec import Classes


def mapped(classes: Classes, categories: dict[int | str, str], outputs: int = 0) -> ClassMapping:
    listed = [{"id": number, "name": name} for number, name in categories.items()]
    truth = ground_truth_of([], [], listed, "truth.json")
    return map_classes(classes, outputs or len(classes), truth)


def test_same_ids_and_names_need_no_words() -> None:
    found = mapped(Classes(("cat", "dog"), (17, 18)), {18: "dog", 17: "cat"})
    assert found == ClassMapping((17, 18), ())


def test_other_ids_are_taken_by_name_whatever_its_capitals_and_underscores() -> None:
    found = mapped(Classes(("Dining_Table", "cat"), (1, 2)), {67: "dining table", 17: "cat"})
    assert found.category_ids == (67, 17)
    assert found.notes == ("2 classes have another id in truth.json and are taken by their names",)


def test_an_id_with_another_name_is_not_taken() -> None:
    found = mapped(Classes(("cat", "dog"), (1, 2)), {1: "dog", 2: "bird"})
    assert found.category_ids == (None, 1)
    assert found.notes == (
        "1 classes have another id in truth.json and are taken by their names",
        "1 classes of the model are not in truth.json: cat",
        "the model does not know 1 of 2 classes: bird",
    )


def test_outputs_without_a_name_among_named_ones_are_no_category() -> None:
    found = mapped(Classes(("cat", ""), (17, 18)), {17: "cat", 18: "dog"})
    assert found.category_ids == (17, None)


def test_a_model_without_names_is_taken_by_its_numbers_from_one() -> None:
    found = mapped(Classes(), {1: "cat", 2: "dog"}, outputs=2)
    assert found.category_ids == (1, 2)
    assert found.notes == ("the model has no class names: its classes are taken by their numbers",)


def test_ids_may_be_strings() -> None:
    assert mapped(Classes(("cat",), (1,)), {"n01": "cat"}).category_ids == ("n01",)


def test_nothing_in_common_is_an_error_that_names_both_sides() -> None:
    with pytest.raises(UserError, match=r"0 of 2 classes of the model \(cat, dog\) .* truth.json \(car\)"):
        mapped(Classes(("cat", "dog"), (1, 2)), {1: "car"})
