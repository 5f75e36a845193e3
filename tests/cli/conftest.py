"""A small model file, photographs, and the command line run in this process."""

import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import Ran, Run
from finds import Finds

from maskrcnn.config import BackboneConfig, BoxHeadConfig, FPNConfig, MaskHeadConfig, ModelConfig, RPNConfig
from maskrcnn.spec import Classes, Origin, Preprocess, Spec


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("predict", model, ...)` is the command with those arguments."""
    from maskrcnn.cli.main import main

    def run_main(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["maskrcnn", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return run_main


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ResNet-18 FPN of three classes; it finds some 90 objects of score 0.25 in any image."""
    torch = pytest.importorskip("torch")
    from maskrcnn.model.mask_rcnn import MaskRCNN
    from maskrcnn.weights.model_file import write_model_file

    torch.manual_seed(0)
    config = ModelConfig(
        classes=3,
        backbone=BackboneConfig(depth=18, width=16),
        fpn=FPNConfig(channels=32),
        rpn=RPNConfig(post_nms=50),
        box_head=BoxHeadConfig(channels=32, fc_channels=64),
        mask_head=MaskHeadConfig(channels=32),
    )
    spec = Spec(
        model=config,
        preprocess=Preprocess(short=96, long=160),
        classes=Classes(("cat", "dog", "cow"), (17, 18, 21)),
        origin=Origin(source="detectron2", file="model.pkl", sha256="ab" * 32, tool_version="0.1.0"),
    )
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    state = MaskRCNN(config).state_dict()
    write_model_file(path, spec, {name: values.numpy() for name, values in state.items()})
    return path


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of three images of different sizes: 1.jpg, 2.png and sub/10.jpg."""
    folder = tmp_path / "photographs"
    (folder / "sub").mkdir(parents=True)
    colours = np.random.default_rng(0)
    for name, size in (("1.jpg", (60, 90)), ("2.png", (90, 60)), ("sub/10.jpg", (40, 40))):
        image = cv2.resize(colours.integers(0, 256, (6, 6, 3), np.uint8), size[::-1])
        cv2.imwrite(str(folder / name), image)
    return folder


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Finds:
    """The engine of every model file."""
    from maskrcnn.predict import Predictor

    backend = Finds()
    monkeypatch.setattr("maskrcnn.predict.open_model", lambda *_: Predictor(backend))
    return backend


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: clip.mp4 of ten frames, three photographs, an archive of two."""
    pytest.importorskip("av")
    from films import film

    monkeypatch.chdir(tmp_path)
    film(tmp_path / "clip.mp4", sound="aac")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        cv2.imwrite(f"photos/{number}.jpg", np.full((48, 64, 3), 80 * number, np.uint8))
    with zipfile.ZipFile("more.zip", "w") as file:
        file.write("photos/0.jpg", "a/one.jpg")
        file.write("photos/1.jpg", "../two.jpg")
    return tmp_path
