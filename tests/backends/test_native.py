"""The compiled engine against PyTorch, for every shape of a network and every convention."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from export.networks import SMALL, lively, scene

from maskrcnn.backends import native
from maskrcnn.backends.native import NativeBackend
from maskrcnn.backends.pytorch import PyTorchBackend
from maskrcnn.config import (
    BackboneConfig,
    BoxHeadConfig,
    Conventions,
    FPNConfig,
    MaskHeadConfig,
    ModelConfig,
    SoftNMSConfig,
)
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.host.native.library import library, multiplies
from maskrcnn.host.native.packing import Precision
from maskrcnn.spec import Spec

pytestmark = pytest.mark.skipif(library() is None, reason="the compiled loops were not built: no C compiler")
FPN = SMALL["fpn"]
OLD = Conventions(plus_one=True, anchor_cell="legacy", roi_aligned=False, roi_samples=2, rpn_clip="padded")
NETWORKS = {
    **SMALL,
    "resnext": replace(FPN, backbone=BackboneConfig(50, groups=32, group_width=4, width=32)),
    "batch norm, stride in 1x1": replace(
        FPN, backbone=BackboneConfig(50, 1, 16, 16, "bn", stride_in_1x1=True)
    ),
    "group norm": replace(
        FPN,
        backbone=BackboneConfig(50, width=32, group_width=32, norm="gn"),
        fpn=FPNConfig(32, norm="gn"),
        box_head=BoxHeadConfig(convs=2, channels=32, fcs=1, fc_channels=48, norm="gn", detections=12),
        mask_head=MaskHeadConfig(convs=2, channels=32, norm="gn"),
    ),
    "stem pooled to the right": replace(FPN, backbone=BackboneConfig(18, width=16, stem_pool="same")),
    "bilinear pyramid": replace(FPN, fpn=FPNConfig(16, upsample="bilinear")),
    "pyramid between corners": replace(FPN, fpn=FPNConfig(16, upsample="bilinear_corners")),
    "class agnostic": replace(
        FPN,
        box_head=replace(FPN.box_head, class_agnostic=True),
        mask_head=replace(FPN.mask_head, class_agnostic=True),
    ),
    "soft nms": replace(FPN, box_head=replace(FPN.box_head, soft_nms=SoftNMSConfig("linear"))),
    "two convolutions in the rpn": replace(FPN, rpn=replace(FPN.rpn, convs=2)),
    "old conventions": replace(FPN, conventions=OLD),
    "old conventions, c4": replace(SMALL["c4"], conventions=OLD),
    "c4, stride in 3x3": replace(SMALL["c4"], backbone=BackboneConfig(50, width=8, group_width=8)),
    "c4, group norm": replace(SMALL["c4"], backbone=BackboneConfig(50, width=32, group_width=32, norm="gn")),
    "c4 with three boxes": replace(SMALL["c4"], rpn=replace(SMALL["c4"].rpn, post_nms=3)),
}


def weights(config: ModelConfig) -> dict[str, torch.Tensor]:
    """Of a random network that finds many objects."""
    state = lively(config).state_dict()
    state["box_head.scores.bias"].zero_()
    return state


def on_cpu(config: ModelConfig, threads: int = 1, precision: Precision = "fp32") -> NativeBackend:
    """The compiled engine with those weights."""
    tensors = {name: values.numpy() for name, values in weights(config).items()}
    return NativeBackend(Spec(config), tensors, threads, precision)


def both(config: ModelConfig, image: np.ndarray, size: np.ndarray) -> tuple[Raw, Raw]:
    """What the compiled engine and PyTorch find."""
    state, mine = weights(config), on_cpu(config)
    return mine.run(image, size), PyTorchBackend(Spec(config), state, torch.device("cpu")).run(image, size)


def assert_same(mine: Raw, theirs: Raw) -> None:
    # Winograd's sums round to a few 1e-6 of the largest value, through twenty layers.
    assert mine.labels.tolist() == theirs.labels.tolist()
    assert (theirs.scores > 0).sum() >= 5, "too few detections to compare"
    np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-4)
    np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=0.01)
    np.testing.assert_allclose(mine.masks[mine.scores > 0], theirs.masks[theirs.scores > 0], atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_finds_what_pytorch_finds(name: str):
    image = scene(128, 160)
    assert_same(*both(NETWORKS[name], image, np.array([[128, 160]])))


@pytest.mark.parametrize("neck", ["fpn", "c4", "dc5"])
def test_images_of_a_batch_keep_apart_and_their_padding_is_nothing(neck: str):
    image = scene(128, 192, count=3)
    size = np.array([[128, 160], [96, 192], [128, 192]])
    assert_same(*both(SMALL[neck], image, size))


def test_an_input_need_not_be_a_multiple_of_the_stride():
    image = scene(117, 149)
    assert_same(*both(FPN, image, np.array([[117, 149]])))


def test_threads_change_no_value():
    image, size = scene(128, 160), np.array([[128, 160]])
    one, three = (on_cpu(FPN, threads).run(image, size) for threads in (1, 3))
    for mine, theirs in zip(one, three, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("neck", ["fpn", "c4"])
def test_nothing_found_is_empty_rows(neck: str):
    config = replace(SMALL[neck], box_head=replace(SMALL[neck].box_head, score_over=0.9999))
    raw = on_cpu(config).run(scene(96, 96, count=2), np.array([[96, 96], [96, 96]]))
    assert raw.scores.shape == (2, 12)
    assert not any(part.any() for part in raw)


@pytest.mark.parametrize(("precision", "close"), [("bf16", 0.02), ("int8", 0.05)])
@pytest.mark.parametrize("neck", ["fpn", "c4", "dc5"])
def test_fewer_bits_move_the_best_score_a_little(neck: str, precision: Precision, close: float):
    if not multiplies(precision):
        pytest.skip(f"this processor has no instructions for {precision}")
    image, size = scene(128, 160), np.array([[128, 160]])
    exact, coarse = (on_cpu(SMALL[neck], 1, each).run(image, size) for each in ("fp32", precision))
    assert coarse.labels[0, 0] == exact.labels[0, 0]
    np.testing.assert_allclose(coarse.scores[0, 0], exact.scores[0, 0], atol=close)


def test_a_precision_without_instructions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "multiplies", lambda precision: precision == "fp32")
    with pytest.raises(UserError, match="no instructions for bf16 [(]AVX512_BF16[)]"):
        native.open_native_bf16(tmp_path / "any.safetensors")


def test_without_the_loops_the_engine_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "library", lambda: None)
    with pytest.raises(UserError, match="not compiled") as told:
        native.open_native(tmp_path / "any.safetensors")
    assert "compiler" in told.value.hint


def test_only_a_cpu_is_a_device(tmp_path: Path):
    with pytest.raises(UserError, match="--device cuda"):
        native.open_native(tmp_path / "any.safetensors", device="cuda")
