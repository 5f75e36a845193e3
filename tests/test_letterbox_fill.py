"""What a letterbox is filled with: one number or one for each channel, in files, settings and words."""

import json
from dataclasses import replace
from typing import Any

import pytest

from maskrcnn.cli.info import resizing
from maskrcnn.config_file import with_settings
from maskrcnn.errors import UserError
from maskrcnn.export.form import Form, described
from maskrcnn.spec import Preprocess, Spec, spec_from_json

MEAN = (123.675, 116.28, 103.53)


@pytest.mark.parametrize("fill", [128.0, 0.0, MEAN])
def test_a_description_keeps_the_fill(fill: Any) -> None:
    spec = Spec(preprocess=Preprocess(resize="letterbox", pad_value=fill))
    read = spec_from_json(spec.to_json(), "m.onnx")
    assert read == spec
    assert hash(read.preprocess) == hash(spec.preprocess)


def test_a_whole_number_and_a_missing_one_are_read() -> None:
    values = json.loads(Spec().to_json())
    values["preprocess"]["pad_value"] = 114
    assert spec_from_json(json.dumps(values), "m.onnx").preprocess.pad_value == 114
    del values["preprocess"]["pad_value"]
    assert spec_from_json(json.dumps(values), "m.onnx").preprocess.pad_value == 0


def test_one_number_is_that_of_every_channel() -> None:
    assert Preprocess(pad_value=114).fill == (114, 114, 114)
    assert Preprocess(pad_value=MEAN).fill == MEAN


@pytest.mark.parametrize(("text", "value"), [("114", 114), ("[1, 2, 3.5]", (1, 2, 3.5))])
def test_a_setting_is_one_number_or_three(text: str, value: Any) -> None:
    assert with_settings(Spec(), [f"preprocess.pad_value={text}"]).preprocess.pad_value == value


@pytest.mark.parametrize("text", ["grey", "[1, 2]", "300"])
def test_any_other_setting_is_told_with_its_place(text: str) -> None:
    with pytest.raises(UserError) as told:
        with_settings(Spec(), [f"preprocess.pad_value={text}"])
    assert "pad_value" in str(told.value)
    assert "tuple[" not in str(told.value)


def test_info_names_the_colour() -> None:
    spec = Spec(preprocess=Preprocess(resize="letterbox", short=480, long=640, pad_value=128))
    assert "centred in 480 x 640, filled with 128 (" in resizing(spec)
    spec = replace(spec, preprocess=replace(spec.preprocess, pad_value=MEAN))
    assert "filled with 123.675, 116.28, 103.53 (" in resizing(spec)


def test_a_graph_that_takes_bytes_cannot_have_fractions_around_the_image() -> None:
    spec = Spec(preprocess=Preprocess(resize="letterbox", short=480, long=640, pad_value=MEAN))
    with pytest.raises(UserError, match="its letterbox is filled with .*, and bytes have no fractions"):
        described(spec, Form(uint8=True), "m.safetensors")
    whole = replace(spec, preprocess=replace(spec.preprocess, pad_value=(124, 116, 104)))
    assert described(whole, Form(uint8=True), "m.safetensors").preprocess == whole.preprocess
