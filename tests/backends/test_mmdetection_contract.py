"""Graphs that mmdetection exports: how they are known and fed, and what becomes of their outputs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from mmdetection_graph import BIAS, Layout, write_mmdetection, write_tiny
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from maskrcnn.backends.contracts.class_count import class_count
from maskrcnn.backends.contracts.mmdetection import CONTRACT, PASTED_SIDE
from maskrcnn.backends.contracts.pasted import cropped
from maskrcnn.backends.foreign_graph import Interface
from maskrcnn.config import BoxHeadConfig, ModelConfig
from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.images import read_image
from maskrcnn.masks import paste
from maskrcnn.predict import Predictor, open_model
from maskrcnn.presets import COCO
from maskrcnn.spec import Spec

SIZE = np.array([[4, 6]])
OUTPUTS = {"dets": (1, 0, 5), "labels": (1, 0), "masks": (1, 0, 800, 1200)}


def outputs(rows: list[list[float]], labels: list[int], masks: np.ndarray, name: str = "dets") -> dict:
    return {name: np.float32(rows).reshape(-1, 5), "labels": np.int64(labels), "masks": masks}


def spec(detections: int = 3) -> Spec:
    return Spec(model=ModelConfig(box_head=BoxHeadConfig(detections=detections)))


def test_a_graph_is_known_by_its_names_and_the_fifth_column() -> None:
    image = {"input": (1, 3, 800, 1200)}
    assert CONTRACT.fits(Interface(image, OUTPUTS))
    older = {"boxes": (0, 5), "labels": (0,), "masks": (0, 0, 0)}
    assert CONTRACT.fits(Interface({"input": (0, 3, 0, 0)}, older))
    assert not CONTRACT.fits(Interface({"image": (1, 3, 800, 1200)}, OUTPUTS))
    assert not CONTRACT.fits(Interface(image | {"im_info": (1, 3)}, OUTPUTS))
    assert not CONTRACT.fits(Interface(image, {**OUTPUTS, "dets": (1, 0, 4)}))
    assert not CONTRACT.fits(Interface(image, {"dets": (0, 5), "labels": (0,)}))


def test_a_fixed_graph_is_fed_stretched_and_a_free_one_by_its_short_side(tmp_path: Path) -> None:
    path = _graph_with_bias(tmp_path / "g.onnx", 81)
    fixed = CONTRACT.describe(path, Interface({"input": (1, 3, 800, 1200)}, OUTPUTS)).preprocess
    assert (fixed.resize, fixed.short, fixed.long, fixed.pad_multiple) == ("stretch", 800, 1200, 1)
    free = CONTRACT.describe(path, Interface({"input": (0, 3, 0, 0)}, OUTPUTS)).preprocess
    assert (free.resize, free.short, free.long, free.pad_multiple) == ("shortest_edge", 800, 1333, 32)


@pytest.mark.parametrize(
    ("length", "names"),
    [(81, COCO.names), (4, ("class 1", "class 2", "class 3")), (None, ())],
)
def test_classes_are_counted_in_the_graph(tmp_path: Path, length: int | None, names: tuple[str, ...]) -> None:
    path = _graph_with_bias(tmp_path / "g.onnx", length)
    assert CONTRACT.describe(path, Interface({"input": (1, 3, 0, 0)}, OUTPUTS)).classes.names == names


def test_classes_are_counted_in_an_openvino_network_too(tmp_path: Path) -> None:
    layer = f'<layer id="1" name="{BIAS}" type="Const"><data element_type="f32" shape="1, 4" /></layer>'
    (tmp_path / "g.xml").write_text(f"<net><layers>{layer}</layers></net>")
    assert class_count(tmp_path / "g.xml", BIAS) == 3
    assert class_count(tmp_path / "g.xml", "another") is None


def test_the_input_is_normalised() -> None:
    image = np.full((1, 3, 4, 6), 255, np.uint8)
    fed = CONTRACT.feed(spec(), image, SIZE)["input"]
    np.testing.assert_allclose(fed[0, :, 0, 0], [(255 - 123.675) / 58.395, 2.4286, 2.64], rtol=1e-4)


@pytest.mark.parametrize("name", ["dets", "boxes"])
@pytest.mark.parametrize("batch", [False, True])
def test_one_detection_is_one_row(name: str, batch: bool) -> None:
    masks = np.zeros((1, 4, 6), bool)
    masks[0, 1:3, 2:4] = True
    found = outputs([[2, 1, 4, 3, 0.9]], [7], masks, name)
    raw = CONTRACT.read(spec(), {key: value[None] for key, value in found.items()} if batch else found, SIZE)
    assert raw.boxes.tolist() == [[[2, 1, 4, 3], [0, 0, 0, 0], [0, 0, 0, 0]]]
    np.testing.assert_allclose(raw.scores, [[0.9, 0, 0]])
    assert raw.labels.tolist() == [[7, 0, 0]]
    assert raw.masks.shape == (1, 3, PASTED_SIDE, PASTED_SIDE)
    assert raw.masks[0, 0].min() == 1 and raw.masks[0, 1:].max() == 0


@pytest.mark.parametrize("shape", [(0, 4, 6), (1, 0, 4, 6), (1, 0, 28, 28)])
def test_no_detection_is_no_row(shape: tuple[int, ...]) -> None:
    raw = CONTRACT.read(spec(), outputs([], [], np.zeros(shape, bool)), SIZE)
    assert raw.scores.tolist() == [[0, 0, 0]]
    assert raw.masks.shape[:2] == (1, 3)


def test_rows_of_score_0_are_left_out_and_the_best_is_first() -> None:
    rows = [[0, 0, 2, 2, 0.5], [0, 0, 1, 1, 0], [1, 1, 3, 3, 0.8]]
    raw = CONTRACT.read(spec(), outputs(rows, [4, -1, 5], np.ones((3, 4, 6), np.float32)), SIZE)
    np.testing.assert_allclose(raw.scores, [[0.8, 0.5, 0]])
    assert raw.labels.tolist() == [[5, 4, 0]]


def test_a_crop_of_every_class_gives_that_of_the_class_found() -> None:
    masks = np.zeros((1, 2, 3, 3, 3), np.float32)
    masks[0, 0, 2], masks[0, 1, 1] = 0.25, 0.75
    raw = CONTRACT.read(spec(), outputs([[0, 0, 2, 2, 0.9], [0, 0, 2, 2, 0.8]], [2, 1], masks), SIZE)
    assert raw.masks.shape == (1, 3, 3, 3)
    assert (raw.masks[0, 0].max(), raw.masks[0, 1].min()) == (0.25, 0.75)


def test_a_box_is_clipped_to_the_image_inside_the_padding() -> None:
    raw = CONTRACT.read(spec(), outputs([[2, 1, 9, 8, 0.9]], [0], np.ones((1, 8, 9), bool)), SIZE)
    assert raw.boxes[0, 0].tolist() == [2, 1, 6, 4]


def test_more_boxes_than_the_description_allows_are_an_error_that_says_what_to_do() -> None:
    found = outputs([[0, 0, 2, 2, 0.9]] * 4, [0] * 4, np.ones((4, 4, 6), bool))
    with pytest.raises(
        UserError, match="4 objects in one image, and the model's description allows 3"
    ) as told:
        CONTRACT.read(spec(), found, SIZE)
    assert "--set model.box_head.detections=4" in told.value.hint


def test_masks_of_other_boxes_are_an_error() -> None:
    with pytest.raises(UserError, match=r"masks of shape \(3, 4, 6\) do not belong to 2 boxes"):
        CONTRACT.read(spec(), outputs([[0, 0, 2, 2, 0.9]] * 2, [0, 0], np.ones((3, 4, 6), bool)), SIZE)


def test_a_cell_is_the_mean_of_the_mask_over_it() -> None:
    mask = np.zeros((4, 6), bool)
    mask[:, 0] = True
    assert cropped(mask, np.float32([0, 0, 4, 4]), 2).tolist() == [[0.5, 0], [0.5, 0]]
    # Cells from 0.5 to 1.5 and from 1.5 to 2.5.
    assert cropped(mask, np.float32([0.5, 0, 2.5, 4]), 2).tolist() == [[0.5, 0], [0.5, 0]]
    # Beyond the mask there is nothing: the first cell ends where it begins.
    assert cropped(mask, np.float32([-1, 0, 1, 4]), 2).tolist() == [[0, 1], [0, 1]]
    assert cropped(mask, np.float32([7, 0, 9, 4]), 2).max() == 0
    assert cropped(mask, np.float32([2, 2, 2, 2]), 2).max() == 0


def test_bytes_to_255_bytes_to_1_and_floats_are_one_mask() -> None:
    mask = np.eye(6, dtype=bool)
    box = np.float32([0.3, 0.7, 5.1, 6])
    expected = cropped(mask, box, 5)
    for same in (mask.astype(np.uint8), 255 * mask.astype(np.uint8), mask.astype(np.float32)):
        np.testing.assert_allclose(cropped(same, box, 5), expected, atol=1e-6)


def test_a_crop_laid_on_the_input_again_is_the_mask_that_it_was() -> None:
    """A mask as the graph makes it: 28 cells, laid on pixels."""
    cells = np.hypot(*np.mgrid[-1:1:28j, -1.2:1:28j]).astype(np.float32)
    box = np.float32([[10.3, 20.7, 310.2, 400.9]])
    theirs = paste(1 - cells[None] / 1.6, box, (420, 330), "pixel_centres")
    ours = paste(cropped(theirs[0], box[0], PASTED_SIDE)[None], box, (420, 330), "pixel_centres")
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.998


@pytest.fixture(scope="module")
def portrait(repository: Path) -> np.ndarray:
    return read_image(repository / "tests" / "golden" / "portrait.png")


def fed_alike(model: Predictor) -> Predictor:
    """The example model, on images of the size of another's, with its habits."""
    own = open_model("example", engine="onnxruntime", threads=1)
    like = model.spec
    settings = replace(own.spec.model, conventions=like.model.conventions)
    own.backend.spec = replace(own.spec, preprocess=like.preprocess, model=settings)  # type: ignore[misc]
    return own


