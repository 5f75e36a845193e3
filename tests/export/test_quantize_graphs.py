"""What is in an int8 model, how near it is to the float32 one, and what it is calibrated on."""

from dataclasses import replace
from pathlib import Path

import cv2
import networks
import numpy as np
import pytest

from maskrcnn.backends.parts import open_parts
from maskrcnn.errors import UserError
from maskrcnn.export.form import Form
from maskrcnn.export.parts import export_parts
from maskrcnn.export.quantize import Calibrated, checked_layers, float_graph, quantize
from maskrcnn.export.quantize_inputs import BOXES, Normalised, Photographs, pooled_features
from maskrcnn.images import ImageFile, find_images
from maskrcnn.preprocess import batch, prepare
from maskrcnn.spec import Check, Exported, Preprocess, Spec
from maskrcnn.stored_spec import stored_spec

onnx = pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytest.importorskip("onnxruntime")

SUFFIXES = (".xml", ".onnx")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[ImageFile]:
    """Three landscapes, a portrait, and one in which nothing can be found."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, size in enumerate([(96, 160), (90, 120), (120, 96), (64, 192)]):
        image = networks.scene(*size, seed=number)[0].transpose(1, 2, 0)
        cv2.imwrite(str(folder / f"{number}.png"), image.astype(np.uint8))
    cv2.imwrite(str(folder / "blank.png"), np.full((96, 128, 3), 128, np.uint8))
    return find_images([folder])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small network as parts for OpenVINO and for ONNX Runtime, by the suffix of their graphs."""
    folder = tmp_path_factory.mktemp("sources")
    model = networks.model_file(folder / "tiny.safetensors", networks.SMALL["fpn"])
    found = {suffix: folder / f"tiny{suffix}.parts" for suffix in SUFFIXES}
    for suffix, path in found.items():
        export_parts(model, path, suffix=suffix)  # type: ignore[arg-type]
    return found


