"""A PANet as a graph: engines find what PyTorch finds, and what cannot hold one says so."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from networks import INPUT, SMALL, model_file, scene
from torch import nn

from maskrcnn import presets
from maskrcnn.backends.pytorch import open_pytorch
from maskrcnn.config import FPNConfig, MaskHeadConfig, ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.export.clean import quiet
from maskrcnn.export.contracts.ascend_custom import export as export_for_ascend
from maskrcnn.export.contracts.deformable import OPERATOR, with_operators
from maskrcnn.export.contracts.segmentoly import export as export_for_segmentoly
from maskrcnn.export.form import Form
from maskrcnn.export.onnx import export_onnx
from maskrcnn.export.parts import export_parts
from maskrcnn.model.fpn import DeformablePathConv
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.predict import open_model
from maskrcnn.weights.model_file import read_model_file, write_model_file

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*legacy TorchScript:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*has undergone a minor version bump:FutureWarning"),
]
FPN = SMALL["fpn"]
BGR = replace(INPUT, channels="bgr")
# The deviation of a few cells is small and is divided by: float32 in torch is 2e-5 from float64 here.
SCORE = 2e-4


def panet(deformable: str) -> ModelConfig:
    return replace(
        FPN,
        fpn=FPNConfig(32, bottom_up="gn", deformable=deformable),  # type: ignore[arg-type]
        roi_levels="all",
        box_head=replace(FPN.box_head, fc1_relu=False),
        mask_head=MaskHeadConfig(convs=2, channels=64, norm="gn", fully_connected=True),
    )


def written(folder: Path, deformable: str) -> Path:
    """A network whose deformable convolutions read up to some cells away."""
    path = model_file(folder / "m.safetensors", panet(deformable), BGR, presets.SEGMENTOLY)
    spec, state = read_model_file(path)
    random = np.random.default_rng(0)
    for name, values in state.items():
        if name.endswith("offset.weight"):
            state[name] = 0.1 * random.standard_normal(values.shape).astype(np.float32)
    write_model_file(path, spec, state)
    return path


@pytest.fixture(scope="module", params=["held", "faded"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize(("stride", "held"), [(1, False), (2, True)])
def test_a_deformable_convolution_of_any_size_runs_on_both_engines(
    stride: int, held: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    conv = DeformablePathConv(32, "gn", 1e-5, stride, held).eval().requires_grad_(False)
    nn.init.normal_(conv.offset.weight, std=0.1)
    sides = {2: torch.export.Dim("height", min=4, max=64), 3: torch.export.Dim("width", min=4, max=64)}
    with quiet():
        program = torch.onnx.export(
            conv,
            (torch.randn(1, 32, 12, 16),),
            dynamo=True,
            opset_version=18,
            dynamic_shapes=(sides,),
            verbose=False,
        )
    assert program is not None
    (tmp_path / "m.onnx").write_bytes(program.model_proto.SerializeToString())
    run = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU", settings)
    for height, width in ((12, 16), (9, 7)):
        x = torch.randn(1, 32, height, width)
        wanted = conv(x).numpy()
        for found in (
            run.run(None, {run.get_inputs()[0].name: x.numpy()}),
            list(compiled([x.numpy()]).values()),
        ):
            np.testing.assert_allclose(found[0], wanted, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", [Form(), Form((128, 160), 2)], ids=["any", "fixed"])
def test_engines_find_what_the_model_finds(source: Path, form: Form, tmp_path: Path) -> None:
    export_onnx(source, tmp_path / "m.onnx", form)
    run = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU", settings)
    model = open_pytorch(source, "cpu")
    for count, height, width in [(2, 128, 160)] if form.size else [(1, 96, 128), (2, 160, 96)]:
        image = scene(height, width, count)
        size = np.array([[height, width], [height - 9, width - 20]])[:count]
        raw = model.run(image, size)
        real = raw.scores > 0
        assert real.sum() > 6
        inputs = {"image": image, "size": size}
        for found in (run.run(None, inputs), list(compiled(inputs).values())):
            np.testing.assert_allclose(found[0], raw.boxes, atol=0.01)
            np.testing.assert_allclose(found[1], raw.scores, atol=SCORE)
            np.testing.assert_array_equal(found[2], raw.labels)
            assert ((found[3][real] >= 0.5) == (raw.masks[real] >= 0.5)).mean() >= 0.999


@pytest.mark.slow
def test_a_graph_has_standard_operators_alone(tmp_path: Path) -> None:
    """One GridSample for each deformable convolution, one RoIAlign for each level and head."""
    export_onnx(written(tmp_path, "held"), tmp_path / "m.onnx", Form((96, 128), 1))
    graph = onnx.load(tmp_path / "m.onnx")
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert {each.domain for each in graph.opset_import} <= {"", "ai.onnx"}
    assert (kinds["GridSample"], kinds["RoiAlign"]) == (6, 8)


@pytest.mark.slow
def test_weights_in_float16_leave_samples_and_their_places_in_float32(tmp_path: Path) -> None:
    export_onnx(written(tmp_path, "held"), tmp_path / "m.onnx", Form((96, 128), 1, precision="fp16"))
    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "m.onnx")).graph
    kinds = {each.name: each.type.tensor_type.elem_type for each in graph.value_info}
    samplers = [node for node in graph.node if node.op_type == "GridSample"]
    assert len(samplers) == 6
    assert {kinds[name] for node in samplers for name in node.input} == {onnx.TensorProto.FLOAT}
    run = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    found = run.run(None, {"image": scene(96, 128), "size": np.array([[96, 128]])})
    assert np.isfinite(found[1]).all() and (found[1] > 0).any()


def test_detectrons_operators_on_openvino_find_what_the_model_finds(source: Path, tmp_path: Path) -> None:
    export_for_segmentoly(source, tmp_path / "m.xml", Form(size=(128, 160)))
    kinds = Counter(node.get_type_name() for node in openvino.Core().read_model(tmp_path / "m.xml").get_ops())
    assert kinds["DeformableConvolution"] == 6
    assert kinds["ExperimentalDetectronROIFeatureExtractor"] == 8
    image, size = scene(128, 160), np.array([[119, 140]])
    image[:, :, 119:] = image[:, :, :, 140:] = 0
    raw = open_pytorch(source, "cpu").run(image, size)
    found = open_model(tmp_path / "m.xml", threads=1).backend.run(image, size)
    real = raw.scores[0] > 0
    assert real.sum() == (found.scores[0] > 0).sum() > 6
    np.testing.assert_allclose(found.boxes[0, real], raw.boxes[0, real], atol=0.01)
    np.testing.assert_allclose(found.scores[0, real], raw.scores[0, real], atol=SCORE)
    np.testing.assert_array_equal(found.labels[0, real], raw.labels[0, real])
    assert ((found.masks[0, real] >= 0.5) == (raw.masks[0, real] >= 0.5)).mean() >= 0.999


def test_the_operator_stands_for_every_deformable_convolution() -> None:
    model = with_operators(MaskRCNN(panet("held")))
    names = {name for name, layer in model.named_modules() if type(layer).__name__ == "DeformableOperator"}
    assert names == {f"fpn.{role}{number}" for role in ("shrink", "joined") for number in (3, 4, 5)}
    assert not any(
        isinstance(layer, nn.GroupNorm) and "norm.norm" not in name for name, layer in model.named_modules()
    )
    assert OPERATOR.split("::")[0] == "org.openvinotoolkit"
    with torch.inference_mode():
        assert model.fpn.shrink3(torch.zeros(1, 32, 9, 6)).shape == (1, 32, 5, 3)  # type: ignore[operator, union-attr]


def test_parts_refuse_it_and_name_the_engines_that_run_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m.safetensors: has deformable convolutions or RoIs") as found:
        export_parts(written(tmp_path, "held"), tmp_path / "m.parts")
    assert found.value.hint == "export it to .onnx for ONNX Runtime, or to .xml for OpenVINO"
    assert not (tmp_path / "m.parts").exists()


def test_ascends_operators_refuse_it(tmp_path: Path) -> None:
    path = model_file(tmp_path / "m.safetensors", panet("held"), BGR)
    with pytest.raises(
        UserError, match="needs RoIs of all levels at once, which Ascend's operators cannot do"
    ):
        export_for_ascend(path, tmp_path / "m.onnx", Form((96, 128), 1))
