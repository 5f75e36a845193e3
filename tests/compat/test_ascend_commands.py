"""`python -m maskrcnn.compat.ascend`: the scripts of Ascend's page with the flags of its command lines."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bright_boxes import SCENES, WINDOW, annotations, photographs, their_model

from maskrcnn.compat.ascend.__main__ import main

HEIGHT, WIDTH = WINDOW


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: photographs, truth, and an engine that finds everything under any model name."""
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "val2017")
    annotations(tmp_path / "instances_val2017.json")
    monkeypatch.setattr("maskrcnn.predict.open_model", lambda *_, **__: their_model())
    return tmp_path


def preprocess() -> None:
    size = f"--model_input_height={HEIGHT}", f"--model_input_width={WIDTH}"
    main(["mmdet_preprocess", "--image_src_path=val2017", "--bin_file_path=val2017_bin", *size])


def test_the_page_from_images_to_average_precision(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preprocess()
    main(["ais_infer", "--model", "./maskrcnn_r50_fpn_1x.om", "--input", "val2017_bin", "--output", "result"])
    main(["get_info", "jpg", "val2017/", "val2017_jpg.info"])
    capsys.readouterr()
    size = f"--net_input_height={HEIGHT}", f"--net_input_width={WIDTH}"
    main(
        [
            "mmdet_postprocess",
            "--bin_data_path=result",
            "--test_annotation=val2017_jpg.info",
            "--val2017_json_path=instances_val2017.json",
            "--det_results_path=det_result",
            "--net_out_num=3",
            *size,
            "--ifShowDetObj",
        ]
    )
    rows = {words[0]: words[1:] for line in capsys.readouterr().out.splitlines() if (words := line.split())}
    assert rows["AP75"] == ["1.0000", "1.0000"]
    names = {path.name for path in (place / "det_result").iterdir()}
    assert names == {f"{Path(name).stem}{suffix}" for name in SCENES for suffix in (".jpg", ".txt")}


def test_results_are_named_by_image_in_a_folder_named_by_time(place: Path) -> None:
    preprocess()
    main(["ais_infer", "--model", "m.om", "-i", "val2017_bin", "-o", "result", "--outfmt", "NPY"])
    (folder,) = (place / "result").iterdir()
    assert len(folder.name) == len("2022_12_20-14_15_48")
    assert np.load(folder / "000000000139_0.npy").shape == (100, 5)
    assert (folder / "sumary.json").exists()
    main(["ais_infer", "--model", "m.om", "-i", "val2017_bin", "-o", "result", "--output_dirname", "mine"])
    assert (place / "result" / "mine" / "000000000139_2.bin").stat().st_size == 25_088_000


def test_without_output_nothing_is_saved_and_without_input_it_is_only_timed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.iterdir())
    main(["ais_infer", "--model=./maskrcnn_r50_fpn_1x.om", "--loop=20", "--batchsize=1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[INFO] -----------------Performance Summary------------------"
    assert any(line.startswith("[INFO] NPU_compute_time (ms): min = ") for line in lines)
    assert any(line.startswith("[INFO] throughput (1000*batchsize/NPU_compute_time): ") for line in lines)
    preprocess()
    main(
        ["ais_infer", "--model=m.om", "--input", "val2017_bin/000000000139.bin,val2017_bin/000000000285.bin"]
    )
    assert "note: results are saved with --output FOLDER alone" in capsys.readouterr().err
    after = {path.name for path in place.iterdir()} - {path.name for path in before}
    assert after == {"val2017_bin", "val2017_bin.info", "val2017_bin.json"}


def test_flags_without_a_meaning_are_told_and_those_that_change_numbers_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["ais_infer", "--model", "m.om", "--device", "0", "--debug", "True", "--profiler", "1"])
    assert "note: without meaning here: --debug, --profiler, --device" in capsys.readouterr().err
    with pytest.raises(SystemExit) as leaving:
        main(["ais_infer", "--model", "m.om", "--dymHW", "800,1216"])
    assert leaving.value.code == 2
    assert "error: --dymHW 800,1216: is for graphs of several sizes" in capsys.readouterr().err


def test_ais_bench_leaves_its_summary_beside_the_results_and_they_are_measured(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preprocess()
    asked = ["-m", "m.om", "-i", "val2017_bin", "-o", "result", "--output_dirname", "mine", "-l", "2"]
    main(["ais_bench", *asked, "--divide_input", "1", "--thread", "2"])
    told = capsys.readouterr()
    assert "note: without meaning here: --divide_input, --thread" in told.err
    assert "[INFO] throughput 1000*batchsize.mean(1)/NPU_compute_time.mean(" in told.out
    assert {path.name for path in (place / "result").iterdir()} == {"mine", "mine_summary.json"}
    assert not (place / "result" / "mine" / "sumary.json").exists()
    summary = json.loads((place / "result" / "mine_summary.json").read_text())
    assert summary["NPU_compute_time"]["count"] == len(summary["npu_compute_time_list"]) == 6
    (place / "val2017_bin.json").unlink()
    size = f"--net_input_height={HEIGHT}", f"--net_input_width={WIDTH}"
    where = "--bin_data_path=result", "--val2017_json_path=instances_val2017.json"
    main(["mmdet_postprocess", *where, *size])
    rows = {words[0]: words[1:] for line in capsys.readouterr().out.splitlines() if (words := line.split())}
    assert rows["AP75"] == ["1.0000", "1.0000"]
    with pytest.raises(SystemExit):
        main(["ais_bench", *asked, "--aipp_config", "a.config"])
    assert "--aipp_config a.config: is for graphs compiled with dynamic AIPP" in capsys.readouterr().err


def test_a_list_of_bins_has_the_size_that_is_given(place: Path) -> None:
    preprocess()
    main(["get_info", "bin", "val2017_bin", "bin.info", "1216", "800"])
    assert (place / "bin.info").read_text().splitlines()[1] == "1 val2017_bin/000000000285.bin 1216 800"


def test_errors_are_words_and_exit_codes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["get_info", "jpg", "nowhere", "x.info"], "nowhere: no such file or folder"),
        (["get_info", "bin", "val2017", "x.info"], "a bin says nothing of its size"),
        (["mmdet_preprocess", "--image_src_path", "nowhere"], "nowhere: no such file or folder"),
        (["label_to_int32", "none.onnx"], "none.onnx: cannot be read"),
        (["label_to_int32", "m.om"], "m.om: is no .onnx"),
    ):
        with pytest.raises(SystemExit) as leaving:
            main(arguments)
        assert leaving.value.code == 2
        printed = capsys.readouterr()
        assert words in printed.err
        assert "hint: " in printed.err


