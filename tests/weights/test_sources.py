"""What each source means: numbers that no tensor holds, and what its own config says about them."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frameworks import SMALL, SMALL_GN, Plan, detectron2_file, detectron2_shapes, filled, mmdetection_file
from golden.synthetic import recording

from maskrcnn import presets
from maskrcnn.errors import UserError
from maskrcnn.weights.convert import Report, convert
from maskrcnn.weights.model_file import read_model_file


@pytest.fixture
def converted(tmp_path: Path) -> Callable[..., Report]:
    """Convert in a temporary folder."""
    return lambda source, **arguments: convert(source, tmp_path / "out.safetensors", **arguments)


Converted = Callable[..., Report]


def test_torchvision_numbers(converted: Converted, tmp_path: Path) -> None:
    keys = recording("torchvision-r50-fpn").keys
    small = {key: tuple(shape) for key, shape, _ in keys}
    torch.save({key: torch.zeros(shape) for key, shape in small.items()}, tmp_path / "x.pth")
    spec = converted(tmp_path / "x.pth").spec
    assert spec.model.conventions == presets.TORCHVISION
    assert spec.preprocess == presets.TORCHVISION_INPUT
    assert (spec.model.backbone.norm, spec.model.backbone.norm_eps) == ("frozen_bn", 0.0)
    assert (spec.model.classes, spec.classes.names[0], spec.classes.names[11]) == (90, "person", "")
    assert (spec.classes.names[89], spec.classes.ids[89]) == ("toothbrush", 90)
    assert spec.model.rpn.smooth_l1_beta == pytest.approx(1 / 9)


@pytest.mark.parametrize(
    ("changes", "stride_in_1x1", "std", "pad", "pre_nms"),
    [
        ({}, True, presets.NO_STD, 32, 1000),
        ({"depth": 101}, True, presets.NO_STD, 32, 1000),
        ({"groups": 32, "group_width": 8, "width": 8}, False, presets.STD_BGR, 32, 1000),
        ({"neck": "c4"}, True, presets.NO_STD, 1, 6000),
        ({"neck": "dc5"}, True, presets.NO_STD, 1, 6000),
        ({"norm": "bn", "head_norm": "bn", "rpn_convs": 2}, True, presets.NO_STD, 32, 1000),
        (SMALL_GN, False, presets.NO_STD, 32, 1000),
    ],
)
def test_detectron2_numbers(
    tmp_path: Path,
    converted: Converted,
    changes: dict[str, Any],
    stride_in_1x1: bool,
    std: tuple[float, ...],
    pad: int,
    pre_nms: int,
) -> None:
    spec = converted(detectron2_file(tmp_path / "x.pkl", **changes)).spec
    assert spec.model.conventions == presets.DETECTRON2
    assert spec.preprocess == replace(presets.DETECTRON2_INPUT, pad_multiple=pad)
    assert (spec.model.mean, spec.model.std) == (presets.MEAN_BGR, std)
    assert spec.model.backbone.stride_in_1x1 is stride_in_1x1
    assert (spec.model.rpn.pre_nms, spec.model.rpn.post_nms) == (pre_nms, 1000)


def test_statistics_that_a_detectron2_checkpoint_saved_are_taken(
    tmp_path: Path, converted: Converted
) -> None:
    state = filled(detectron2_shapes(Plan(**SMALL)))
    state |= {
        "pixel_mean": np.float32([[[123.675]], [[116.28]], [[103.53]]]),
        "pixel_std": np.float32([[[58.395]], [[57.12]], [[57.375]]]),
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4), np.float32),
    }
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": state}))
    spec = converted(tmp_path / "x.pkl").spec
    assert (spec.model.mean, spec.model.std) == (presets.MEAN_RGB, presets.STD_RGB)


def test_norms_of_caffe2_without_statistics_get_mean_0_and_variance_1(
    tmp_path: Path, converted: Converted
) -> None:
    state = filled(detectron2_shapes(Plan(**SMALL)))
    state = {name: array for name, array in state.items() if "running" not in name}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": state}))
    report = converted(tmp_path / "x.pkl")
    spec, ours = read_model_file(tmp_path / "out.safetensors")
    assert (spec.model.backbone.norm, spec.model.backbone.norm_eps) == ("frozen_bn", 1e-5)
    assert ours["backbone.res3.0.conv2.norm.running_var"].tolist() == [1.0] * 16
    assert ours["backbone.stem.conv.norm.running_mean"].tolist() == [0.0] * 8
    assert any("mean 0 and variance 1" in note for note in report.notes)


def test_a_config_of_detectron2_decides_what_names_cannot(tmp_path: Path, converted: Converted) -> None:
    source = detectron2_file(tmp_path / "x.pkl")
    config = tmp_path / "config.yaml"
    config.write_text(
        "INPUT: {FORMAT: RGB, MIN_SIZE_TEST: 640, MAX_SIZE_TEST: 1000}\n"
        "TEST: {DETECTIONS_PER_IMAGE: 300}\n"
        "MODEL:\n"
        "  PIXEL_MEAN: [123.675, 116.28, 103.53]\n"
        "  PIXEL_STD: [58.395, 57.12, 57.375]\n"
        "  RESNETS: {STRIDE_IN_1X1: false, DEPTH: 50}\n"
        "  ANCHOR_GENERATOR: {SIZES: [[16], [32], [64], [128], [256]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}\n"
        "  RPN: {POST_NMS_TOPK_TEST: 500}\n"
        "  ROI_BOX_HEAD: {POOLER_TYPE: ROIAlign, POOLER_SAMPLING_RATIO: 2}\n"
    )
    spec = converted(source, source_config=config).spec
    assert (spec.preprocess.channels, spec.preprocess.short, spec.preprocess.long) == ("rgb", 640, 1000)
    assert (spec.model.mean, spec.model.std) == (presets.MEAN_RGB, presets.STD_RGB)
    assert not spec.model.backbone.stride_in_1x1
    assert spec.model.anchors.sizes == ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))
    assert (spec.model.rpn.post_nms, spec.model.box_head.detections) == (500, 300)
    assert not spec.model.conventions.roi_aligned
    assert spec.model.conventions.roi_samples == 2
    styled = converted(source, source_config=config, style="caffe").spec
    assert (styled.model.std, styled.model.backbone.stride_in_1x1) == (presets.NO_STD, True)
    assert styled.preprocess.short == 640


def test_mmdetection_without_a_config_has_to_be_told_its_style(tmp_path: Path, converted: Converted) -> None:
    source = mmdetection_file(tmp_path / "x.pth")
    with pytest.raises(UserError, match="caffe or pytorch style") as caught:
        converted(source)
    assert "--style caffe" in caught.value.hint
    caffe, pytorch = (converted(source, style=style).spec for style in ("caffe", "pytorch"))
    assert caffe.model.conventions == pytorch.model.conventions == presets.MMDETECTION
    assert (caffe.model.mean, caffe.model.std) == (presets.MEAN_BGR, presets.NO_STD)
    assert (caffe.preprocess.channels, caffe.model.backbone.stride_in_1x1) == ("bgr", True)
    assert (pytorch.model.mean, pytorch.model.std) == (presets.MEAN_RGB, presets.STD_RGB)
    assert (pytorch.preprocess.channels, pytorch.model.backbone.stride_in_1x1) == ("rgb", False)
    assert pytorch.preprocess.pad_multiple == caffe.preprocess.pad_multiple == 32


@pytest.mark.parametrize(
    ("group_width", "channels", "mean", "std"),
    [(4, "rgb", presets.MEAN_RGB, presets.STD_RGB), (8, "bgr", presets.MEAN_BGR, presets.STD_BGR)],
)
def test_published_resnext_of_mmdetection_need_no_style(
    tmp_path: Path, converted: Converted, group_width: int, channels: str, mean: Any, std: Any
) -> None:
    source = mmdetection_file(tmp_path / "x.pth", groups=32, group_width=group_width)
    spec = converted(source).spec
    assert (spec.preprocess.channels, spec.model.mean, spec.model.std) == (channels, mean, std)
    assert not spec.model.backbone.stride_in_1x1


CONFIG_3 = """
model = dict(
    backbone=dict(depth=50, style='caffe', type='ResNet'),
    data_preprocessor=dict(
        bgr_to_rgb=False, mean=[103.53, 116.28, 123.675], pad_size_divisor=64, std=[1.0, 1.0, 1.0]),
    rpn_head=dict(
        anchor_generator=dict(
            ratios=[0.5, 1.0, 2.0], scales=[4], strides=[4, 8, 16, 32, 64], type='AnchorGenerator')),
    roi_head=dict(bbox_head=dict(
        bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2], type='DeltaXYWHBBoxCoder'))),
    test_cfg=dict(
        rcnn=dict(max_per_img=50, nms=dict(iou_threshold=0.6, type='soft_nms'), score_thr=0.1),
        rpn=dict(max_per_img=300, nms=dict(iou_threshold=0.8, type='nms'), nms_pre=500)))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(keep_ratio=True, scale=(640, 480), type='Resize'),
]
hook = eval("__import__('os').abort()")
"""


CONFIG_2 = """
model = dict(
    type='MaskRCNN',
    backbone=dict(type='ResNet', depth=50, style='pytorch'),
    roi_head=dict(bbox_roi_extractor=dict(roi_layer=dict(type='RoIAlign', out_size=7, sample_num=2))))
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
test_cfg = dict(
    rpn=dict(nms_pre=900, nms_post=900, max_num=800, nms_thr=0.65, min_bbox_size=0),
    rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_thr=0.45), max_per_img=100, mask_thr_binary=0.5))
