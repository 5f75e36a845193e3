"""MindSpore's checkpoints: the format against bytes that MindSpore 2.10 wrote, and names of both families."""

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frameworks import SMALL, Plan, Shapes, filled, layer, stage_channels, trunk

from maskrcnn import presets
from maskrcnn.errors import UserError
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.weights import mindspore_ckpt
from maskrcnn.weights.convert import Report, convert
from maskrcnn.weights.mindspore_ckpt import write_mindspore
from maskrcnn.weights.model_file import read_model_file
from maskrcnn.weights.readers import read_checkpoint
from maskrcnn.weights.rewrite import _regex, rewrite_back
from maskrcnn.weights.sources import mindspore

# save_checkpoint of MindSpore 2.10: net.a [[1, -2], [.5, 3]], net.half [1.5] as float16, net.bf [1, -2.5] as
# bfloat16, net.step 7 as int64, and append_dict={"lr": .5}
WRITTEN = bytes.fromhex(
    "0a280a056e65742e61121f080208021207466c6f617433321a100000803f000000c00000003f00004040"
    "0a1b0a086e65742e68616c66120f08011207466c6f617431361a02003e"
    "0a1c0a066e65742e626612120802120842466c6f617431361a04803f20c0"
    "0a1d0a086e65742e7374657012111205496e7436341a080700000000000000"
    "0a150a026c72120f1207466c6f617433321a040000003f"
)
# net.a [1, -2] with crc_check=True
CHECKED = bytes.fromhex(
    "0a1e0a056e65742e61121508021207466c6f617433321a080000803f000000c06372635f6e756d0000000000006e5e7d74"
)

NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def read(path: Path, content: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(content)
    return read_checkpoint(path).tensors


def batch_norm(name: str, channels: int) -> Shapes:
    return {f"{name}.{part}": (channels,) for part in NORM}


def shapes_of(plan: Plan, zoo: bool) -> Shapes:
    """Of mindspore-lab's MaskRCNN, or of the zoo's Mask_Rcnn_Resnet50, background included."""
    root = "backbone" if zoo else "backbone.bottom_up"
    shapes: Shapes = {f"{root}.conv1.weight": (plan.width, 3, 7, 7)} | batch_norm(f"{root}.bn1", plan.width)
    for stage, block, role, out, inputs, groups, side in trunk(plan):
        start = f"{root}.layer{stage - 1}.{block}"
        name, norm = f"{start}.{role}", f"{start}.bn{role[-1]}"
        if role == "shortcut":
            name, norm = f"{start}.conv_down_sample", f"{start}.bn_down_sample"
            if not zoo:
                name, norm = f"{start}.down_sample.0", f"{start}.down_sample.1"
        shapes |= {f"{name}.weight": (out, inputs // groups, side, side)} | batch_norm(norm, out)
    channels = plan.channels
    for index in range(4):
        inputs = stage_channels(plan, index + 2)
        names = [f"fpn_ncek.{role}_convs_list.{index}" for role in ("lateral", "fpn")]
        if not zoo:
            names = [f"backbone.{role}_convs.{index}.conv.0" for role in ("lateral", "fpn")]
        shapes |= layer(names[0], (channels, inputs, 1, 1)) | layer(names[1], (channels, channels, 3, 3))
    rpn = "rpn_with_loss.rpn_convs_list.0" if zoo else "rpn_head.rpn_feat"
    shapes |= layer(f"{rpn}.rpn_conv", (channels, channels, 3, 3))
    shapes |= layer(f"{rpn}.{'rpn_cls' if zoo else 'rpn_rois_score'}", (3, channels, 1, 1))
    shapes |= layer(f"{rpn}.{'rpn_reg' if zoo else 'rpn_rois_delta'}", (12, channels, 1, 1))
    return shapes | (zoo_heads(plan) if zoo else lab_heads(plan))


def lab_heads(plan: Plan) -> Shapes:
    shapes = layer("bbox_head.head.fc6", (plan.fc, 49 * plan.channels))
    shapes |= layer("bbox_head.head.fc7", (plan.fc, plan.fc))
    shapes |= layer("bbox_head.bbox_cls", (plan.classes + 1, plan.fc))
    shapes |= layer("bbox_head.bbox_delta", (4 * plan.classes, plan.fc))
    for place in (0, 2, 4, 6):
        shapes |= layer(f"mask_head.head.upsample.{place}", (plan.channels, plan.channels, 3, 3))
    shapes |= layer("mask_head.head.upsample.8", (plan.channels, plan.channels, 2, 2))
    return shapes | layer("mask_head.mask_fcn_logits", (plan.classes, plan.channels, 1, 1))


def zoo_heads(plan: Plan) -> Shapes:
    sides = {
        "shared_fc_0": (49 * plan.channels, plan.fc),
        "shared_fc_1": (plan.fc, plan.fc),
        "cls_scores": (plan.fc, plan.classes + 1),
        "reg_scores": (plan.fc, 4 * plan.classes + 4),
    }
    shapes: Shapes = {}
    for name, (inputs, outputs) in sides.items():
        weight = f"rcnn_cls.fpn_cls.{name}"
        shapes |= {f"{weight}.weight": (inputs, outputs), f"{weight}.bias": (outputs,)}
    for number in (1, 2, 3, 4):
        shapes |= layer(f"rcnn_mask.fpn_mask.mask_conv{number}", (plan.channels, plan.channels, 3, 3))
    shapes |= layer("rcnn_mask.fpn_mask.mask_deconv5", (plan.channels, plan.channels, 2, 2))
    return shapes | layer("rcnn_mask.fpn_mask.mask_conv6", (plan.classes + 1, plan.channels, 1, 1))


def small(zoo: bool, **changes: Any) -> dict[str, np.ndarray]:
    shapes = shapes_of(Plan(**{**SMALL, **changes}), zoo)
    return {
        name: array + np.float32(name.endswith("moving_variance")) for name, array in filled(shapes).items()
    }


def converted(path: Path, tensors: dict[str, np.ndarray], **arguments: Any) -> Report:
    write_mindspore(path / "x.ckpt", tensors)
    return convert(path / "x.ckpt", path / "out.safetensors", **arguments)


def test_what_mindspore_wrote_is_read_with_its_types_and_shapes(tmp_path: Path) -> None:
    tensors = read(tmp_path / "x.ckpt", WRITTEN)
    assert {name: array.tolist() for name, array in tensors.items()} == {
        "net.a": [[1.0, -2.0], [0.5, 3.0]],
        "net.half": [1.5],
        "net.bf": [1.0, -2.5],
        "net.step": 7,
    }
    assert [array.dtype for array in tensors.values()] == [np.float32, np.float16, np.float32, np.int64]


def test_what_is_written_are_the_bytes_that_mindspore_writes(tmp_path: Path) -> None:
    write_mindspore(
        tmp_path / "x.ckpt",
        {"net.a": np.float32([[1, -2], [0.5, 3]]), "net.half": np.float16([1.5]), "net.step": np.int64(7)},
    )
    assert (tmp_path / "x.ckpt").read_bytes() == WRITTEN[:71] + WRITTEN[101:132]


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "?"])
def test_every_type_comes_back(tmp_path: Path, kind: str) -> None:
    values = {"a.b": np.arange(6).astype(kind).reshape(1, 2, 3), "a.c": np.zeros((0, 3), kind)}
    write_mindspore(tmp_path / "x.ckpt", values)
    for name, array in read_checkpoint(tmp_path / "x.ckpt").tensors.items():
        assert array.dtype == np.dtype(kind)
        np.testing.assert_array_equal(array, values[name])


def test_a_checksum_is_checked(tmp_path: Path) -> None:
    assert read(tmp_path / "x.ckpt", CHECKED)["net.a"].tolist() == [1.0, -2.0]
    assert zlib.crc32(CHECKED[:-17]) == int.from_bytes(CHECKED[-10:], "big")
    with pytest.raises(UserError, match="checksum"):
        read(tmp_path / "y.ckpt", CHECKED.replace(b"\x3f\x00", b"\x3e\x00"))


def test_a_large_tensor_in_parts_is_one_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"a.b": np.arange(50, dtype=np.float32).reshape(5, 10), "a.c": np.ones(3, np.float32)}
    monkeypatch.setattr(mindspore_ckpt, "LARGEST_PART", 24)
    write_mindspore(tmp_path / "x.ckpt", values)
    assert (tmp_path / "x.ckpt").read_bytes().count(b"a.b") == 9
    for name, array in read_checkpoint(tmp_path / "x.ckpt").tensors.items():
        np.testing.assert_array_equal(array, values[name])


def test_a_scalar_may_have_the_dims_0(tmp_path: Path) -> None:
    one = bytes.fromhex("0a130a03612e62120c0800120555496e74381a0105")
    assert read(tmp_path / "x.ckpt", one)["a.b"].tolist() == 5


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (WRITTEN[:-1], "a field ends after its message"),
        (WRITTEN[:30], "a field ends after its message"),
        (WRITTEN[:42] * 2, "it has net.a a second time"),
        (WRITTEN.replace(b"\x08\x02\x08\x02", b"\x08\x02\x08\x03"), "net.a has 16 bytes for Float32"),
        (WRITTEN.replace(b"\x08\x02\x08\x02", b"\x08\x7f\x08\x7f"), "net.a has 16 bytes for Float32"),
        (WRITTEN.replace(b"Float32\x1a\x10", b"Float3x\x1a\x10"), "net.a is no tensor but MindSpore's type"),
        (WRITTEN + b"\x0b", "wire type 3"),
        (WRITTEN + b"\x10\x01", "it is no list of tensors"),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        read(tmp_path / "x.ckpt", content)


def test_every_key_of_both_published_networks_has_one_row_and_every_parameter_a_key() -> None:
    for zoo, table in ((False, mindspore.TABLE), (True, mindspore.ZOO_TABLE)):
        shapes = shapes_of(Plan(), zoo)
        assert len(shapes) == 307  # as get_parameters() of the published classes counts
        for key in shapes:
            # mask_conv6 is the logits, which stand before the convolutions in the table
            rows = [row for row in table if _regex(row.theirs).fullmatch(key)]
            assert len(rows) == (2 if "mask_conv6" in key else 1), key


