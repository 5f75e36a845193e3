"""Checkpoints of segmentoly's PANet, instance-segmentation-security-0010."""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from frameworks import filled
from lineage import segmentoly_file
from panet_reference import bottom_up, box_head, mask_head, panet_shapes

from maskrcnn.backends.pytorch import open_pytorch
from maskrcnn.errors import UserError
from maskrcnn.flops import NOT_PARAMETERS, Stage, count_layers, count_stages
from maskrcnn.host.native.library import library
from maskrcnn.model.fpn import FPN
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.predict import open_model
from maskrcnn.presets import ARCHITECTURES
from maskrcnn.spec import Spec
from maskrcnn.training.initial import starting
from maskrcnn.weights.architecture import infer, name_of, parameter_shapes
from maskrcnn.weights.convert import convert
from maskrcnn.weights.convert_back import convert_back
from maskrcnn.weights.model_file import read_model_file
from maskrcnn.weights.rewrite import rewrite
from maskrcnn.weights.sources.segmentoly_panet import TABLE

PUBLISHED = ARCHITECTURES["x101-32x8d-panet"]


@cache
def state() -> dict[str, np.ndarray]:
    found = filled(panet_shapes())
    # Offsets of more than a cell, in all directions, beyond the edges as well.
    return {name: 8 * each if "offset" in name else each for name, each in found.items()}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("panet")
    settings = ["preprocess.short=96", "preprocess.long=96"]
    convert(segmentoly_file(folder / "x.pth", state()), folder / "m.safetensors", settings=settings)
    return folder / "m.safetensors"


@pytest.fixture(scope="module")
def model(converted: Path) -> MaskRCNN:
    spec, tensors = read_model_file(converted)
    found = MaskRCNN(spec.model).eval().requires_grad_(False)
    found.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    return found


def test_every_name_is_placed() -> None:
    rewritten = rewrite(state(), TABLE, "x")
    shapes = {name: array.shape for name, array in rewritten.tensors.items()}
    assert shapes == parameter_shapes(infer(shapes, "x"))
    assert sorted(rewritten.origins.values()) == sorted(state())


def test_the_description_says_what_no_tensor_tells(converted: Path) -> None:
    spec, _ = read_model_file(converted)
    model = spec.model
    assert (spec.origin.source, name_of(model)) == ("segmentoly-panet", "X50-2x4d-PANet bn")
    assert (model.fpn.bottom_up, model.fpn.deformable, model.roi_levels) == ("gn", "held", "all")
    assert (model.box_head.fc1_relu, model.box_head.fcs, model.box_head.pool_side) == (False, 2, 7)
    assert (model.mask_head.fully_connected, model.mask_head.convs, model.mask_head.pool_side) == (
        True,
        4,
        14,
    )
    # ResNeXt101PANetMaskRCNN gives its trunk no place of the strides, unlike the other ResNeXts.
    assert model.backbone.stride_in_1x1 and model.backbone.groups == 2
    assert (spec.preprocess.resize, model.rpn.pre_nms, model.box_head.batch) == ("shortest_edge", 1000, 512)
    x1, _, x2, _ = model.anchors.cells[0][0]
    assert x2 - x1 == 49.0


