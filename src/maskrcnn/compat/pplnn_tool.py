"""The command line of PPL.NN's tools/pplnn.py and of its program pplnn: one graph on files of raw values."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from maskrcnn.compat.pplnn_files import (
    Arrays,
    Input,
    parsed_shapes,
    random_inputs,
    read_inputs,
    read_outputs,
    read_reshaped,
    read_together,
    save_inputs,
    save_outputs,
    save_together,
)
from maskrcnn.compat.verbs import ends_in_words, note
from maskrcnn.errors import UserError

if TYPE_CHECKING:
    from maskrcnn.backends.pplnn import PplnnSession

PROGRAM = "python -m maskrcnn.compat.pplnn_tool"
ENGINES = ("pplnn", "onnxruntime", "openvino")
# Options of theirs that there is nothing for here, and of what they are.
ELSEWHERE = {
    **dict.fromkeys(
        ("--pmx-model", "--export-pmx-model", "--save-pmx-model", "--pmx-external-data-dir"),
        "PPL's own format",
    ),
    **dict.fromkeys(
        ("--quick-select", "--import-algo-file", "--export-algo-file", "--kernel-type", "--quant-file"),
        "its CUDA engine",
    ),
    "--enable-cuda-graph": "its CUDA engine",
    **dict.fromkeys(("--use-arm", "--use-riscv", "--use-fp16", "--wg-level"), "its ARM and RISC-V engines"),
    **dict.fromkeys(("--tuning-level", "--numa-node-id"), "its ARM engine"),
    **dict.fromkeys(("--enable-tensor-debug", "--debug-data-dir"), "a debugging build of its engine"),
    "--core-binding": "its threads",
}
# By the names of NumPy: what theirs call a type.
TYPE_NAMES = {"bool": "BOOL"}
# ONNX Runtime's words for types.
OF_ONNX = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class Opened:
    """A graph on an engine. run: arrays by the names of its inputs -> those of its outputs."""

    inputs: tuple[Input, ...]
    run: Callable[[Arrays], Arrays]


class Arguments(argparse.ArgumentParser):
    """Wrong flags are told as other mistakes are."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(message, hint=f"`{self.prog} --help` lists the flags")


