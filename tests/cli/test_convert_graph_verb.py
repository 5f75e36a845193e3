"""`maskrcnn convert` of another tool's graph: what it says, writes and refuses."""

import json
import runpy
from pathlib import Path

import pytest
from commands import Run

from maskrcnn.stored_spec import stored_spec


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Goes from `input` to `dets`, `labels` and `masks`, in 80 x 120 pixels."""
    made = runpy.run_path(str(Path(__file__).parents[1] / "backends" / "mmdetection_graph.py"))
    return made["write_tiny"](tmp_path / "theirs.onnx", (80, 120))


def test_it_says_what_the_graph_is_fed_with(run: Run, graph: Path) -> None:
    out = graph.with_name("out.onnx")
    ran = run("convert", graph, out, "--style", "caffe", "--classes", "coco")
    assert (ran.code, ran.err) == (0, "")
    first, resizing, input_, last = ran.out.splitlines()
    assert first.startswith("graph of mmdetection · classes 80: person, bicycle, car, motorcycle, ")
    assert resizing == "stretched to 80 x 120 (mmdetection rounding), opencv filter, BGR, not padded"
    assert input_.startswith("mean 103.53 116.28 123.675, std 1 1 1, of 0..255 · sha256 ")
    assert last == f"-> {out}"


def test_what_is_taken_for_granted_is_a_note_and_json_has_all(run: Run, graph: Path) -> None:
    out = graph.with_name("out.onnx")
    notes = [line for line in run("convert", graph, out).out.splitlines() if line.startswith("note: ")]
    report = json.loads(run("convert", graph, out, "--json").out)
    assert [f"note: {note}" for note in report["notes"]] == notes
    assert report["spec"]["exported"]["contract"] == "mmdetection"
    assert report["spec"]["origin"]["sha256"] == stored_spec(out).origin.sha256


def test_what_is_of_checkpoints_is_refused(run: Run, graph: Path) -> None:
    ran = run("convert", graph, graph.with_name("out.onnx"), "--ema", "--from", "mmdetection")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[0] == "error: --from, --ema do not go with a graph"
    assert not graph.with_name("out.onnx").exists()


def test_info_tells_what_is_known_of_a_described_graph_and_invents_no_layers(run: Run, graph: Path) -> None:
    out = graph.with_name("out.onnx")
    run("convert", graph, out)
    ran = run("info", out, "--flops")
    titles = dict(line.split(maxsplit=1) for line in ran.out.splitlines() if line[0] != " ")
    assert titles["network"] == "of mmdetection"
    assert not {"cost", "conventions", "layers"} & set(titles)
