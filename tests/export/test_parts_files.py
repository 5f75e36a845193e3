"""What is written as parts: which graphs, with which description, whole or not at all."""

from dataclasses import replace
from pathlib import Path

import networks
import onnx
import pytest

from maskrcnn.backends.pplnn_graph import faults
from maskrcnn.config import FPNConfig
from maskrcnn.errors import UserError
from maskrcnn.export import parts
from maskrcnn.export.form import Form
from maskrcnn.export.parts import export_parts, whole_folder
from maskrcnn.predict import open_model
from maskrcnn.spec import Exported, spec_from_json

GRAPHS = ("dense", "box_head", "mask_head")
# What engines without detection operators run; the last row finds the sizes of a pyramid's levels.
PLAIN = {
    *("Conv", "Relu", "Add", "MaxPool", "Gemm", "Flatten", "ReduceMean", "ConvTranspose", "Sigmoid"),
    *("Resize", "Shape", "Gather", "Unsqueeze", "Slice", "Concat", "Cast", "Constant", "Identity"),
}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.model_file(tmp_path_factory.mktemp("model") / "tiny.safetensors", networks.SMALL["fpn"])


def dims(value: onnx.ValueInfoProto) -> list[object]:
    return [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("neck", networks.SMALL)
def test_graphs_are_plain_convolutional_networks_of_opset_11(tmp_path: Path, neck: str) -> None:
    model = networks.model_file(tmp_path / "tiny.safetensors", networks.SMALL[neck])
    export_parts(model, tmp_path / "tiny.parts")
    for name in GRAPHS:
        graph = onnx.load(tmp_path / "tiny.parts" / f"{name}.onnx")
        onnx.checker.check_model(graph, full_check=True)
        assert [(each.domain, each.version) for each in graph.opset_import] == [("", 11)]
        assert {node.op_type for node in graph.graph.node} <= PLAIN
        assert faults(graph) == []


def test_group_norms_are_written_for_engines_that_have_none(tmp_path: Path) -> None:
    config = replace(networks.SMALL["fpn"], fpn=FPNConfig(32, norm="gn"))
    export_parts(networks.model_file(tmp_path / "tiny.safetensors", config), tmp_path / "tiny.parts")
    assert faults(onnx.load(tmp_path / "tiny.parts" / "dense.onnx")) == []


def test_names_and_dimensions_are_those_that_the_host_expects(tmp_path: Path, model_file: Path) -> None:
    export_parts(model_file, tmp_path / "tiny.parts")
    dense, box_head, mask_head = (
        onnx.load(tmp_path / "tiny.parts" / f"{name}.onnx").graph for name in GRAPHS
    )
    assert {each.name: dims(each) for each in dense.input} == {"image": ["count", 3, "height", "width"]}
    assert [each.name for each in dense.output] == [
        *(f"level{number}" for number in range(4)),
        *(f"{name}{number}" for name in ("objectness", "deltas") for number in range(5)),
    ]
    assert {each.name: dims(each) for each in box_head.input} == {"features": ["count", 16, 7, 7]}
    assert [each.name for each in box_head.output] == ["logits", "deltas"]
    assert {each.name: dims(each) for each in mask_head.input} == {"features": ["count", 16, 14, 14]}
    assert [each.name for each in mask_head.output] == ["masks"]


def test_a_fixed_size_and_number_stand_in_the_graph_and_in_the_description(
    tmp_path: Path, model_file: Path
) -> None:
    spec = export_parts(model_file, tmp_path / "tiny.parts", Form(size=(96, 160), batch=2))
    dense = onnx.load(tmp_path / "tiny.parts" / "dense.onnx").graph
    assert dims(dense.input[0]) == [2, 3, 96, 160]
    assert spec.exported == Exported(form="parts", batch=2, height=96, width=160)
    assert (spec.preprocess.resize, spec.preprocess.pad_to_window) == ("fit_window", True)


def test_the_description_stands_in_the_folder_and_in_every_graph(tmp_path: Path, model_file: Path) -> None:
    spec = export_parts(model_file, tmp_path / "tiny.parts")
    assert spec_from_json((tmp_path / "tiny.parts" / "maskrcnn.json").read_text(), "here") == spec
    for name in GRAPHS:
        graph = onnx.load(tmp_path / "tiny.parts" / f"{name}.onnx")
        assert {each.key: each.value for each in graph.metadata_props} == {"maskrcnn": spec.to_json()}


def test_no_place_on_this_machine_is_told(tmp_path: Path, model_file: Path) -> None:
    export_parts(model_file, tmp_path / "tiny.parts")
    here = str(Path(parts.__file__).parents[2]).encode()
    assert [path.name for path in (tmp_path / "tiny.parts").iterdir() if here in path.read_bytes()] == []


def test_an_older_folder_of_parts_is_replaced_and_what_is_none_is_not(
    tmp_path: Path, model_file: Path
) -> None:
    export_parts(model_file, tmp_path / "tiny.parts")
    (tmp_path / "tiny.parts" / "old").touch()
    export_parts(model_file, tmp_path / "tiny.parts")
    assert sorted(path.name for path in (tmp_path / "tiny.parts").iterdir()) == [
        *("box_head.onnx", "dense.onnx", "mask_head.onnx", "maskrcnn.json")
    ]
    (tmp_path / "thesis.parts").mkdir()
    (tmp_path / "thesis.parts" / "chapter1").touch()
    with pytest.raises(UserError, match="exists and is no folder of parts"):
        export_parts(model_file, tmp_path / "thesis.parts")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.parts", "tiny.parts"]


def test_an_interruption_leaves_the_older_folder_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "tiny.parts"
    with whole_folder(folder) as first:
        (first / "maskrcnn.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as second:
        (second / "maskrcnn.json").write_text("new")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.parts"]
    assert (folder / "maskrcnn.json").read_text() == "old"


def test_what_the_disk_refuses_is_told(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        export_parts(model_file, tmp_path / "file" / "tiny.parts")


@pytest.mark.parametrize(
    ("form", "opset", "words"),
    [
        (Form(uint8=True), 11, "--uint8: is for whole graphs"),
        (Form(counted=True), 11, "--num-detections: is for whole graphs"),
        (Form(plain=True), 11, "--plain: is for whole graphs"),
        (Form(precision="bf16"), 11, "--precision bf16: engines that read .onnx have no bf16"),
        (Form(size=(100, 160)), 11, "100 is no multiple of 32"),
        (Form(), 10, "--opset 10: parts are written in opset 11 to"),
    ],
)
def test_what_parts_cannot_be_is_refused(
    tmp_path: Path, model_file: Path, form: Form, opset: int, words: str
) -> None:
    with pytest.raises(UserError) as refused:
        export_parts(model_file, tmp_path / "tiny.parts", form, opset)
    assert words in refused.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["mask_head.onnx", "maskrcnn.json"])
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, model_file: Path, missing: str) -> None:
    folder = tmp_path / "tiny.parts"
    export_parts(model_file, folder)
    (folder / missing).unlink()
    with pytest.raises(UserError, match="mask_head.onnx|no maskrcnn description"):
        open_model(folder)


def test_a_truncated_graph_is_refused(tmp_path: Path, model_file: Path) -> None:
    folder = tmp_path / "tiny.parts"
    export_parts(model_file, folder)
    whole = (folder / "dense.onnx").read_bytes()
    (folder / "dense.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="dense.onnx: is not an ONNX model, or not all of it"):
        open_model(folder)


def test_a_graph_of_another_model_is_refused(tmp_path: Path, model_file: Path) -> None:
    other = networks.model_file(tmp_path / "other.safetensors", replace(networks.SMALL["fpn"], classes=2))
    export_parts(model_file, tmp_path / "tiny.parts")
    export_parts(other, tmp_path / "other.parts")
    (tmp_path / "other.parts" / "box_head.onnx").replace(tmp_path / "tiny.parts" / "box_head.onnx")
    with pytest.raises(UserError, match="box_head.onnx: belongs to another model"):
        open_model(tmp_path / "tiny.parts")
