"""Photographs on a network of segmentoly's contract: detections and precision are those of the model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn import presets
from maskrcnn.export.contracts.segmentoly import export
from maskrcnn.export.form import Form
from maskrcnn.export.gate import Asked, write_checked
from maskrcnn.predict import model_path
from maskrcnn.weights.model_file import read_model_file, write_model_file

pytest.importorskip("hotcoco")
pytestmark = pytest.mark.filterwarnings("ignore:.*legacy TorchScript:DeprecationWarning")
IMAGES = 8


def some(data: Path, folder: Path) -> Path:
    """The annotations of the first photographs, and links to these beside them."""
    content = json.loads((data / "instances.json").read_text())
    content["images"] = sorted(content["images"], key=lambda image: image["file_name"])[:IMAGES]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in ids]
    for image in content["images"]:
        (folder / image["file_name"]).symlink_to(data / "images" / image["file_name"])
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.data
def test_openvino_finds_in_photographs_what_the_example_model_finds_and_as_precisely(
    data_dir: Path, tmp_path: Path
) -> None:
    spec, tensors = read_model_file(model_path("example"))
    spec = replace(spec, model=replace(spec.model, conventions=presets.SEGMENTOLY))
    write_model_file(tmp_path / "model.safetensors", spec, tensors)
    (tmp_path / "val").mkdir()
    asked = Asked(verify=some(data_dir / "coco_val215", tmp_path / "val"), threads=1)
    model = tmp_path / "model.safetensors"
    gated = write_checked(model, tmp_path / "out.xml", lambda file: export(model, file, Form()), asked)
    assert gated.passed, gated.fault
    assert gated.check.matched > 200
    assert gated.check.missed == 0
    assert gated.check.box_px < 1e-2
    assert {name for name, _, _ in gated.check.precision} == {"bbox/AP", "segm/AP"}
    for _, before, after in gated.check.precision:
        assert before > 0.03
        assert after == pytest.approx(before, abs=1e-4)
