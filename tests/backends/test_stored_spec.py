"""What a file of any engine says of itself is read without that engine; what is no such file is refused."""

from pathlib import Path

import pytest
from tiny_graph import spec, write_onnx, write_xml

from maskrcnn.errors import UserError
from maskrcnn.stored_spec import ENGINE_MARK, engine_header, plan_offset, stored_spec

SPEC = spec(batch=2, image="uint8")


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    return write_onnx(tmp_path_factory.mktemp("onnx") / "tiny.onnx", SPEC)


def refusal(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        stored_spec(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


def test_an_onnx_file_says_what_was_written_in_it(onnx_file: Path) -> None:
    assert stored_spec(onnx_file) == SPEC


@pytest.mark.parametrize("framework", [False, True])
def test_an_openvino_file_says_it_also_where_conversion_from_onnx_left_it(
    tmp_path: Path, framework: bool
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    assert stored_spec(write_xml(tmp_path / "tiny.xml", SPEC, framework)) == SPEC


def test_a_tensorrt_file_says_it_before_its_plan(tmp_path: Path) -> None:
    path = tmp_path / "tiny.engine"
    path.write_bytes(engine_header(SPEC) + b"the plan")
    assert stored_spec(path) == SPEC
    assert path.read_bytes()[plan_offset(path) :] == b"the plan"


def test_parts_say_it_in_a_file_of_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "tiny.parts"
    folder.mkdir()
    (folder / "maskrcnn.json").write_text(SPEC.to_json())
    assert stored_spec(folder) == SPEC


def test_a_graph_of_another_tool_is_told_how_to_make_one_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    found = refusal(write_onnx(tmp_path / "other.onnx", None))
    assert "has no maskrcnn description" in found.message
    assert "maskrcnn export" in found.hint


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_an_onnx_file_that_is_cut_short_is_refused(onnx_file: Path, tmp_path: Path, share: float) -> None:
    whole = onnx_file.read_bytes()
    path = tmp_path / "short.onnx"
    path.write_bytes(whole[: int(share * len(whole))])
    assert "is not an ONNX model, or not all of it" in refusal(path).message


@pytest.mark.parametrize("content", [b"", b"hello, world\n", b"\x89PNG\r\n\x1a\n" + bytes(64), b"\xff" * 200])
def test_what_is_no_onnx_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.onnx"
    path.write_bytes(content)
    assert "is not an ONNX model" in refusal(path).message


@pytest.mark.parametrize("text", ["", "<net", "<html></html>", "\0\0", "a,b\n"])
def test_what_is_no_openvino_network_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.xml"
    path.write_text(text)
    assert "is not an OpenVINO network" in refusal(path).message


def test_a_network_without_its_weights_beside_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.xml"
    path.write_text("<net></net>")
    found = refusal(path)
    assert "tiny.bin is not beside it" in found.message
    assert found.hint == "copy both files together"
    path.with_suffix(".bin").touch()
    assert "has no maskrcnn description" in refusal(path).message


def test_a_tensorrt_plan_without_header_and_a_cut_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.engine"
    path.write_bytes(b"ftrt" + bytes(100))
    assert "has no maskrcnn description" in refusal(path).message
    path.write_bytes(engine_header(SPEC)[:100])
    assert "is not a TensorRT file of maskrcnn, or not all of it" in refusal(path).message
    path.write_bytes(ENGINE_MARK + (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc")
    assert "its model description is no text" in refusal(path).message


def test_a_folder_without_description_and_a_file_in_place_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tiny.parts"
    folder.mkdir()
    assert "has no maskrcnn description" in refusal(folder).message
    folder.rmdir()
    folder.touch()
    assert "is no folder of parts" in refusal(folder).message


def test_a_description_that_is_wrong_is_told_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.engine"
    text = b'{"precision": "fp99"}'
    path.write_bytes(ENGINE_MARK + len(text).to_bytes(8, "little") + text)
    assert "fp99" in refusal(path).message


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".engine"])
def test_a_folder_is_no_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"folder{suffix}"
    path.mkdir()
    assert "cannot be read" in refusal(path).message
