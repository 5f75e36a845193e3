"""Every preset and neck as a graph: ONNX Runtime and OpenVINO find what PyTorch finds, to the last pixel."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import INPUT, SMALL, model_file, scene

from maskrcnn import presets
from maskrcnn.backends.pytorch import open_pytorch
from maskrcnn.config import BackboneConfig, FPNConfig, ModelConfig, SoftNMSConfig
from maskrcnn.export.form import Form

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
FPN_NET, C4, DC5 = (SMALL[neck] for neck in ("fpn", "c4", "dc5"))


def with_heads(config: ModelConfig, box: dict[str, Any], mask: dict[str, Any]) -> ModelConfig:
    return replace(
        config, box_head=replace(config.box_head, **box), mask_head=replace(config.mask_head, **mask)
    )


GROUPED = replace(
    with_heads(FPN_NET, {"convs": 2, "channels": 32, "fcs": 1, "norm": "gn"}, {"channels": 32, "norm": "gn"}),
    backbone=BackboneConfig(50, groups=4, group_width=8, width=32, norm="gn"),
    fpn=FPNConfig(32, norm="gn"),
)
# Name: network, conventions, padding multiple.
PRESETS = {
    "torchvision": (FPN_NET, presets.TORCHVISION, 32),
    "detectron2 fpn": (FPN_NET, presets.DETECTRON2, 32),
    "detectron2 c4": (C4, presets.DETECTRON2, 32),
    "detectron2 dc5": (DC5, presets.DETECTRON2, 32),
    "mmdetection": (FPN_NET, presets.MMDETECTION, 32),
    "maskrcnn-benchmark fpn": (FPN_NET, presets.MASKRCNN_BENCHMARK, 32),
    "maskrcnn-benchmark c4": (C4, presets.MASKRCNN_BENCHMARK_C4, 1),
    "caffe2 fpn": (FPN_NET, presets.CAFFE2, 32),
    "caffe2 c4": (C4, presets.CAFFE2_C4, 1),
    "segmentoly c4": (C4, presets.SEGMENTOLY_C4, 16),
    "tensorrtx": (FPN_NET, presets.TENSORRTX, 32),
    "mindspore": (
        replace(
            FPN_NET,
            fpn=FPNConfig(16, upsample="bilinear_corners"),
            backbone=BackboneConfig(18, width=8, stem_pool="same"),
        ),
        presets.MINDSPORE,
        32,
    ),
    "mindspore model zoo": (
        replace(FPN_NET, fpn=FPNConfig(16, upsample="bilinear")),
        presets.MINDSPORE_ZOO,
        32,
    ),
    "linear soft-nms, one class for all": (
        with_heads(
            FPN_NET,
            {"class_agnostic": True, "soft_nms": SoftNMSConfig("linear")},
            {"class_agnostic": True},
        ),
        presets.DETECTRON2,
        32,
    ),
    "gaussian soft-nms": (
        with_heads(FPN_NET, {"soft_nms": SoftNMSConfig("gaussian")}, {}),
        presets.MASKRCNN_BENCHMARK,
        32,
    ),
    "group norm, resnext": (GROUPED, presets.DETECTRON2, 32),
}

# The deviation of a few cells is small and is divided by: float32 in torch is 2e-5 from float64 here.
SCORE = {"group norm, resnext": 2e-4}


@pytest.mark.parametrize("form", ["any", "fixed"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_graph_finds_what_its_model_finds(name: str, form: str, tmp_path: Path) -> None:
    onnxruntime, openvino = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    from maskrcnn.export.onnx import export_onnx

    config, conventions, multiple = PRESETS[name]
    source = model_file(
        tmp_path / "m.safetensors", config, replace(INPUT, pad_multiple=multiple), conventions
    )
    fixed = (128, 160)
    export_onnx(source, tmp_path / "m.onnx", Form() if form == "any" else Form(fixed, 2))
    run = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU", settings)
    odd = 0 if multiple > 1 else 3
    shapes = [(1, 96 + odd, 128), (1, 160, 96 + odd), (2, 128, 128)] if form == "any" else [(2, *fixed)]
    model = open_pytorch(source, "cpu")
    for count, height, width in shapes:
        image = scene(height, width, count)
        size = np.array([[height, width], [height - 9, width - 20]])[:count]
        raw = model.run(image, size)
        real = raw.scores > 0
        assert real.any()
        inputs = {"image": image, "size": size}
        for found in (run.run(None, inputs), list(compiled(inputs).values())):
            np.testing.assert_allclose(found[0], raw.boxes, atol=0.01)
            np.testing.assert_allclose(found[1], raw.scores, atol=SCORE.get(name, 1e-5))
            np.testing.assert_array_equal(found[2], raw.labels)
            assert ((found[3][real] >= 0.5) == (raw.masks[real] >= 0.5)).mean() >= 0.9999


@pytest.mark.parametrize("neck", SMALL)
def test_float16_runs_on_the_cpu_with_boxes_in_float32(neck: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from maskrcnn.export.onnx import export_onnx

    source = model_file(tmp_path / "m.safetensors", SMALL[neck])
    export_onnx(source, tmp_path / "m.onnx", Form(precision="fp16", uint8=True))
    run = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert [value.type for value in run.get_inputs()] == ["tensor(uint8)", "tensor(int64)"]
    assert [value.type for value in run.get_outputs()] == [
        *["tensor(float)"] * 2,
        "tensor(int64)",
        "tensor(float)",
    ]
    image, size = scene(96, 128), np.array([[96, 128]])
    raw = open_pytorch(source, "cpu").run(image, size)
    found = run.run(None, {"image": image.astype(np.uint8), "size": size})
    assert np.abs(found[1][0, 0] - raw.scores[0, 0]) < 0.01
    assert np.abs(found[0][0, 0] - raw.boxes[0, 0]).max() < 0.5
    half = (tmp_path / "m.onnx").stat().st_size
    assert half < 0.62 * source.stat().st_size
