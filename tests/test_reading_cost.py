"""Who wants to know how an image becomes detections has few files to read."""

import runpy
import sys
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

import maskrcnn
from maskrcnn.config import BackboneConfig, BoxHeadConfig, FPNConfig, MaskHeadConfig, ModelConfig
from maskrcnn.predict import Predictor, open_model
from maskrcnn.spec import Preprocess, Spec

MOST_FILES = 15
MOST_FILES_EXPORTED = 5


def test_one_prediction_with_pytorch_touches_at_most_fifteen_files() -> None:
    predictor = small_predictor()
    touched = files_called(lambda: predictor([np.zeros((60, 90, 3), np.uint8)]))
    assert len(touched) <= MOST_FILES, sorted(touched)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_one_prediction_with_an_exported_model_touches_at_most_five_files(
    tmp_path: Path, engine: str
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip(engine)
    tiny = runpy.run_path(str(Path(__file__).parent / "backends" / "tiny_graph.py"))
    path = tiny["write_onnx"](tmp_path / "tiny.onnx", tiny["spec"]())
    predictor = open_model(path, "cpu", threads=1, engine=engine)
    touched = files_called(lambda: predictor([np.full((60, 90, 3), 9, np.uint8)]))
    assert len(touched) <= MOST_FILES_EXPORTED, sorted(touched)


def small_predictor() -> Predictor:
    """A random FPN model on the CPU."""
    import torch

    from maskrcnn.backends.pytorch import PyTorchBackend
    from maskrcnn.model.mask_rcnn import MaskRCNN

    torch.manual_seed(0)
    config = ModelConfig(
        classes=3,
        backbone=BackboneConfig(depth=18, width=16),
        fpn=FPNConfig(channels=32),
        box_head=BoxHeadConfig(channels=32, fc_channels=64, score_over=0.0),
        mask_head=MaskHeadConfig(channels=32),
    )
    spec = Spec(model=config, preprocess=Preprocess(short=64, long=128))
    return Predictor(PyTorchBackend(spec, MaskRCNN(config).state_dict(), torch.device("cpu")))


def files_called(action: object) -> set[str]:
    """The files of this package in which a function was called."""
    package = str(Path(maskrcnn.__file__).parent)
    touched: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(package):
            touched.add(name.removeprefix(package))

    sys.setprofile(note)
    try:
        action()  # type: ignore[operator]
    finally:
        sys.setprofile(None)
    return touched
