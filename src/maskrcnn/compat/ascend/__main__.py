"""`python -m maskrcnn.compat.ascend SCRIPT`: the scripts of Ascend's page with their flags over our verbs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskrcnn.compat.verbs import ends_in_words
from maskrcnn.errors import UserError

# The name on the page, whose script takes no arguments.
GRAPH = "maskrcnn_r50_fpn_1x.onnx"
# Of ais_infer and ais_bench, without a meaning for engines that are not Ascend's.
IGNORED = (
    "debug",
    "profiler",
    "profiler_rename",
    "dump",
    "dump_npy",
    "display_all_summary",
    "auto_set_dymshape_mode",
    "auto_set_dymdims_mode",
    "divide_input",
    "perf",
    "pipeline",
)
IGNORED_VALUES = (
    "output_batchsize_axis",
    "run_mode",
    "device",
    "acl_json_path",
    "backend",
    "energy_consumption",
    "npu_id",
    "thread",
)
REFUSED = {
    **dict.fromkeys(
        ("dymBatch", "dymHW", "dymDims", "dymShape", "dymShape_range", "outputSize"),
        "is for graphs of several sizes",
    ),
    "aipp_config": "is for graphs compiled with dynamic AIPP",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a script; exit code 0 done, 1 some images are bad, 2 the user must change something."""
    asked = _parser().parse_args(arguments)
    with ends_in_words():
        asked.script(asked)


def _parser() -> argparse.ArgumentParser:
    """Their flags, spelt and preset as theirs."""
    parser = argparse.ArgumentParser(prog="python -m maskrcnn.compat.ascend", allow_abbrev=False)
    scripts = parser.add_subparsers(required=True, metavar="SCRIPT")

    def script(name: str, run: Any, words: str) -> argparse.ArgumentParser:
        added = scripts.add_parser(name, help=words, allow_abbrev=False)
        added.set_defaults(script=run)
        return added

    _add_preprocess(script("mmdet_preprocess", mmdet_preprocess, "images to .bin files"))
    info = script("get_info", get_info, "the list of images that mmdet_postprocess reads")
    info.add_argument("file_type", choices=("jpg", "bin"))
    info.add_argument("file_path", type=Path, help="folder of the images or bins")
    info.add_argument("info_name", type=Path, help="file to write")
    info.add_argument("width", type=int, nargs="?", help="of every bin")
    info.add_argument("height", type=int, nargs="?", help="of every bin")
    _add_infer(script("ais_infer", ais_infer, "run a model on .bin files, or time it without"))
    _add_infer(script("ais_bench", ais_bench, "the same, as the tool that came after it has it"))
    _add_postprocess(script("mmdet_postprocess", mmdet_postprocess, "average precision of the results"))
    label = script("label_to_int32", int32_labels, "make the int64 labels of a graph int32")
    label.add_argument("source", type=Path, nargs="?", default=Path(GRAPH), help="the page's if left out")
    label.add_argument("out", type=Path, nargs="?", help="the same file if left out")
    return parser