def assert_found_alike(found: Detections, expected: Detections, iou: float) -> None:
    assert len(found) == len(expected) > 20
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    both, either = found.masks() & expected.masks(), found.masks() | expected.masks()
    assert np.mean(both.sum((1, 2)) / either.sum((1, 2))) > iou


def test_predictions_of_a_graph_of_one_size_are_those_of_the_model_inside(
    tmp_path: Path, portrait: np.ndarray
) -> None:
    """Pasted masks know only the pixels of the network's input, which are larger than the image's."""
    layout = Layout(size=(320, 224), boxes="boxes", batch=False, masks="bytes")
    model = open_model(write_mmdetection(tmp_path / "g.onnx", layout), threads=1)
    assert model.spec.exported and model.spec.exported.contract == "mmdetection"
    assert model.spec.classes == COCO
    assert_found_alike(model([portrait])[0], fed_alike(model)([portrait])[0], 0.96)


def test_predictions_of_a_graph_of_any_size_are_those_of_the_model_inside(
    tmp_path: Path, portrait: np.ndarray
) -> None:
    model = open_model(write_mmdetection(tmp_path / "g.onnx", Layout(masks="crops")), threads=1)
    small = replace(model.spec.preprocess, short=224)
    model.backend.spec = replace(model.spec, preprocess=small)  # type: ignore[misc]
    image = portrait[:614]  # 320 x 224, without padding, of which the graph does not know where it begins
    assert_found_alike(model([image])[0], fed_alike(model)([image])[0], 0.9999)


def test_openvino_predicts_the_same(tmp_path: Path, portrait: np.ndarray) -> None:
    path = write_mmdetection(tmp_path / "g.onnx", Layout(size=(320, 224), masks="float"))
    model = open_model(path, engine="openvino", threads=1)
    assert_found_alike(model([portrait])[0], fed_alike(model)([portrait])[0], 0.96)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_finds_one_object_none_and_one_again(tmp_path: Path, engine: str) -> None:
    model = open_model(write_tiny(tmp_path / "g.onnx", (80, 120)), engine=engine, threads=1, batch=2)
    white, black = (np.full((40, 60, 3), grey, np.uint8) for grey in (255, 0))
    assert [len(found) for found in model([white, black, white])] == [1, 0, 1]


def _graph_with_bias(path: Path, length: int | None) -> Path:
    """A graph of nothing but a weight of that length."""
    weights = [numpy_helper.from_array(np.zeros(2, np.float32), "other.bias")]
    if length is not None:
        weights.append(numpy_helper.from_array(np.zeros(length, np.float32), BIAS))
    x = helper.make_tensor_value_info("x", T.FLOAT, [1])
    onnx.save(helper.make_model(helper.make_graph([], "g", [x], [x], weights)), path)
    return path
