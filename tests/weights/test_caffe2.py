"""Detectron's pickles of Caffe2 blobs: every blob placed, what its numbers mean, and what is refused."""

import io
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from frameworks import SMALL, SMALL_GN, Plan, filled, hollow
from lineage import caffe2_names, caffe2_shapes

from maskrcnn import presets
from maskrcnn.errors import UserError
from maskrcnn.preprocess import prepare
from maskrcnn.weights.architecture import infer, name_of, parameter_shapes
from maskrcnn.weights.convert import Report, convert
from maskrcnn.weights.model_file import read_model_file
from maskrcnn.weights.readers import read_checkpoint
from maskrcnn.weights.recognise import recognise
from maskrcnn.weights.rewrite import rewrite
from maskrcnn.weights.source import filled_statistics
from maskrcnn.weights.sources import detectron2

Converted = Callable[..., Report]


@pytest.fixture
def converted(tmp_path: Path) -> Converted:
    """Convert in a temporary folder."""
    return lambda source, **arguments: convert(source, tmp_path / "out.safetensors", **arguments)


def caffe2_file(path: Path, beside: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A small Detectron pickle with what stands beside the weights in a real one."""
    blobs = filled(caffe2_shapes(Plan(**{**SMALL, **changes})))
    blobs["conv1_w_momentum"] = np.ones_like(blobs["conv1_w"])
    blobs["lr"] = np.float32([0.02])
    blobs["fc1000_w"], blobs["fc1000_b"] = np.ones((1000, 64), np.float32), np.ones(1000, np.float32)
    blobs["conv1_b"] = np.ones(8, np.float32)
    path.write_bytes(pickle.dumps({"blobs": blobs, **(beside or {})}, protocol=2))
    return path


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("r50-c4", "R50-C4"),
        ("r50-fpn", "R50-FPN"),
        ("r101-fpn", "R101-FPN"),
        ("x101-32x8d-fpn", "X101-32x8d-FPN"),
    ],
)
def test_each_blob_of_a_published_model_is_claimed_once_and_fills_a_parameter(
    name: str, architecture: str
) -> None:
    names = caffe2_names(name)
    blobs = hollow({blob: shape for blob, shape, _ in names})
    source = recognise(blobs, "x")
    rewritten = rewrite(blobs, source.table, "x")
    assert sum(count for _, count in rewritten.used) == len(names) == len(rewritten.tensors)
    model = infer({ours: array.shape for ours, array in rewritten.tensors.items()}, "x")
    described = source.describe(model, _checkpoint(blobs), None, None).spec.model
    assert name_of(described) == architecture
    full = filled_statistics(rewritten.tensors, described)
    assert {ours: array.shape for ours, array in full.items()} == parameter_shapes(described)
    # detectron2's own converter, recorded: a blob and detectron2's name for it are one parameter of ours.
    theirs = rewrite({key: blobs[blob] for blob, _, key in names}, detectron2.TABLE, "x").origins
    by_blob = {blob: ours for ours, blob in rewritten.origins.items()}
    by_key = {key: ours for ours, key in theirs.items()}
    assert [by_blob[blob] for blob, _, _ in names] == [by_key[key] for _, _, key in names]


def _checkpoint(tensors: dict[str, np.ndarray]) -> Any:
    from maskrcnn.weights.readers import Checkpoint

    return Checkpoint(Path("x.pkl"), "pickle", "", tensors, {})


@pytest.mark.parametrize("name", ["r50-c4", "r50-fpn", "r101-fpn", "x101-32x8d-fpn"])
def test_the_names_of_these_tests_are_the_published_ones(name: str) -> None:
    plan = Plan(neck="c4" if name == "r50-c4" else "fpn", depth=101 if "101" in name else 50)
    if name.startswith("x101"):
        plan = Plan(depth=101, groups=32, group_width=8)
    assert caffe2_shapes(plan) == {blob: shape for blob, shape, _ in caffe2_names(name)}


@pytest.mark.parametrize(
    ("changes", "stride_in_1x1", "pad", "samples", "pre_nms"),
    [
        ({}, True, 32, 2, 1000),
        ({"depth": 101, "groups": 2, "group_width": 4}, False, 32, 2, 1000),
        ({"depth": 152, "groups": 2, "group_width": 4}, False, 32, 2, 1000),
        ({"neck": "c4"}, True, 1, 0, 6000),
        ({"neck": "c4", "depth": 101}, True, 1, 0, 6000),
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
    spec = converted(caffe2_file(tmp_path / "x.pkl", **changes)).spec
    assert (spec.model.mean, spec.model.std) == ((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))
    preprocess = spec.preprocess
    assert (preprocess.size_rule, preprocess.filter, preprocess.channels) == ("caffe2", "torch", "bgr")
    assert (preprocess.short, preprocess.long, preprocess.pad_multiple) == (800, 1333, pad)
    trunk = spec.model.backbone
    assert (trunk.stride_in_1x1, trunk.norm, trunk.norm_eps) == (stride_in_1x1, "frozen_bn", 0.0)
    habits = spec.model.conventions
    assert (habits.plus_one, habits.nms_inclusive, habits.roi_aligned) == (True, True, False)
    assert (habits.anchor_cell, habits.anchor_order, habits.rpn_scores) == (
        "legacy",
        "ratio_first",
        "sigmoid",
    )
    assert (habits.rpn_clip, habits.rpn_min_size, habits.level_eps_inside) == ("padded", 1.0, 1e-6)
    assert (habits.roi_samples, habits.mask_paste) == (samples, "expanded")
    assert (spec.model.rpn.pre_nms, spec.model.rpn.post_nms) == (pre_nms, 1000)


def test_its_input_is_the_image_without_mean_resized_by_one_scale(
    tmp_path: Path, converted: Converted
) -> None:
    spec = converted(caffe2_file(tmp_path / "x.pkl")).spec
    image = np.random.default_rng(0).integers(0, 256, (333, 517, 3), dtype=np.uint8)
    planes, _ = prepare(image, replace(spec.preprocess, short=320, long=533))
    mean = np.array(spec.model.mean, np.float32)
    scale = 320 / 333
    theirs = cv2.resize(image[:, :, ::-1] - mean, None, fx=scale, fy=scale).transpose(2, 0, 1)
    np.testing.assert_allclose(planes - mean[:, None, None], theirs, atol=1e-3)


@pytest.mark.parametrize(("neck", "name"), [("fpn", "caffe2"), ("c4", "caffe2-c4")])
def test_named_by_hand_caffe2_stands_for_both_kinds(
    tmp_path: Path, converted: Converted, neck: str, name: str
) -> None:
    report = converted(caffe2_file(tmp_path / "x.pkl", neck=neck), origin="caffe2")
    assert (report.spec.origin.source, report.spec.model.neck) == (name, neck)


def test_scale_and_bias_stay_as_they_are_with_mean_0_and_variance_1(
    tmp_path: Path, converted: Converted
) -> None:
    converted(caffe2_file(tmp_path / "x.pkl"))
    _, ours = read_model_file(tmp_path / "out.safetensors")
    theirs = filled(caffe2_shapes(Plan(**SMALL)))
    norm = "backbone.res3.0.shortcut.norm"
    np.testing.assert_array_equal(ours[f"{norm}.weight"], theirs["res3_0_branch1_bn_s"])
    np.testing.assert_array_equal(ours[f"{norm}.bias"], theirs["res3_0_branch1_bn_b"])
    assert not ours[f"{norm}.running_mean"].any()
    assert (ours[f"{norm}.running_var"] == 1).all()
    # 1 / sqrt(1 + 0) is 1: nothing is lost by standing in for AffineChannel.
    np.testing.assert_array_equal(ours["box_head.scores.bias"][-1], theirs["cls_score_b"][0])
    np.testing.assert_array_equal(ours["mask_head.logits.bias"], theirs["mask_fcn_logits_b"][1:])


def test_group_norm_is_read_everywhere(tmp_path: Path, converted: Converted) -> None:
    spec = converted(caffe2_file(tmp_path / "x.pkl", **SMALL_GN)).spec
    model = spec.model
    assert [part.norm for part in (model.backbone, model.fpn, model.box_head, model.mask_head)] == ["gn"] * 4
    assert (model.box_head.convs, model.box_head.fcs, model.backbone.stride_in_1x1) == (4, 1, False)


def test_class_agnostic_boxes_and_masks(tmp_path: Path, converted: Converted) -> None:
    model = converted(caffe2_file(tmp_path / "x.pkl", agnostic=True)).spec.model
    assert (model.box_head.class_agnostic, model.mask_head.class_agnostic, model.classes) == (True, True, 5)


def test_blobs_alone_are_a_checkpoint_too(tmp_path: Path, converted: Converted) -> None:
    blobs = filled(caffe2_shapes(Plan(**SMALL)))
    beside = {"weight_order": list(blobs), "cfg": "", "iter": 7, "nothing": None}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({**blobs, **beside}))
    assert converted(tmp_path / "x.pkl").tensors == len(blobs)


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes text and bytes as Python 2 does, both as bytes without a mark."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, text: str | bytes) -> None:
        content = text if isinstance(text, bytes) else text.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_text


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    blobs = {"conv1_w": np.float32([[1.5, -2.0], [0.25, 200.0]]), "conv1_b": np.float32([0.1])}
    # From a megabyte on, values stay in the mapped file.
    blobs["long"] = np.arange(300_000, dtype=np.float32)
    written = io.BytesIO()
    Python2Pickler(written, protocol=2).dump({"blobs": blobs, "cfg": "MODEL: {}"})
    (tmp_path / "x.pkl").write_bytes(written.getvalue())
    found = read_checkpoint(tmp_path / "x.pkl")
    assert found.meta["cfg"] == "MODEL: {}"
    for name, array in blobs.items():
        np.testing.assert_array_equal(found.tensors[name], array)


SAVED = """!!python/object/new:detectron.utils.collections.AttrDict
dictitems:
  TEST: !!python/object/new:detectron.utils.collections.AttrDict
    dictitems:
      SCALE: 640
      MAX_SIZE: 1000
      NMS: 0.45
      SCORE_THRESH: 0.1
      DETECTIONS_PER_IM: 50
      RPN_PRE_NMS_TOP_N: 900
      RPN_POST_NMS_TOP_N: 800
      RPN_NMS_THRESH: 0.6
      SOFT_NMS: {ENABLED: true, METHOD: gaussian}
    state: {__immutable__: true}
  MODEL: {BBOX_REG_WEIGHTS: !!python/tuple [8.0, 8.0, 4.0, 4.0]}
  RESNETS: {STRIDE_1X1: false}
  FPN: {RPN_ANCHOR_START_SIZE: 16, RPN_ASPECT_RATIOS: !!python/tuple [0.5, 1, 3]}
  FAST_RCNN: {ROI_XFORM_METHOD: RoIAlign, ROI_XFORM_SAMPLING_RATIO: 4}
  PIXEL_MEANS: !!python/object/apply:numpy.core.multiarray._reconstruct
    args: [!!python/name:numpy.ndarray '', !!python/tuple [0], b]
state: {__immutable__: true}
"""


def test_the_config_that_detectron_saved_is_honoured(tmp_path: Path, converted: Converted) -> None:
    report = converted(caffe2_file(tmp_path / "x.pkl", {"cfg": SAVED}))
    model, preprocess = report.spec.model, report.spec.preprocess
    assert (preprocess.short, preprocess.long) == (640, 1000)
    assert (model.rpn.pre_nms, model.rpn.post_nms, model.rpn.nms_iou) == (900, 800, 0.6)
    box = model.box_head
    assert (box.nms_iou, box.score_over, box.detections) == (0.45, 0.1, 50)
    assert (box.delta_weights, box.soft_nms.method) == ((8.0, 8.0, 4.0, 4.0), "gaussian")
    assert (model.backbone.stride_in_1x1, model.conventions.roi_samples) == (False, 4)
    assert model.anchors.sizes == ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))
    assert model.anchors.ratios == (0.5, 1.0, 3.0)
    assert "thresholds and input are those of the config in the file" in report.notes


def test_a_config_before_box_weights_means_one(tmp_path: Path, converted: Converted) -> None:
    report = converted(caffe2_file(tmp_path / "x.pkl", {"cfg": "TEST: {SCALES: '(600, )'}\nMODEL: {}\n"}))
    assert report.spec.model.box_head.delta_weights == (1.0, 1.0, 1.0, 1.0)
    assert report.spec.preprocess.short == 600
    assert any("BBOX_REG_WEIGHTS" in note for note in report.notes)


def test_a_config_given_by_hand_is_detectrons_yaml(tmp_path: Path, converted: Converted) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("RPN: {SIZES: '(16, 32, 64, 128, 256)'}\nTEST: {SCALE: 500}\n")
    spec = converted(caffe2_file(tmp_path / "x.pkl", neck="c4"), source_config=config).spec
    assert spec.model.anchors.sizes == ((16.0, 32.0, 64.0, 128.0, 256.0),)
    assert (spec.preprocess.short, spec.model.box_head.delta_weights) == (500, (10.0, 10.0, 5.0, 5.0))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("MRCNN: {DILATION: 2}", "its MRCNN.DILATION is 2"),
        ("FAST_RCNN: {ROI_XFORM_METHOD: RoIPoolF}", "its FAST_RCNN.ROI_XFORM_METHOD is RoIPoolF"),
        ("TEST: {NMS: [many]}", r"TEST.NMS is \['many'\]"),
        ("TEST: {SCALE: .inf}", "TEST.SCALE is inf"),
        ("TEST: {SCALES: '(800'}", r"TEST.SCALES is '\(800'"),
        ("TEST: {SOFT_NMS: {ENABLED: true, METHOD: cubic}}", "METHOD is 'cubic'"),
        ("x" * 1_000_001, "its config is 1000001 characters long"),
        ("a: [", "its config is not YAML"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(
    tmp_path: Path, converted: Converted, text: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        converted(caffe2_file(tmp_path / "x.pkl", {"cfg": text}))


def test_a_c4_mask_head_with_its_own_last_stage_is_refused(tmp_path: Path, converted: Converted) -> None:
    blobs = filled(caffe2_shapes(Plan(**SMALL, neck="c4")))
    own = {f"_[mask]_{name}": array + 1 for name, array in blobs.items() if name.startswith("res5_0")}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"blobs": blobs | own}))
    with pytest.raises(UserError, match="is not the same as res5_0_"):
        converted(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    ("blob", "shape", "sentence"),
    [
        ("fc7_w", (24, 23), "fc7_w is 24 x 23 where a R50-FPN has 24 x 24"),
        ("kps_score_w", (2, 2), "kps_score_w is not part of a Mask R-CNN"),
    ],
)
def test_a_wrong_blob_is_named_as_it_is_there(
    tmp_path: Path, converted: Converted, blob: str, shape: tuple[int, ...], sentence: str
) -> None:
    blobs = filled(caffe2_shapes(Plan(**SMALL))) | {blob: np.ones(shape, np.float32)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"blobs": blobs}))
    with pytest.raises(UserError, match=sentence):
        converted(tmp_path / "x.pkl")


def test_detectrons_eighty_classes_are_coco(tmp_path: Path, converted: Converted) -> None:
    assert converted(caffe2_file(tmp_path / "x.pkl", classes=80)).spec.classes == presets.COCO
