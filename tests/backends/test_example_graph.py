"""The example model's graph, which finds its weights in the model file beside it."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from skimage.data import astronaut

from maskrcnn import open_model
from maskrcnn.spec import Spec
from maskrcnn.stored_spec import stored_spec

PACKAGE = Path(str(files("maskrcnn")))
COMMAND = "run scripts/write_example_graph.py"


def test_the_graph_describes_the_model_that_lies_beside_it():
    model, graph = (stored_spec(PACKAGE / f"example.{suffix}") for suffix in ("safetensors", "onnx"))
    as_model = replace(graph, exported=None, precision=model.precision, origin=model.origin)
    assert isinstance(model, Spec)
    assert as_model == model, COMMAND


def test_the_graph_holds_no_weights_of_its_own():
    assert (PACKAGE / "example.onnx").stat().st_size < 500_000


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_graph_finds_what_the_model_file_finds(engine):
    (ours,) = open_model("example", threads=1)([astronaut()])
    (graphs,) = open_model("example", threads=1, engine=engine)([astronaut()])
    assert len(ours) > 10
    assert graphs.labels.tolist() == ours.labels.tolist(), COMMAND
    # Rounding in another order of sums.
    assert np.abs(graphs.boxes - ours.boxes).max() < 0.01
    assert np.abs(graphs.scores - ours.scores).max() < 1e-5
