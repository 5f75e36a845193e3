"""OpenVINO Model API and we find the same in photographs with one file of the example model."""

import os
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.detections import Detections
from maskrcnn.images import read_image
from maskrcnn.predict import model_path, open_model

pytest.importorskip("model_api", reason="needs openvino-model-api, which nothing else here does")
pytest.importorskip("torch", minversion="2.11")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

REAL = ("000000000885.jpg", "000000001000.jpg")


def photographs() -> list[np.ndarray]:
    skimage = pytest.importorskip("skimage", reason="needs the extra `demo`")
    folder = os.environ.get("MASKRCNN_DATA")
    real = [read_image(Path(folder, "coco_val215", "images", name)) for name in REAL] if folder else []
    return [skimage.data.astronaut(), *real]


def test_the_same_objects_are_found_in_photographs(tmp_path: Path) -> None:
    from model_api.adapters import OpenvinoAdapter, create_core
    from model_api.models import Model

    from maskrcnn.export.contracts.model_api import export
    from maskrcnn.export.form import Form

    out = tmp_path / "m.xml"
    export(model_path("example"), out, Form())
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    adapter = OpenvinoAdapter(create_core(), str(out), device="CPU", plugin_config=settings)
    theirs, ours = Model.create_model(adapter), open_model(out, threads=1)
    for image in photographs():
        found = theirs(np.ascontiguousarray(image[..., ::-1]))
        mine = ours([image])[0]
        # Of a score of exactly the least one either side may be the one that has it.
        near = mine.above(0.51)
        partners = [nearest(mine, box, label) for box, label in zip(found.bboxes, found.labels, strict=True)]
        assert set(range(len(near))) <= set(partners)
        for row, (box, score, mask) in enumerate(zip(found.bboxes, found.scores, found.masks, strict=True)):
            partner = partners[row]
            np.testing.assert_allclose(box, mine.boxes[partner], atol=1.0)
            assert score == pytest.approx(float(mine.scores[partner]), abs=0.01)
            own = mine[[partner]].masks()[0]
            both = mask.astype(bool)
            assert (own & both).sum() > 0.85 * (own | both).sum()


def nearest(found: Detections, box: np.ndarray, label: int) -> int:
    """Row of the detection of that class, counted from 1 on, whose box is nearest."""
    apart = np.abs(found.boxes - box).max(1) + 1e6 * (found.labels + 1 != label)
    return int(apart.argmin())
