"""The file that an engine opens of a model."""

from pathlib import Path

import pytest

from maskrcnn.predict import file_for


@pytest.mark.parametrize(
    ("engine", "suffix"), [("onnxruntime", ".onnx"), ("openvino", ".onnx"), ("native", ".safetensors")]
)
def test_of_the_example_model_an_engine_gets_the_file_that_it_reads(engine: str, suffix: str) -> None:
    assert file_for("example", engine).name == f"example{suffix}"


def test_any_other_model_is_its_file(tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    path.write_text("")
    assert file_for(path, "openvino") == path