def main(words: Sequence[str] | None = None) -> None:
    """Run a command line; exit code 0 done, 1 outputs are others than those compared with, 2 for mistakes.

    words: of the command line, None for those of the process.
    """
    with ends_in_words():
        given = _arguments(sys.argv[1:] if words is None else words)
        if given.version:
            import maskrcnn

            print(f"maskrcnn {maskrcnn.__version__}")
        elif not _run(given):
            sys.exit(1)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = Arguments(prog=PROGRAM, description="Run one graph on files of raw values.", allow_abbrev=False)
    flag = parser.add_argument
    flag("--version", action="store_true", help="print the version of this package")
    flag("--onnx-model", type=Path, metavar="FILE", help="graph to run")
    flag("--use-x86", action="store_true", help="PPL.NN on the CPU, ONNX Runtime where it is not installed")
    flag("--use-cuda", action="store_true", help="ONNX Runtime on a GPU; of PPL.NN only x86 is called here")
    flag("--device-id", type=int, default=0, help="of --use-cuda")
    flag("--engine", choices=ENGINES, help="whatever is installed")
    flag("--mm-policy", choices=("perf", "mem", "plain"), default="perf", help="how PPL.NN reuses memory")
    flag("--disable-avx512", action="store_true", help="of PPL.NN")
    flag("--disable-avx-fma3", action="store_true", help="of PPL.NN")
    flag("--disable-graph-fusion", action="store_true", help="of PPL.NN")
    flag("--num-threads", type=int, help="CPU threads of the engine")
    flag("--in-shapes", default="", help="of the inputs, 1_3_800_1200,1_2")
    flag("--input", type=Path, metavar="FILE", help="all inputs in one file")
    flag("--inputs", default="", metavar="FILES", help="a file for each input, with commas")
    flag("--reshaped-inputs", default="", metavar="FILES", help="the same, named NAME-1_3_800_1200-fp32.dat")
    flag("--save-input", action="store_true", help="write all inputs in one file")
    flag("--save-inputs", action="store_true", help="write a file for each input")
    flag("--save-outputs", action="store_true", help="write a file for each output")
    flag("--save-data-dir", type=Path, default=Path(), metavar="FOLDER", help="where they go")
    flag("--program-names", action="store_true", help="names as the C++ program's, not the script's")
    flag("--no-run", action="store_true", help="only inputs")
    flag(
        "--compare",
        type=Path,
        metavar="FOLDER",
        help="with outputs that --save-outputs wrote there, theirs or ours",
    )
    flag("--within", type=float, default=1e-3, help="largest difference that --compare allows")
    flag("--enable-profiling", action="store_true", help="run again and again, and print the mean time")
    flag("--warmup-iterations", type=int, default=1)
    flag("--min-profiling-iterations", type=int, default=1)
    flag("--min-profiling-seconds", type=float, default=1.0)
    flag("--perf-with-io", action="store_true", help="always so here: inputs are copied at every run")
    given, others = parser.parse_known_args(words)
    for word in others:
        name = word.partition("=")[0]
        if name in ELSEWHERE:
            raise UserError(f"{name}: is of {ELSEWHERE[name]}, which is not called here", hint="leave it out")
        raise UserError(f"{word}: is no option", hint=f"`{PROGRAM} --help` lists them")
    if not given.version and given.onnx_model is None:
        raise UserError("no model is given", hint="say --onnx-model FILE")
    return given


def _run(given: argparse.Namespace) -> bool:
    """Whether the outputs are those that they were compared with, if they were."""
    if not given.onnx_model.is_file():
        raise UserError(f"{given.onnx_model}: no such file", hint="check the path")
    graph = _opened(given)
    arrays = _inputs(given, graph.inputs)
    if given.save_input:
        save_together(given.save_data_dir, arrays, given.program_names)
    if given.save_inputs:
        save_inputs(given.save_data_dir, arrays, given.program_names)
    _print("input", arrays)
    if given.no_run:
        return True
    start = time.perf_counter()
    outputs = graph.run(arrays)
    print(f"Run() costs: {1000 * (time.perf_counter() - start):.3f} ms.", file=sys.stderr)
    _print("output", outputs)
    if given.save_outputs:
        save_outputs(given.save_data_dir, outputs)
    print("Run ok", file=sys.stderr)
    if given.enable_profiling:
        _profile(given, lambda: graph.run(arrays))
    return given.compare is None or _agree(outputs, read_outputs(given.compare, outputs), given.within)


def _opened(given: argparse.Namespace) -> Opened:
    name = given.engine or _engine(given)
    if name == "pplnn":
        return _on_pplnn(given)
    if name == "openvino":
        from maskrcnn.backends.openvino_runtime import session as open_openvino

        network = open_openvino(given.onnx_model, "cpu", given.num_threads)
        return Opened(_of_openvino(network), network)
    from maskrcnn.backends.onnx_runtime import session as open_onnx

    device = f"cuda:{given.device_id}" if given.use_cuda else "cpu"
    graph = open_onnx(given.onnx_model, device, given.num_threads)
    return Opened(tuple(_of_onnx(each) for each in graph.session.get_inputs()), graph)


def _engine(given: argparse.Namespace) -> str:
    from maskrcnn.backends.pplnn import is_installed

    if given.use_cuda or is_installed():
        return "onnxruntime" if given.use_cuda else "pplnn"
    note("OpenPPL's pyppl is not installed, so ONNX Runtime runs the graph")
    return "onnxruntime"


