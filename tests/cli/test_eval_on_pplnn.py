"""Average precision of models on PPL.NN is that of ONNX Runtime, on real photographs."""

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Run

from maskrcnn.predict import model_path

BACKENDS = Path(__file__).parents[1] / "backends"
IMAGES = 4


@pytest.fixture
def openppl(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """OpenPPL's module is installed, as far as a fake of it goes: it computes with ONNX Runtime."""
    monkeypatch.syspath_prepend(str(BACKENDS / "fake_pyppl"))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyppl"]:
        del sys.modules[name]


@pytest.fixture
def truth(data_dir: Path, tmp_path: Path) -> Path:
    """Annotations of the images with most objects."""
    whole = json.loads((data_dir / "coco_val215" / "instances.json").read_text())
    of_image = [each["image_id"] for each in whole["annotations"]]
    images = sorted(whole["images"], key=lambda image: -of_image.count(image["id"]))[:IMAGES]
    kept = {image["id"] for image in images}
    annotations = [each for each in whole["annotations"] if each["image_id"] in kept]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(whole | {"images": images, "annotations": annotations}))
    return path


def precision(run: Run, data_dir: Path, truth: Path, *words: object) -> dict[str, float]:
    options = ("--images", data_dir / "coco_val215" / "images", "--annotations", truth, "--json")
    ran = run("eval", *words, "--threads", 1, *options)
    assert ran.code == 0, ran.err
    return {key: value for key, value in json.loads(ran.out).items() if key.endswith(("/AP", "/AP50"))}


@pytest.mark.data
def test_of_the_parts_of_the_example_model(
    run: Run, openppl: None, data_dir: Path, truth: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from maskrcnn.export.parts import export_parts

    export_parts(model_path("example"), tmp_path / "example.parts")
    ours = precision(run, data_dir, truth, tmp_path / "example.parts", "--engine", "pplnn")
    assert ours == precision(run, data_dir, truth, tmp_path / "example.parts")
    assert ours["bbox/AP50"] > 0.02


@pytest.mark.data
def test_of_a_graph_of_mmdetection_with_pasted_masks_and_crops(
    run: Run, data_dir: Path, truth: Path, tmp_path: Path
) -> None:
    """On ONNX Runtime: the graph inside is the example model's, of an opset that PPL.NN does not run."""
    made = runpy.run_path(str(BACKENDS / "mmdetection_graph.py"))
    found = {}
    for masks in ("bool", "crops"):
        path = made["write_mmdetection"](
            tmp_path / f"{masks}.onnx", made["Layout"](size=(320, 480), masks=masks)
        )
        found[masks] = precision(run, data_dir, truth, path)
    assert found["bool"]["bbox/AP"] == found["crops"]["bbox/AP"] > 0.01
    assert found["bool"]["segm/AP"] == pytest.approx(found["crops"]["segm/AP"], abs=0.005)