def test_its_path_computes_as_written_down_from_segmentoly(model: MaskRCNN) -> None:
    """Against its modules put together from torch's, its kernel place by place."""
    theirs = {name: torch.from_numpy(array) for name, array in state().items()}
    assert isinstance(model.fpn, FPN)
    torch.manual_seed(0)
    stages = [torch.randn(1, 32 * 2**n, 24 // 2**n, 32 // 2**n) for n in range(4)]
    plain = FPN([32, 64, 128, 256], model.config.fpn.__class__(64)).eval().requires_grad_(False)
    plain.load_state_dict({n: v for n, v in model.fpn.state_dict().items() if n in plain.state_dict()})
    wanted = bottom_up(theirs, plain(stages))
    for mine, other in zip(model.fpn(stages), wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-4, rtol=1e-4)


def test_its_heads_compute_as_written_down_from_segmentoly(model: MaskRCNN) -> None:
    theirs = {name: torch.from_numpy(array) for name, array in state().items()}
    torch.manual_seed(0)
    views = [torch.randn(6, 64, 7, 7) for _ in range(4)]
    logits, deltas = model.box_head.predict(torch.cat(views, 1))
    wanted = box_head(theirs, views)
    torch.testing.assert_close(logits, wanted[0][:, [1, 2, 3, 4, 5, 0]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(deltas.flatten(1), wanted[1][:, 4:], atol=1e-4, rtol=1e-4)
    views = [torch.randn(3, 64, 14, 14) for _ in range(4)]
    masks = model.mask_head.every(torch.cat(views, 1))
    torch.testing.assert_close(masks, mask_head(theirs, views)[:, 1:], atol=1e-4, rtol=1e-4)


def test_a_converted_model_predicts(converted: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    found = open_model(converted, "cpu", threads=1)([image])
    assert found[0].size == (50, 70)
    assert open_pytorch(converted, device="cpu").model.fpn is not None


def test_a_tensor_that_is_missing_has_their_name(tmp_path: Path) -> None:
    for name in ("detection_head.fc1.2.bias", "mask_head.fc.0.weight", "bupa.offset2.1.weight"):
        part = {key: array for key, array in state().items() if key != name}
        with pytest.raises(UserError, match=f"{name} is missing|{name} missing"):
            convert(segmentoly_file(tmp_path / "x.pth", part), tmp_path / "out.safetensors")


def test_a_layer_of_another_rank_is_refused(tmp_path: Path) -> None:
    wrong = state() | {"mask_head.fc.0.weight": np.zeros((784, 32, 14, 14), np.float32)}
    with pytest.raises(
        UserError, match=r"mask_head.fc.0.weight is 784 x 32 x 14 x 14, and such a layer has 2"
    ):
        convert(segmentoly_file(tmp_path / "x.pth", wrong), tmp_path / "out.safetensors")


def test_the_native_engine_refuses_it_in_words(converted: Path) -> None:
    if library() is None:
        pytest.skip("the engine `native` is not compiled here")
    with pytest.raises(
        UserError, match="has neither RoIs of all levels nor deformable convolutions"
    ) as found:
        open_model(converted, engine="native")
    assert "ONNX Runtime" in found.value.hint and "OpenVINO" in found.value.hint


def test_other_tools_have_no_names_for_it(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="detectron2 has no bottom-up path"):
        convert_back(converted, tmp_path / "out.pth", "detectron2")


def stages_at(size: tuple[int, int]) -> dict[str, Stage]:
    found = count_stages(PUBLISHED, parameter_shapes(PUBLISHED), size, 1000, 100)
    return {stage.name: stage for stage in found}


def test_0010_has_the_parameters_of_its_page() -> None:
    """174.6 M there: of its OpenVINO network, which has the RPN once for each of five levels, each batch norm
    as a bias, and the background among boxes and masks.
    """
    shapes = parameter_shapes(PUBLISHED)
    learned = {name: shape for name, shape in shapes.items() if not name.endswith(NOT_PARAMETERS)}
    ours = sum(math.prod(shape) for shape in learned.values())
    assert ours == 172_287_040
    rpn = sum(math.prod(shape) for name, shape in learned.items() if name.startswith("rpn."))
    scales = (name for name in learned if name.startswith("backbone.") and name.endswith("norm.weight"))
    scales_of_norms = sum(math.prod(learned[name]) for name in scales)
    background = 4 * (1024 + 1) + (256 + 1)
    assert round((ours + 4 * rpn - scales_of_norms + background) / 1e6, 1) == 174.6


def test_the_cost_of_0010_is_that_of_its_page_and_of_what_that_leaves_out() -> None:
    """899.6 GFLOP there. Trunk, pyramid and RPN without deformable convolutions are 895.5 of them."""
    stages, size = stages_at((800, 1344)), (800, 1344)
    dense = sum(stages[name].gflops for name in ("backbone", "fpn", "rpn"))
    layers = count_layers(PUBLISHED, parameter_shapes(PUBLISHED), size, 1000, 100)
    names = [f"fpn.{role}{number}" for role in ("shrink", "joined") for number in (3, 4, 5)]
    deformable = [layer for layer in layers if layer.name in names]
    # 3 x 3 of 256 channels at 100 x 168, 50 x 84 and 25 x 42 cells, twice
    cost = sum(layer.gflops for layer in deformable)
    assert cost == pytest.approx(2e-9 * 2 * 9 * 256**2 * (16800 + 4200 + 1050))
    assert dense - cost == pytest.approx(895.5, abs=0.05)
    assert sum(stage.gflops for stage in stages.values()) == pytest.approx(1267.1, abs=0.05)
    assert stages["box_head"].gflops == pytest.approx(105.7, abs=0.05)
    assert stages["mask_head"].gflops == pytest.approx(214.0, abs=0.05)


def test_the_first_layers_of_its_heads_cost_once_a_level() -> None:
    layers = count_layers(PUBLISHED, parameter_shapes(PUBLISHED), (800, 1344), 1000, 100)
    of_boxes = [layer for layer in layers if layer.name.startswith("box_head.fc1.")]
    assert [layer.name[-6:] for layer in of_boxes] == ["level2", "level3", "level4", "level5"]
    assert {layer.parameters for layer in of_boxes} == {256 * 49 * 1024 + 1024}
    (offset,) = [layer for layer in layers if layer.name == "fpn.joined4.offset"]
    assert (offset.outputs, offset.parameters) == (((18, 50, 84),), 18 * 256 * 9)


def test_the_architecture_is_that_of_its_parameters() -> None:
    assert name_of(PUBLISHED) == "X101-32x8d-PANet"
    with torch.device("meta"):
        built = MaskRCNN(PUBLISHED).state_dict()
    assert {name: tuple(each.shape) for name, each in built.items()} == parameter_shapes(PUBLISHED)
    found = infer(parameter_shapes(PUBLISHED), "x")
    assert (found.roi_levels, found.fpn.deformable, found.mask_head) == ("all", "faded", PUBLISHED.mask_head)


def test_from_scratch_it_is_segmentolys_network() -> None:
    plain, _ = starting("scratch:x101-32x8d-panet")
    theirs, _ = starting("scratch:segmentoly/x101-32x8d-panet")
    assert plain.model.backbone.norm == theirs.model.backbone.norm == "bn"
    assert not theirs.model.box_head.fc1_relu and theirs.model.conventions.plus_one
    assert theirs.model.backbone.stride_in_1x1 and theirs.model.fpn == plain.model.fpn
    assert json.loads(Spec(PUBLISHED).to_json())["model"]["roi_levels"] == "all"
