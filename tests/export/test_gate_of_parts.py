"""The check of a folder of parts tells how far each stage is from the model's, and stores it."""

from pathlib import Path

import pytest
from networks import SMALL, model_file

from maskrcnn.stored_spec import stored_spec

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
# Exporters warn of their own workings, a different thing in each version of torch.
pytestmark = pytest.mark.filterwarnings("default")


def test_the_stages_of_parts_are_compared_and_stored(tmp_path: Path) -> None:
    from maskrcnn.export.gate import Asked, write_checked
    from maskrcnn.export.parts import export_parts

    source = model_file(tmp_path / "tiny.safetensors", SMALL["fpn"])
    out = tmp_path / "m.parts"
    gated = write_checked(source, out, lambda folder: export_parts(source, folder), Asked(threads=1))
    assert gated.passed, gated.fault
    names = [name for name, _ in gated.check.stages]
    assert names[:3] == ["input", "normalised", "p2"]
    assert {"objectness", "deltas", "box_pool", "class_logits", "box_deltas", "masks"} <= set(names)
    assert max(share for _, share in gated.check.stages) < 1e-4
    for path in (out, out / "dense.onnx"):
        exported = stored_spec(path).exported
        assert exported is not None and exported.check == gated.check
