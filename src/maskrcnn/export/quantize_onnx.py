"""Quantises ONNX graphs to 8 bits as ONNX Runtime computes them, by pairs of (De)QuantizeLinear."""

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

from maskrcnn.errors import UserError
from maskrcnn.export.clean import quiet
from maskrcnn.export.quantize_layers import PASSING, WEIGHTED, Node, between, layers_of
from maskrcnn.stored_spec import KEY

KINDS = sorted({*WEIGHTED, *PASSING, "MatMul", "Add"})
# The first that knows scales for each channel of the weights.
FIRST_OPSET = 13
_ROUNDED = "ONNX Runtime would round their results to 8 bits"
# Layers that this engine does better to keep in float32, and why.
KEPT = {
    "rpn.objectness": _ROUNDED,
    "rpn.deltas": _ROUNDED,
    "mask_head.logits": _ROUNDED,
    "mask_head.upsample": "ONNX Runtime has no 8-bit transposed convolution",
}


@dataclass(frozen=True)
class Rules:
    """Which pairs an engine wants.

    activations: type of 8-bit features. passing: what hands features on between layers gets pairs as well.
    options: of ONNX Runtime's quantiser.
    """

    activations: QuantType = QuantType.QUInt8
    passing: bool = True
    options: Mapping[str, Any] = field(
        default_factory=lambda: {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]}
    )


class Graph:
    """A float32 graph with the ranges of its features on the calibration inputs.

    inputs: arrays by the names of the graph's inputs; count: how many there are. part: the head that the
    graph is, see `layer_of`. rules: of the engine, ONNX Runtime's own when left out.
    """

    def __init__(
        self,
        path: Path,
        inputs: Iterable[dict[str, np.ndarray]],
        count: int,
        part: str = "",
        rules: Rules | None = None,
    ) -> None:
        self.rules = rules or Rules()
        self.graph = _read(path)
        nodes = list(_nodes(self.graph))
        self.layers, self.between = layers_of(nodes, part), between(nodes)
        self.ranges = self._of_features(_ranges(self.graph, inputs))

    def write(self, path: Path, kept: Collection[str], description: str) -> None:
        """Write an `.onnx` in which all layers but the kept ones are int8.

        Weights are signed with a scale for each output channel, activations unsigned with one scale and
        offset. Results of Gemm are float32. description: goes into the file's metadata.
        """
        path.write_bytes(self.quantised(kept, description).SerializeToString())

    def quantised(self, kept: Collection[str], description: str) -> onnx.ModelProto:
        """The graph that `write` writes, by the rules of this one's engine."""
        names = [name for layer in self.layers if layer.name not in kept for name in layer.nodes]
        graph = self._quantised(names) if names else self.graph
        del graph.metadata_props[:]
        onnx.helper.set_model_props(graph, {KEY: description})
        return graph

    def _of_features(self, ranges: TensorsData) -> TensorsData:
        """Without the sums of decoding and the endless ranges of what pads scores before ranking."""
        members = {name for layer in self.layers for name in layer.nodes} | self.between
        nodes = [node for node in self.graph.graph.node if node.name in members]
        # The other inputs are weights, or what a Resize is told.
        read = (node.input if node.op_type == "Add" else node.input[:1] for node in nodes)
        tensors = {name for names in (*read, *(node.output for node in nodes)) for name in names}
        limits = {name: each.range_value for name, each in ranges.items() if name in tensors}
        if not all(np.isfinite(value).all() for value in limits.values()):
            raise UserError(
                "nothing is found in the images of --calibrate, where the mask head is calibrated",
                hint="take photographs like those that the model was trained on",
            )
        return TensorsData(CalibrationMethod.MinMax, limits)

    def _quantised(self, names: list[str]) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(self.graph)
        quantizer = QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=self.rules.activations,
            tensors_range=self.ranges,
            nodes_to_quantize=[*names, *(sorted(self.between) if self.rules.passing else ())],
            nodes_to_exclude=[],
            op_types_to_quantize=KINDS,
            extra_options=dict(self.rules.options),
        )
        with quiet():
            quantizer.quantize_model()
        return quantizer.model.model


class _Reader(CalibrationDataReader):
    """Inputs as the calibration asks for them."""

    def __init__(self, inputs: Iterable[dict[str, np.ndarray]]) -> None:
        self.left = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


def _read(path: Path) -> onnx.ModelProto:
    """With every shape that can be known, which calibration needs."""
    graph = onnx.load(path)
    if max(each.version for each in graph.opset_import if each.domain == "") < FIRST_OPSET:
        graph = version_converter.convert_version(graph, FIRST_OPSET)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.onnx"
        onnx.save(graph, file)
        return load_model_with_shape_infer(file)


def _ranges(graph: onnx.ModelProto, inputs: Iterable[dict[str, np.ndarray]]) -> TensorsData:
    """The least and the largest value of what convolutions, products and sums read and write."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        plain, measuring = Path(folder) / "graph.onnx", Path(folder) / "measuring.onnx"
        onnx.save(graph, plain)
        calibrator = create_calibrator(plain, KINDS, str(measuring), CalibrationMethod.MinMax)
        calibrator.collect_data(_Reader(inputs))
        return calibrator.compute_data()


def _nodes(graph: onnx.ModelProto) -> Iterator[Node]:
    stored = {each.name for each in graph.graph.initializer}
    maker = {output: node.name for node in graph.graph.node for output in node.output}
    for node in graph.graph.node:
        weight = node.input[1] if len(node.input) > 1 and node.input[1] in stored else ""
        kind = "Gemm" if node.op_type == "MatMul" and weight else node.op_type
        computed = tuple(maker[name] for name in node.input if name in maker)
        yield Node(node.name, kind, computed, weight)
