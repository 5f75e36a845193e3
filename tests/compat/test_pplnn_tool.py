"""The command line of PPL.NN's general tool: its files of raw values, written and read."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper

from maskrcnn.compat import pplnn_files, pplnn_tool
from maskrcnn.compat.pplnn_files import Input
from maskrcnn.errors import UserError

FOLDER = Path(__file__).parents[1] / "backends"
FLOAT, HALF = np.dtype("f4"), np.dtype("f2")


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cat in bright images of 8 x 12 pixels; the working folder is its own."""
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = runpy.run_path(str(FOLDER / "mmdetection_graph.py"))
    return made["write_tiny"](tmp_path / "tiny.onnx", (8, 12))


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`a-b` + `c` (n, 2), the second of which is whole numbers, in half precision as well."""
    monkeypatch.chdir(tmp_path)
    nodes = [
        helper.make_node("Cast", ["c"], ["d"], to=T.FLOAT),
        helper.make_node("Add", ["a-b", "d"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["half/sum"], to=T.FLOAT16),
    ]
    made = helper.make_graph(
        nodes,
        "two",
        [
            helper.make_tensor_value_info("a-b", T.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("c", T.INT64, ["n", 2]),
        ],
        [
            helper.make_tensor_value_info("sum", T.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("half/sum", T.FLOAT16, ["n", 2]),
        ],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), "two.onnx")
    return tmp_path / "two.onnx"


def run(*words: object, engine: str = "onnxruntime") -> int:
    """The exit code."""
    try:
        pplnn_tool.main([*(str(word) for word in words), "--engine", engine])
    except SystemExit as leaving:
        assert isinstance(leaving.code, int)
        return leaving.code
    return 0


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.glob("*.dat"))


def test_files_have_the_names_of_the_script(graph: Path) -> None:
    assert run("--onnx-model", graph, "--save-input", "--save-inputs", "--save-outputs") == 0
    assert names(graph.parent) == [
        "pplnn_input_0_input-1_3_8_12-fp32.dat",
        "pplnn_inputs.dat",
        "pplnn_output-dets.dat",
        "pplnn_output-labels.dat",
        "pplnn_output-masks.dat",
    ]


def test_files_have_the_names_of_the_program_if_asked_for(graph: Path) -> None:
    words = ("--save-input", "--save-inputs", "--program-names", "--no-run", "--save-data-dir", "there")
    assert run("--onnx-model", graph, *words) == 0
    assert names(Path("there")) == ["pplnn_input.dat", "pplnn_input_00000_input-1_3_8_12-fp32.dat"]


def test_files_hold_values_in_c_order_and_nothing_else(graph: Path) -> None:
    np.ones((1, 3, 8, 12), "<f4").tofile("in.dat")
    assert run("--onnx-model", graph, "--inputs", "in.dat", "--save-inputs", "--save-outputs") == 0
    assert Path("pplnn_input_0_input-1_3_8_12-fp32.dat").read_bytes() == Path("in.dat").read_bytes()
    dets = np.fromfile("pplnn_output-dets.dat", "<f4")
    np.testing.assert_allclose(dets, [1, 2, 9, 6, 0.731059], rtol=1e-6)
    assert np.fromfile("pplnn_output-labels.dat", "<i8").tolist() == [15]
    assert Path("pplnn_output-masks.dat").stat().st_size == 8 * 12 * 4


def test_what_has_no_rows_is_an_empty_file(graph: Path) -> None:
    np.full((1, 3, 8, 12), -1, "<f4").tofile("in.dat")
    assert run("--onnx-model", graph, "--inputs", "in.dat", "--save-outputs") == 0
    assert Path("pplnn_output-dets.dat").stat().st_size == 0
    assert run("--onnx-model", graph, "--inputs", "in.dat", "--compare", ".") == 0


def test_saved_inputs_are_read_again_in_all_three_ways(two: Path) -> None:
    words = ("--in-shapes", "3_2,3_2", "--save-input", "--save-inputs", "--save-outputs")
    assert run("--onnx-model", two, *words) == 0
    first, second = "pplnn_input_0_a-b-3_2-fp32.dat", "pplnn_input_1_c-3_2-int64.dat"
    for given in (
        ("--reshaped-inputs", f"{first},{second}"),
        ("--inputs", f"{first},{second}", "--in-shapes", "3_2,3_2"),
        ("--input", "pplnn_inputs.dat", "--in-shapes", "3_2,3_2"),
    ):
        assert run("--onnx-model", two, *given, "--compare", ".", "--within", 0) == 0


def test_half_precision_is_saved_in_single_and_a_slash_is_no_folder(two: Path) -> None:
    assert run("--onnx-model", two, "--in-shapes", "1_2,1_2", "--save-outputs") == 0
    assert names(two.parent) == ["pplnn_output-half_sum.dat", "pplnn_output-sum.dat"]
    half, single = (np.fromfile(f"pplnn_output-{name}.dat", "<f4") for name in ("half_sum", "sum"))
    np.testing.assert_allclose(half, single, atol=1e-3)


def test_values_of_another_type_in_a_file_become_those_of_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "x-1_2-fp16.dat"
    np.array([[1, 2]], HALF).tofile(path)
    found = pplnn_files.read_reshaped([path], [Input("x", (0, 0), FLOAT)])["x"]
    assert (found.dtype, found.tolist()) == (FLOAT, [[1, 2]])


def test_other_outputs_end_with_1_and_their_difference(
    graph: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--onnx-model", graph, "--save-outputs") == 0
    dets = np.fromfile("pplnn_output-dets.dat", "<f4")
    np.full(5, 0.25, "<f4").tofile("pplnn_output-dets.dat")
    capfd.readouterr()
    code = run("--onnx-model", graph, "--compare", ".")
    out = capfd.readouterr().out
    assert code == 1
    assert ("dets: 5 values there, 0 here" if not dets.size else "dets: differs by") in out


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_is_run_is_told_in_their_words(
    graph: Path, capfd: pytest.CaptureFixture[str], engine: str
) -> None:
    pytest.importorskip(engine)
    np.ones((1, 3, 8, 12), "<f4").tofile("in.dat")
    assert run("--onnx-model", graph, "--inputs", "in.dat", engine=engine) == 0
    out, err = capfd.readouterr()
    assert out.startswith(
        "----- input info -----\ninput[0]:\n    name: input\n    dim(s): 1 3 8 12\n    data type: FLOAT32\n"
        "    data format: NDARRAY\n    byte(s) excluding padding: 1152\n----------------------\n"
    )
    assert "output[1]:\n    name: labels\n    dim(s): 1\n    data type: INT64\n" in out
    assert err.endswith("Run ok\n")


def test_the_engines_settings_reach_pplnn(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER / "fake_pyppl"))
    words = ("--mm-policy", "mem", "--disable-avx512", "--disable-graph-fusion")
    assert run("--onnx-model", graph, *words, engine="pplnn") == 0
    from pyppl.common import CALLS  # type: ignore[import-not-found]

    try:
        assert ("EngineFactory.Create", ("disable_avx512", True), ("mm_policy", 0)) in CALLS
        assert ("Configure", 0, 0) in CALLS
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "pyppl"]:
            del sys.modules[name]


def test_profiling_runs_as_often_as_asked_for(graph: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("--enable-profiling", "--min-profiling-iterations", 3, "--min-profiling-seconds", 0)
    assert run("--onnx-model", graph, *words, "--warmup-iterations", 0) == 0
    out = capfd.readouterr().out
    assert "Total duration: " in out and "Average run costs: " in out


def test_inputs_without_files_are_the_same_at_every_call_and_within_1() -> None:
    wanted = [Input("x", (0, 3, 0, 8), FLOAT), Input("n", (2,), np.dtype("i8"))]
    first, second = (pplnn_files.random_inputs(wanted) for _ in range(2))
    assert first["x"].shape == (1, 3, 256, 8) and np.abs(first["x"]).max() <= 1
    assert set(first["n"].tolist()) <= {0, 1}
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_shapes_are_sides_with_underlines_and_nothing_is_one_number() -> None:
    assert pplnn_files.parsed_shapes("1_3_8_12,,2") == [(1, 3, 8, 12), (), (2,)]
    with pytest.raises(UserError, match="--in-shapes 1x3: are no shapes"):
        pplnn_files.parsed_shapes("1x3")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), "no model is given"),
        (("--onnx-model", "missing.onnx"), "missing.onnx: no such file"),
        (("--onnx-model", "tiny.onnx", "--pmx-model", "a.pmx"), "--pmx-model: is of PPL's own format"),
        (("--onnx-model", "tiny.onnx", "--quick-select"), "--quick-select: is of its CUDA engine"),
        (("--onnx-model", "tiny.onnx", "--what"), "--what: is no option"),
        (
            ("--onnx-model", "tiny.onnx", "--inputs", "a,b"),
            "2 input files, and the graph has 1 inputs: input",
        ),
        (("--onnx-model", "tiny.onnx", "--inputs", "no.dat"), "no.dat: cannot be read"),
        (("--onnx-model", "tiny.onnx", "--inputs", "tiny.onnx"), "of fp32 has 1152"),
        (("--onnx-model", "tiny.onnx", "--input", "tiny.onnx"), "and the graph's inputs 1152"),
        (("--onnx-model", "tiny.onnx", "--reshaped-inputs", "x.dat"), "does not tell dimensions and type"),
        (("--onnx-model", "tiny.onnx", "--in-shapes", "1,2"), "has 2 shapes, and the graph 1 inputs"),
        (("--onnx-model", "tiny.onnx", "--mm-policy", "fast"), "invalid choice: 'fast'"),
        (("--onnx-model", "tiny.onnx", "--compare", "."), "pplnn_output-dets.dat: cannot be read"),
    ],
)
def test_mistakes_end_with_2_and_words(
    graph: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], error: str
) -> None:
    assert run(*words) == 2
    err = capfd.readouterr().err
    assert error in err and "hint: " in err and "Traceback" not in err


def test_a_graph_of_any_size_needs_the_size_of_a_file(two: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.zeros((1, 2), "<f4").tofile("a.dat")
    assert run("--onnx-model", two, "--inputs", "a.dat,a.dat") == 2
    assert "input a-b: the graph takes any size" in capfd.readouterr().err


def test_the_module_is_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maskrcnn.compat.pplnn_tool", "--version"], check=False, capture_output=True
    )
    assert (done.returncode, done.stdout[:9]) == (0, b"maskrcnn ")