@pytest.fixture(scope="module")
def made(
    sources: dict[str, Path], photographs: list[ImageFile], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The same in int8, with `fpn.output3` kept in float32."""
    folder = tmp_path_factory.mktemp("int8")
    found = {suffix: folder / f"tiny{suffix}.parts" for suffix in SUFFIXES}
    for suffix, path in found.items():
        quantize(sources[suffix], path, photographs, keep=["fpn.output3"])
    return found


def int8_weights(path: Path) -> list[str]:
    """Names of the layers of an ONNX graph whose weights are int8."""
    graph = onnx.load(path).graph
    eight = {each.name for each in graph.initializer if each.data_type == onnx.TensorProto.INT8}
    return sorted(name.removesuffix("_quantized") for name in eight if name.endswith("weight_quantized"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_int8_model_computes_nearly_what_the_float32_one_does(
    suffix: str, sources: dict[str, Path], made: dict[str, Path], photographs: list[ImageFile]
) -> None:
    before, after = (open_parts(each[suffix], "cpu", threads=1) for each in (sources, made))
    for each in Normalised(Photographs(photographs[:2], before.spec)):
        wanted, found = before.graphs.dense(each), after.graphs.dense(each)
        for name in wanted:
            # A feature of 8 bits is off by up to 1/512 of the range, in each of some 20 layers.
            error = np.sqrt(np.square(wanted[name] - found[name]).mean() / np.square(wanted[name]).mean())
            assert 0 < error < 0.1, name
        features = {"features": wanted["level0"][:, :, :7, :7]}
        for name, logits in before.graphs.box_head(features).items():
            assert np.abs(logits - after.graphs.box_head(features)[name]).max() < 0.1 * np.abs(logits).max()


def test_all_but_the_kept_layers_are_int8(made: dict[str, Path]) -> None:
    names = int8_weights(made[".onnx"] / "dense.onnx")
    assert "model.fpn.output3.weight" not in names
    assert {"model.backbone.stem.conv.weight", "model.fpn.output2.weight", "model.rpn.conv1.weight"} <= set(
        names
    )
    # ONNX Runtime would round what these two compute to 8 bits.
    assert not any(name.startswith(("model.rpn.objectness", "model.rpn.deltas")) for name in names)
    heads = int8_weights(made[".onnx"] / "box_head.onnx")
    assert heads == [f"head.{name}.weight" for name in ("deltas", "fc1", "fc2", "scores")]


def test_weights_are_stored_in_a_byte_each(sources: dict[str, Path], made: dict[str, Path]) -> None:
    for suffix in SUFFIXES:
        weights = "dense.bin" if suffix == ".xml" else "dense.onnx"
        before, after = ((each[suffix] / weights).stat().st_size for each in (sources, made))
        assert after < 0.55 * before  # a small network's scales and biases weigh as much as its weights


def test_each_output_channel_of_the_weights_has_a_scale(made: dict[str, Path]) -> None:
    graph = onnx.load(made[".onnx"] / "box_head.onnx").graph
    scales = {each.name: list(each.dims) for each in graph.initializer if each.name.endswith("weight_scale")}
    assert scales["head.fc1.weight_scale"] == [32]
    assert scales["head.scores.weight_scale"] == [4]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_says_that_it_is_int8_and_nothing_else_changes(
    suffix: str, sources: dict[str, Path], made: dict[str, Path]
) -> None:
    before, after = stored_spec(sources[suffix]), stored_spec(made[suffix])
    assert (before.precision, after.precision) == ("fp32", "int8")
    assert replace(after, precision="fp32") == before
    assert stored_spec(made[suffix] / f"dense{suffix}") == after


def test_the_check_of_the_float32_model_is_not_that_of_the_int8_one(
    sources: dict[str, Path], photographs: list[ImageFile], tmp_path: Path
) -> None:
    from maskrcnn.export.settle import store_check

    copy = tmp_path / "checked.parts"
    copy.mkdir()
    for file in sources[".onnx"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    store_check(copy, Check(images=5))
    exported = Calibrated(copy, ".parts", photographs[:1]).spec.exported
    assert exported is not None and exported.check is None


def test_calibration_sees_an_image_as_prediction_does(photographs: list[ImageFile]) -> None:
    spec = Spec(
        preprocess=Preprocess(short=64, long=128, filter="pillow", channels="bgr"), exported=Exported()
    )
    for file, each in zip(photographs, Photographs(photographs, spec), strict=True):
        image, size = batch([prepare(file.read(), spec.preprocess)[0]], spec.preprocess)
        assert (each["image"] == image).all() and (each["size"] == size).all()
        assert each["image"].dtype == np.float32


def test_a_graph_for_two_bytes_images_is_calibrated_on_two_at_a_time(photographs: list[ImageFile]) -> None:
    exported = Exported(batch=2, height=64, width=96, image="uint8")
    window = Preprocess(resize="fit_window", short=64, long=96, pad_to_window=True)
    inputs = Photographs(photographs[:3], Spec(preprocess=window, exported=exported))
    found = list(inputs)
    assert len(found) == inputs.count == 2
    assert all(each["image"].shape == (2, 3, 64, 96) for each in found)
    assert found[0]["image"].dtype == np.uint8
    assert (found[1]["image"][0] == found[1]["image"][1]).all()  # the third image twice


def test_a_head_is_calibrated_on_some_of_what_its_boxes_hold(
    sources: dict[str, Path], photographs: list[ImageFile]
) -> None:
    spec = stored_spec(sources[".onnx"])
    found = pooled_features(sources[".onnx"], Photographs(photographs[:2], spec))
    assert [each["features"].shape[1:] for each in found["box_head"]] == [(16, 7, 7)] * 2
    assert all(0 < len(each["features"]) <= BOXES for each in found["box_head"])
    assert all(each["features"].shape[1:] == (16, 14, 14) for each in found["mask_head"])


def test_images_in_which_nothing_is_found_are_refused(
    sources: dict[str, Path], photographs: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"box_head": [{"features": np.zeros((1, 16, 7, 7), np.float32)}], "mask_head": []}
    monkeypatch.setattr("maskrcnn.export.quantize.pooled_features", lambda *_: found)
    with pytest.raises(UserError, match="nothing is found in the images of --calibrate"):
        Calibrated(sources[".onnx"], ".parts", photographs)


def test_a_layer_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(UserError, match="--keep rpn.delta: there is no such layer") as told:
        checked_layers(["rpn.delta"], ["rpn.conv1", "rpn.deltas"])
    assert told.value.hint == "choose from rpn.conv1, rpn.deltas"


@pytest.mark.parametrize(
    ("model", "out", "words"),
    [
        ("model.safetensors", "out.pt", "a quantised model is written as .xml, .onnx, .parts, .engine"),
        ("model.xml", "out.onnx", "model.xml: no .onnx can be made of it"),
        ("model.onnx", "out.parts", "model.onnx: no .parts can be made of it"),
    ],
)
def test_what_cannot_be_made_is_refused(model: str, out: str, words: str) -> None:
    with pytest.raises(UserError, match=words), float_graph(Path(model), Path(out)):
        pass


def test_only_float32_is_quantised(made: dict[str, Path], tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="is quantised already"),
        float_graph(made[".onnx"], tmp_path / "a.parts"),
    ):
        pass
    half = networks.model_file(tmp_path / "tiny.safetensors", networks.SMALL["fpn"])
    export_parts(half, tmp_path / "half.parts", Form(precision="fp16"))
    with (
        pytest.raises(UserError, match="was exported in fp16, and int8 is made of float32"),
        float_graph(tmp_path / "half.parts", tmp_path / "a.parts"),
    ):
        pass
