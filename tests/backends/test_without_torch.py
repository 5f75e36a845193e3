"""An exported model is described, run and measured where there is no PyTorch."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_graph import spec, write_onnx, write_xml

# `python -c PROGRAM words...` is the command line where these packages cannot be imported.
PROGRAM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "onnx", "onnxscript", "nncf", "scipy", "pandas"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv[0] = "maskrcnn"
from maskrcnn.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.onnx, tiny.xml, a white image, and the truth that all of it is a dog."""
    pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("models")
    write_xml(folder / "tiny.xml", spec())
    write_onnx(folder / "tiny.onnx", spec())
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images" / "1.png"), np.full((32, 64, 3), 255, np.uint8))
    truth = {
        "images": [{"id": 1, "file_name": "1.png", "height": 32, "width": 64}],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 18, "bbox": [0, 0, 64, 32], "area": 2048, "iscrowd": 0}
            | {"segmentation": [[0, 0, 64, 0, 64, 32, 0, 32]]}
        ],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder


def maskrcnn(*words: object) -> str:
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny.xml"])
def test_predict_finds_and_draws(folder: Path, tmp_path: Path, name: str) -> None:
    options = ("--out", tmp_path, "--threads", 1, "--save", "image,json")
    assert "1 dog" in maskrcnn("predict", folder / name, folder / "images", *options)
    assert (tmp_path / "1.png").exists()


@pytest.mark.parametrize("name", ["tiny.onnx", "tiny.xml"])
def test_eval_measures(folder: Path, name: str) -> None:
    pytest.importorskip("hotcoco")
    data = ("--images", folder / "images", "--annotations", folder / "truth.json")
    numbers = json.loads(maskrcnn("eval", folder / name, *data, "--threads", 1, "--json"))
    assert numbers["bbox/AP"] == pytest.approx(1)


def test_info_describes_without_the_engine(folder: Path) -> None:
    printed = maskrcnn("info", folder / "tiny.onnx")
    assert "one graph, any number of images at once, multiple of 32 x multiple of 32 pixels" in printed
    assert "not checked against its model" in printed
