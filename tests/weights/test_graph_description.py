"""A graph of another tool gets a description, and is otherwise as it was."""

import runpy
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from maskrcnn.errors import UserError
from maskrcnn.predict import open_model
from maskrcnn.presets import COCO, MEAN_BGR, MEAN_RGB
from maskrcnn.stored_spec import found_spec, stored_spec
from maskrcnn.weights.external_data import external_files
from maskrcnn.weights.graph_description import _carry, describe_graph

CONFIG = """
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=False, pad_size_divisor=32),
    test_cfg=dict(rcnn=dict(max_per_img=7)))
test_pipeline = [dict(type='Resize', scale=(1333, 800), keep_ratio=True)]
"""


@pytest.fixture(scope="module")
def tiny(repository: Path) -> Any:
    return runpy.run_path(str(repository / "tests" / "backends" / "mmdetection_graph.py"))["write_tiny"]


@pytest.fixture
def graph(tmp_path: Path, tiny: Any) -> Path:
    return tiny(tmp_path / "theirs.onnx", (80, 120))


def test_the_description_is_all_that_is_added(graph: Path) -> None:
    out = graph.with_name("out.onnx")
    describe_graph(graph, out, style="caffe")
    model = onnx.load(out)
    assert [each.key for each in model.metadata_props] == ["maskrcnn"]
    del model.metadata_props[:]
    assert model == onnx.load(graph)


def test_a_second_description_takes_the_place_of_the_first(graph: Path) -> None:
    first, second = graph.with_name("first.onnx"), graph.with_name("second.onnx")
    describe_graph(graph, first, style="caffe")
    describe_graph(first, second, style="pytorch")
    assert len(onnx.load(second).metadata_props) == 1
    assert stored_spec(second).model.mean == MEAN_RGB


def test_style_classes_and_settings_are_what_predict_then_uses(graph: Path) -> None:
    out = graph.with_name("out.onnx")
    names = graph.with_name("names.txt")
    names.write_text("ant\nbee\n")
    described = describe_graph(
        graph,
        out,
        style="caffe",
        classes=names,
        settings=["preprocess.resize=fit_window", "preprocess.pad_to_window=true"],
    )
    spec = open_model(out, threads=1).spec
    assert spec == described.spec == stored_spec(out)
    assert (spec.model.mean, spec.model.std, spec.preprocess.channels) == (MEAN_BGR, (1, 1, 1), "bgr")
    assert (spec.classes.names, spec.model.classes) == (("ant", "bee"), 2)
    assert (spec.origin.source, spec.origin.file, len(spec.origin.sha256)) == (
        "mmdetection",
        "theirs.onnx",
        64,
    )
    # Half the window is filled up with zeros after normalisation, the mean colour.
    assert len(open_model(out, threads=1)([np.full((120, 80, 3), 255, np.uint8)])[0]) == 1


def test_their_config_says_the_same(graph: Path) -> None:
    config = graph.with_name("config.py")
    config.write_text(CONFIG)
    spec = describe_graph(graph, graph.with_name("out.onnx"), source_config=config, classes="coco").spec
    assert (spec.model.mean, spec.model.std, spec.preprocess.channels) == ((1, 2, 3), (4, 5, 6), "bgr")
    assert spec.model.box_head.detections == 7
    assert (spec.preprocess.resize, spec.preprocess.short, spec.preprocess.long) == ("stretch", 80, 120)
    assert spec.classes == COCO


def test_of_a_graph_of_any_size_the_config_says_the_size_too(tmp_path: Path, tiny: Any) -> None:
    config = tmp_path / "config.py"
    config.write_text(CONFIG.replace("(1333, 800)", "(600, 400)"))
    spec = describe_graph(tiny(tmp_path / "g.onnx"), tmp_path / "out.onnx", source_config=config).spec
    assert (spec.preprocess.resize, spec.preprocess.short, spec.preprocess.long) == (
        "shortest_edge",
        400,
        600,
    )


def test_what_was_taken_for_granted_is_said(graph: Path) -> None:
    notes = describe_graph(graph, graph.with_name("out.onnx")).notes
    assert [note.partition(";")[0] for note in notes] == [
        "taken to be of pytorch style (RGB, ImageNet's mean and std)",
        "the graph does not tell its classes",
    ]


def test_an_openvino_network_keeps_its_weights(graph: Path) -> None:
    import openvino

    source, out = graph.with_suffix(".xml"), graph.with_name("out.xml")
    openvino.save_model(openvino.Core().read_model(graph), source, compress_to_fp16=False)
    assert found_spec(source) is None
    describe_graph(source, out, classes="coco")
    assert out.with_suffix(".bin").read_bytes() == source.with_suffix(".bin").read_bytes()
    found = open_model(out, threads=1)([np.full((40, 60, 3), 255, np.uint8)])[0]
    assert found.names() == ["cat"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"style": "tensorrtx"}, "--style tensorrtx: is no style"),
        ({"settings": ["preprocess.short=79"]}, "would be fed as 79 x 120, and the graph takes 80 x 120"),
        ({"settings": ["preprocess.resize=shortest_edge"]}, "the graph takes 80 x 120"),
        ({"settings": ["preprocess.shirt=79"]}, "did you mean `short`"),
    ],
)
def test_what_does_not_fit_is_refused(graph: Path, options: dict[str, Any], error: str) -> None:
    before = sorted(graph.parent.iterdir())
    with pytest.raises(UserError, match=error):
        describe_graph(graph, graph.with_name("out.onnx"), **options)
    assert sorted(graph.parent.iterdir()) == before


