"""segmentoly's convert_to_onnx.py and download_pretrained_weights.py over our verbs."""

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest

from maskrcnn import presets
from maskrcnn.compat import segmentoly_convert, segmentoly_models
from maskrcnn.compat.segmentoly_convert import NETWORKS, read_arguments
from maskrcnn.predict import open_model
from maskrcnn.zoo import entries

pytestmark = pytest.mark.filterwarnings("ignore:.*legacy TorchScript:DeprecationWarning")
PATH = "segmentoly.rcnn.model_zoo.resnet_fpn_mask_rcnn.ResNet50FPNMaskRCNN"
# As the weights' tests write them: of five classes and narrow layers.
CHECKPOINTS = Path(__file__).parents[1] / "weights"


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small ResNet-50 FPN of five classes, as segmentoly saves it."""
    monkeypatch.syspath_prepend(str(CHECKPOINTS))
    written = runpy.run_path(str(CHECKPOINTS / "lineage.py"))
    state = written["filled"](written["segmentoly_shapes"](written["Plan"](**written["SMALL"])))
    path: Path = written["segmentoly_file"](tmp_path / "small.pth", state)
    return path


@pytest.fixture
def convert(checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """Run the converter on it."""

    def run(out: str, *more: str, model: str = PATH, count: str = "6") -> Path:
        size = ["--input_size", "96", "128", "--output_file", str(tmp_path / out)]
        segmentoly_convert.main(["--model", model, "--ckpt", str(checkpoint), *size, "-nc", count, *more])
        return tmp_path / out

    return run


def test_an_onnx_file_has_their_names_and_openvino_runs_it(
    convert: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = convert("out.onnx", "--show_flops")
    graph = onnx.load(path).graph
    assert [each.name for each in graph.input] == ["im_data", "im_info"]
    assert [each.name for each in graph.output] == ["boxes", "classes", "scores", "batch_ids", "raw_masks"]
    told = capsys.readouterr()
    assert "GFLOP" in told.out
    assert "run it with `--engine openvino`" in told.err
    model = open_model(path, engine="openvino", threads=1)
    assert (model.spec.model.classes, model.spec.origin.source) == (5, "segmentoly")
    assert model([np.zeros((50, 70, 3), np.uint8)])[0].size == (50, 70)


def test_an_xml_file_is_checked_against_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = runpy.run_path(str(CHECKPOINTS.with_name("export") / "networks.py"))
    model = written["model_file"](
        tmp_path / "m.safetensors", written["SMALL"]["c4"], conventions=presets.SEGMENTOLY_C4
    )
    words = ["--model", "a.ResNet50C4MaskRCNN", "--ckpt", str(model), "-nc", "4"]
    out = tmp_path / "out.xml"
    segmentoly_convert.main([*words, "--input_size", "96", "128", "--output_file", str(out)])
    assert openvino.Core().read_model(out).input("im_data").shape == [1, 3, 96, 128]
    assert "checked on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "a.b.ResNet101FPNMaskRCNN"}, "is R50-FPN, and ResNet101FPNMaskRCNN is R101-FPN"),
        ({"model": "a.b.ResNeXt101PANetMaskRCNN"}, "ResNeXt101PANetMaskRCNN is X101-32x8d-PANet"),
        ({"model": "a.b.Other"}, "--model a.b.Other: is no class of segmentoly"),
        ({"count": "81"}, "has 5 classes and background, and not 81 in all"),
        ({"out": "out.pb"}, "is no .onnx or .xml"),
    ],
)
def test_what_does_not_fit_the_weights_is_an_error(
    convert: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    sentence: str,
) -> None:
    with pytest.raises(SystemExit) as leaving:
        convert(**{"out": "out.onnx", **changes})
    told = capsys.readouterr().err
    assert leaving.value.code == 2
    assert sentence in told
    assert "hint:" in told


def test_the_command_line_of_their_page_is_read() -> None:
    words = (
        f"--model {PATH} --ckpt converted/coco/detectron/mask_rcnn_resnet50_fpn_2x.pth --input_size 800 1344 "
        "--dataset coco_2017_val --show_flops --output_file x.onnx"
    )
    asked = read_arguments(words.split())
    assert (asked.size, asked.classes, asked.model, asked.show_flops) == (
        (800, 1344),
        81,
        "ResNet50FPNMaskRCNN",
        True,
    )


def test_every_model_of_their_zoo_is_the_same_file_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """Their names, from model_zoo.yaml, say which of Detectron's files it is: trunk, neck and schedule."""
    segmentoly_models.main(["--output_dir", "models", "-mo", "mo.py"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 10
    known = entries()
    for model in segmentoly_models.MODELS:
        name = model.path.rsplit("_rcnn_", 1)[1]
        ours = model.zoo.split("/")[1]
        trunk = name.split("_")[0].replace("resnext", "X").replace("resnet", "R")
        assert ours.startswith(trunk)
        assert ("c4" in name) == ("-C4-" in ours)
        assert model.zoo in known
    assert lines[3] == (
        "maskrcnn export zoo:detectron/R50-FPN-2x models/ir/coco/detectron/mask_rcnn_resnet50_fpn_2x.xml "
        "--contract segmentoly --size 800x1344"
    )


def test_every_class_of_their_model_zoo_is_known() -> None:
    assert len(NETWORKS) == 13
    assert all(NETWORKS.values())
