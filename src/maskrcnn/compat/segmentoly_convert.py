"""`python -m maskrcnn.compat.segmentoly_convert`: segmentoly's tools/convert_to_onnx.py over our verbs.

An `--output_file` that ends in .xml takes Model Optimizer's step as well.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from maskrcnn.compat.segmentoly_flags import CHECKPOINTS
from maskrcnn.compat.verbs import ends_in_words, note, run_verb
from maskrcnn.errors import UserError

DATASETS = {"coco_2017_val": 81, "coco_2017_train": 81}
# Last part of --model: how the network is called here.
NETWORKS = {
    "ResNet50C4MaskRCNN": "R50-C4",
    "ResNet50FPNMaskRCNN": "R50-FPN",
    "ResNet50FPNMaskRCNNDemo": "R50-FPN",
    "ResNet50FPNMaskRCNNLightSegmHead": "R50-FPN",
    "ResNet50FPNMaskRCNNLightSegmHeadDemo": "R50-FPN",
    "ResNet50FPNGNMaskRCNN": "R50-FPN",
    "ResNet101FPNMaskRCNN": "R101-FPN",
    "ResNeXt101FPNMaskRCNN": "X101-32x8d-FPN",
    "ResNeXt10164x4dFPNMaskRCNN": "X101-64x4d-FPN",
    "ResNeXt152FPNMaskRCNN": "X152-32x8d-FPN",
    "ResNeXt152sFPNMaskRCNN": "X152-32x8d-FPN",
    "InstanceSegmentationSecurity0050": "R50-FPN",
    "ResNeXt101PANetMaskRCNN": "X101-32x8d-PANet",
}
# The one ResNeXt with its strides in the first convolution of a block, which no tensor tells.
STRIDES_FIRST = "ResNeXt152sFPNMaskRCNN"


@dataclass(frozen=True)
class Asked:
    """A command line of the converter. model: its class. size: (height, width). classes: with background."""

    model: str
    ckpt: Path
    size: tuple[int, int]
    output_file: Path
    classes: int
    verbose: bool = False
    check: bool = False
    show_flops: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the graph; exit code 1 where its check finds it different, 2 where the user must change
    something.
    """
    with ends_in_words():
        asked = read_arguments(sys.argv[1:] if arguments is None else arguments)
        with TemporaryDirectory(prefix="maskrcnn-segmentoly-") as folder:
            write(asked, Path(folder))


def read_arguments(arguments: Sequence[str]) -> Asked:
    """The converter's flags. Raises UserError for a class, data set or kind of file that is not known."""
    parser = argparse.ArgumentParser(prog="python -m maskrcnn.compat.segmentoly_convert", allow_abbrev=False)
    parser.add_argument("--model", required=True, help="segmentoly's class, checked against the weights")
    parser.add_argument("--ckpt", type=Path, required=True, help="weights: .pth, .pkl or .safetensors")
    parser.add_argument("--input_size", type=int, nargs=2, required=True, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--output_file", type=Path, required=True, help=".onnx, or .xml for OpenVINO")
    counts = parser.add_mutually_exclusive_group(required=True)
    counts.add_argument("--dataset", help=" or ".join(DATASETS))
    counts.add_argument("-nc", "--classes_num", type=int, help="classes, the background counted as well")
    parser.add_argument("--verbose", action="store_true", help="the whole report of the conversion")
    parser.add_argument("--check", action="store_true", help="compare with PyTorch; an .xml always is")
    parser.add_argument("--show_flops", action="store_true")
    found = parser.parse_args(arguments)
    _check(found)
    return Asked(
        found.model.rpartition(".")[2],
        found.ckpt,
        (found.input_size[0], found.input_size[1]),
        found.output_file,
        DATASETS[found.dataset] if found.dataset else found.classes_num,
        found.verbose,
        found.check,
        found.show_flops,
    )


def _check(found: argparse.Namespace) -> None:
    if found.model.rpartition(".")[2] not in NETWORKS:
        raise UserError(
            f"--model {found.model}: is no class of segmentoly", hint=f"read are {', '.join(NETWORKS)}"
        )
    if found.dataset and found.dataset not in DATASETS:
        raise UserError(
            f"--dataset {found.dataset}: is not known", hint=f"use {' or '.join(DATASETS)}, or -nc"
        )
    if found.output_file.suffix.lower() not in (".onnx", ".xml"):
        raise UserError(f"--output_file {found.output_file}: is no .onnx or .xml", hint="let it end in .onnx")


def write(asked: Asked, folder: Path) -> None:
    """Convert, check what the flags claim, export. folder: for what lies between."""
    from maskrcnn.weights.architecture import name_of
    from maskrcnn.weights.model_file import read_spec

    model = asked.ckpt
    if asked.ckpt.suffix.lower() in CHECKPOINTS:
        model = folder / f"{asked.ckpt.stem}.safetensors"
        style = ["--style", "caffe"] if asked.model == STRIDES_FIRST else []
        run_verb(["convert", str(asked.ckpt), str(model), *style, *(["--json"] if asked.verbose else [])])
    spec = read_spec(model)
    network = name_of(spec.model)
    if network.split()[0] != NETWORKS[asked.model]:
        raise UserError(
            f"{asked.ckpt}: is {network}, and {asked.model} is {NETWORKS[asked.model]}",
            hint="name the class that the checkpoint is of",
        )
    if spec.model.classes + 1 != asked.classes:
        raise UserError(
            f"{asked.ckpt}: has {spec.model.classes} classes and background, and not {asked.classes} in all",
            hint=f"use -nc {spec.model.classes + 1}",
        )
    if asked.show_flops:
        run_verb(["info", str(model)])
    _export(asked, model, folder)


def _export(asked: Asked, model: Path, folder: Path) -> None:
    size = ["--size", f"{asked.size[0]}x{asked.size[1]}"]
    as_xml = asked.output_file.suffix.lower() == ".xml"
    if as_xml or asked.check:
        # What OpenVINO makes of the ONNX file is this network, operator by operator.
        out = asked.output_file if as_xml else folder / "checked.xml"
        run_verb(["export", str(model), str(out), "--contract", "segmentoly", *size])
    if not as_xml:
        from maskrcnn.export.contracts.segmentoly import export_onnx
        from maskrcnn.export.form import Form

        export_onnx(model, asked.output_file, Form(size=asked.size))
        note("its mean is inside, and ONNX Runtime lacks its operators: run it with `--engine openvino`")
        print(f"-> {asked.output_file} ({asked.output_file.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
