"""Which nodes of a graph are computed in 8 bits, and the layer of the model that each belongs to."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# With these between them, a sum of features reaches the next convolution; the sums that make boxes of deltas
# meet others before, and so do the levels on their way into RoIAlign.
PASSING = {"Relu", "MaxPool", "Resize", "Pad"}
WEIGHTED = {"Conv", "ConvTranspose", "Gemm"}
BLOCK = re.compile(r"\b((backbone\.)?res\d+\.\d+|(backbone|fpn|rpn|box_head|mask_head)\.[a-z]+\d*)\b")


@dataclass(frozen=True)
class Node:
    """One operation. kind: its ONNX operator; a MatMul with stored weights is a Gemm. weight: name of its
    stored weights, "" for none. inputs: names of the nodes that compute its other inputs.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    weight: str = ""


@dataclass(frozen=True)
class Layer:
    """What is quantised, or kept in float32, together: one layer, or one residual block with its sum.

    name: as its parameters begin in a model file, such as `backbone.res2.0`, `rpn.deltas` or `box_head.fc1`.
    nodes: names, of convolutions, products and sums.
    """

    name: str
    nodes: tuple[str, ...]


def layer_of(weight: str, part: str = "") -> str:
    """`model.backbone.res2.0.conv1.weight` is part of `backbone.res2.0`; "" for what is no layer.

    part: `box_head` or `mask_head`, where the graph is that of a head alone, whose names begin with `head`.
    """
    found = BLOCK.search(weight.replace("head.", f"{part}.", 1) if weight.startswith("head.") else weight)
    return found.group(1) if found else ""


def layers_of(nodes: Sequence[Node], part: str = "") -> tuple[Layer, ...]:
    """The layers of a graph in its order. Decoding, NMS and RoIAlign are part of none. part: as above."""
    by_name, consumers = {node.name: node for node in nodes}, _consumers(nodes)
    found: dict[str, list[str]] = {}
    for node in nodes:
        if node.kind in WEIGHTED and node.weight:
            name = layer_of(node.weight, part)
        elif node.kind == "Add" and len(node.inputs) == 2 and _feeds_a_layer(node, consumers):
            name = _source(node, by_name, part)
        else:
            continue
        if name:
            found.setdefault(name, []).append(node.name)
    return tuple(Layer(name, tuple(members)) for name, members in found.items())


def between(nodes: Sequence[Node]) -> frozenset[str]:
    """Names of the nodes that hand features on from layer to layer: ReLU, pooling, upsampling."""
    consumers = _consumers(nodes)
    return frozenset(node.name for node in nodes if node.kind in PASSING and _feeds_a_layer(node, consumers))


def _consumers(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            found.setdefault(name, []).append(node)
    return found


def _feeds_a_layer(node: Node, consumers: Mapping[str, Iterable[Node]]) -> bool:
    """Whether features go from this node into stored weights."""
    waiting, seen = [node.name], {node.name}
    while waiting:
        for consumer in consumers.get(waiting.pop(), ()):
            if consumer.kind in WEIGHTED and consumer.weight:
                return True
            if consumer.kind in {*PASSING, "Add"} and consumer.name not in seen:
                seen.add(consumer.name)
                waiting.append(consumer.name)
    return False


def _source(node: Node, by_name: Mapping[str, Node], part: str) -> str:
    """The layer whose convolution is the sum's nearer term; "" if neither term is one."""
    for name in node.inputs:
        term = by_name.get(name)
        while term is not None and term.kind == "Add" and len(term.inputs) == 1:  # its bias
            term = by_name.get(term.inputs[0])
        if term is not None and term.weight:
            return layer_of(term.weight, part)
    return ""
