"""`maskrcnn export`: what it writes, for whom, and what it refuses before it traces anything."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import Run

from maskrcnn.export.form import Form
from maskrcnn.predict import open_model
from maskrcnn.stored_spec import stored_spec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> list[Form]:
    """The forms of the graphs that were asked for; each is written as a megabyte, and passes every check."""
    asked: list[Form] = []

    def export_onnx(source: Path, file: Path, form: Form) -> None:
        asked.append(form)
        file.write_bytes(bytes(1_000_000))

    def write_checked(model: str, out: Path, write: Callable[[Path], object], *_: object) -> SimpleNamespace:
        write(out)
        return SimpleNamespace(path=out)

    monkeypatch.setattr("maskrcnn.export.onnx.export_onnx", export_onnx)
    monkeypatch.setattr("maskrcnn.cli.gate.write_checked", write_checked)
    return asked


def test_a_graph_takes_any_input_unless_told(
    run: Run, model_file: Path, tmp_path: Path, forms: list[Form]
) -> None:
    out = tmp_path / "m.onnx"
    ran = run("export", model_file, out)
    assert (ran.code, ran.out, ran.err) == (0, f"-> {out} (1.0 MB)\n", "")
    assert forms == [Form()]


def test_options_give_the_graph_its_form(
    run: Run, model_file: Path, tmp_path: Path, forms: list[Form]
) -> None:
    words = ["--size", "96x160", "--batch", "2", "--precision", "fp16", "--uint8", "--num-detections"]
    assert run("export", model_file, tmp_path / "m.onnx", *words, "--opset", 20).code == 0
    assert forms == [Form((96, 160), 2, "fp16", uint8=True, counted=True, opset=20)]


@pytest.mark.parametrize(
    ("out", "words", "error", "hint"),
    [
        ("m.tflite", "", "m.tflite: export writes no .tflite", "OUT ends in .onnx, in .xml for OpenVINO"),
        ("m", "", "export writes no file without suffix", "OUT ends in .onnx"),
        ("m.onnx", "--size 800", "--size 800: is no HEIGHTxWIDTH", "write it as 800x1216"),
        ("m.onnx", "--size 96x150", "--size 96x150: 150 is no multiple of 32", "use 160"),
        ("m.onnx", "--opset 17", "--opset 17: a whole graph is written in opset 18 to 23", "--opset 18"),
        ("m.onnx", "--precision bf16", "--precision bf16: ONNX Runtime has no bf16", "write an .xml"),
        ("m.onnx", "--graphs xml", "--graphs xml: is for .parts", "is one graph"),
        ("m.parts", "--plain", "--plain: is for .onnx and .xml", "leave it out"),
        ("m.parts", "--uint8", "--uint8: is for whole graphs", "leave it out"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_traced(
    run: Run, model_file: Path, tmp_path: Path, out: str, words: str, error: str, hint: str
) -> None:
    ran = run("export", model_file, tmp_path / out, *words.split())
    assert (ran.code, ran.out) == (2, "")
    assert error in ran.err
    assert hint in ran.err.splitlines()[1]
    assert not list(tmp_path.iterdir())


def test_a_graph_is_not_exported_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    ran = run("export", tmp_path / "m.onnx", tmp_path / "m.xml")
    assert ran.code == 2
    assert "m.onnx: is an exported graph already" in ran.err


def test_no_such_model(run: Run, tmp_path: Path) -> None:
    ran = run("export", tmp_path / "none.safetensors", tmp_path / "m.onnx")
    assert (ran.code, "no such model file" in ran.err) == (2, True)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_a_model_runs_as_a_graph_on_its_engine(run: Run, model_file: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    ran = run("export", model_file, out, "--size", "96x160", "--threads", 1)
    assert (ran.code, ran.err) == (0, "")
    assert "boxes within" in ran.out
    spec = stored_spec(out)
    assert spec.exported is not None
    assert spec.exported.check is not None
    assert spec.exported.check.missed == 0
    image = np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)
    (found,) = open_model(out, threads=1)([image])
    assert found.size == (90, 60)
