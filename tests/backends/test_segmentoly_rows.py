"""What segmentoly's graphs are fed, and how their rows are read, by hand-made numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn import presets
from maskrcnn.backends.contracts.segmentoly import CONTRACT
from maskrcnn.backends.foreign_graph import Interface
from maskrcnn.config import BoxHeadConfig, ModelConfig
from maskrcnn.spec import Spec

INPUTS = {"im_data": (1, 3, 64, 96), "im_info": (1, 3)}
OUTPUTS = {"boxes": (100, 4), "classes": (100,), "scores": (100,), "raw_masks": (100, 4, 28, 28)}
SIZE = np.array([[48, 80]])


def spec(rows: int = 5, **model: Any) -> Spec:
    return Spec(ModelConfig(classes=3, box_head=BoxHeadConfig(detections=rows), **model))


def found(**changes: Any) -> dict[str, np.ndarray]:
    """Three rows: the second class, none, the first class; each class's mask is its number in tenths."""
    masks = np.broadcast_to(np.arange(4, dtype=np.float32)[None, :, None, None] / 10, (3, 4, 2, 2))
    rows: dict[str, np.ndarray] = {
        "boxes": np.array([[1, 2, 3, 4], [9, 9, 9, 9], [5, 6, 7, 8]], np.float32),
        "classes": np.array([2, 0, 1], np.int32),
        "scores": np.array([0.3, 0.9, 0.8], np.float32),
        "raw_masks": masks,
    }
    return rows | changes


def test_rows_come_best_first_with_classes_from_0_and_without_those_of_class_0() -> None:
    raw = CONTRACT.read(spec(), found(), SIZE)
    np.testing.assert_allclose(raw.scores, [[0.8, 0.3, 0, 0, 0]])
    assert raw.labels.tolist() == [[0, 1, 0, 0, 0]]
    assert raw.boxes[0, :3].tolist() == [[5, 6, 7, 8], [1, 2, 3, 4], [0, 0, 0, 0]]
    np.testing.assert_allclose(raw.masks[0, :, 0, 0], [0.1, 0.2, 0, 0, 0])
    assert [each.dtype for each in raw] == [np.float32, np.float32, np.int64, np.float32]


def test_masks_of_the_found_class_alone_are_read_as_well() -> None:
    masks = np.array([0.5, 0.6, 0.7], np.float32)[:, None, None] * np.ones((3, 2, 2), np.float32)
    raw = CONTRACT.read(spec(), found(raw_masks=masks), SIZE)
    np.testing.assert_allclose(raw.masks[0, :, 1, 1], [0.7, 0.5, 0, 0, 0])


def test_nothing_found_is_no_detection() -> None:
    nothing = found(classes=np.zeros(3, np.int32))
    assert not CONTRACT.read(spec(), nothing, SIZE).scores.any()


def test_rows_beyond_the_most_are_left_out() -> None:
    raw = CONTRACT.read(spec(rows=1), found(), SIZE)
    np.testing.assert_allclose(raw.scores, [[0.8]])


def test_outputs_named_after_the_ports_of_a_layer_are_known() -> None:
    """As networks of version 10 name what a layer of several outputs returns: boxes, classes, scores."""
    names = {"boxes": "layer.0", "classes": "layer.1", "scores": "layer.2", "raw_masks": "raw_masks"}
    outputs = {names[name]: shape for name, shape in OUTPUTS.items()}
    assert CONTRACT.fits(Interface(INPUTS, outputs))
    raw = CONTRACT.read(spec(), {names[name]: array for name, array in found().items()}, SIZE)
    assert raw.labels[0, :2].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"image": (1, 3, 64, 96), "image_info": (1, 3)}, OUTPUTS),
        (INPUTS, {"boxes": (100, 4), "scores": (100,), "labels": (100,), "masks": (100, 28, 28)}),
        ({"im_data": (1, 3, 64, 96)}, OUTPUTS),
    ],
)
def test_graphs_with_other_names_are_not_theirs(inputs: Any, outputs: Any) -> None:
    assert CONTRACT.fits(Interface(INPUTS, OUTPUTS))
    assert not CONTRACT.fits(Interface(inputs, outputs))


def test_im_info_is_the_height_and_width_without_the_padding_and_1() -> None:
    image = np.full((1, 3, 64, 96), 10, np.uint8)
    model = spec(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))
    fed = CONTRACT.feed(model, image, SIZE)
    assert fed["im_info"].tolist() == [[48.0, 80.0, 1.0]]
    assert fed["im_data"].dtype == np.float32
    assert fed["im_data"][0, :, 47, 79].tolist() == [9.0, 8.0, 7.0]
    assert not fed["im_data"][0, :, 48:].any()
    assert not fed["im_data"][0, :, :, 80:].any()


def network(folder: Path, first: str) -> Path:
    """An OpenVINO network whose image goes into a layer of that type, as far as it is read."""
    path = folder / "x.xml"
    path.write_text(
        '<net version="10"><layers><layer id="0" name="im_data" type="Parameter"/>'
        f'<layer id="1" name="a" type="{first}"/></layers>'
        '<edges><edge from-layer="0" to-layer="1"/></edges></net>'
    )
    return path


@pytest.mark.parametrize(
    ("first", "mean"),
    [("Convolution", presets.MEAN_CAFFE2), ("Add", (0.0, 0.0, 0.0)), ("ScaleShift", (0,) * 3)],
)
def test_a_mean_inside_a_network_is_not_taken_away_again(tmp_path: Path, first: str, mean: Any) -> None:
    described = CONTRACT.describe(network(tmp_path, first), Interface(INPUTS, OUTPUTS))
    assert described.model.mean == mean
    assert described.preprocess.channels == "bgr"


def test_an_onnx_graph_of_theirs_has_no_mean_inside() -> None:
    described = CONTRACT.describe(Path("x.onnx"), Interface(INPUTS, OUTPUTS))
    assert described.model.mean == presets.MEAN_CAFFE2
    assert (described.preprocess.resize, described.preprocess.pad_to_window) == ("fit_window", True)
    assert (described.preprocess.short, described.preprocess.long) == (64, 96)
    assert described.classes.names == ("class 1", "class 2", "class 3")


def test_eighty_one_channels_are_coco() -> None:
    outputs = OUTPUTS | {"raw_masks": (100, 81, 28, 28), "boxes": (0, 4)}
    described = CONTRACT.describe(Path("x.onnx"), Interface(INPUTS, outputs))
    assert described.classes == presets.COCO
    assert described.model.box_head.detections == 100