def labels_graph(path: Path, cast: bool, read_again: bool = False) -> Path:
    """`x` float (3,) -> `labels` int64 (3,), by a Cast or by NonZero's kin; and `y` of the labels."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    made = (
        helper.make_node("Cast", ["x"], ["labels"], name="Cast_622", to=kinds.INT64)
        if cast
        else helper.make_node("ArgMax", ["x"], ["labels"], axis=0, keepdims=1)
    )
    nodes, outputs = [made], [helper.make_tensor_value_info("labels", kinds.INT64, [None])]
    if read_again:
        nodes.append(helper.make_node("Cast", ["labels"], ["y"], to=kinds.FLOAT))
        outputs.append(helper.make_tensor_value_info("y", kinds.FLOAT, [None]))
    inputs = [helper.make_tensor_value_info("x", kinds.FLOAT, [3])]
    graph = helper.make_graph(nodes, "labels", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("cast", "read_again", "nodes"),
    [(True, False, ["Cast"]), (False, False, ["ArgMax", "Cast"]), (True, True, ["Cast", "Cast", "Cast"])],
)
def test_labels_become_int32_whatever_makes_them(
    place: Path, cast: bool, read_again: bool, nodes: list[str]
) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    source = labels_graph(place / "in.onnx", cast, read_again)
    main(["label_to_int32", str(source), "out.onnx"])
    model = onnx.load("out.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == nodes
    session: Any = onnxruntime.InferenceSession("out.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": np.array([1, 7, 3], np.float32)})
    assert found[0].dtype == np.int32
    assert found[0].tolist() == ([1, 7, 3] if cast else [1])
    if read_again:
        assert found[1].tolist() == [1, 7, 3]
    # Once more changes nothing.
    before = (place / "out.onnx").read_bytes()
    main(["label_to_int32", "out.onnx"])
    assert (place / "out.onnx").read_bytes() == before


def test_without_arguments_the_graph_of_the_page_is_changed(place: Path) -> None:
    onnx = pytest.importorskip("onnx")
    labels_graph(place / "maskrcnn_r50_fpn_1x.onnx", cast=True)
    main(["label_to_int32"])
    (labels,) = onnx.load("maskrcnn_r50_fpn_1x.onnx").graph.output
    assert labels.type.tensor_type.elem_type == onnx.TensorProto.INT32


def test_the_module_is_a_program_without_torch() -> None:
    code = (
        "import sys, runpy; sys.argv = ['x', 'ais_infer', '--help']\n"
        "try:\n    runpy.run_module('maskrcnn.compat.ascend', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'cv2', 'numpy') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--pure_data_type" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "[]"
