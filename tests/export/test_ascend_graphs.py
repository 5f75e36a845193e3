"""Graphs of Ascend's layout: the portable one on engines, that of their operators in a reference."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import SMALL, model_file, scene

from maskrcnn.backends.contracts.ascend import mmdetection_spec
from maskrcnn.config import Conventions, ModelConfig, SoftNMSConfig
from maskrcnn.errors import UserError
from maskrcnn.export.form import Form
from maskrcnn.predict import open_model
from maskrcnn.spec import Preprocess
from maskrcnn.stored_spec import KEY, stored_spec

torch = pytest.importorskip("torch", minversion="2.11")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

# Exporters warn of their own workings, a different thing in each version of torch.
pytestmark = pytest.mark.filterwarnings("default")

SIZE = (128, 192)
ROWS, CLASSES = 12, 3
PADS = Preprocess(short=96, long=192, pad_multiple=32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("model") / "tiny.safetensors", SMALL["fpn"], PADS)


@pytest.fixture(scope="module")
def portable(source: Path) -> Path:
    from maskrcnn.export.contracts.ascend import export

    out = source.with_name("portable.onnx")
    export(source, out, Form(SIZE))
    return out


@pytest.fixture(scope="module")
def custom(source: Path) -> Path:
    from maskrcnn.export.contracts.ascend_custom import export

    out = source.with_name("custom.onnx")
    export(source, out, Form(SIZE))
    return out


@pytest.fixture(scope="module")
def planes() -> np.ndarray:
    """Normalised (1, 3, H, W)."""
    config = SMALL["fpn"]
    mean, std = (np.array(each, np.float32)[:, None, None] for each in (config.mean, config.std))
    return ((scene(*SIZE) - mean) / std).astype(np.float32)


def values_of(graph: Any) -> list[tuple[str, int, list[int]]]:
    return [
        (
            each.name,
            each.type.tensor_type.elem_type,
            [side.dim_value for side in each.type.tensor_type.shape.dim],
        )
        for each in graph
    ]


@pytest.mark.parametrize("flavour", ["portable", "custom"])
def test_one_normalised_image_goes_in_and_rows_with_masks_of_all_classes_come_out(
    flavour: str, request: pytest.FixtureRequest
) -> None:
    graph = onnx.load(request.getfixturevalue(flavour)).graph
    floats, int32 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    assert values_of(graph.input) == [("input", floats, [1, 3, *SIZE])]
    assert values_of(graph.output) == [
        ("dets", floats, [ROWS, 5]),
        ("labels", int32, [ROWS]),
        ("masks", floats, [ROWS, CLASSES, 28, 28]),
    ]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_portable_graph_returns_what_the_model_computes_of_the_window(
    engine: str, source: Path, portable: Path, planes: np.ndarray
) -> None:
    pytest.importorskip(engine)
    session: Any = open_model(portable, "cpu", engine=engine).backend
    found = session.session({"input": planes})
    model = open_model(source, "cpu").backend.model  # type: ignore[attr-defined]
    size = torch.tensor([SIZE])
    with torch.inference_mode():
        levels = model.features(torch.from_numpy(scene(*SIZE)), size)
        boxes, scores, labels = model.detect(levels, *model.propose(levels, size, SIZE), size)
        masks = [model.segment(levels, boxes, torch.full_like(labels, k))[0] for k in range(CLASSES)]
    real = (scores[0] > 0).numpy()
    assert real.sum() > 3
    np.testing.assert_allclose(found["dets"][:, :4], boxes[0], atol=2e-3)
    np.testing.assert_allclose(found["dets"][:, 4], scores[0], atol=1e-5)
    assert found["labels"].tolist() == labels[0].tolist()
    np.testing.assert_allclose(found["masks"][real], torch.stack(masks, 1).numpy()[real], atol=1e-4)


def test_a_file_of_ours_is_fed_in_a_letterbox_of_its_own_normalisation(portable: Path) -> None:
    spec = stored_spec(portable)
    assert spec.exported is not None
    assert (spec.exported.contract, spec.exported.batch) == ("ascend", 1)
    assert (spec.preprocess.resize, spec.preprocess.short, spec.preprocess.long) == ("letterbox", *SIZE)
    assert spec.preprocess.pad_value == spec.model.mean
    image = scene(64, 64)[0].transpose(1, 2, 0).astype(np.uint8)
    found = open_model(portable, "cpu")([image])[0]
    assert found.size == (64, 64)


def test_a_graph_without_description_is_known_by_its_shapes_and_fed_as_theirs(
    portable: Path, tmp_path: Path
) -> None:
    bare = onnx.load(portable)
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    predictor = open_model(tmp_path / "bare.onnx", "cpu")
    assert predictor.spec == mmdetection_spec(SIZE, CLASSES, ROWS, "bare.onnx")
    assert predictor.spec.model.mean == (123.675, 116.28, 103.53)


# What the two operators of Ascend's compiler do, written again.


def nms_reference(
    boxes: np.ndarray, scores: np.ndarray, iou: float, score_over: float, per_class: int, total: int
) -> list[np.ndarray]:
    found = []
    for label in range(boxes.shape[2]):
        order = [row for row in np.argsort(-scores[0, :, label], kind="stable")]
        kept: list[np.ndarray] = []
        for row in order:
            box = boxes[0, row, label].astype(np.float32)
            if scores[0, row, label] > score_over and all(overlap(box, each) <= iou for each in kept):
                kept.append(box)
                if len(kept) <= per_class:
                    found.append((float(scores[0, row, label]), label, box))
    found.sort(key=lambda each: -each[0])
    boxes_out, scores_out, labels_out = (np.zeros((1, total, *shape), np.float16) for shape in ((4,), (), ()))
    for place, (score, label, box) in enumerate(found[:total]):
        boxes_out[0, place], scores_out[0, place], labels_out[0, place] = box, score, label
    return [boxes_out, scores_out, labels_out, np.array([min(len(found), total)], np.float16)]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    shared = float(sides.prod())
    return shared / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared, 1e-12)


def roi_reference(
    levels: Sequence[np.ndarray], rois: np.ndarray, scales: list[float], side: int
) -> np.ndarray:
    from torchvision.ops import roi_align

    pooled = np.zeros((len(rois), levels[0].shape[1], side, side), np.float32)
    sides = rois[:, 3:5] - rois[:, 1:3]
    level_of = np.floor(np.log2(np.sqrt(sides.prod(1)) / 56 + 1e-6)).clip(0, len(levels) - 1)
    for number, (level, scale) in enumerate(zip(levels, scales, strict=True)):
        here = level_of == number
        found = roi_align(torch.tensor(level), torch.tensor(rois[here]), side, scale, 0, aligned=True)
        pooled[here] = found.numpy()
    return pooled


def in_reference(path: Path, planes: np.ndarray) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class BatchMultiClassNMS(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, boxes, scores, iou_threshold, max_size_per_class, max_total_size, score_threshold):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            assert boxes.dtype == scores.dtype == np.float16
            limits = (iou_threshold, score_threshold, max_size_per_class, max_total_size)
            return tuple(nms_reference(boxes, scores, *limits))

    class RoiExtractor(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, *inputs, **how):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN003, ANN202
            *levels, rois = inputs
            return (roi_reference(levels, rois, how["spatial_scale"], how["pooled_height"]),)

    evaluator = ReferenceEvaluator(str(path), new_ops=[BatchMultiClassNMS, RoiExtractor])
    return evaluator.run(None, {"input": planes})


def test_the_graph_of_their_operators_finds_what_the_model_finds(
    custom: Path, portable: Path, planes: np.ndarray
) -> None:
    dets, labels, masks = in_reference(custom, planes)
    session: Any = open_model(portable, "cpu").backend
    wanted = session.session({"input": planes})
    real = wanted["dets"][:, 4] > 0.06
    assert real.sum() > 3
    # float16 has half a pixel from 512 on and an eighth at 192; scores three digits.
    np.testing.assert_allclose(dets[real, :4], wanted["dets"][real, :4], atol=0.13)
    np.testing.assert_allclose(dets[real, 4], wanted["dets"][real, 4], atol=2e-3)
    assert labels[real].tolist() == wanted["labels"][real].tolist()
    assert np.abs(masks[real] - wanted["masks"][real]).mean() < 0.01


def test_their_operators_have_the_attributes_that_their_compiler_reads(custom: Path) -> None:
    model = onnx.load(custom)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 11)]
    nodes = [node for node in model.graph.node if node.op_type in ("BatchMultiClassNMS", "RoiExtractor")]
    told = [
        (node.op_type, {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute})
        for node in nodes
    ]
    for name, values in told:
        for key in ("iou_threshold", "score_threshold"):
            if name == "BatchMultiClassNMS":
                values[key] = round(values[key], 6)
    levels = {
        "aligned": 1,
        "finest_scale": 56,
        "pool_mode": b"avg",
        "roi_scale_factor": 0,
        "sample_num": 0,
        "spatial_scale": [0.25, 0.125, 0.0625, 0.03125],
    }
    assert told == [
        ("BatchMultiClassNMS", nms_attributes(0.7, 0.0, 30)),
        ("RoiExtractor", levels | {"pooled_height": 7, "pooled_width": 7}),
        ("BatchMultiClassNMS", nms_attributes(0.5, 0.05, ROWS)),
        ("RoiExtractor", levels | {"pooled_height": 14, "pooled_width": 14}),
    ]
    assert all(len(node.output) == 4 for node in nodes if node.op_type == "BatchMultiClassNMS")


def nms_attributes(iou: float, score_over: float, rows: int) -> dict[str, float]:
    return {
        "iou_threshold": iou,
        "score_threshold": score_over,
        "max_size_per_class": rows,
        "max_total_size": rows,
    }


def test_boxes_and_scores_are_cast_to_float16_before_their_nms_and_back_after(custom: Path) -> None:
    graph = onnx.load(custom).graph
    maker = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "BatchMultiClassNMS":
            assert [cast_to(maker[name]) for name in node.input] == [onnx.TensorProto.FLOAT16] * 2
            readers = [other for other in graph.node if set(other.input) & set(node.output[:3])]
            assert {cast_to(reader) for reader in readers} - {None} >= {onnx.TensorProto.FLOAT}


def cast_to(node: Any) -> int | None:
    return node.attribute[0].i if node.op_type == "Cast" else None


@pytest.fixture
def their_operators() -> Iterator[None]:
    """Known to the checker, with the types and attributes that their compiler reads."""
    from onnx.defs import OpSchema, deregister_schema, register_schema

    kinds, parameter = OpSchema.AttrType, OpSchema.FormalParameter
    numbers = {"pooled_height": kinds.INT, "pooled_width": kinds.INT, "sample_num": kinds.INT}
    attributes = {
        "BatchMultiClassNMS": {
            "score_threshold": kinds.FLOAT,
            "iou_threshold": kinds.FLOAT,
            "max_size_per_class": kinds.INT,
            "max_total_size": kinds.INT,
        },
        "RoiExtractor": numbers
        | {"aligned": kinds.INT, "finest_scale": kinds.INT, "roi_scale_factor": kinds.INT}
        | {"pool_mode": kinds.STRING, "spatial_scale": kinds.FLOATS},
    }
    many = parameter("inputs", "T", param_option=OpSchema.FormalParameterOption.Variadic)
    for name, count, of in (
        ("BatchMultiClassNMS", 4, "tensor(float16)"),
        ("RoiExtractor", 1, "tensor(float)"),
    ):
        needed = [
            OpSchema.Attribute(each, kind, "", required=True) for each, kind in attributes[name].items()
        ]
        outputs = [parameter(f"output{number}", "T") for number in range(count)]
        inputs = [parameter("boxes", "T"), parameter("scores", "T")] if count == 4 else [many]
        register_schema(
            OpSchema(
                name,
                "",
                11,
                inputs=inputs,
                outputs=outputs,
                type_constraints=[("T", [of], "")],
                attributes=needed,
            )
        )
    yield
    for name in attributes:
        deregister_schema(name, 11, "")


@pytest.mark.usefixtures("their_operators")
def test_every_operator_is_used_as_the_standard_and_their_compiler_have_it(custom: Path) -> None:
    model = onnx.load(custom)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    for node in model.graph.node:
        if node.op_type == "RoiExtractor":
            node.attribute.pop()
    with pytest.raises(onnx.checker.ValidationError, match="Required attribute"):
        onnx.checker.check_model(model)


def test_the_model_of_one_level_has_no_classes_in_its_first_nms(tmp_path: Path) -> None:
    from maskrcnn.export.contracts.ascend_custom import WithOperators

    source = model_file(tmp_path / "c4.safetensors", SMALL["c4"])
    backend = WithOperators(source, tmp_path / "c4.onnx", Form(SIZE))
    raw = backend.run(scene(*SIZE), np.array([SIZE]))
    model = open_model(source, "cpu").backend.run(scene(*SIZE), np.array([SIZE]))
    real = model.scores[0] > 0.06
    assert real.sum() > 1
    np.testing.assert_allclose(raw.boxes[0, real], model.boxes[0, real], atol=0.3)
    assert raw.labels[0, real].tolist() == model.labels[0, real].tolist()


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Form(), "--size is missing"),
        (Form(SIZE, batch=4), "--batch 4"),
        (Form(SIZE, precision="fp16"), "--precision fp16"),
        (Form(SIZE, uint8=True), "--uint8"),
        (Form(SIZE, counted=True), "--num-detections"),
        (Form((100, 192)), "100 is no multiple of 32"),
    ],
)
def test_a_form_that_their_graph_has_not_is_refused(
    form: Form, message: str, source: Path, tmp_path: Path
) -> None:
    from maskrcnn.export.contracts import ascend, ascend_custom

    for module in (ascend, ascend_custom):
        with pytest.raises(UserError, match=message):
            module.export(source, tmp_path / "out.onnx", form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(SMALL["fpn"], conventions=Conventions(plus_one=True)), "a pixel wider"),
        (
            replace(SMALL["fpn"], box_head=replace(SMALL["fpn"].box_head, soft_nms=SoftNMSConfig("linear"))),
            "soft-NMS",
        ),
    ],
)
def test_a_network_that_their_operators_cannot_compute_is_refused(
    config: ModelConfig, message: str, tmp_path: Path
) -> None:
    from maskrcnn.export.contracts.ascend_custom import export

    source = model_file(tmp_path / "m.safetensors", config)
    with pytest.raises(UserError, match=message):
        export(source, tmp_path / "out.onnx", Form(SIZE))


def test_the_compiler_is_told_the_file_the_input_and_the_chip() -> None:
    from maskrcnn.export.contracts.ascend import atc_command

    line = atc_command(Path("maskrcnn_r50_fpn_1x.onnx"), (1216, 1216), "Ascend310P3")
    assert line == (
        "atc --model=maskrcnn_r50_fpn_1x.onnx --framework=5 --output=maskrcnn_r50_fpn_1x --input_format=NCHW "
        "--input_shape=input:1,3,1216,1216 --log=info --soc_version=Ascend310P3"
    )
    assert atc_command(Path("a.onnx"), (1216, 1216), "310P3").endswith("--soc_version=Ascend310P3")


def test_the_description_lies_in_both_flavours(custom: Path, portable: Path) -> None:
    for path in (custom, portable):
        assert [each.key for each in onnx.load(path).metadata_props] == [KEY]
