"""What an exported graph is to be like, and the description that it gets."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from maskrcnn.errors import UserError
from maskrcnn.spec import Exported, Preprocess, Spec

FIRST_OPSET, LAST_OPSET = 18, 23


@dataclass(frozen=True)
class Form:
    """How a graph is fed and what it computes in.

    size: (height, width) of every input, None for any. batch: images of every input, 0 for any number.
    precision: of weights and convolutions; boxes, scores and what is compared stay float32.
    uint8: the input is bytes and not float32. counted: `num_detections` is a fifth output.
    plain: no `size` beside the image and no description in the file, for programs that know neither.
    opset: of the ONNX standard.
    """

    size: tuple[int, int] | None = None
    batch: int = 0
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    uint8: bool = False
    counted: bool = False
    plain: bool = False
    opset: int = FIRST_OPSET


def described(spec: Spec, form: Form, place: str | Path) -> Spec:
    """The description of the graph that is made of a model; place names the model's file.

    Raises UserError for what its model or preprocessing does not allow.
    """
    _check(spec, form, place)
    height, width = form.size or (0, 0)
    exported = Exported(
        batch=form.batch,
        height=height,
        width=width,
        image="uint8" if form.uint8 else "float32",
        counted=form.counted,
    )
    preprocess = spec.preprocess if form.size is None else _into_window(spec.preprocess, form.size)
    return replace(spec, preprocess=preprocess, precision=form.precision, exported=exported)


def _into_window(preprocess: Preprocess, size: tuple[int, int]) -> Preprocess:
    """Every image, portraits too, has to fill the one size that the graph takes."""
    height, width = size
    if preprocess.resize in ("letterbox", "stretch"):
        return replace(preprocess, short=height, long=width)
    return replace(preprocess, resize="fit_window", short=height, long=width, pad_to_window=True)


def _check(spec: Spec, form: Form, place: str | Path) -> None:
    if spec.exported is not None:
        raise UserError(f"{place}: is an exported graph already", hint="export its .safetensors file")
    if form.batch < 0:
        raise UserError(
            f"--batch {form.batch}: is no number of images", hint="use 1 or more, or leave it out"
        )
    if not FIRST_OPSET <= form.opset <= LAST_OPSET:
        raise UserError(
            f"--opset {form.opset}: a whole graph is written in opset {FIRST_OPSET} to {LAST_OPSET}",
            hint=f"leave it out, or use --opset {FIRST_OPSET}",
        )
    if form.uint8 and spec.preprocess.filter == "torch":
        raise UserError(
            f"{place}: its images are resized to fractions of a byte (filter torch), which --uint8 would cut",
            hint="leave --uint8 out",
        )
    fill = spec.preprocess.fill
    if form.uint8 and spec.preprocess.resize == "letterbox" and any(value % 1 for value in fill):
        raise UserError(
            f"{place}: its letterbox is filled with {spec.preprocess.pad_value}, and bytes have no fractions",
            hint="leave --uint8 out, or set preprocess.pad_value to whole numbers",
        )
    multiple = spec.preprocess.pad_multiple
    for side in form.size or ():
        if side < 1 or side % multiple:
            raise UserError(
                f"--size {form.size[0]}x{form.size[1]}: {side} is no multiple of {multiple}",  # type: ignore[index]
                hint=f"use {max(1, round(side / multiple)) * multiple}",
            )
