"""Which nodes of a graph are quantised, on hand-made graphs."""

import pytest

from maskrcnn.export.quantize_layers import Layer, Node, between, layer_of, layers_of

BLOCK = (
    Node("stem", "Conv", ("normalised",), "model.backbone.stem.conv.weight"),
    Node("pool", "MaxPool", ("stem",)),
    Node("first", "Conv", ("pool",), "model.backbone.res2.0.conv1.weight"),
    Node("relu", "Relu", ("first",)),
    Node("second", "Conv", ("relu",), "model.backbone.res2.0.conv2.weight"),
    Node("biased", "Add", ("second",)),
    Node("sum", "Add", ("biased", "pool")),
    Node("out", "Relu", ("sum",)),
)
PYRAMID = (
    Node("lateral4", "Conv", ("out",), "model.fpn.lateral4.weight"),
    Node("grown", "Resize", ("above",)),
    Node("merged", "Add", ("lateral4", "grown")),
    Node("output4", "Conv", ("merged",), "model.fpn.output4.weight"),
)
DECODED = (
    Node("deltas", "Conv", ("output4",), "model.rpn.deltas.weight"),
    Node("moved", "Add", ("deltas", "centres")),
    Node("clipped", "Clip", ("moved",)),
    Node("pooled", "RoiAlign", ("output4", "clipped")),
    Node("padded", "Pad", ("deltas",)),
    Node("fc", "Gemm", ("pooled",), "model.box_head.fc1.0.weight"),
    Node("class", "Gemm", ("fc", "chosen")),
)


@pytest.mark.parametrize(
    ("weight", "part", "layer"),
    [
        ("model.backbone.res2.0.conv1.weight", "", "backbone.res2.0"),
        ("model.backbone.res4.22.shortcut.weight", "", "backbone.res4.22"),
        ("model.backbone.stem.conv.weight", "", "backbone.stem"),
        ("model.fpn.output5.weight", "", "fpn.output5"),
        ("model.box_head.fc1.0.weight", "", "box_head.fc1"),
        ("res5.1.conv3.weight", "mask_head", "res5.1"),
        ("head.fc2.weight", "box_head", "box_head.fc2"),
        ("head.conv1.weight", "mask_head", "mask_head.conv1"),
        ("val_17", "", ""),
    ],
)
def test_a_layer_is_named_as_in_the_model_file(weight: str, part: str, layer: str) -> None:
    assert layer_of(weight, part) == layer


def test_a_residual_block_is_one_layer_with_its_sum_and_without_its_biases() -> None:
    more = Node("next", "Conv", ("out",), "model.backbone.res2.1.conv1.weight")
    assert layers_of([*BLOCK, more])[1] == Layer("backbone.res2.0", ("first", "second", "sum"))


def test_the_sum_of_the_pyramid_belongs_to_the_lateral_convolution() -> None:
    layers = {layer.name: layer.nodes for layer in layers_of([*BLOCK, *PYRAMID])}
    assert layers["fpn.lateral4"] == ("lateral4", "merged")
    assert layers["fpn.output4"] == ("output4",)


def test_what_makes_boxes_of_deltas_and_what_has_no_stored_weights_belongs_to_no_layer() -> None:
    members = {name for layer in layers_of([*PYRAMID, *DECODED]) for name in layer.nodes}
    assert members == {"lateral4", "merged", "output4", "deltas", "fc"}


def test_only_what_hands_features_on_to_a_layer_lies_between() -> None:
    assert between([*BLOCK, *PYRAMID, *DECODED]) == {"pool", "relu", "out", "grown"}
