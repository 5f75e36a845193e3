"""A PANet learns, every part of it, and a run of one goes on where it stopped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_loop import CPU, SHORT, fresh, lines

from maskrcnn.config import FPNConfig, MaskHeadConfig
from maskrcnn.data.dataset import Dataset
from maskrcnn.images import ImageFile
from maskrcnn.predict import open_model
from maskrcnn.presets import SEGMENTOLY
from maskrcnn.spec import Preprocess, Spec
from maskrcnn.training.loop import train
from maskrcnn.weights.model_file import read_model_file


@pytest.fixture
def panet(spec: Spec) -> Spec:
    model = replace(
        spec.model,
        fpn=FPNConfig(channels=32, norm="bn", bottom_up="gn", deformable="held"),
        roi_levels="all",
        box_head=replace(spec.model.box_head, fc1_relu=False),
        mask_head=MaskHeadConfig(convs=2, channels=64, norm="gn", fully_connected=True),
    )
    return replace(spec, model=model)


def test_it_learns_to_find_and_outline_rectangles(shapes: Dataset, panet: Spec, tmp_path: Path) -> None:
    training = replace(SHORT, steps=16, warm_up=4, learning_rate=3e-3, log_every=2, save_every=16)
    begun = fresh(panet)
    offsets = [name for name, _ in begun.named_parameters() if name.endswith("offset.weight")]
    assert len(offsets) == 6
    assert not any(begun.get_parameter(name).any() for name in offsets)
    before = {name: values.detach().clone() for name, values in begun.named_parameters()}
    train(begun, panet, shapes, training, tmp_path, CPU)
    first, *_, last = lines(tmp_path)
    assert last["rpn_objectness"] < first["rpn_objectness"] / 2
    assert last["total"] < first["total"]
    still = [name for name, values in begun.named_parameters() if torch.equal(before[name], values)]
    assert still == []
    written, state = read_model_file(tmp_path / "model.safetensors")
    assert (written.model.roi_levels, written.model.fpn.deformable) == ("all", "held")
    assert np.abs(state["fpn.joined4.offset.weight"]).max() > 0
    found = open_model(tmp_path / "model.safetensors", "cpu", threads=1)([np.zeros((60, 90, 3), np.uint8)])
    assert found[0].size == (60, 90)


def test_in_bfloat16_its_losses_are_nearly_the_same(shapes: Dataset, panet: Spec, tmp_path: Path) -> None:
    """Places of samples stay in float32 where convolutions are not."""
    for precision in ("fp32", "bf16"):
        run = replace(SHORT, steps=2, log_every=1, precision=precision)
        train(fresh(panet), panet, shapes, run, tmp_path / precision, CPU)
    exact, rounded = (lines(tmp_path / precision)[0]["total"] for precision in ("fp32", "bf16"))
    assert rounded == pytest.approx(exact, rel=0.03)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_trained_one_passes_the_gate_of_every_export(shapes: Dataset, panet: Spec, tmp_path: Path) -> None:
    from maskrcnn.export.contracts.segmentoly import export
    from maskrcnn.export.form import Form
    from maskrcnn.export.gate import Asked, write_checked
    from maskrcnn.export.onnx import export_onnx
    from maskrcnn.export.openvino import export_openvino

    # No padding, whose cells score alike, and room for every proposal: no rank is decided by a rounding.
    rpn = replace(panet.model.rpn, post_nms=250)
    spec = Spec(
        replace(panet.model, conventions=SEGMENTOLY, rpn=rpn),
        Preprocess(resize="stretch", short=96, long=128),
        panet.classes,
    )
    training = replace(SHORT, steps=80, warm_up=5, learning_rate=5e-3, log_every=40, save_every=80)
    train(fresh(spec), spec, shapes, training, tmp_path, CPU)
    model, pair, window = tmp_path / "model.safetensors", Form((96, 128), 2), Form((96, 128))
    asked = Asked(images=tuple(ImageFile(path, path.name) for path in shapes.files), threads=1)
    for name, write in {
        "any.onnx": lambda file: export_onnx(model, file, Form()),
        "any.xml": lambda file: export_openvino(model, file, Form()),
        "pair.onnx": lambda file: export_onnx(model, file, pair),
        "theirs.xml": lambda file: export(model, file, window),
    }.items():
        gated = write_checked(model, tmp_path / name, write, asked)
        assert gated.fault == "" and gated.check.missed == 0
        assert gated.check.matched >= 6 and gated.check.box_px < 0.01 and gated.check.score < 1e-5
