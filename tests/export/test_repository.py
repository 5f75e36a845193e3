"""Model repositories of servers: their files, their next versions, and what is left after an error."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from networks import SMALL, model_file

from maskrcnn.errors import UserError
from maskrcnn.export.form import Form
from maskrcnn.export.gate import Gated
from maskrcnn.spec import Check, Spec
from maskrcnn.stored_spec import KEY, stored_spec

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

FLOATS, INTS = 1, 7
Make = Callable[..., Gated]


def graph(path: Path, spec: Spec, batch: str | int = "batch") -> None:
    """A file with the inputs and outputs of our graphs, and nothing between them."""
    inputs = {"image": (FLOATS, [batch, 3, "height", "width"]), "size": (INTS, [batch, 2])}
    outputs = {
        "boxes": (FLOATS, [batch, 12, 4]),
        "scores": (FLOATS, [batch, 12]),
        "labels": (INTS, [batch, 12]),
        "masks": (FLOATS, [batch, 12, 28, 28]),
        "num_detections": (INTS, [batch]),
    }
    values = [
        [onnx.helper.make_tensor_value_info(name, *value) for name, value in each.items()]
        for each in (inputs, outputs)
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", *values))
    model.metadata_props.add(key=KEY, value=spec.to_json())
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return model_file(tmp_path / "source" / "tiny.safetensors", SMALL["fpn"])


@pytest.fixture
def make(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes into tmp_path / "served"; the check lets everything pass, or nothing."""
    from maskrcnn.export import repository

    def make(
        server: Any = "triton", name: str = "tiny", form: Form | None = None, passes: bool = True
    ) -> Gated:
        def write_checked(model: Path, out: Path, export: Callable, *_: object) -> Gated:
            export(out)
            if passes:
                return Gated(out, Check())
            for path in out.parent.iterdir():
                path.rename(path.with_name(f"{path.name}.rejected"))
            kept = out.with_name(f"{out.name}.rejected")
            (out.parent / "shown.png").write_bytes(b"")
            return Gated(kept, Check(), fault="differs", shows=str(out.parent / "shown.png"))

        monkeypatch.setattr(repository, "write_checked", write_checked)
        place = repository.place_in(tmp_path / "served", server, name)
        return repository.write_repository(source, place, form or Form())

    def export_onnx(model: Path, out: Path, form: Form) -> None:
        graph(out, described_as(model, form), form.batch or "batch")

    def export_openvino(model: Path, out: Path, form: Form) -> None:
        root = ElementTree.Element("net")
        text = described_as(model, form).to_json()
        ElementTree.SubElement(ElementTree.SubElement(root, "rt_info"), KEY, value=text)
        ElementTree.ElementTree(root).write(out)
        out.with_suffix(".bin").write_bytes(b"weights")

    monkeypatch.setattr("maskrcnn.export.onnx.export_onnx", export_onnx)
    monkeypatch.setattr("maskrcnn.export.openvino.export_openvino", export_openvino)
    return make


def described_as(model: Path, form: Form) -> Spec:
    from maskrcnn.export.form import described
    from maskrcnn.weights.model_file import read_spec

    return described(read_spec(model), form, model)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_triton_finds_the_graph_its_configuration_the_labels_and_a_page(make: Make, tmp_path: Path) -> None:
    found = make()
    served = tmp_path / "served"
    assert found.path == served / "tiny" / "1" / "model.onnx"
    assert files(served) == [
        f"tiny/{name}" for name in ("1/model.onnx", "README.md", "config.pbtxt", "labels.txt")
    ]
    assert (served / "tiny" / "labels.txt").read_text() == "one\ntwo\nthree\n"
    assert len((served / "tiny" / "README.md").read_text().splitlines()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["served", "source"]


def test_the_configuration_has_the_values_of_the_graph_without_the_batch(make: Make, tmp_path: Path) -> None:
    make()
    text = (tmp_path / "served" / "tiny" / "config.pbtxt").read_text()
    assert 'name: "tiny"\nbackend: "onnxruntime"\nmax_batch_size: 8\ndynamic_batching { }\n' in text
    assert 'input {\n  name: "image"\n  data_type: TYPE_FP32\n  dims: [ 3, -1, -1 ]\n}\n' in text
    assert 'output {\n  name: "masks"\n  data_type: TYPE_FP32\n  dims: [ 12, 28, 28 ]\n}\n' in text
    counted = "  data_type: TYPE_INT64\n  dims: [ 1 ]\n  reshape { shape: [ ] }\n}"
    assert f'output {{\n  name: "num_detections"\n{counted}\n' in text


def test_a_graph_for_a_fixed_number_of_images_is_not_fed_by_a_batcher(make: Make, tmp_path: Path) -> None:
    make(form=Form(batch=2))
    text = (tmp_path / "served" / "tiny" / "config.pbtxt").read_text()
    assert "max_batch_size: 0\n" in text
    assert "dynamic_batching" not in text
    assert "dims: [ 2, 12, 28, 28 ]" in text
    assert "reshape" not in text


def test_triton_s_own_reader_reads_the_configuration(make: Make, tmp_path: Path) -> None:
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]")
    from google.protobuf import text_format

    from maskrcnn.spec import spec_from_json

    make(name="a.b-c_1")
    folder = tmp_path / "served" / "a.b-c_1"
    read = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    assert (read.name, read.backend, read.max_batch_size) == ("a.b-c_1", "onnxruntime", 8)
    assert read.HasField("dynamic_batching")
    values = {each.name: (each.data_type, list(each.dims)) for each in (*read.input, *read.output)}
    assert values["size"] == (schema.TYPE_INT64, [2])
    assert values["boxes"] == (schema.TYPE_FP32, [12, 4])
    spec = spec_from_json(read.parameters["maskrcnn"].string_value, "the configuration")
    assert spec.classes == stored_spec(folder / "1" / "model.onnx").classes


