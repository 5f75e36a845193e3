"""Checkpoints of segmentoly: every name placed, its anchors, what its numbers mean, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from frameworks import SMALL, Plan, filled
from lineage import segmentoly_file, segmentoly_shapes

from maskrcnn import presets
from maskrcnn.backends.pytorch import open_pytorch
from maskrcnn.config import AnchorConfig
from maskrcnn.errors import UserError
from maskrcnn.preprocess import prepare
from maskrcnn.weights.architecture import infer, parameter_shapes
from maskrcnn.weights.convert import Report, convert
from maskrcnn.weights.detectron_lineage import RATIOS, legacy_cell
from maskrcnn.weights.model_file import read_model_file
from maskrcnn.weights.rewrite import rewrite, rewrite_back
from maskrcnn.weights.sources.segmentoly import TABLE

Converted = Callable[..., Report]


@pytest.fixture
def converted(tmp_path: Path) -> Converted:
    """Convert in a temporary folder."""
    return lambda source, **arguments: convert(source, tmp_path / "out.safetensors", **arguments)


def small(as_convolutions: bool = False, **changes: Any) -> dict[str, np.ndarray]:
    """The state dict of a small model."""
    return filled(segmentoly_shapes(Plan(**{**SMALL, **changes}), as_convolutions))


@pytest.mark.parametrize("changes", [{}, {"groups": 2, "group_width": 4}, {"depth": 152}])
def test_every_name_is_placed_and_comes_back_with_the_same_bits(changes: dict[str, Any]) -> None:
    theirs = small(**changes)
    ours = rewrite(theirs, TABLE, "x").tensors
    model = infer({name: array.shape for name, array in ours.items()}, "x")
    assert {name: array.shape for name, array in ours.items()} == parameter_shapes(model)
    back = rewrite_back(ours, TABLE)
    assert back.keys() == theirs.keys()
    for name, array in theirs.items():
        rows = 4 if ".bbox_pred." in name else 1 if ".segm." in name else 0
        np.testing.assert_array_equal(back[name][rows:], array[rows:])


def test_its_pyramid_counts_from_the_top(tmp_path: Path, converted: Converted) -> None:
    theirs = small()
    converted(segmentoly_file(tmp_path / "x.pth", theirs))
    _, ours = read_model_file(tmp_path / "out.safetensors")
    for name, level in (("topdown_lateral.0.conv_lateral", 4), ("topdown_lateral.2.conv_lateral", 2)):
        np.testing.assert_array_equal(ours[f"fpn.lateral{level}.bias"], theirs[f"fpn.{name}.bias"])
    for index, level in ((0, 5), (3, 2)):
        np.testing.assert_array_equal(ours[f"fpn.output{level}.bias"], theirs[f"fpn.posthoc.{index}.bias"])


def test_layers_saved_as_convolutions_are_the_same_layers(tmp_path: Path, converted: Converted) -> None:
    flat, shapes = small(), segmentoly_shapes(Plan(**SMALL), as_convolutions=True)
    assert shapes["detection_head.fc1.weight"] == (24, 16, 7, 7)
    folded = {name: array.reshape(shapes[name]) for name, array in flat.items()}
    converted(segmentoly_file(tmp_path / "flat.pth", flat))
    _, expected = read_model_file(tmp_path / "out.safetensors")
    converted(segmentoly_file(tmp_path / "folded.pth", folded))
    _, ours = read_model_file(tmp_path / "out.safetensors")
    for name, array in expected.items():
        np.testing.assert_array_equal(ours[name], array)


@pytest.mark.parametrize(
    ("changes", "stride_in_1x1", "pad", "samples", "pre_nms"),
    [
        ({}, True, 32, 2, 1000),
        ({"depth": 101, "groups": 2, "group_width": 4}, False, 32, 2, 1000),
        ({"neck": "c4"}, True, 16, 0, 6000),
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
) -> None:
    spec = converted(segmentoly_file(tmp_path / "x.pth", small(**changes))).spec
    assert (spec.origin.source, spec.model.mean, spec.model.std) == (
        "segmentoly",
        (102.9801, 115.9465, 122.7717),
        (1.0, 1.0, 1.0),
    )
    preprocess = spec.preprocess
    assert (preprocess.filter, preprocess.channels, preprocess.pad_multiple) == ("torch", "bgr", pad)
    assert (preprocess.resize, preprocess.short, preprocess.long) == ("shortest_edge", 800, 1333)
    trunk = spec.model.backbone
    assert (trunk.stride_in_1x1, trunk.norm, trunk.norm_eps) == (stride_in_1x1, "frozen_bn", 1e-5)
    habits = spec.model.conventions
    assert (habits.plus_one, habits.nms_inclusive, habits.roi_aligned) == (True, True, False)
    assert (habits.rpn_clip, habits.rpn_min_size, habits.roi_samples) == ("image", 0.0, samples)
    assert (spec.model.rpn.pre_nms, spec.model.rpn.post_nms) == (pre_nms, 1000)


def test_its_input_is_opencvs_resize_by_one_scale_to_a_byte(tmp_path: Path, converted: Converted) -> None:
    preprocess = converted(segmentoly_file(tmp_path / "x.pth", small())).spec.preprocess
    image = np.random.default_rng(0).integers(0, 256, (333, 517, 3), dtype=np.uint8)
    planes, _ = prepare(image, replace(preprocess, short=320, long=533))
    scale = 320 / 333
    theirs = cv2.resize(image[:, :, ::-1], None, fx=scale, fy=scale).transpose(2, 0, 1)
    assert planes.shape == theirs.shape == (3, 320, 497)
    assert np.abs(planes - theirs.astype(np.float32)).max() < 1


def test_norms_of_converted_detectron_models_have_mean_0_variance_1_and_eps(
    tmp_path: Path, converted: Converted
) -> None:
    state = {name: array for name, array in small().items() if "running" not in name}
    spec = converted(segmentoly_file(tmp_path / "x.pth", state)).spec
    _, ours = read_model_file(tmp_path / "out.safetensors")
    assert (spec.model.backbone.norm, spec.model.backbone.norm_eps) == ("frozen_bn", 1e-5)
    assert (ours["backbone.res2.0.conv1.norm.running_var"] == 1).all()


def test_its_pyramid_anchors_lie_around_detectrons(tmp_path: Path, converted: Converted) -> None:
    spec = converted(segmentoly_file(tmp_path / "x.pth", small())).spec
    assert spec.model.anchors.cells[0][0] == (-22.5, -10.5, 26.5, 14.5)  # 49 x 25 around (2, 2)
    heights = []
    for sizes, stride, cell in zip(
        AnchorConfig().sizes, (4, 8, 16, 32, 64), spec.model.anchors.cells, strict=True
    ):
        difference = np.array(cell) - np.array(legacy_cell(sizes, RATIOS, stride))
        heights += (difference[:, 3] - difference[:, 1]).tolist()
        assert (difference[:, [0, 2]] == [-0.5, 1.5]).all()
    # Two pixels higher, but for the heights 89 and 147 of the model zoo, where the pattern has 97 and 177.
    assert heights == [2, 2, 2, 2, 2, -6, 2, 2, -28, 2, 2, 2, 2, 2, 2]


def test_its_c4_anchors_are_detectrons_and_one_pixel_right_and_below(
    tmp_path: Path, converted: Converted
) -> None:
    spec = converted(segmentoly_file(tmp_path / "x.pth", small(neck="c4"))).spec
    legacy = np.array(legacy_cell((32.0, 64.0, 128.0, 256.0, 512.0), RATIOS, 16))
    np.testing.assert_array_equal(np.array(spec.model.anchors.cells[0]) - legacy, [[0, 0, 1, 1]] * 15)


def test_the_network_uses_its_anchors_unless_told_to_use_detectrons(
    tmp_path: Path, converted: Converted
) -> None:
    source = segmentoly_file(tmp_path / "x.pth", small())
    for settings, corner in (([], -22.5), (["model.anchors.cells=[]"], -22.0)):
        report = converted(source, settings=settings)
        network = open_pytorch(tmp_path / "out.safetensors", device="cpu").model
        assert network.anchors([torch.zeros(1, 1, 1, 1)] * 5, (64, 64))[0][0, 0] == corner
        assert any("--set model.anchors.cells=[]" in note for note in report.notes)


def test_anchors_that_a_training_saved_are_taken(tmp_path: Path, converted: Converted) -> None:
    state = small()
    for level in range(5):
        half = np.float32([10, 5]) * 2**level
        boxes = np.float32([[-1, -1, 1, 1], [-2, -1, 2, 1], [-1, -2, 1, 2]]) * np.tile(half, 2)
        state[f"prior_boxes.{level}.prior_boxes"] = boxes
    report = converted(segmentoly_file(tmp_path / "x.pth", state))
    assert report.spec.model.anchors.cells[0][0] == (-8.0, -3.0, 12.0, 7.0)
    assert not any("anchors" in note for note in report.notes)


def test_a_mask_head_narrower_than_the_pyramid_pools_7(tmp_path: Path, converted: Converted) -> None:
    state = small()
    for name in [name for name in state if name.startswith("mask_head.")]:
        kept = tuple(slice(0, 8) if side == 16 else slice(None) for side in state[name].shape)
        state[name] = state[name][kept].copy()
    state["mask_head.conv_fcn.0.weight"] = np.ones((8, 16, 3, 3), np.float32)
    light = converted(segmentoly_file(tmp_path / "x.pth", state)).spec.model.mask_head
    plain = converted(segmentoly_file(tmp_path / "y.pth", small())).spec.model.mask_head
    assert ((light.channels, light.pool_side), (plain.channels, plain.pool_side)) == ((8, 7), (16, 14))


def test_eighty_classes_are_coco(tmp_path: Path, converted: Converted) -> None:
    assert converted(segmentoly_file(tmp_path / "x.pth", small(classes=80))).spec.classes == presets.COCO


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("fpn.conv_top.1.weight", (16,), "fpn.conv_top.1.weight is not part of a Mask R-CNN"),
        ("detection_head.fc2.weight", (24, 23), "fc2.weight is 24 x 23 where a R50-FPN has 24 x 24"),
    ],
)
def test_another_network_is_refused_by_name(
    tmp_path: Path, converted: Converted, name: str, shape: tuple[int, ...], sentence: str
) -> None:
    state = small() | {name: np.ones(shape, np.float32)}
    with pytest.raises(UserError, match=sentence):
        converted(segmentoly_file(tmp_path / "x.pth", state))


def test_a_config_file_is_not_asked_for(tmp_path: Path, converted: Converted) -> None:
    with pytest.raises(UserError, match="have no config of their own"):
        converted(segmentoly_file(tmp_path / "x.pth", small()), source_config="x.yaml")