data = dict(
    test=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='MultiScaleFlipAug', img_scale=(1000, 600), flip=False, transforms=[
            dict(type='Resize', keep_ratio=True),
            dict(type='Normalize', **img_norm_cfg),
            dict(type='Pad', size_divisor=32)])]))
"""


def test_a_checkpoint_of_mmdetection_3_is_read_with_its_own_config(
    tmp_path: Path, converted: Converted
) -> None:
    names = ("apple", "pear", "plum", "fig", "date")
    meta = {"cfg": CONFIG_3, "dataset_meta": {"classes": names}}
    spec = converted(mmdetection_file(tmp_path / "x.pth", meta)).spec
    assert (spec.model.backbone.stride_in_1x1, spec.preprocess.channels) == (True, "bgr")
    assert (spec.model.mean, spec.model.std) == (presets.MEAN_BGR, presets.NO_STD)
    assert (spec.preprocess.short, spec.preprocess.long, spec.preprocess.pad_multiple) == (480, 640, 64)
    assert spec.model.anchors.sizes == ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))
    rpn, box = spec.model.rpn, spec.model.box_head
    assert (rpn.pre_nms, rpn.post_nms, rpn.nms_iou) == (500, 300, 0.8)
    assert (box.score_over, box.nms_iou, box.detections, box.soft_nms.method) == (0.1, 0.6, 50, "linear")
    assert box.delta_weights == (10.0, 10.0, 5.0, 5.0)
    assert (spec.classes.names, spec.classes.ids) == (names, (1, 2, 3, 4, 5))


def test_a_checkpoint_of_mmdetection_2_is_read_with_its_own_config(
    tmp_path: Path, converted: Converted
) -> None:
    meta = {"config": CONFIG_2, "CLASSES": ("a", "b", "c", "d", "e"), "mmdet_version": "2.0.0"}
    spec = converted(mmdetection_file(tmp_path / "x.pth", meta)).spec
    assert (spec.model.backbone.stride_in_1x1, spec.preprocess.channels) == (False, "rgb")
    assert (spec.preprocess.short, spec.preprocess.long, spec.preprocess.pad_multiple) == (600, 1000, 32)
    rpn = spec.model.rpn
    assert (rpn.pre_nms, rpn.post_nms, rpn.nms_iou) == (900, 800, 0.65)
    assert (spec.model.box_head.nms_iou, spec.model.conventions.roi_samples) == (0.45, 2)
    assert spec.classes.names == ("a", "b", "c", "d", "e")


def test_a_style_given_by_hand_wins_over_the_config(tmp_path: Path, converted: Converted) -> None:
    spec = converted(mmdetection_file(tmp_path / "x.pth", {"cfg": CONFIG_3}), style="pytorch").spec
    assert (spec.model.backbone.stride_in_1x1, spec.preprocess.channels) == (False, "rgb")
    assert spec.model.rpn.post_nms == 300


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("'AnchorGenerator'", "'LegacyAnchorGenerator'"), "its anchor generator is LegacyAnchorGenerator"),
        (("'DeltaXYWHBBoxCoder'", "'LegacyDeltaXYWHBBoxCoder'"), "its box coder is LegacyDeltaXYWHBBoxCoder"),
        (("type='soft_nms'", "type='matrix_nms'"), "its NMS is matrix_nms"),
        (("score_thr=0.1", "score_thr='high'"), r"score_thr is 'high'"),
    ],
)
def test_what_a_config_says_and_is_not_supported_is_refused(
    tmp_path: Path, converted: Converted, change: tuple[str, str], sentence: str
) -> None:
    source = mmdetection_file(tmp_path / "x.pth", {"cfg": CONFIG_3.replace(*change)})
    with pytest.raises(UserError, match=sentence):
        converted(source)


def test_c4_of_mmdetection_is_padded_and_has_six_thousand_candidates(
    tmp_path: Path, converted: Converted
) -> None:
    spec = converted(mmdetection_file(tmp_path / "x.pth", neck="c4"), style="caffe").spec
    assert (spec.model.neck, spec.preprocess.pad_multiple, spec.model.rpn.pre_nms) == ("c4", 32, 6000)
    assert spec.model.anchors == presets.ONE_LEVEL_ANCHORS
