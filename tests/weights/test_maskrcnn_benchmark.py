"""Checkpoints of maskrcnn-benchmark: every name placed, what its numbers mean, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frameworks import SMALL, SMALL_GN, Plan, filled
from golden.synthetic import recording
from lineage import maskrcnn_benchmark_file, maskrcnn_benchmark_shapes, shared

from maskrcnn import presets
from maskrcnn.backends.pytorch import open_pytorch
from maskrcnn.config import AnchorConfig, Conventions
from maskrcnn.errors import UserError
from maskrcnn.model.anchors import cell_anchors
from maskrcnn.weights.architecture import infer, parameter_shapes
from maskrcnn.weights.convert import Report, convert
from maskrcnn.weights.detectron_lineage import RATIOS, legacy_cell
from maskrcnn.weights.model_file import read_model_file
from maskrcnn.weights.rewrite import rewrite, rewrite_back
from maskrcnn.weights.sources.maskrcnn_benchmark import TABLE

Converted = Callable[..., Report]
_MASK = "roi_heads.mask.feature_extractor"


@pytest.fixture
def converted(tmp_path: Path) -> Converted:
    """Convert in a temporary folder."""
    return lambda source, **arguments: convert(source, tmp_path / "out.safetensors", **arguments)


def _without(plan: Plan) -> tuple[str, ...]:
    """Rows of layers that have a group norm, or of those that have none."""
    layers = ("backbone.fpn.fpn_inner{l}", "backbone.fpn.fpn_layer{l}", f"{_MASK}.mask_fcn{{i}}")
    ending = ".{parameter}" if plan.head_norm else ".0.weight"
    return tuple(f"{name}{ending}" for name in layers)


@pytest.mark.parametrize("changes", [{}, {"neck": "c4"}, SMALL_GN, {"groups": 2, "group_width": 4}])
def test_every_name_is_placed_and_comes_back_with_the_same_bits(changes: dict[str, Any]) -> None:
    plan = Plan(**{**SMALL, **changes})
    theirs = shared(filled(maskrcnn_benchmark_shapes(plan)))
    ours = rewrite(theirs, TABLE, "x").tensors
    model = infer({name: array.shape for name, array in ours.items()}, "x")
    assert {name: array.shape for name, array in ours.items()} == parameter_shapes(model)
    back = rewrite_back(ours, tuple(row for row in TABLE if row.theirs not in _without(plan)))
    assert back.keys() == theirs.keys()
    for name, array in theirs.items():
        # The background's box and mask take part in nothing and are dropped.
        rows = 4 if "predictor.bbox_pred" in name else 1 if ".mask_fcn_logits." in name else 0
        np.testing.assert_array_equal(back[name][rows:], array[rows:])
        assert not back[name][:rows].any()


def test_the_published_r50_fpn_has_exactly_these_names() -> None:
    theirs = {name: shape for name, shape, _ in recording("maskrcnn-benchmark-r50-fpn").keys}
    assert maskrcnn_benchmark_shapes(Plan()) == theirs


@pytest.mark.parametrize(
    ("changes", "stride_in_1x1", "pad", "samples", "pre_nms", "norm", "eps"),
    [
        ({}, True, 32, 2, 1000, "frozen_bn", 0.0),
        ({"depth": 101}, True, 32, 2, 1000, "frozen_bn", 0.0),
        ({"depth": 101, "groups": 2, "group_width": 4}, False, 32, 2, 1000, "frozen_bn", 0.0),
        ({"neck": "c4"}, True, 1, 0, 6000, "frozen_bn", 0.0),
        (SMALL_GN, False, 32, 2, 1000, "gn", 1e-5),
    ],
)
def test_its_numbers(
    tmp_path: Path,
    converted: Converted,
    changes: dict[str, Any],
    stride_in_1x1: bool,
    pad: int,
    samples: int,
    pre_nms: int,
    norm: str,
    eps: float,
) -> None:
    spec = converted(maskrcnn_benchmark_file(tmp_path / "x.pth", **changes)).spec
    assert spec.origin.source == "maskrcnn-benchmark"
    assert (spec.model.mean, spec.model.std) == ((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))
    preprocess = spec.preprocess
    assert (preprocess.size_rule, preprocess.filter, preprocess.channels) == (
        "maskrcnn_benchmark",
        "pillow",
        "bgr",
    )
    assert (preprocess.short, preprocess.long, preprocess.pad_multiple) == (800, 1333, pad)
    trunk = spec.model.backbone
    assert (trunk.stride_in_1x1, trunk.norm, trunk.norm_eps) == (stride_in_1x1, norm, eps)
    habits = spec.model.conventions
    assert (habits.plus_one, habits.nms_inclusive, habits.roi_aligned) == (True, True, False)
    assert (habits.anchor_cell, habits.anchor_order, habits.rpn_scores) == (
        "legacy",
        "ratio_first",
        "sigmoid",
    )
    assert (habits.level_eps_inside, habits.level_eps_outside) == (1e-6, 0.0)
    assert (habits.roi_samples, habits.mask_paste, habits.clip_to_image) == (samples, "expanded", False)
    assert (spec.model.rpn.pre_nms, spec.model.rpn.post_nms) == (pre_nms, 1000)
    assert (spec.model.rpn.smooth_l1_beta, spec.model.box_head.smooth_l1_beta) == (1 / 9, 1.0)


def test_eighty_classes_are_coco(tmp_path: Path, converted: Converted) -> None:
    spec = converted(maskrcnn_benchmark_file(tmp_path / "x.pth", classes=80)).spec
    assert spec.classes == presets.COCO


def test_class_agnostic_boxes_keep_the_foreground_rows(tmp_path: Path, converted: Converted) -> None:
    source = maskrcnn_benchmark_file(tmp_path / "x.pth", agnostic=True)
    assert converted(source).spec.model.box_head.class_agnostic
    _, ours = read_model_file(tmp_path / "out.safetensors")
    theirs = filled(maskrcnn_benchmark_shapes(Plan(**SMALL, agnostic=True)))
    expected = theirs["roi_heads.box.predictor.bbox_pred.bias"][4:]
    np.testing.assert_array_equal(ours["box_head.deltas.bias"], expected)


def test_a_c4_mask_head_with_its_own_last_stage_is_refused(tmp_path: Path, converted: Converted) -> None:
    name = "roi_heads.mask.feature_extractor.head.layer4.1.conv2.weight"
    source = maskrcnn_benchmark_file(
        tmp_path / "x.pth", lambda state: state.update({name: state[name] + 1}), neck="c4"
    )
    with pytest.raises(UserError, match=rf"{name} is not the same as roi_heads\.box") as caught:
        converted(source)
    assert "share their last stage" in caught.value.hint


def saved_anchors(cells: list[np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
    names = (f"rpn.anchor_generator.cell_anchors.{level}" for level in range(len(cells)))
    return lambda state: state.update(dict(zip(names, cells, strict=True)))


STRIDES = (4, 8, 16, 32, 64)


@pytest.mark.parametrize(("stride", "sizes"), [(4, (32.0,)), (64, (512.0,)), (16, (32.0, 64.0, 128.0))])
def test_legacy_cells_are_those_of_the_network(stride: int, sizes: tuple[float, ...]) -> None:
    habits = Conventions(anchor_cell="legacy", anchor_order="ratio_first")
    assert (
        list(map(list, legacy_cell(sizes, RATIOS, stride)))
        == cell_anchors(sizes, RATIOS, stride, habits).tolist()
    )


def test_saved_anchors_of_other_sizes_are_recognised(tmp_path: Path, converted: Converted) -> None:
    sizes = ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))
    cells = [
        np.float32(legacy_cell(level, RATIOS, stride)) for level, stride in zip(sizes, STRIDES, strict=True)
    ]
    spec = converted(maskrcnn_benchmark_file(tmp_path / "x.pth", saved_anchors(cells))).spec
    assert spec.model.anchors == AnchorConfig(sizes=sizes)


def test_saved_anchors_that_no_size_makes_are_kept_as_numbers(tmp_path: Path, converted: Converted) -> None:
    cells = [
        np.float32([[-1, -2, 3, 4], [-10, -10, 9, 9], [0, 0, 31, 7]]) * (level + 1) for level in range(5)
    ]
    spec = converted(maskrcnn_benchmark_file(tmp_path / "x.pth", saved_anchors(cells))).spec
    assert spec.model.anchors.cells[1][0] == (-2.0, -4.0, 6.0, 8.0)
    assert spec.model.anchors.sizes[0] == pytest.approx((35**0.5, 20.0, 16.0), abs=1e-3)
    network = open_pytorch(tmp_path / "out.safetensors", device="cpu").model
    anchors = network.anchors([torch.zeros(1, 1, 2, 2)] * 5, (128, 128))
    # The second cell of the second level lies 8 pixels to the right.
    assert anchors[1][3].tolist() == [6.0, -4.0, 14.0, 8.0]


def test_cells_of_another_number_than_sizes_and_ratios_make_are_refused(
    tmp_path: Path, converted: Converted
) -> None:
    source = maskrcnn_benchmark_file(tmp_path / "x.pth")
    with pytest.raises(UserError, match="as many anchors in each level"):
        converted(source, settings=["model.anchors.cells=[[[0,0,1,1]]]"])


def test_its_config_decides_what_names_cannot(tmp_path: Path, converted: Converted) -> None:
    config = tmp_path / "config.yml"
    config.write_text(
        "INPUT: {MIN_SIZE_TEST: 640, MAX_SIZE_TEST: 1000, PIXEL_MEAN: [1.0, 2.0, 3.0], TO_BGR255: true}\n"
        "DATALOADER: {SIZE_DIVISIBILITY: 0}\n"
        "MODEL:\n"
        "  RESNETS: {STRIDE_IN_1X1: false}\n"
        "  RPN: {PRE_NMS_TOP_N_TEST: 900, FPN_POST_NMS_TOP_N_TEST: 700, POST_NMS_TOP_N_TEST: 1}\n"
        "  ROI_HEADS: {SCORE_THRESH: 0.2, NMS: 0.4, DETECTIONS_PER_IMG: 30}\n"
        "  ROI_BOX_HEAD: {POOLER_SAMPLING_RATIO: 4}\n"
    )
    source = maskrcnn_benchmark_file(tmp_path / "x.pth")
    spec = converted(source, source_config=config).spec
    assert (spec.preprocess.short, spec.preprocess.long, spec.preprocess.pad_multiple) == (640, 1000, 1)
    assert (spec.model.mean, spec.model.backbone.stride_in_1x1) == ((1.0, 2.0, 3.0), False)
    assert (spec.model.rpn.pre_nms, spec.model.rpn.post_nms) == (900, 700)
    box = spec.model.box_head
    assert (box.score_over, box.nms_iou, box.detections) == (0.2, 0.4, 30)
    assert spec.model.conventions.roi_samples == 4
    styled = converted(source, source_config=config, style="caffe").spec
    assert (styled.model.mean, styled.model.backbone.stride_in_1x1) == (presets.MEAN_CAFFE2, True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("INPUT: {}\n", "has no MODEL section"),
        ("MODEL: {}\nINPUT: {TO_BGR255: false}\n", "TO_BGR255 is false"),
        ("MODEL: {ROI_HEADS: {NMS: many}}\n", "MODEL.ROI_HEADS.NMS is 'many'"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(
    tmp_path: Path, converted: Converted, text: str, sentence: str
) -> None:
    config = tmp_path / "config.yml"
    config.write_text(text)
    with pytest.raises(UserError, match=sentence):
        converted(maskrcnn_benchmark_file(tmp_path / "x.pth"), source_config=config)


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        (
            "roi_heads.box.feature_extractor.fc7.weight",
            (24, 23),
            "fc7.weight is 24 x 23 where a R50-FPN has 24 x 24",
        ),
        (
            "roi_heads.box.feature_extractor.fc6.1.weight",
            (24,),
            r"fc6.1.weight is not part of a Mask R-CNN",
        ),
        ("backbone.body.layer2.0.conv2.offset.weight", (27,), "offset.weight is not part of a Mask R-CNN"),
    ],
)
def test_a_wrong_tensor_is_named_as_it_is_there(
    tmp_path: Path, converted: Converted, name: str, shape: tuple[int, ...], sentence: str
) -> None:
    source = maskrcnn_benchmark_file(
        tmp_path / "x.pth", lambda state: state.update({name: np.ones(shape, np.float32)})
    )
    with pytest.raises(UserError, match=sentence):
        converted(source)
