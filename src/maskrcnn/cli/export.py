"""`maskrcnn export`: a model file becomes a graph that other engines run, checked before it gets its name."""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskrcnn.cli.gate import CheckImages, Tolerance, Verify
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from maskrcnn.export.form import Form

MODEL = "Model file, `example`, or zoo:NAME."
OUT = (
    "What to write: .onnx, .xml for OpenVINO, .engine for TensorRT, the folder .parts, or with --serve the "
    "folder of a server's models."
)
SUFFIXES = (".onnx", ".xml", ".engine", ".parts")
# Contract: module of `maskrcnn.export.contracts` that writes it.
CONTRACTS = {"segmentoly": "segmentoly", "model-api": "model_api", "ascend": "ascend"}
SIZE = "HEIGHTxWIDTH of every input; images are fitted into it. Any size where it is left out."
BATCH = "Images of every input; any number where it is left out."
PRECISION = "fp32, fp16, or for OpenVINO bf16: of weights and convolutions; boxes stay fp32."
UINT8 = "The input is bytes and not float32."
COUNTED = "A fifth output `num_detections`, as inference servers like it."
PLAIN = "Without the input `size` and the description: for programs of others, not for maskrcnn."
CONTRACT = (
    "Names and layout of inputs and outputs: maskrcnn, or as another tool has them: segmentoly and model-api "
    "(OpenVINO Model API), both .xml, and ascend, .onnx."
)
FLAVOUR = (
    "Of --contract ascend: portable operators, which every engine runs, or ascend, those that only its own "
    "compiler knows: the network is checked with them, but not the graph."
)
CHIP = (
    "With --contract ascend: print the command lines of its compiler for this chip, as Ascend310P3: for bins "
    "of floats, and for bins of bytes with OUT.aipp.cfg, which is written."
)
SERVE = (
    "OUT is the model repository of Triton Inference Server or OpenVINO Model Server: the model is added to "
    "it, or a version of it."
)
NAME = "With --serve: of the model in the repository, where that of its file is not wanted."
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
    contract: Annotated[
        Literal["maskrcnn", "segmentoly", "model-api", "ascend"], typer.Option(help=CONTRACT)
    ] = "maskrcnn",
    flavour: Annotated[Literal["portable", "ascend"], typer.Option(help=FLAVOUR)] = "portable",
    chip: Annotated[str | None, typer.Option(metavar="NAME", help=CHIP)] = None,
    serve: Annotated[Literal["triton", "ovms"] | None, typer.Option(help=SERVE)] = None,
    name: Annotated[str | None, typer.Option(help=NAME)] = None,
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
    from maskrcnn.compat.ascend.atc import refuse_elsewhere, write_for_atc
    from maskrcnn.export.form import FIRST_OPSET, Form
    from maskrcnn.predict import model_path

    refuse_elsewhere(contract, flavour, chip)
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
    asked = asked_for(check, verify, tolerance, threads=threads)
    if serve is not None or name is not None:
        from maskrcnn.cli.served import check_options, serve_model

        others = {"--plain": plain, "--contract": contract != "maskrcnn", "--graphs": graphs != "onnx"}
        check_options(serve, others)
        return serve_model(model, path, out, serve or "triton", name, form, asked, as_json)
    if flavour == "ascend":
        write_for_atc(path, out, form)
        return _tell(out, form, chip, as_json)
    if contract == "maskrcnn":
        write = writer(path, out, form, opset, graphs, plain)
    else:
        write = writer_of(contract, path, out, form, plain)
    gated = write_checked(model, out, write, asked, as_json)
    if plain:
        from maskrcnn.export.plain import make_plain

        make_plain(out)
    return _tell(gated.path, form, chip, as_json)


def _tell(path: Path, form: "Form", chip: str | None, as_json: bool) -> None:
    """Where the file is, and for Ascend what compiles it."""
    if not as_json:
        print(f"-> {path} ({megabytes(path):.1f} MB)")
    if chip is not None:
        from maskrcnn.compat.ascend.atc import compiler_line

        print(compiler_line(path, form.size, chip), file=sys.stderr if as_json else sys.stdout)


def sides(text: str) -> tuple[int, int]:
    """`800x1216` -> (800, 1216), height and width."""
    found = re.fullmatch(r"([1-9]\d{0,5})[xX]([1-9]\d{0,5})", text)
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


def writer_of(contract: str, model: Path, out: Path, form: "Form", plain: bool) -> "Callable[[Path], object]":
    """What writes a graph for another tool. Raises UserError for what that tool has no file for."""
    if plain:
        raise UserError(f"--plain: {contract} says already what the inputs are", hint="leave it out")
    module = import_module(f"maskrcnn.export.contracts.{CONTRACTS[contract]}")
    if out.suffix.lower() != module.SUFFIX:
        raise UserError(
            f"{out}: {contract} graphs are {module.SUFFIX} files", hint=f"let OUT end in {module.SUFFIX}"
        )
    tell_what_takes_long()
    return lambda file: module.export(model, file, form)


def tell_what_takes_long() -> None:
    """On a terminal; the trace says nothing for half a minute."""
    if sys.stderr.isatty():
        print("tracing the model; this takes up to a minute", file=sys.stderr)


def megabytes(out: Path) -> float:
    """Of all files that belong to an exported model."""
    beside = out.with_suffix(".bin")
    files = [*out.iterdir()] if out.is_dir() else [out, *([beside] if out.suffix.lower() == ".xml" else [])]
    return sum(file.stat().st_size for file in files) / 1e6