def _add_preprocess(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image_src_path", default="./coco2017/")
    parser.add_argument("--bin_file_path", type=Path, default=Path("./coco2017_bin/"))
    parser.add_argument("--model_input_height", type=int, default=800)
    parser.add_argument("--model_input_width", type=int, default=1216)
    parser.add_argument("--workers", type=int, default=4, help="threads; not a flag of theirs")


def _add_infer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", "--om", "-m", required=True, help="model file of any engine of ours")
    parser.add_argument("--input", "-i", help="folder of bins, or files with commas between them")
    parser.add_argument("--output", "-o", type=Path, help="nothing is written without it")
    parser.add_argument("--output_dirname")
    parser.add_argument("--outfmt", default="BIN", choices=("BIN", "NPY", "TXT"))
    parser.add_argument("--loop", "-r", "-l", type=int, default=1)
    parser.add_argument("--batchsize", type=int, default=1)
    parser.add_argument("--pure_data_type", default="zero", choices=("zero", "random"))
    parser.add_argument("--warmup_count", type=int, default=1)
    parser.add_argument("--engine", help="of ours, in place of what the model's suffix names")
    for name in IGNORED:
        parser.add_argument(f"--{name}", nargs="?", const="true", help="has no meaning here")
    for name in IGNORED_VALUES:
        spellings = ("--device", "--device_id", "-d") if name == "device" else (f"--{name}",)
        parser.add_argument(*spellings, dest=name, help="has no meaning here")
    for name, reason in REFUSED.items():
        parser.add_argument(f"--{name}", help=f"refused: {reason}")


def _add_postprocess(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--test_annotation", type=Path, default=Path("./origin_pictures.info"))
    parser.add_argument("--bin_data_path", type=Path, default=Path("./result/dumpOutput_device0/"))
    parser.add_argument("--det_results_path", type=Path, default=Path("./detection-results/"))
    parser.add_argument("--val2017_json_path", type=Path, required=True)
    parser.add_argument("--net_out_num", type=int, default=3)
    parser.add_argument("--net_input_width", type=int, default=1216)
    parser.add_argument("--net_input_height", type=int, default=800)
    parser.add_argument("--ifShowDetObj", action="store_true")
    parser.add_argument(
        "--exact", action="store_true", help="with the roundings of theirs; not a flag of theirs"
    )
    parser.add_argument(
        "--partial", action="store_true", help="some images may be missing; not a flag of theirs"
    )


def mmdet_preprocess(asked: argparse.Namespace) -> None:
    """All images, not the first 5,000, and every failure told."""
    from maskrcnn.backends.contracts.ascend import mmdetection_spec
    from maskrcnn.cli.bins import write_all
    from maskrcnn.compat.ascend.bins import Bins
    from maskrcnn.images import find_images

    size = (asked.model_input_height, asked.model_input_width)
    files = find_images([asked.image_src_path], skip=asked.bin_file_path)
    folder = Path(asked.bin_file_path)
    write_all(files, folder, Bins(mmdetection_spec(size)), asked.workers, exact=True)


def get_info(asked: argparse.Namespace) -> None:
    """In the order of names; theirs has that of the disk."""
    from maskrcnn.compat.ascend.listing import write_info

    size = None if asked.width is None or asked.height is None else (asked.height, asked.width)
    count = write_info(asked.file_type, asked.file_path, asked.info_name, size)
    print(f"{count} lines   -> {asked.info_name}")


def ais_infer(asked: argparse.Namespace) -> None:
    """With any of our engines."""
    _infer(asked, bench=False)


def ais_bench(asked: argparse.Namespace) -> None:
    """With the summary beside the folder of the results, in the spelling that it has there."""
    _infer(asked, bench=True)


def _infer(asked: argparse.Namespace, bench: bool) -> None:
    from maskrcnn.cli.bins import results_folder, run_all
    from maskrcnn.compat.ascend.run import Manner, files_in
    from maskrcnn.predict import open_model

    for name, reason in REFUSED.items():
        if getattr(asked, name) is not None:
            raise UserError(f"--{name} {getattr(asked, name)}: {reason}", hint="leave it out")
    ignored = [name for name in (*IGNORED, *IGNORED_VALUES) if getattr(asked, name) is not None]
    if ignored:
        print(f"note: without meaning here: --{', --'.join(ignored)}", file=sys.stderr)
    if asked.input and not asked.output:
        print("note: results are saved with --output FOLDER alone, as by theirs", file=sys.stderr)
    given = [Path(word) for word in (asked.input or "").split(",") if word]
    files = [file for path in given for file in files_in(path)]
    parents = {file.parent for file in files}
    folder = parents.pop() if len(parents) == 1 else None
    predictor = open_model(asked.model, "auto", asked.batchsize, engine=asked.engine)
    manner = Manner(asked.loop, predictor.batch, asked.outfmt, warm_up=asked.warmup_count)
    out = results_folder(asked.output, asked.output_dirname) if asked.output and files else None
    noise = asked.pure_data_type == "random"
    for line in run_all(predictor, folder, files, out, manner, noise=noise, bench=bench):
        print(f"[INFO] {line}")


def mmdet_postprocess(asked: argparse.Namespace) -> None:
    """Masks and boxes without their roundings, unless --exact asks for these."""
    from maskrcnn.cli.account import progress
    from maskrcnn.cli.eval import tell
    from maskrcnn.compat.ascend.evaluate import Written
    from maskrcnn.compat.ascend.measure import Told, measure, open_results

    if asked.net_out_num != 3:
        raise UserError(f"--net_out_num {asked.net_out_num}: there are 3 outputs", hint="leave it out")
    size = (asked.net_input_height, asked.net_input_width)
    results = open_results(asked.bin_data_path, Told(asked.test_annotation, size=size, exact=asked.exact))
    written = Written(asked.det_results_path, asked.ifShowDetObj)
    with progress(len(results.suffixes), "images") as advance:
        metrics = measure(
            results,
            asked.val2017_json_path,
            asked.partial,
            written,
            watch=lambda done, total: advance(),
        )
    tell(metrics, [])


def int32_labels(asked: argparse.Namespace) -> None:
    """Of any detector's graph, found by its type and not by the name of a node."""
    from maskrcnn.compat.ascend.int32 import label_to_int32

    out = asked.out or asked.source
    print(f"`{label_to_int32(asked.source, out)}` is int32   -> {out}")


if __name__ == "__main__":
    main()
