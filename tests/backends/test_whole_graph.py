"""What a graph is given and what is made of its rows, on a session that only takes notes."""

import numpy as np
import pytest
from tiny_graph import planes, spec

from maskrcnn.backends.whole_graph import WholeGraph, check_names
from maskrcnn.errors import UserError
from maskrcnn.spec import Spec


class Notes:
    """A session that finds in each image one object, of the score of its first pixel."""

    def __init__(self) -> None:
        self.given: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        image, size = arrays["image"], arrays["size"]
        self.given.append((image, size))
        return {
            "boxes": np.zeros((len(image), 1, 4), np.float16),
            "scores": image[:, 0, 0, :1].astype(np.float16),
            "labels": np.ones((len(image), 1), np.int32),
            "masks": np.ones((len(image), 1, 4, 4), np.float16),
        }


def graph_and_notes(description: Spec) -> tuple[WholeGraph, Notes]:
    notes = Notes()
    return WholeGraph(description, notes), notes


def sizes(count: int) -> np.ndarray:
    return np.array([[32 - row, 64] for row in range(count)])


def test_a_graph_for_any_number_of_images_gets_all_at_once() -> None:
    graph, notes = graph_and_notes(spec())
    raw = graph.run(planes(10, 20, 30), sizes(3))
    assert [len(image) for image, _ in notes.given] == [3]
    assert raw.scores.tolist() == [[10], [20], [30]]


def test_a_graph_for_two_images_runs_twice_for_three_with_a_blank_one_at_the_end() -> None:
    graph, notes = graph_and_notes(spec(batch=2))
    raw = graph.run(planes(10, 20, 30), sizes(3))
    assert [image[:, 0, 0, 0].tolist() for image, _ in notes.given] == [[10, 20], [30, 0]]
    assert [size.tolist() for _, size in notes.given] == [[[32, 64], [31, 64]], [[30, 64], [30, 64]]]
    assert raw.scores.tolist() == [[10], [20], [30]]
    assert raw.boxes.shape == (3, 1, 4)


def test_rows_are_of_the_types_of_raw_whatever_the_graph_returns() -> None:
    graph, _ = graph_and_notes(spec())
    raw = graph.run(planes(1), sizes(1))
    assert [part.dtype for part in raw] == [np.float32, np.float32, np.int64, np.float32]


@pytest.mark.parametrize("given", ["uint8", "float32"])
def test_a_graph_of_float_input_gets_float_planes(given: str) -> None:
    graph, notes = graph_and_notes(spec(image="float32"))
    graph.run(planes(7, dtype=given), sizes(1).astype(np.int32))
    image, size = notes.given[0]
    assert (image.dtype, size.dtype) == (np.float32, np.int64)


def test_a_graph_of_uint8_input_gets_uint8_planes_and_refuses_fractions() -> None:
    graph, notes = graph_and_notes(spec(image="uint8"))
    graph.run(planes(7, dtype="uint8"), sizes(1))
    assert notes.given[0][0].dtype == np.uint8
    with pytest.raises(UserError, match="exported for uint8 images, and this one is float32") as caught:
        graph.run(planes(7), sizes(1))
    assert "opencv filter" in caught.value.hint


@pytest.mark.parametrize(
    ("exported", "size", "words"),
    [
        ({"height": 32, "width": 64}, (64, 32), "exported for 32 x 64"),
        ({"height": 32, "width": 64}, (32, 96), "exported for 32 x 64"),
        ({"height": 32}, (64, 64), "exported for 32 x multiples of 32"),
        ({}, (32, 65), "exported for multiples of 32 x multiples of 32"),
    ],
)
def test_an_input_of_another_size_is_refused_with_both_sizes(
    exported: dict[str, int], size: tuple[int, int], words: str
) -> None:
    graph, notes = graph_and_notes(spec(**exported))
    with pytest.raises(UserError) as caught:
        graph.run(planes(0, size=size), sizes(1))
    assert f"{size[0]} x {size[1]} pixels" in caught.value.message
    assert words in caught.value.message
    assert notes.given == []


def test_a_graph_with_other_inputs_or_outputs_is_refused_by_name() -> None:
    outputs = ["boxes", "scores", "labels", "masks"]
    check_names("m.onnx", ["image", "size"], [*outputs, "num_detections"])
    for inputs, found in ((["image"], outputs), (["image", "size"], ["dets", "labels"])):
        with pytest.raises(UserError, match=f"m.onnx: goes from {', '.join(inputs)} to {', '.join(found)};"):
            check_names("m.onnx", inputs, found)