def _on_pplnn(given: argparse.Namespace) -> Opened:
    from maskrcnn.backends.pplnn import X86Settings, session

    settings = X86Settings(
        given.mm_policy, not given.disable_avx512, not given.disable_avx_fma3, not given.disable_graph_fusion
    )
    graph = session(given.onnx_model, "cpu", given.num_threads, whole=True, settings=settings)
    return Opened(_of_pplnn(graph), graph)


def _of_pplnn(graph: "PplnnSession") -> tuple[Input, ...]:
    common = graph.pyppl.common
    names = ("UINT8", "FLOAT16", "FLOAT32", "FLOAT64", "INT32", "INT64", "BOOL")
    types = {getattr(common, f"DATATYPE_{name}"): np.dtype(name.lower()) for name in names}
    found = []
    for tensor in graph.inputs():
        shape = tensor.GetShape()
        dims = tuple(max(int(side), 0) for side in shape.GetDims())
        found.append(Input(tensor.GetName(), dims, types[shape.GetDataType()]))
    return tuple(found)


def _of_openvino(network: Any) -> tuple[Input, ...]:
    return tuple(
        Input(
            name,
            tuple(side.get_length() if side.is_static else 0 for side in value.get_partial_shape()),
            np.dtype(value.get_element_type().to_dtype()),
        )
        for name, value in zip(network.inputs, network.compiled.inputs, strict=True)
    )


def _of_onnx(value: Any) -> Input:
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    dims = tuple(side if isinstance(side, int) else 0 for side in value.shape)
    return Input(value.name, dims, np.dtype(OF_ONNX.get(kind, kind)))


def _inputs(given: argparse.Namespace, wanted: Sequence[Input]) -> Arrays:
    shapes = parsed_shapes(given.in_shapes)
    if given.input is not None:
        return read_together(given.input, wanted, shapes)
    if given.inputs:
        return read_inputs(_files(given.inputs), wanted, shapes)
    if given.reshaped_inputs:
        return read_reshaped(_files(given.reshaped_inputs), wanted)
    return random_inputs(wanted, shapes)


def _files(text: str) -> list[Path]:
    return [Path(part) for part in text.split(",") if part]


def _print(what: str, arrays: Mapping[str, np.ndarray]) -> None:
    """In the words of theirs."""
    print(f"----- {what} info -----")
    for number, (name, array) in enumerate(arrays.items()):
        kind = TYPE_NAMES.get(array.dtype.name, array.dtype.name.upper())
        print(f"{what}[{number}]:")
        print(f"    name: {name}")
        print("    dim(s):" + "".join(f" {side}" for side in array.shape))
        print(f"    data type: {kind}")
        print("    data format: NDARRAY")
        print(f"    byte(s) excluding padding: {array.nbytes}")
        if what == "output":
            print(f"    saved data type: {'FLOAT32' if array.dtype == np.float16 else kind}")
    print("----------------------")


def _profile(given: argparse.Namespace, run: Callable[[], object]) -> None:
    for _ in range(given.warmup_iterations):
        run()
    runs, seconds = 0, 0.0
    while seconds < given.min_profiling_seconds or runs < given.min_profiling_iterations:
        start = time.perf_counter()
        run()
        runs, seconds = runs + 1, seconds + time.perf_counter() - start
    print(f"Total duration: {1000 * seconds:.3f} ms")
    if runs:
        print(f"Average run costs: {1000 * seconds / runs:.3f} ms.")


def _agree(ours: Arrays, theirs: Arrays, within: float) -> bool:
    good = True
    for name, array in ours.items():
        other = theirs[name]
        if other.shape != array.shape:
            print(f"{name}: {other.size} values there, {array.size} here")
            good = False
            continue
        largest = float(np.abs(array.astype(np.float64) - other.astype(np.float64)).max(initial=0))
        print(f"{name}: differs by {largest:.3g} at most")
        good &= largest <= within
    return good


if __name__ == "__main__":
    main()
