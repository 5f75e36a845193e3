"""`maskrcnn export`: a model file becomes a graph that other engines run, checked before it gets its name."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskrcnn.cli.gate import CheckImages, Tolerance, Verify
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from maskrcnn.export.form import Form

MODEL = "Model file, `example`, or zoo:NAME."
OUT = "What to write: .onnx, .xml for OpenVINO, .engine for TensorRT, or the folder .parts."
SUFFIXES = (".onnx", ".xml", ".engine", ".parts")
SIZE = "HEIGHTxWIDTH of every input; images are fitted into it. Any size where it is left out."
BATCH = "Images of every input; any number where it is left out."
PRECISION = "fp32, fp16, or for OpenVINO bf16: of weights and convolutions; boxes stay fp32."
UINT8 = "The input is bytes and not float32."
COUNTED = "A fifth output `num_detections`, as inference servers like it."
PLAIN = "Without the input `size` and the description: for programs of others, not for maskrcnn."
OPSET = "Of the ONNX standard: from 18 on, for .parts from 11 on."
GRAPHS = "What a .parts folder holds."


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help=OUT)],
    size: Annotated[str | None, typer.Option(metavar="HxW", help=SIZE)] = None,
    batch: Annotated[int | None, typer.Option(min=1, help=BATCH)] = None,
    precision: Annotated[Literal["fp32", "fp16", "bf16"], typer.Option(help=PRECISION)] = "fp32",
    uint8: Annotated[bool, typer.Option("--uint8", help=UINT8)] = False,
    num_detections: Annotated[bool, typer.Option("--num-detections", help=COUNTED)] = False,
    plain: Annotated[bool, typer.Option("--plain", help=PLAIN)] = False,
    opset: Annotated[int | None, typer.Option(help=OPSET)] = None,
    graphs: Annotated[Literal["onnx", "xml"], typer.Option(help=GRAPHS)] = "onnx",
    check: CheckImages = None,
    verify: Verify = None,
    tolerance: Tolerance = 1.0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of the check.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report of the check as JSON.")] = False,
) -> None:
    """Write a model for ONNX Runtime, OpenVINO and others; exit code 1 if it differs from the model."""
    from maskrcnn.cli.gate import asked_for, write_checked
    from maskrcnn.export.form import FIRST_OPSET, Form
    from maskrcnn.predict import model_path

    path = model_path(model)
    if path.suffix.lower() != ".safetensors":
        raise UserError(f"{path}: is an exported graph already", hint="export its .safetensors file")
    form = Form(
        sides(size) if size else None,
        batch or 0,
        precision,
        uint8,
        num_detections,
        opset=opset or FIRST_OPSET,
    )
    write = writer(path, out, form, opset, graphs, plain)
    asked = asked_for(check, verify, tolerance, threads=threads)
    gated = write_checked(model, out, write, asked, as_json)
    if plain:
        from maskrcnn.export.plain import make_plain

        make_plain(out)
    if not as_json:
        print(f"-> {gated.path} ({megabytes(out):.1f} MB)")


def sides(text: str) -> tuple[int, int]:
    """`800x1216` -> (800, 1216), height and width."""
    found = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if not found:
        raise UserError(f"--size {text}: is no HEIGHTxWIDTH", hint="write it as 800x1216")
    return int(found[1]), int(found[2])


def writer(
    model: Path, out: Path, form: "Form", opset: int | None, graphs: str, plain: bool
) -> "Callable[[Path], object]":
    """What writes the kind of file that the suffix of `out` names. Raises UserError where there is none."""
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{out}: export writes no {suffix or 'file without suffix'}",
            hint="OUT ends in .onnx, in .xml for OpenVINO, in .engine for TensorRT, or in .parts",
        )
    if suffix in (".parts", ".engine") and plain:
        raise UserError(f"--plain: is for .onnx and .xml, and {out} is neither", hint="leave it out")
    if graphs != "onnx" and suffix != ".parts":
        raise UserError(f"--graphs {graphs}: is for .parts", hint=f"leave it out: {out} is one graph")
    tell_what_takes_long()
    if suffix == ".onnx":
        from maskrcnn.export.onnx import export_onnx

        return lambda file: export_onnx(model, file, form)
    if suffix == ".xml":
        from maskrcnn.export.openvino import export_openvino

        return lambda file: export_openvino(model, file, form)
    if suffix == ".engine":
        from maskrcnn.export.tensorrt import export_tensorrt

        return lambda file: export_tensorrt(model, file, form)
    from maskrcnn.export.parts import OPSET, export_parts

    kind: Literal[".onnx", ".xml"] = ".onnx" if graphs == "onnx" else ".xml"
    return lambda file: export_parts(model, file, form, opset or OPSET, kind)


def tell_what_takes_long() -> None:
    """On a terminal; the trace says nothing for half a minute."""
    if sys.stderr.isatty():
        print("tracing the model; this takes up to a minute", file=sys.stderr)


def megabytes(out: Path) -> float:
    """Of all files that belong to an exported model."""
    beside = out.with_suffix(".bin")
    files = [*out.iterdir()] if out.is_dir() else [out, *([beside] if out.suffix.lower() == ".xml" else [])]
    return sum(file.stat().st_size for file in files) / 1e6