@pytest.mark.parametrize("zoo", [False, True])
def test_a_checkpoint_converts_completely_and_comes_back_bit_by_bit(tmp_path: Path, zoo: bool) -> None:
    theirs = small(zoo)
    report = converted(tmp_path, theirs)
    spec, ours = read_model_file(tmp_path / "out.safetensors")
    assert (spec.origin.source, report.tensors) == ("mindspore-zoo" if zoo else "mindspore", len(theirs))
    assert (spec.model.classes, spec.model.backbone.norm) == (5, "frozen_bn")
    network = MaskRCNN(spec.model)
    network.load_state_dict({key: torch.from_numpy(array) for key, array in ours.items()})
    back = rewrite_back(ours, mindspore.ZOO_TABLE if zoo else mindspore.TABLE)
    assert back.keys() == theirs.keys()
    for name, array in theirs.items():
        if zoo and "reg_scores" in name:  # the background's boxes mean nothing and were dropped
            array[..., :4] = 0
        if "mask_conv6" in name:
            array[:1] = 0
        np.testing.assert_array_equal(back[name], array, err_msg=name)


@pytest.mark.parametrize("changes", [{"depth": 18}, {"depth": 101}, {"groups": 2, "group_width": 4}])
def test_other_trunks_of_mindspore_lab_convert(tmp_path: Path, changes: dict[str, Any]) -> None:
    spec = converted(tmp_path, small(False, **changes)).spec
    assert spec.model.backbone.depth == changes.get("depth", 50)


def test_fully_connected_weights_of_the_zoo_are_turned_and_background_moves(tmp_path: Path) -> None:
    theirs = small(True)
    converted(tmp_path, theirs)
    _, ours = read_model_file(tmp_path / "out.safetensors")
    np.testing.assert_array_equal(
        ours["box_head.fc1.weight"], theirs["rcnn_cls.fpn_cls.shared_fc_0.weight"].T
    )
    scores = theirs["rcnn_cls.fpn_cls.cls_scores.weight"]
    np.testing.assert_array_equal(ours["box_head.scores.weight"][-1], scores[:, 0])
    np.testing.assert_array_equal(ours["box_head.scores.weight"][0], scores[:, 1])
    deltas = theirs["rcnn_cls.fpn_cls.reg_scores.weight"]
    np.testing.assert_array_equal(ours["box_head.deltas.weight"][0], deltas[:, 4])
    masks = theirs["rcnn_mask.fpn_mask.mask_conv6.bias"]
    np.testing.assert_array_equal(ours["mask_head.logits.bias"], masks[1:])


def test_what_a_training_adds_is_left_out(tmp_path: Path) -> None:
    theirs = small(False)
    state = {f"moments.{name}": array for name, array in theirs.items()}
    state |= {
        "learning_rate": np.float32([0.1, 0.2]),
        "global_step": np.int32([7]),
        "momentum": np.float32(0.9),
    }
    state |= {"scale_sense": np.float32(256)}
    assert converted(tmp_path, theirs | state).tensors == len(theirs)
    prefixed = {f"network.{name}": array for name, array in theirs.items()}
    assert converted(tmp_path, prefixed | state).tensors == len(theirs)


def test_mindspore_lab_numbers(tmp_path: Path) -> None:
    spec = converted(tmp_path, small(False)).spec
    model, preprocess = spec.model, spec.preprocess
    assert (model.mean, model.std) == (presets.MEAN_RGB, presets.STD_RGB)
    assert model.conventions == presets.MINDSPORE
    assert (model.conventions.delta_limit, model.conventions.rpn_clip) == (4.0, "last_pixel")
    assert (model.backbone.stem_pool, model.fpn.upsample) == ("same", "bilinear")
    assert (model.rpn.pre_nms, model.rpn.post_nms, model.rpn.nms_iou) == (2000, 1000, 0.7)
    assert (preprocess.resize, preprocess.short, preprocess.long) == ("fit_window", 768, 1280)
    assert (preprocess.filter, preprocess.channels, preprocess.pad_to_window) == ("area", "rgb", True)


def test_mindspore_zoo_numbers(tmp_path: Path) -> None:
    spec = converted(tmp_path, small(True)).spec
    model = spec.model
    assert model.conventions == presets.MINDSPORE_ZOO
    assert (model.backbone.stem_pool, model.fpn.upsample) == ("same", "bilinear_corners")
    # stride 4: around 1.5, half of 32 - 1, of 45.25 - 1 and of 22.63 - 1 to each side
    assert model.anchors.cells[0][1] == (-14.0, -14.0, 17.0, 17.0)
    assert model.anchors.cells[0][0] == (-21.0, -9.0, 24.0, 12.0)
    assert spec.preprocess.filter == "opencv"


def test_a_style_or_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one style"):
        converted(tmp_path, small(False), style="caffe")
