"""Quantises ONNX graphs to 8 bits as TensorRT and IxRT demand it, and builds their engines.

Their explicit quantisation: signed bytes, every zero point 0, one scale for a tensor of features and one for
each output channel of weights, which are stored as float32 with a pair of (De)QuantizeLinear behind them.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType

from maskrcnn.export import quantize_onnx
from maskrcnn.export.quantize_layers import WEIGHTED
from maskrcnn.export.quantize_onnx import KINDS, Rules
from maskrcnn.spec import spec_from_json

# A pair behind a convolution would keep it from being one kernel with the ReLU that follows it. TensorRT 8
# takes neither biases of 32 bits nor weights that are bytes already.
RULES = Rules(
    QuantType.QInt8,
    passing=False,
    options={
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "AddQDQPairToWeight": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": KINDS,
    },
)
KEPT = {"mask_head.upsample": "TensorRT has no scale for each output channel of a transposed convolution"}


class Graph:
    """A float32 graph with the ranges of its features, which becomes an `.engine` or the `.onnx` for one.

    Arguments as for `quantize_onnx.Graph`.
    """

    def __init__(
        self, path: Path, inputs: Iterable[dict[str, np.ndarray]], count: int, part: str = ""
    ) -> None:
        self.measured = quantize_onnx.Graph(path, inputs, count, part, RULES)
        self.layers = self.measured.layers

    def write(self, path: Path, kept: Collection[str], description: str) -> None:
        """Write all layers but the kept ones in int8: an engine, or where `path` is an `.onnx` its graph.

        Raises UserError where the engine cannot build it.
        """
        graph = self.measured.quantised(kept, description)
        _leave_products_of_sums(graph.graph)
        _sort(graph.graph)
        if path.suffix.lower() != ".engine":
            path.write_bytes(graph.SerializeToString())
            return
        from maskrcnn.export.tensorrt_plan import build

        build(graph.SerializeToString(), spec_from_json(description, path), path)


def _leave_products_of_sums(graph: onnx.GraphProto) -> None:
    """Take the pair away between a sum and one convolution whose product nothing else reads.

    The engine then computes convolution, sum and ReLU as one kernel, which reads the other term as bytes.
    """
    maker = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for place, name in enumerate(node.input):
            product = _before_pair(name, maker)
            if product and maker[product].op_type in WEIGHTED:
                node.input[place] = product
                break
    _drop_unread(graph)


def _before_pair(name: str, maker: dict[str, onnx.NodeProto]) -> str:
    """The float32 tensor that a pair makes `name` of; "" where no pair does."""
    last = maker.get(name)
    first = maker.get(last.input[0]) if last is not None and last.op_type == "DequantizeLinear" else None
    found = first.input[0] if first is not None and first.op_type == "QuantizeLinear" else ""
    return found if found in maker else ""


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Without the pairs that nothing reads, and their scales."""
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        read = _read_in(graph)
        for node in [each for each in graph.node if each.op_type == kind and each.output[0] not in read]:
            graph.node.remove(node)
    read = _read_in(graph)
    stored = [each for each in graph.initializer if each.name in read]
    del graph.initializer[:]
    graph.initializer.extend(stored)


def _read_in(graph: onnx.GraphProto) -> set[str]:
    outputs = {each.name for each in graph.output}
    return outputs.union(name for node in graph.node for name in _read_by(node))


def _sort(graph: onnx.GraphProto) -> None:
    """Each node behind those that make its inputs, as ONNX wants it: the quantiser puts its pairs last."""
    maker = {name: place for place, node in enumerate(graph.node) for name in node.output}
    order: dict[int, None] = {}
    waiting = list(reversed(range(len(graph.node))))
    while waiting:
        place = waiting[-1]
        missing = [maker[name] for name in _read_by(graph.node[place]) if name in maker]
        missing = [each for each in missing if each not in order]
        if missing and place not in order:
            waiting.extend(missing)
        else:
            order[waiting.pop()] = None
    nodes = [graph.node[place] for place in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names of a node's inputs, and of what the graphs inside it read."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read_by(inner)
