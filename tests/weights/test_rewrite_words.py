"""Rows with words of a source's own, names that a source saves twice, and changes one after the other."""

import numpy as np
import pytest

from maskrcnn.errors import UserError
from maskrcnn.weights.rewrite import (
    BACKGROUND_TO_LAST,
    DROP,
    DROP_BACKGROUND_BOX,
    REPEATED,
    Op,
    Row,
    rewrite,
    rewrite_back,
    their_name,
    then,
)


def test_a_source_spells_listed_words_its_own_way() -> None:
    layer = "{layer:branch1|branch2a|branch2b|branch2c}"
    table = (Row(f"res{{s}}_{layer}_{{parameter:w|b}}", "res{s}.{layer}.{parameter}"),)
    theirs = {"res2_branch1_w": np.ones(1), "res2_branch2c_b": np.zeros(1)}
    found = rewrite(theirs, table, "x").tensors
    assert list(found) == ["res2.shortcut.weight", "res2.conv3.bias"]
    assert list(rewrite_back(found, table)) == list(theirs)
    for name in ("res2_conv1_w", "res2_branch1_weight", "res2_branch2_w"):
        with pytest.raises(UserError, match=f"{name} is not part"):
            rewrite({name: np.ones(1)}, table, "x")


def test_any_stands_for_whatever_is_there() -> None:
    table = (Row("{any}_momentum", "", DROP), Row("conv1_w", "conv1.weight"))
    found = rewrite({"res2_0_branch2a_w_momentum": np.ones(1), "conv1_w": np.ones(1)}, table, "x")
    assert (list(found.tensors), [count for _, count in found.used]) == (["conv1.weight"], [1, 1])


def test_a_name_with_a_number_that_ours_has_not_stays_ours_in_errors() -> None:
    table = (Row("fpn_res{s}_{b}_sum_w", "fpn.output{s}.weight"),)
    assert list(rewrite({"fpn_res4_22_sum_w": np.ones(1)}, table, "x").tensors) == ["fpn.output4.weight"]
    assert their_name("fpn.output4.weight", table) == "fpn.output4.weight"


SHARED = (Row("box.conv{i}", "res5.conv{i}"), Row("mask.conv{i}", "res5.conv{i}", REPEATED))


def test_a_parameter_saved_under_two_names_is_one_and_comes_back_as_two() -> None:
    theirs = {"box.conv1": np.arange(3.0), "mask.conv1": np.arange(3.0)}
    found = rewrite(theirs, SHARED, "x")
    assert (list(found.tensors), found.origins) == (["res5.conv1"], {"res5.conv1": "box.conv1"})
    back = rewrite_back(found.tensors, SHARED)
    assert {name: array.tolist() for name, array in back.items()} == {
        "box.conv1": [0, 1, 2],
        "mask.conv1": [0, 1, 2],
    }


def test_two_names_with_different_values_are_refused() -> None:
    with pytest.raises(UserError, match=r"mask\.conv1 is not the same as box\.conv1"):
        rewrite({"box.conv1": np.zeros(3), "mask.conv1": np.ones(3)}, SHARED, "x")
    with pytest.raises(UserError, match=r"box\.conv1 is not the same as mask\.conv1"):
        rewrite({"mask.conv1": np.zeros(3), "box.conv1": np.ones(3)}, SHARED, "x")
    assert list(rewrite({"mask.conv1": np.zeros(3), "box.conv1": np.zeros(3)}, SHARED, "x").tensors)


def test_changes_are_done_in_turn_and_undone_in_reverse() -> None:
    double = Op("double", lambda array: 2 * array, lambda array: array // 2)
    both = then(double, BACKGROUND_TO_LAST)
    assert both.inverse is not None
    assert (both.name, both.apply(np.arange(3)).tolist()) == ("double, background_to_last", [2, 4, 0])
    assert both.inverse(np.array([2, 4, 0])).tolist() == [0, 1, 2]
    assert then(DROP, DROP_BACKGROUND_BOX).inverse is None
