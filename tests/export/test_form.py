"""What a graph is described as, and which forms a model cannot have."""

from dataclasses import replace

import pytest

from maskrcnn.errors import UserError
from maskrcnn.export.form import Form, described
from maskrcnn.spec import Exported, Preprocess, Spec

SPEC = Spec(preprocess=Preprocess(short=800, long=1333))


def test_any_size_and_number_of_images_leave_the_preprocessing_as_it_was() -> None:
    spec = described(SPEC, Form(), "m.safetensors")
    assert spec.preprocess == SPEC.preprocess
    assert spec.exported == Exported(batch=0, height=0, width=0)


def test_a_fixed_size_is_a_window_that_every_image_is_fitted_into() -> None:
    spec = described(SPEC, Form(size=(800, 1216), batch=2, uint8=True, counted=True), "m.safetensors")
    preprocess = spec.preprocess
    assert (preprocess.resize, preprocess.short, preprocess.long) == ("fit_window", 800, 1216)
    assert preprocess.pad_to_window
    assert spec.exported == Exported("whole", 2, 800, 1216, "uint8", True)


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_a_window_of_another_kind_keeps_its_kind(resize: str) -> None:
    spec = replace(SPEC, preprocess=replace(SPEC.preprocess, resize=resize))
    assert described(spec, Form(size=(64, 96)), "m").preprocess == replace(spec.preprocess, short=64, long=96)


def test_the_precision_is_that_of_the_arithmetic() -> None:
    assert described(replace(SPEC, precision="fp16"), Form(precision="fp32"), "m").precision == "fp32"


@pytest.mark.parametrize(
    ("form", "error", "hint"),
    [
        (Form(size=(800, 1333)), "--size 800x1333: 1333 is no multiple of 32", "use 1344"),
        (Form(size=(0, 32)), "--size 0x32: 0 is no multiple of 32", "use 32"),
        (Form(batch=-1), "--batch -1", "use 1 or more"),
        (Form(opset=17), "--opset 17: a whole graph is written in opset 18 to 23", "--opset 18"),
        (Form(opset=99), "--opset 99", "leave it out"),
    ],
)
def test_a_form_that_no_graph_can_have_is_refused(form: Form, error: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        described(SPEC, form, "m.safetensors")
    assert error in raised.value.message
    assert hint in raised.value.hint


def test_bytes_cannot_hold_what_a_filter_without_rounding_gives() -> None:
    spec = replace(SPEC, preprocess=replace(SPEC.preprocess, filter="torch"))
    with pytest.raises(UserError, match="m.safetensors: its images are resized to fractions of a byte"):
        described(spec, Form(uint8=True), "m.safetensors")


def test_a_graph_is_not_exported_again() -> None:
    with pytest.raises(UserError, match="g.onnx: is an exported graph already"):
        described(replace(SPEC, exported=Exported()), Form(), "g.onnx")
