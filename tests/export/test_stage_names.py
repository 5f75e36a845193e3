"""Stages are found by where their nodes came from, and told by the engine that runs the graph."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hand_made import write_graph
from networks import SMALL, model_file

from maskrcnn.export.gate import Asked, write_checked
from maskrcnn.export.stage_names import SCOPES, name_stages
from maskrcnn.export.staged import StagedGraph, named_plainly, open_staged
from maskrcnn.predict import Predictor, open_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def node(kind: str, inputs: str, output: str, *scopes: str) -> "onnx.NodeProto":
    made = onnx.helper.make_node(kind, inputs.split(), [output])
    made.metadata_props.add(key=SCOPES, value=str(["", *scopes, output]))
    return made


def named(*nodes: "onnx.NodeProto") -> list[str]:
    """The outputs of nodes after their stages were named."""
    graph = onnx.helper.make_graph(list(nodes), "some", [], [onnx.ValueInfoProto(name="boxes")])
    model = onnx.helper.make_model(graph)
    name_stages(model)
    return [each.output[0] for each in model.graph.node]


def test_a_module_is_named_after_its_last_value_and_the_input_of_the_stem_is_normalised() -> None:
    assert named(
        node("Sub", "image mean", "sub"),
        node("Conv", "sub w1", "conv", "model.backbone", "model.backbone.stem", "model.backbone.stem.conv"),
        node("MaxPool", "conv", "pool", "model.backbone", "model.backbone.stem"),
        node("Conv", "pool w2", "conv2", "model.backbone", "model.backbone.res2", "model.backbone.res2.0"),
        node("Relu", "conv2", "relu", "model.backbone", "model.backbone.res2"),
    ) == ["stage.normalised", "conv", "stage.stem", "conv2", "stage.res2"]


def test_the_head_of_proposals_is_named_by_the_levels_that_it_reads() -> None:
    levels = [
        *(node("Conv", "x w", f"out{n}", "model.fpn", f"model.fpn.output{n}") for n in (5, 4, 3, 2)),
        node("Slice", "out5", "half", "model.fpn"),
    ]
    heads = [
        each
        for n in (2, 3, 4, 5, 6)
        for each in (
            node("Conv", "y w", f"objectness{n}", "model.rpn.objectness"),
            node("Reshape", f"objectness{n} shape", f"flat{n}"),
            node("Conv", "y w", f"deltas{n}", "model.rpn.deltas"),
            node("Reshape", f"deltas{n} shape", f"rows{n}"),
        )
    ]
    found = named(*levels, *heads)
    assert found[:5] == ["stage.p5", "stage.p4", "stage.p3", "stage.p2", "stage.p6"]
    assert found[5:9] == ["stage.objectness.p2", "flat2", "stage.deltas.p2", "rows2"]
    assert found[-2] == "stage.deltas.p6"


@pytest.mark.parametrize("after", [False, True], ids=["fpn", "c4"])
def test_proposals_are_what_is_pooled_first_and_c4_pools_through_res5(after: bool) -> None:
    through = ["model.res5"] if after else []
    nodes = [
        node("Mul", "boxes real", "mul"),
        node("Reshape", "mul shape", "pool_levels"),
        *(node("Relu", "pool_levels", "relu1", each) for each in through),
        node("Gemm", "z w", "gemm", "model.box_head.scores"),
        node("Reshape", "boxes shape", "pool_levels_1"),
        *(node("Relu", "pool_levels_1", "relu2", each) for each in through),
    ]
    found = named(*nodes)
    assert found[0] == "stage.proposals"
    pooled = ["pool_levels", "stage.box_pool"] if after else ["stage.box_pool"]
    masked = ["pool_levels_1", "stage.mask_pool"] if after else ["stage.mask_pool"]
    assert found[1:] == [*pooled, "stage.class_logits", *masked]


def test_an_output_of_the_graph_keeps_its_name_and_inner_graphs_follow() -> None:
    inner = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["relu"], ["inside"])], "inner", [], [])
    outer = node("Relu", "x", "relu", "model.backbone", "model.backbone.res3")
    loop = onnx.helper.make_node("Loop", ["n", "go"], ["boxes"], body=inner)
    graph = onnx.helper.make_graph([outer, loop], "some", [], [onnx.ValueInfoProto(name="boxes")])
    model = onnx.helper.make_model(graph)
    name_stages(model)
    assert model.graph.node[1].attribute[0].g.node[0].input[0] == "stage.res3"
    assert model.graph.node[1].output[0] == "boxes"


def open_one(path: str | Path) -> Predictor:
    return open_model(path, "cpu", threads=1)


def test_a_rejected_file_is_opened_by_its_own_name_and_tells_its_stages(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "m.onnx").rename(tmp_path / "m.onnx.rejected")
    with named_plainly(path) as plain:
        assert Path(plain).name == "m.onnx"
    assert not Path(plain).exists()
    with named_plainly("example") as plain:
        assert plain == "example"
    model = open_staged(path, open_one)
    assert isinstance(model.backend, StagedGraph)
    image = np.arange(3 * 32 * 32, dtype=np.float32).reshape(1, 3, 32, 32)
    stages = model.backend.stages(image, np.array([[32, 32]]))
    assert (stages["stem"] == image / 2).all()
    assert {name: values.shape for name, values in stages.items() if name != "stem"} == {
        "proposals": (1, 4, 4),
        "detections.boxes": (1, 4, 4),
        "detections.scores": (1, 4),
        "detections.labels": (1, 4),
        "masks": (1, 4, 4, 4),
    }
    assert not isinstance(open_staged(path, open_one, stages=False).backend, StagedGraph)


def test_an_exported_network_tells_the_stages_of_its_neck_and_a_changed_weight_is_found(
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("torch", minversion="2.11")
    from maskrcnn.export.onnx import export_onnx

    source = model_file(tmp_path / "c4.safetensors", replace(SMALL["c4"]))
    exported = tmp_path / "whole.onnx"
    export_onnx(source, exported)

    def write(path: Path, change: float) -> None:
        model = onnx.load(exported)
        weight = next(each for each in model.graph.initializer if "backbone.res3.0.conv2" in each.name)
        values = onnx.numpy_helper.to_array(weight) + np.float32(change)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, path)

    gated = write_checked(source, tmp_path / "same.onnx", lambda path: write(path, 0), Asked(threads=1))
    assert gated.fault == ""
    assert [name for name, _ in gated.check.stages] == [
        *("input", "normalised", "stem", "res2", "res3", "res4", "objectness", "deltas"),
        *("box_pool", "class_logits", "box_deltas", "mask_pool", "masks"),
    ]
    assert max(share for _, share in gated.check.stages) < 1e-4
    gated = write_checked(source, tmp_path / "other.onnx", lambda path: write(path, 0.1), Asked(threads=1))
    assert "at stage `res3`, " in gated.fault
