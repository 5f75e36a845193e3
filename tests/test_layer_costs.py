"""The cost of each layer is worked out by hand, and adds up to that of its stage."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn import presets
from maskrcnn.config import ModelConfig
from maskrcnn.flops import LayerCost, count_layers, count_stages
from maskrcnn.weights.architecture import parameter_shapes

SIZE = (800, 1216)


def layers_of(config: ModelConfig) -> list[LayerCost]:
    return count_layers(config, dict(parameter_shapes(config)), SIZE, proposals=1000, detections=100)


def named(layers: list[LayerCost], name: str) -> LayerCost:
    (found,) = [layer for layer in layers if layer.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "outputs", "parameters", "multiplications"),
    [
        # 7 x 7 x 3 weights for 64 channels and the scale and shift of their norm
        ("backbone.stem.conv", ((64, 400, 608),), 9408 + 128, 9408 * 400 * 608),
        ("backbone.res3.0.shortcut", ((512, 100, 152),), 256 * 512 + 1024, 256 * 512 * 100 * 152),
        # before the stride, which stands in the 3x3
        ("backbone.res3.0.conv1", ((128, 200, 304),), 256 * 128 + 256, 256 * 128 * 200 * 304),
        ("fpn.output2", ((256, 200, 304),), 256 * 256 * 9 + 256, 256 * 256 * 9 * 200 * 304),
        (
            "rpn.objectness",
            ((3, 200, 304), (3, 100, 152), (3, 50, 76), (3, 25, 38), (3, 13, 19)),
            3 * 256 + 3,
            3 * 256 * (60800 + 15200 + 3800 + 950 + 247),
        ),
        ("box_head.fc1", ((1000, 1024),), 12544 * 1024 + 1024, 12544 * 1024 * 1000),
        ("box_head.scores", ((1000, 81),), 1024 * 81 + 81, 1024 * 81 * 1000),
        # each of 14 x 14 cells becomes 2 x 2
        ("mask_head.upsample", ((100, 256, 28, 28),), 256 * 256 * 4 + 256, 256 * 256 * 4 * 196 * 100),
        ("mask_head.logits", ((100, 80, 28, 28),), 256 * 80 + 80, 256 * 80 * 784 * 100),
    ],
)
def test_layers_of_r50_fpn_cost_what_they_cost_by_hand(
    name: str, outputs: tuple[tuple[int, ...], ...], parameters: int, multiplications: int
) -> None:
    layer = named(layers_of(ModelConfig()), name)
    assert (layer.outputs, layer.parameters) == (outputs, parameters)
    assert layer.gflops == pytest.approx(2 * multiplications / 1e9, rel=1e-12)


@pytest.mark.parametrize("name", presets.ARCHITECTURES)
def test_layers_add_up_to_their_stages_in_the_order_of_the_network(name: str) -> None:
    config = presets.ARCHITECTURES[name]
    layers = layers_of(config)
    stages = count_stages(config, dict(parameter_shapes(config)), SIZE, 1000, 100)
    assert list(dict.fromkeys(layer.stage for layer in layers)) == [stage.name for stage in stages]
    for stage in stages:
        own = [layer for layer in layers if layer.stage == stage.name]
        assert sum(layer.parameters for layer in own) == stage.parameters
        assert sum(layer.gflops for layer in own) == pytest.approx(stage.gflops, rel=1e-12)
    assert layers[0].name == "backbone.stem.conv" and layers[-1].name == "mask_head.logits"


def test_res5_of_c4_has_a_row_for_each_head_and_its_parameters_once() -> None:
    layers = [layer for layer in layers_of(presets.ARCHITECTURES["r50-c4"]) if layer.name.startswith("res5")]
    boxes, masks = (
        [each for each in layers if each.stage == stage and each.name == "res5.0.conv2"][0]
        for stage in ("box_head", "mask_head")
    )
    # of 14 x 14 cells the 3x3 leaves 7 x 7
    assert (boxes.outputs, masks.outputs) == (((1000, 512, 7, 7),), ((100, 512, 7, 7),))
    assert (boxes.parameters, masks.parameters) == (512 * 512 * 9 + 1024, 0)
    assert boxes.gflops == pytest.approx(2e-9 * 512 * 512 * 9 * 49 * 1000)
    assert masks.gflops == pytest.approx(boxes.gflops / 10)


def test_groups_divide_what_a_layer_multiplies() -> None:
    config = presets.ARCHITECTURES["x101-32x8d-fpn"]
    wide = named(layers_of(config), "backbone.res2.1.conv2")
    # 32 groups of 8 channels see 8 channels each
    assert wide.gflops == pytest.approx(2e-9 * 256 * 8 * 9 * 200 * 304)
    plain = named(layers_of(replace(config, backbone=replace(config.backbone, groups=1))), wide.name)
    assert plain.outputs[0][1:] == wide.outputs[0][1:]


def test_info_shows_them_when_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from maskrcnn.cli.info import info

    info("example")
    assert "backbone.stem.conv" not in capsys.readouterr().out
    info("example", as_json=True, flops=True)
    told = json.loads(capsys.readouterr().out)
    assert sum(layer["parameters"] for layer in told["layers"]) == told["parameters"]
    info("example", flops=True)
    rows = capsys.readouterr().out.splitlines()
    start = next(at for at, row in enumerate(rows) if row.startswith("layers"))
    first, *_, last = rows[start + 1 : start + 1 + len(told["layers"])]
    assert first.split() == ["backbone.stem.conv", "48", "x", "160", "x", "240", "7,152", "0.542", "1.32%"]
    assert last.split()[0] == "mask_head.logits"