def test_wrong_names_of_files_are_refused(graph: Path, repository: Path) -> None:
    for source, out, error in (
        (graph, graph.with_suffix(".xml"), "a graph keeps its format, .onnx"),
        (graph, graph, "is the graph itself"),
        (graph, graph.parent / "no" / "out.onnx", "there is no folder"),
        (graph.with_name("missing.onnx"), graph.with_name("out.onnx"), "no such file"),
        (repository / "src" / "maskrcnn" / "example.onnx", graph.with_name("out.onnx"), "describes itself"),
    ):
        with pytest.raises(UserError, match=error):
            describe_graph(source, out)


WEIGHTS = Path("weights") / "tiny.data"


@pytest.fixture
def outside(graph: Path) -> Path:
    """A graph whose weights are in a file of a folder beside it."""
    path = graph.with_name("outside.onnx")
    (graph.parent / WEIGHTS.parent).mkdir()
    model = onnx.load(graph)
    onnx.save(model, path, save_as_external_data=True, location=str(WEIGHTS), size_threshold=0)
    graph.unlink()
    return path


def assert_finds_a_cat(path: Path) -> None:
    assert len(open_model(path, threads=1)([np.full((40, 60, 3), 255, np.uint8)])[0]) == 1


def test_weights_outside_the_graph_go_along_into_another_folder(outside: Path) -> None:
    there = outside.parent / "there"
    there.mkdir()
    describe_graph(outside, there / "out.onnx")
    assert sorted(each.name for each in there.rglob("*")) == ["out.onnx", "tiny.data", "weights"]
    assert (there / WEIGHTS).read_bytes() == (outside.parent / WEIGHTS).read_bytes()
    assert not (there / WEIGHTS).samefile(outside.parent / WEIGHTS)
    (outside.parent / WEIGHTS).unlink()
    assert_finds_a_cat(there / "out.onnx")


def test_weights_in_the_same_folder_serve_both_graphs(outside: Path) -> None:
    describe_graph(outside, outside.with_name("out.onnx"))
    assert sorted(each.name for each in outside.parent.iterdir()) == ["out.onnx", "outside.onnx", "weights"]
    assert_finds_a_cat(outside.with_name("out.onnx"))


def test_weights_that_are_there_already_stay_and_others_are_not_overwritten(outside: Path) -> None:
    there = outside.parent / "there"
    (there / WEIGHTS.parent).mkdir(parents=True)
    (there / WEIGHTS).write_bytes((outside.parent / WEIGHTS).read_bytes())
    before = (there / WEIGHTS).stat().st_ino
    describe_graph(outside, there / "out.onnx")
    assert (there / WEIGHTS).stat().st_ino == before
    (there / WEIGHTS).write_bytes(b"another's")
    with pytest.raises(UserError, match="tiny.data: is in the way of the weights of"):
        describe_graph(outside, there / "second.onnx")
    assert (there / WEIGHTS).read_bytes() == b"another's"
    assert not (there / "second.onnx").exists()


def test_where_the_weights_do_not_fit_on_the_disk_nothing_is_left(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    there = outside.parent / "there"
    there.mkdir()
    monkeypatch.setattr("maskrcnn.weights.graph_description.shutil.copyfile", full)
    with pytest.raises(UserError, match="tiny.data: cannot be written .No space left"):
        describe_graph(outside, there / "out.onnx")
    assert [each for each in there.rglob("*") if each.is_file()] == []


def test_weights_inside_branches_and_functions_are_found() -> None:
    inner = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    inner.external_data.add(key="location", value="inner.bin")
    inner.external_data.add(key="offset", value="0")
    model = onnx.ModelProto()
    model.graph.initializer.add(external_data=inner.external_data)
    branch = onnx.AttributeProto(name="then_branch")
    branch.g.initializer.add().external_data.add(key="location", value="branch.bin")
    model.graph.node.add(attribute=[branch])
    constant = onnx.AttributeProto(name="value")
    constant.t.external_data.add(key="location", value="function.bin")
    model.functions.add().node.add(attribute=[constant])
    model.graph.sparse_initializer.add().values.external_data.add(key="location", value="inner.bin")
    found = external_files(memoryview(model.SerializeToString()))
    assert sorted(found) == ["branch.bin", "function.bin", "inner.bin"]


def test_weights_above_the_folder_are_not_reached_for(outside: Path) -> None:
    deeper = outside.parent / "deeper"
    deeper.mkdir()
    model = memoryview(onnx.load(outside, load_external_data=False).SerializeToString())
    assert external_files(model) == [str(WEIGHTS)]
    with (
        pytest.raises(UserError, match=r"has weights in \.\./tiny.data, outside its folder"),
        ExitStack() as files,
    ):
        _carry(["../tiny.data"], outside, deeper / "out.onnx", files)


def test_a_description_that_cannot_be_written_leaves_no_file(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("maskrcnn.weights.graph_description._carry", full)
    with pytest.raises(UserError, match="No space left"):
        describe_graph(graph, graph.with_name("out.onnx"))
    assert [path.name for path in graph.parent.iterdir()] == ["theirs.onnx"]