def test_another_version_gets_the_next_number_and_leaves_the_rest_as_it_is(
    make: Make, tmp_path: Path
) -> None:
    make()
    folder = tmp_path / "served" / "tiny"
    (folder / "config.pbtxt").write_text("of its owner")
    before = (folder / "1" / "model.onnx").stat().st_ino
    assert make().path == folder / "2" / "model.onnx"
    assert (folder / "config.pbtxt").read_text() == "of its owner"
    assert (folder / "1" / "model.onnx").stat().st_ino == before
    assert make(name="other").path == tmp_path / "served" / "other" / "1" / "model.onnx"


def test_a_version_that_is_fed_otherwise_is_refused_before_anything_is_traced(
    make: Make, tmp_path: Path
) -> None:
    make()
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"1/model\.onnx: the version before is fed otherwise"):
        make(form=Form(uint8=True))
    assert files(tmp_path) == before


def test_openvino_model_server_gets_a_list_of_its_models_with_the_arithmetic(
    make: Make, tmp_path: Path
) -> None:
    make("ovms")
    served = tmp_path / "served"
    names = ("1/model.bin", "1/model.xml", "README.md", "labels.txt")
    assert files(served) == ["config.json", *(f"tiny/{name}" for name in names)]
    entry = {
        "name": "tiny",
        "base_path": "tiny",
        "plugin_config": {"INFERENCE_PRECISION_HINT": "f32"},
    }
    assert json.loads((served / "config.json").read_text()) == {"model_config_list": [{"config": entry}]}
    make("ovms")
    make("ovms", "other", Form(precision="bf16"))
    listed = json.loads((served / "config.json").read_text())["model_config_list"]
    assert [each["config"]["name"] for each in listed] == ["tiny", "other"]
    assert listed[1]["config"]["plugin_config"] == {"INFERENCE_PRECISION_HINT": "bf16"}
    assert (served / "tiny" / "2" / "model.bin").read_bytes() == b"weights"


@pytest.mark.parametrize("text", ["no json", "[]", '{"model_config_list": [1]}', '{"models": []}'])
def test_a_list_that_is_none_of_the_server_s_is_refused_and_stays(
    make: Make, tmp_path: Path, text: str
) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: is no list of models of OpenVINO Model Server"):
        make("ovms")
    assert files(tmp_path / "served") == ["config.json"]


def test_a_folder_or_a_file_of_something_else_is_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "served" / "tiny" / "letters").mkdir(parents=True)
    with pytest.raises(UserError, match="tiny: is there, and holds no version of a model"):
        make()
    (tmp_path / "served" / "file").write_text("")
    with pytest.raises(UserError, match="is no model repository"):
        make(name="file")


def test_a_rejected_graph_is_kept_beside_the_repository_which_stays_as_it_is(
    make: Make, tmp_path: Path
) -> None:
    make()
    before = files(tmp_path / "served")
    found = make(passes=False)
    kept = tmp_path / "served.rejected"
    assert (found.path, found.shows) == (kept / "model.onnx.rejected", str(kept / "shown.png"))
    assert files(kept) == ["model.onnx.rejected", "shown.png"]
    assert files(tmp_path / "served") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["served", "served.rejected", "source"]


def test_nothing_is_left_where_a_graph_cannot_be_written(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise UserError("no", hint="no")

    monkeypatch.setattr("maskrcnn.export.onnx.export_onnx", fails)
    with pytest.raises(UserError):
        make()
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_versions_have_in_common_all_but_their_weights_and_their_check() -> None:
    from maskrcnn.export.repository import without_history
    from maskrcnn.spec import Exported, Origin

    spec = Spec(SMALL["fpn"], exported=Exported(check=Check(images=3)), origin=Origin(file="a"))
    assert without_history(spec) == without_history(replace(spec, origin=Origin(file="b")))
    assert without_history(spec) != without_history(replace(spec, precision="fp16"))
