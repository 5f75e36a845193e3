"""Checkpoints of segmentoly with norms in pyramid or heads: group norm everywhere, and the light 0050."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from frameworks import SMALL, Plan, filled
from lineage import segmentoly_file, segmentoly_normed_shapes, segmentoly_shapes
from torch import nn

from maskrcnn.backends.pytorch import open_pytorch
from maskrcnn.config import FPNConfig, MaskHeadConfig
from maskrcnn.errors import UserError
from maskrcnn.flops import NOT_PARAMETERS, count_layers
from maskrcnn.host.native.library import library
from maskrcnn.model.fpn import FPN
from maskrcnn.model.mask_head import MaskHead
from maskrcnn.predict import open_model
from maskrcnn.presets import ARCHITECTURES
from maskrcnn.weights.architecture import infer, parameter_shapes
from maskrcnn.weights.convert import convert
from maskrcnn.weights.convert_back import convert_back
from maskrcnn.weights.model_file import read_model_file
from maskrcnn.weights.rewrite import rewrite
from maskrcnn.weights.sources.segmentoly import NORMED_TABLE

KINDS = {"group norm": False, "0050": True}


@cache
def state(light: bool) -> dict[str, np.ndarray]:
    return filled(segmentoly_normed_shapes(light))


@pytest.mark.parametrize("light", KINDS.values(), ids=KINDS)
def test_every_name_is_placed(light: bool) -> None:
    theirs = state(light)
    rewritten = rewrite(theirs, NORMED_TABLE, "x")
    model = infer({name: array.shape for name, array in rewritten.tensors.items()}, "x")
    assert {n: array.shape for n, array in rewritten.tensors.items()} == parameter_shapes(model)
    assert sorted(rewritten.origins.values()) == sorted(theirs)


def test_a_group_norm_model_keeps_its_norms_and_the_biases_before_them(tmp_path: Path) -> None:
    theirs = state(light=False)
    spec = convert(segmentoly_file(tmp_path / "x.pth", theirs), tmp_path / "out.safetensors").spec
    model = spec.model
    assert (spec.origin.source, model.backbone.norm, model.fpn.norm) == ("segmentoly-norms", "gn", "gn")
    assert (model.fpn.conv_bias, model.mask_head.conv_bias, model.mask_head.norm) == (True, True, "gn")
    assert (model.box_head.convs, model.box_head.fcs, model.box_head.norm) == (4, 1, "gn")
    assert model.backbone.stride_in_1x1  # its ResNet50FPNGN leaves segmentoly's default as it is
    _, ours = read_model_file(tmp_path / "out.safetensors")
    np.testing.assert_array_equal(
        ours["fpn.lateral4.bias"], theirs["fpn.topdown_lateral.0.conv_lateral.0.bias"]
    )
    np.testing.assert_array_equal(ours["mask_head.conv3.weight"], theirs["mask_head.conv_fcn.6.weight"])
    np.testing.assert_array_equal(ours["mask_head.conv3.norm.bias"], theirs["mask_head.conv_fcn.7.bias"])


def test_0050_is_what_its_page_says(tmp_path: Path) -> None:
    report = convert(segmentoly_file(tmp_path / "x.pth", state(light=True)), tmp_path / "out.safetensors")
    model, preprocess = report.spec.model, report.spec.preprocess
    assert (model.fpn.bottom_up, model.rpn.conv_side, model.box_head.fcs) == ("bn", 1, 3)
    assert (model.mask_head.convs, model.mask_head.pool_side, model.mask_head.conv_bias) == (6, 7, True)
    assert (model.rpn.pre_nms, model.rpn.post_nms, model.box_head.batch) == (100, 100, 256)
    assert (preprocess.resize, preprocess.short, preprocess.long) == ("stretch", 480, 480)
    x1, _, x2, _ = model.anchors.cells[0][0]
    assert x2 - x1 == pytest.approx(19.0046144)
    assert report.architecture == "R50-FPN 0conv3fc bn bottom-up"


@pytest.mark.parametrize("light", KINDS.values(), ids=KINDS)
def test_its_pyramid_computes_as_written_down_from_segmentoly(light: bool) -> None:
    """Against its modules put together from torch's: convolutions with bias, norms, and ReLU after each."""
    theirs = {name: torch.from_numpy(array) for name, array in state(light).items()}
    ours = {n: torch.from_numpy(a) for n, a in rewrite(state(light), NORMED_TABLE, "x").tensors.items()}
    config = infer({name: tuple(array.shape) for name, array in ours.items()}, "x").fpn
    fpn = FPN([128, 256, 512, 1024], config).eval()
    fpn.load_state_dict({n.removeprefix("fpn."): a for n, a in ours.items() if n.startswith("fpn.")})
    torch.manual_seed(0)
    stages = [torch.randn(1, c, 64 // s, 64 // s) for c, s in ((128, 4), (256, 8), (512, 16), (1024, 32))]
    with torch.no_grad():
        found = fpn(stages)
        wanted = bottom_up(theirs, top_down(theirs, stages)) if light else top_down(theirs, stages)
    assert len(found) == len(wanted) == 5
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def step(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    """A convolution, or a Sequential of one and a group norm of 32 groups."""
    normed = f"{name}.0.weight" in state
    start = f"{name}.0" if normed else name
    weight, bias = state[f"{start}.weight"], state[f"{start}.bias"]
    x = nn.functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    return (
        nn.functional.group_norm(x, 32, state[f"{name}.1.weight"], state[f"{name}.1.bias"]) if normed else x
    )


def top_down(state: dict[str, torch.Tensor], stages: list[torch.Tensor]) -> list[torch.Tensor]:
    top = step(state, "fpn.conv_top", stages[3])
    levels = [step(state, "fpn.posthoc.0", top)]
    for number in range(3):
        grown = nn.functional.interpolate(top, scale_factor=2, mode="nearest")
        top = step(state, f"fpn.topdown_lateral.{number}.conv_lateral", stages[2 - number]) + grown
        levels.insert(0, step(state, f"fpn.posthoc.{number + 1}", top))
    return [*levels, nn.functional.max_pool2d(levels[-1], 1, 2)]


def bottom_up(state: dict[str, torch.Tensor], levels: list[torch.Tensor]) -> list[torch.Tensor]:
    def block(name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        x = nn.functional.conv2d(x, state[f"{name}.0.weight"], stride=stride, padding=1)
        norm = [state[f"{name}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return nn.functional.batch_norm(x, *norm).relu()

    out = levels[:1]
    for number in range(3):
        shrunk = block(f"bupa.conv1.{number}", out[-1], 2)
        out.append(block(f"bupa.conv2.{number}", shrunk + levels[number + 1], 1))
    return [*out, nn.functional.max_pool2d(out[-1], 1, 2)]


@pytest.mark.parametrize("norm", ["gn", "bn"])
def test_a_bias_before_a_norm_counts(norm: str) -> None:
    torch.manual_seed(0)
    head = MaskHead(32, 2, MaskHeadConfig(convs=1, channels=64, norm=norm, conv_bias=True)).eval()  # type: ignore[arg-type]
    features, labels = torch.randn(1, 32, 4, 4), torch.tensor([1])
    with torch.no_grad():
        before = head(features, labels)
        head.conv1.bias += torch.arange(64.0)  # type: ignore[operator, union-attr]
        assert (head(features, labels) - before).abs().max() > 0.01
    assert MaskHead(32, 2, MaskHeadConfig(convs=1, channels=64, norm=norm)).conv1.bias is None  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize("light", KINDS.values(), ids=KINDS)
def test_a_converted_model_predicts(tmp_path: Path, light: bool) -> None:
    small = ["preprocess.short=96", "preprocess.long=96"]
    convert(segmentoly_file(tmp_path / "x.pth", state(light)), tmp_path / "out.safetensors", settings=small)
    found = open_model(tmp_path / "out.safetensors", "cpu", threads=1)([np.zeros((50, 70, 3), np.uint8)])
    assert found[0].size == (50, 70)
    model = open_pytorch(tmp_path / "out.safetensors", device="cpu").model
    assert model.mask_head.config.conv_bias


def test_the_native_engine_has_no_bottom_up_path(tmp_path: Path) -> None:
    if library() is None:
        pytest.skip("the engine `native` is not compiled here")
    convert(segmentoly_file(tmp_path / "x.pth", state(light=True)), tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="has a bottom-up path or an RPN of 1 x 1 convolutions"):
        open_model(tmp_path / "m.safetensors", engine="native")


def test_0050_has_the_30_million_parameters_of_its_page() -> None:
    shapes = parameter_shapes(ARCHITECTURES["r50-fpn-light"])
    learned = [shape for name, shape in shapes.items() if not name.endswith(NOT_PARAMETERS)]
    assert round(sum(math.prod(shape) for shape in learned) / 1e6, 1) == 30.4


def test_the_cost_of_0050_counts_both_paths(tmp_path: Path) -> None:
    """3 x 3 convolutions of 64 channels on levels 3 to 5 of 128 x 128 pixels, two on each."""
    convert(segmentoly_file(tmp_path / "x.pth", state(light=True)), tmp_path / "m.safetensors")
    spec, tensors = read_model_file(tmp_path / "m.safetensors")
    shapes = {name: array.shape for name, array in tensors.items()}
    layers = count_layers(spec.model, shapes, (128, 128), 100, 100)
    path = [layer for layer in layers if layer.name.startswith(("fpn.shrink", "fpn.joined"))]
    assert sum(layer.gflops for layer in path) == pytest.approx(2 * (256 + 64 + 16) * 2e-9 * 9 * 64 * 64)


@pytest.mark.parametrize("light", KINDS.values(), ids=KINDS)
def test_other_tools_have_no_names_for_them(tmp_path: Path, light: bool) -> None:
    convert(segmentoly_file(tmp_path / "x.pth", state(light)), tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="detectron2 has no (bottom-up path|biases before the norms)"):
        convert_back(tmp_path / "m.safetensors", tmp_path / "out.pth", "detectron2")
    assert not (tmp_path / "out.pth").exists()


def test_models_for_demonstrations_bring_their_mean(tmp_path: Path) -> None:
    theirs = filled(segmentoly_shapes(Plan(**SMALL)))
    theirs |= {"data_normalizer.weight": np.ones(3, np.float32)}
    theirs |= {"data_normalizer.bias": np.float32([-1, -2, -3])}
    model = convert(segmentoly_file(tmp_path / "x.pth", theirs), tmp_path / "out.safetensors").spec.model
    assert (model.mean, model.rpn.pre_nms, model.rpn.post_nms) == ((1.0, 2.0, 3.0), 100, 100)


def test_a_group_norm_model_that_lost_its_norms_is_refused(tmp_path: Path) -> None:
    """As its detectron_resnet50_gn_fpn converter leaves it: nothing of the norms of pyramid and heads."""
    theirs = filled(segmentoly_shapes(Plan(**{**SMALL, "norm": "gn", "width": 32, "group_width": 32})))
    del theirs["detection_head.fc2.weight"], theirs["detection_head.fc2.bias"]
    with pytest.raises(UserError, match="group norm model of Detectron that segmentoly converted without"):
        convert(segmentoly_file(tmp_path / "x.pth", theirs), tmp_path / "out.safetensors")


def test_a_pyramid_without_a_bottom_up_path_has_the_parameters_that_it_had() -> None:
    plain = FPN([8, 16, 32, 64], FPNConfig(16))
    assert {name.split(".")[0].rstrip("2345") for name in plain.state_dict()} == {"lateral", "output"}
