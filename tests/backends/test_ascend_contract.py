"""The layout of Ascend's graphs: which are known by it, how they are fed, and what their rows mean."""

from pathlib import Path

import numpy as np
import pytest

from maskrcnn.backends.contracts.ascend import CONTRACT, in_their_order, mmdetection_spec, raw_of
from maskrcnn.backends.foreign_graph import ForeignGraph, Interface, recognised
from maskrcnn.errors import UserError

IMAGE = {"input": (1, 3, 1216, 1216)}
ROWS = {"output1": (100, 5), "output2": (100,), "output3": (100, 80, 28, 28)}


def test_their_graph_is_known_by_the_shapes_of_its_outputs_whatever_their_names() -> None:
    assert CONTRACT.fits(Interface(IMAGE, ROWS))
    assert recognised(Path("m.onnx"), Interface(IMAGE, ROWS)) is CONTRACT
    named = dict(zip(("dets", "labels", "masks"), ROWS.values(), strict=True))
    assert recognised(Path("m.onnx"), Interface(IMAGE, named)) is CONTRACT


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"image": (1, 3, 1216, 1216)}, ROWS),
        (IMAGE | {"im_info": (1, 3)}, ROWS),
        ({"input": (1, 3, 0, 0)}, ROWS),  # of any size
        ({"input": (2, 3, 1216, 1216)}, ROWS),
        (IMAGE, ROWS | {"output1": (1, 100, 5)}),
        (IMAGE, ROWS | {"output1": (0, 5)}),  # as many rows as there are objects
        (IMAGE, ROWS | {"output1": (100, 4)}),
        (IMAGE, ROWS | {"output3": (100, 1216, 1216)}),
        (IMAGE, ROWS | {"output3": (1, 100, 1216, 1216)}),  # masks on the image, of mmdetection
        (IMAGE, {"output1": (100, 5), "output2": (100,)}),
    ],
)
def test_other_graphs_are_not_taken_for_theirs(inputs: dict, outputs: dict) -> None:
    assert not CONTRACT.fits(Interface(inputs, outputs))


def test_a_graph_without_description_is_fed_as_theirs_of_its_own_size() -> None:
    outputs = {"a": (50, 5), "b": (50,), "c": (50, 3, 28, 28)}
    spec = CONTRACT.describe(Path("m.onnx"), Interface({"input": (1, 3, 800, 1216)}, outputs))
    assert (spec.preprocess.short, spec.preprocess.long, spec.preprocess.channels) == (800, 1216, "rgb")
    assert (spec.model.classes, spec.model.box_head.detections, spec.classes.names) == (3, 50, ())
    assert len(mmdetection_spec().classes) == 80


def test_the_mask_of_a_row_is_that_of_its_class() -> None:
    dets = np.array([[0, 0, 4, 4, 0.2], [1, 1, 9, 9, 0.8], [0, 0, 0, 0, 0]], np.float32)
    masks = np.arange(3 * 2, dtype=np.float32).reshape(3, 2, 1, 1) / 10
    raw = raw_of(dets, np.array([1, 0, 80], np.int32), masks)
    assert raw.scores.tolist() == [pytest.approx([0.8, 0.2, 0])]
    assert raw.labels.tolist() == [[0, 1, 0]]
    assert raw.masks[0, :, 0, 0].tolist() == pytest.approx([0.2, 0.1, 0])
    assert raw.boxes[0].tolist() == [[1, 1, 9, 9], [0, 0, 4, 4], [0, 0, 0, 0]]


def test_outputs_are_told_apart_by_their_ranks() -> None:
    arrays = {"z": np.zeros((3, 2, 1, 1)), "y": np.zeros((3, 5)), "x": np.zeros(3)}
    assert [array.ndim for array in in_their_order(arrays)] == [2, 1, 4]


def test_the_image_is_normalised_on_the_host() -> None:
    spec = mmdetection_spec((32, 32), classes=2, rows=3)
    seen = []

    def session(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(arrays["input"])
        return {"a": np.zeros((3, 5)), "b": np.zeros(3), "c": np.zeros((3, 2, 28, 28))}

    graph = ForeignGraph(spec, session, CONTRACT)
    raw = graph.run(np.full((1, 3, 32, 32), 255, np.uint8), np.array([[32, 32]]))
    assert seen[0].shape == (1, 3, 32, 32)
    np.testing.assert_allclose(seen[0][0, :, 0, 0], [2.2489083, 2.4285715, 2.64], rtol=1e-6)
    assert raw.masks.shape == (1, 3, 28, 28)
    with pytest.raises(UserError, match="32 x 64"):
        graph.run(np.zeros((1, 3, 32, 64), np.uint8), np.array([[32, 64]]))
