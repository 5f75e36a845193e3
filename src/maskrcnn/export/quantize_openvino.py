"""Quantises OpenVINO graphs to 8 bits with NNCF."""

import io
import logging
from collections.abc import Collection, Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import nncf
import numpy as np

from maskrcnn.backends.silent_openvino import openvino
from maskrcnn.export.quantize_layers import Node, between, layers_of
from maskrcnn.stored_spec import KEY

KINDS = {
    "Convolution": "Conv",
    "GroupConvolution": "Conv",
    "ConvolutionBackpropData": "ConvTranspose",
    "GroupConvolutionBackpropData": "ConvTranspose",
    "MatMul": "Gemm",
    "Interpolate": "Resize",
}
# What stands between stored weights and the node that reads them: float16 made float32, another order.
BETWEEN = {"Convert", "Transpose", "Reshape"}
STORED = {"Constant", "Parameter", "Result"}
# Layers that this engine does better to keep in float32, and why.
KEPT: dict[str, str] = {}


class Graph:
    """A float32 graph with what calibrates it.

    inputs: arrays by the names of the graph's inputs, iterated several times; count: how many there are.
    part: the head that the graph is, see `layer_of`.
    """

    def __init__(
        self, path: Path, inputs: Iterable[dict[str, np.ndarray]], count: int, part: str = ""
    ) -> None:
        self.path = path
        self.inputs = inputs
        self.count = count
        nodes = [_node(each) for each in self._read().get_ordered_ops()]
        self.layers = layers_of(nodes, part)
        biases = {node.name for node in nodes if node.kind == "Add" and len(node.inputs) == 1}
        stored = {node.name for node in nodes if node.kind in STORED}
        # Neither quantised by themselves nor in the way of what is.
        self.neutral = between(nodes) | biases | stored

    def write(self, path: Path, kept: Collection[str], description: str) -> None:
        """Write an `.xml` and its `.bin` in which all layers but the kept ones are int8.

        Weights have a scale for each output channel, activations one for all; biases are corrected for the
        mean error of each layer. Outputs are float32. description: goes into the file's rt_info.
        """
        nncf.set_log_level(logging.ERROR)
        graph = self._read()
        names = {name for layer in self.layers if layer.name not in kept for name in layer.nodes}
        every = (each.get_friendly_name() for each in graph.get_ordered_ops())
        wide = [name for name in every if name not in names and name not in self.neutral]
        # Smoothing is for transformers: it moves the scales of activations into weights.
        off = nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
        if names:
            with redirect_stdout(io.StringIO()):  # its bars
                graph = nncf.quantize(
                    graph,
                    nncf.Dataset(self.inputs),
                    # Signed activations without offsets multiply 3 % faster than with, at the same accuracy.
                    preset=nncf.QuantizationPreset.PERFORMANCE,
                    subset_size=self.count,
                    fast_bias_correction=True,
                    ignored_scope=nncf.IgnoredScope(names=wide, validate=False),
                    advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=off),
                )
        graph.set_rt_info(description, KEY)
        try:
            openvino.save_model(graph, path, compress_to_fp16=False)
        except RuntimeError as error:  # what a full disk is to it
            raise OSError(str(error).splitlines()[-1]) from error

    def _read(self) -> openvino.Model:
        # Reading an ONNX Loop leaves nodes behind that nothing uses and NNCF trips over; a copy has none.
        return openvino.Core().read_model(self.path).clone()


def _node(op: Any) -> Node:
    kind, weight, inputs = op.get_type_name(), "", []
    for number, port in enumerate(op.inputs()):
        source = port.get_source_output().get_node()
        while number and source.get_type_name() in BETWEEN:
            source = source.inputs()[0].get_source_output().get_node()
        if source.get_type_name() != "Constant":
            inputs.append(port.get_source_output().get_node().get_friendly_name())
        elif number == 1:
            weight = source.get_friendly_name()
    return Node(op.get_friendly_name(), KINDS.get(kind, kind), tuple(inputs), weight)
