"""Networks for OpenVINO Model API: what they say of themselves, what they are fed and what they return."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import SMALL, model_file, scene

from maskrcnn.backends.contracts.model_api import CONTRACT, KNOWN, UNKNOWN, feed, read
from maskrcnn.backends.foreign_graph import ForeignGraph, Interface
from maskrcnn.errors import UserError
from maskrcnn.export.form import Form
from maskrcnn.predict import Predictor, open_model
from maskrcnn.spec import Classes, Exported, Preprocess, Spec
from maskrcnn.stored_spec import stored_spec

pytest.importorskip("torch", minversion="2.11")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
openvino = pytest.importorskip("openvino")
# Exporters warn of their own workings, a different thing in each version of torch.
pytestmark = pytest.mark.filterwarnings("default")

WINDOW = Preprocess("fit_window", 32, 64, "caffe2", pad_to_window=True, pad_value=110)
MODEL = replace(SMALL["fpn"], box_head=replace(SMALL["fpn"].box_head, detections=3))
SPEC = Spec(MODEL, WINDOW, Classes(("cat", "traffic light", ""), (1, 2, 3)))
Arrays = dict[str, np.ndarray]


def hand_made(rule: Preprocess) -> Any:
    """Finds a 1 of 0.9 in all that `size` says and a 0 of 0.8; masks are 0.25 and 0.75, one row is empty."""
    from maskrcnn.export.contracts.model_api import for_model_api

    op = openvino.opset13
    image = op.parameter([1, 3, 32, 64], openvino.Type.f32, name="image")
    size = op.parameter([1, 2], openvino.Type.i64, name="size")
    corner = op.gather(op.squeeze(size, op.constant(0)), op.constant([1, 0]), op.constant(0))
    whole = op.concat([op.constant(np.zeros(2, np.float32)), op.convert(corner, "f32")], 0)
    rest = op.constant(np.array([[1, 2, 3, 4], [0, 0, 0, 0]], np.float32))
    rows = {
        "boxes": op.unsqueeze(op.concat([op.unsqueeze(whole, op.constant(0)), rest], 0), op.constant(0)),
        "scores": op.constant(np.array([[0.9, 0.8, 0]], np.float32)),
        "labels": op.constant(np.array([[1, 0, 0]])),
        "masks": op.constant(
            np.array([0.25, 0.75, 0], np.float32)[None, :, None, None].repeat(2, 2).repeat(2, 3)
        ),
    }
    results = []
    for name, value in rows.items():
        value.output(0).get_tensor().set_names({name})
        results.append(op.result(value))
    network = for_model_api(openvino.Model(results, [image, size]), replace(SPEC, preprocess=rule))
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_NUM_THREADS": 1})
    return lambda inputs: {port.any_name: array for port, array in compiled(inputs).items()}


def fed(rows: int, columns: int, kind: float, told: tuple[int, int] = (64, 32)) -> Arrays:
    """A window in which an image of so many rows and columns ends, and the fill follows."""
    image = np.full((1, 3, 32, 64), WINDOW.pad_value, np.float32)
    image[:, :, :rows, :columns] = 7
    return {"image": image, "image_info": np.array([[*told, kind]], np.float32)}


def test_where_nobody_tells_it_an_image_ends_where_all_that_follows_is_fill() -> None:
    run = hand_made(WINDOW)
    assert run(fed(20, 64, UNKNOWN))["boxes"][0].tolist() == [0, 0, 64, 20]
    assert run(fed(32, 9, UNKNOWN))["boxes"][0].tolist() == [0, 0, 9, 32]
    assert run(fed(0, 0, UNKNOWN))["boxes"][0].tolist() == [0, 0, 1, 1]


def test_one_pixel_in_one_channel_is_enough_to_be_part_of_the_image() -> None:
    window = fed(20, 40, UNKNOWN)
    window["image"][0, 2, 25, 50] = 111
    assert hand_made(WINDOW)(window)["boxes"][0].tolist() == [0, 0, 51, 26]


def test_an_image_whose_size_is_told_may_end_in_the_colour_of_the_fill() -> None:
    assert hand_made(WINDOW)(fed(5, 5, KNOWN, (60, 30)))["boxes"][0].tolist() == [0, 0, 60, 30]


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_a_letterbox_and_a_stretched_image_are_the_whole_window(resize: Any) -> None:
    found = hand_made(replace(WINDOW, resize=resize))(fed(5, 5, UNKNOWN))
    assert found["boxes"][0].tolist() == [0, 0, 64, 32]


def test_rows_are_those_that_were_found_with_classes_from_1_on_and_a_mask_in_their_own_class() -> None:
    found = hand_made(WINDOW)(fed(32, 64, UNKNOWN))
    assert found["boxes"].tolist() == [[0, 0, 64, 32], [1, 2, 3, 4]]
    assert found["scores"].tolist() == pytest.approx([0.9, 0.8])
    assert found["classes"].tolist() == [2, 1]
    assert found["raw_masks"].shape == (2, 4, 2, 2)
    assert found["raw_masks"][..., 0, 0].tolist() == [[0, 0, 0.25, 0], [0, 0.75, 0, 0]]


def test_what_is_fed_and_what_is_read_are_the_network_s_image_and_the_rows_of_raw() -> None:
    image, size = np.full((1, 3, 32, 64), 7, np.uint8), np.array([[20, 40]])
    arrays = feed(SPEC, image, size)
    assert (arrays["image"].dtype, arrays["image"][0, 0, 0, 0]) == (np.float32, 7)
    assert arrays["image_info"].tolist() == [[40, 20, 0]]
    raw = read(SPEC, hand_made(WINDOW)(arrays), size)
    assert raw.boxes[0].tolist() == [[0, 0, 40, 20], [1, 2, 3, 4], [0, 0, 0, 0]]
    assert raw.labels.tolist() == [[1, 0, 0]]
    assert raw.masks[0, :, 1, 1].tolist() == [0.25, 0.75, 0]


def test_the_file_says_to_model_api_what_it_is_and_how_it_is_fed() -> None:
    from maskrcnn.export.contracts.model_api import model_info

    assert model_info(SPEC) == {
        "model_type": "MaskRCNN",
        "labels": "background cat traffic_light class_2",
        "confidence_threshold": "0.5",
        "resize_type": "fit_to_window",
        "pad_value": "110",
        "reverse_input_channels": "True",
        "embedded_processing": "False",
    }
    bgr = model_info(replace(SPEC, preprocess=replace(WINDOW, channels="bgr", resize="letterbox")))
    assert (bgr["reverse_input_channels"], bgr["resize_type"]) == ("False", "fit_to_window_letterbox")
    # It knows one number for all channels.
    colour = replace(WINDOW, resize="letterbox", pad_value=(123.675, 116.28, 103.53))
    assert model_info(replace(SPEC, preprocess=colour))["pad_value"] == "114"


@pytest.mark.parametrize("form", [Form(batch=2), Form(uint8=True), Form(counted=True)])
def test_what_model_api_does_not_know_is_refused_before_anything_is_traced(
    tmp_path: Path, form: Form
) -> None:
    from maskrcnn.export.contracts.model_api import export

    with pytest.raises(UserError, match="OpenVINO Model API feeds one image as it is"):
        export(tmp_path / "none.safetensors", tmp_path / "m.xml", form)


def test_a_graph_that_lost_its_description_is_recognised_and_refused() -> None:
    names = {"boxes": (0, 4), "classes": (0,), "scores": (0,), "raw_masks": (0, 4, 28, 28)}
    interface = Interface({"image": (1, 3, 32, 64), "image_info": (1, 3)}, names)
    assert CONTRACT.fits(interface)
    with pytest.raises(UserError, match=r"m\.xml: has lost its maskrcnn description"):
        CONTRACT.describe(Path("m.xml"), interface)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("model") / "tiny.safetensors", SMALL["fpn"])


@pytest.fixture(scope="module")
def exported(source: Path) -> Path:
    """Traced once: that takes ten seconds."""
    from maskrcnn.export.contracts.model_api import export

    out = source.with_name("m.xml")
    export(source, out, Form())
    return out


def photograph(height: int, width: int) -> np.ndarray:
    return np.ascontiguousarray(scene(height, width)[0].transpose(1, 2, 0), np.uint8)


@pytest.fixture(scope="module")
def graph(exported: Path) -> Predictor:
    return open_model(exported, threads=1)


def test_without_a_size_the_window_is_that_of_the_model_s_own_rule(graph: Predictor) -> None:
    assert graph.spec.exported == Exported(batch=1, height=96, width=192, contract="model-api")
    assert graph.spec.preprocess == Preprocess(
        "fit_window", 96, 192, "caffe2", pad_to_window=True, pad_value=114
    )


def test_our_engine_finds_in_it_what_the_model_finds(graph: Predictor, source: Path) -> None:
    from maskrcnn.export.check import FedAs

    assert isinstance(graph.backend, ForeignGraph)
    model = FedAs(open_model(source, "cpu", threads=1), graph.spec.preprocess)
    images = [photograph(*size) for size in ((120, 160), (160, 120), (96, 192))]
    for mine, theirs in zip(model(images), graph(images), strict=True):
        assert len(mine) > 3
        np.testing.assert_array_equal(mine.labels, theirs.labels)
        np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=0.01)
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-4)
        np.testing.assert_allclose(mine.roi_masks, theirs.roi_masks, atol=1e-3)


def test_its_check_tells_the_stages_and_is_stored(exported: Path, source: Path, tmp_path: Path) -> None:
    from maskrcnn.export.gate import Asked, write_checked

    def write(path: Path) -> None:
        for suffix in (".xml", ".bin"):
            shutil.copy(exported.with_suffix(suffix), path.with_suffix(suffix))

    gated = write_checked(source, tmp_path / "m.xml", write, Asked(threads=1))
    assert gated.passed, gated.fault
    stages = dict(gated.check.stages)
    assert {"normalised", "p2", "class_logits", "masks"} <= set(stages)
    assert max(stages.values()) < 1e-4
    stored = stored_spec(tmp_path / "m.xml").exported
    assert stored is not None and stored.check == gated.check


@pytest.mark.parametrize("size", [(120, 160), (160, 120)])
def test_model_api_opens_it_without_being_told_anything_and_finds_the_same(
    exported: Path, graph: Predictor, size: tuple[int, int]
) -> None:
    pytest.importorskip("model_api", reason="needs openvino-model-api, which nothing else here does")
    from model_api.adapters import OpenvinoAdapter, create_core
    from model_api.models import Model

    image = photograph(*size)
    # Its other way, a path, leaves the arithmetic to the processor, which may take bfloat16.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    theirs = Model.create_model(
        OpenvinoAdapter(create_core(), str(exported), device="CPU", plugin_config=settings)
    )
    found = theirs(np.ascontiguousarray(image[..., ::-1]))
    mine = graph([image])[0].above(0.5)
    # Model API rounds boxes to pixels, and OpenVINO resizes bytes with other roundings than OpenCV.
    assert found.labels.tolist() == (mine.labels + 1).tolist()
    assert found.label_names == [mine.classes.names[label] for label in mine.labels]
    np.testing.assert_allclose(found.bboxes, mine.boxes, atol=1.0)
    np.testing.assert_allclose(found.scores, mine.scores, atol=0.02)
    both = [(a.astype(bool), b.astype(bool)) for a, b in zip(found.masks, mine.masks(), strict=True)]
    assert all((a & b).sum() > 0.9 * (a | b).sum() for a, b in both if b.sum() > 100)
