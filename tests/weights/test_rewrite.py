"""Tables rename every tensor, run backwards, and refuse what they do not know."""

import re

import numpy as np
import pytest
from frameworks import Plan, detectron2_shapes, filled, hollow, mmdetection_shapes
from golden.synthetic import recording

from maskrcnn.errors import UserError
from maskrcnn.weights.rewrite import (
    BACKGROUND_TO_LAST,
    DROP_BACKGROUND_BOX,
    DROP_BACKGROUND_MASK,
    Row,
    _regex,
    rewrite,
    rewrite_back,
)
from maskrcnn.weights.sources import detectron2, mmdetection, torchvision

RECORDED = {
    "torchvision-r50-fpn": torchvision.TABLE,
    "torchvision-r50-fpn-v2": torchvision.TABLE,
    "detectron2-r50-fpn": detectron2.TABLE,
    "detectron2-r50-c4": detectron2.TABLE,
    "mmdetection-r50-fpn": mmdetection.TABLE,
}


def test_captures_carry_numbers_and_shift_them() -> None:
    table = (Row("layer{s}.{b}.bn{i}.{statistic}", "res{s+1}.{b}.conv{i}.norm.{statistic}"),)
    found = rewrite({"layer3.22.bn2.running_var": np.ones(4)}, table, "x")
    assert list(found.tensors) == ["res4.22.conv2.norm.running_var"]
    assert found.used == ((table[0], 1),)
    assert list(rewrite_back(found.tensors, table)) == ["layer3.22.bn2.running_var"]


def test_a_number_has_no_leading_zero_and_at_most_three_digits() -> None:
    table = (Row("conv{i}", "c{i}"),)
    for name in ("conv01", "conv1000", "conv", "conv1x", "aconv1"):
        with pytest.raises(UserError, match=f"{name} is not part"):
            rewrite({name: np.ones(1)}, table, "x")


def test_the_background_row_moves_to_the_end_and_its_boxes_and_mask_are_dropped() -> None:
    scores = np.arange(3)[:, None]  # background, apple, pear
    boxes = np.repeat(np.arange(3), 4)
    assert BACKGROUND_TO_LAST.apply(scores)[:, 0].tolist() == [1, 2, 0]
    assert DROP_BACKGROUND_BOX.apply(boxes).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert DROP_BACKGROUND_MASK.apply(scores)[:, 0].tolist() == [1, 2]


def test_class_agnostic_layers_have_no_background_row_to_drop() -> None:
    assert DROP_BACKGROUND_BOX.apply(np.arange(4)).tolist() == [0, 1, 2, 3]
    assert DROP_BACKGROUND_MASK.apply(np.arange(1)).tolist() == [0]


@pytest.mark.parametrize("name", RECORDED)
def test_exactly_one_row_claims_each_key_of_a_recorded_model(name: str) -> None:
    for key, _, _ in recording(name).keys:
        assert sum(bool(_regex(row.theirs).fullmatch(key)) for row in RECORDED[name]) == 1, key


@pytest.mark.parametrize(
    "plan", [Plan(), Plan(neck="c4"), Plan(norm="gn", head_norm="gn", box_convs=4, fcs=1)]
)
def test_exactly_one_row_claims_each_key_of_other_models(plan: Plan) -> None:
    for shapes, table in (
        (detectron2_shapes(plan), detectron2.TABLE),
        (mmdetection_shapes(plan), mmdetection.TABLE),
    ):
        for key in shapes:
            assert sum(bool(_regex(row.theirs).fullmatch(key)) for row in table) == 1, key


@pytest.mark.parametrize("name", RECORDED)
def test_a_table_runs_backwards_to_the_same_names_and_values(name: str) -> None:
    shapes = {key: tuple(shape) for key, shape, _ in recording(name).keys}
    small = {key: tuple(min(side, 8) for side in shape) for key, shape in shapes.items()}
    tensors = filled(small)
    back = rewrite_back(rewrite(tensors, RECORDED[name], "x").tensors, RECORDED[name])
    if "c4" in name:  # without FPN the trunk does not stand under bottom_up, which our names do not show
        back = {key.replace("backbone.bottom_up.", "backbone."): array for key, array in back.items()}
    if "v2" in name:  # its one fully connected layer is called by its position
        back = {key.replace("box_head.fc6", "box_head.5"): array for key, array in back.items()}
    assert back.keys() == tensors.keys()
    for key, array in tensors.items():
        kept = 4 if "bbox_pred" in key else 1 if "mask_fcn_logits" in key else 0
        kept = kept if name.startswith("torchvision") and "rpn" not in key else 0
        np.testing.assert_array_equal(
            back[key][kept:] if kept else back[key], array[kept:] if kept else array
        )


def test_unknown_keys_are_named_and_counted() -> None:
    tensors = hollow(detectron2_shapes(Plan())) | {
        f"sem_seg_head.p{level}.weight": np.ones(1) for level in range(6)
    }
    with pytest.raises(UserError, match=r"p0.weight, .*p3.weight and 2 more are not part") as caught:
        rewrite(tensors, detectron2.TABLE, "x.pkl")
    assert caught.value.hint


def test_two_spellings_of_one_parameter_are_refused() -> None:
    tensors = {"rpn.head.conv.weight": np.ones(1), "rpn.head.conv.0.0.weight": np.ones(1)}
    with pytest.raises(
        UserError, match=r"rpn.head.conv.0.0.weight and rpn.head.conv.weight are the same parameter"
    ):
        rewrite(tensors, torchvision.TABLE, "x.pth")


def test_old_and_live_spellings_of_torchvision_are_the_same_parameters() -> None:
    old = {
        r"backbone.fpn.inner_blocks.\1.": r"backbone\.fpn\.inner_blocks\.(\d)\.0\.",
        r"backbone.fpn.layer_blocks.\1.": r"backbone\.fpn\.layer_blocks\.(\d)\.0\.",
        "rpn.head.conv.": r"rpn\.head\.conv\.0\.0\.",
        "roi_heads.mask_head.mask_fcn1.": r"roi_heads\.mask_head\.0\.0\.",
        "roi_heads.mask_head.mask_fcn4.": r"roi_heads\.mask_head\.3\.0\.",
    }
    live = [key for key, _, _ in recording("torchvision-r50-fpn").keys]
    spelled = {}
    for key in live:
        name = key
        for spelling, pattern in old.items():
            name = re.sub(pattern, spelling, name)
        spelled[name] = key
    assert sum(name != key for name, key in spelled.items()) == 22
    ours = rewrite({key: np.ones(8) for key in live}, torchvision.TABLE, "x").origins
    for name, origin in rewrite({key: np.ones(8) for key in spelled}, torchvision.TABLE, "x").origins.items():
        assert ours[name] == spelled[origin]
