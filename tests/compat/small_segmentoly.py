"""A small checkpoint of segmentoly's names."""

import runpy
from pathlib import Path

import pytest

WEIGHTS = Path(__file__).parents[1] / "weights"


def their_checkpoint(folder: Path, classes: int, scale: float = 1.0) -> Path:
    """An R50-FPN of narrow layers with random weights, times scale, as mask_rcnn.pth in the folder."""
    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(WEIGHTS))
        frameworks = runpy.run_path(str(WEIGHTS / "frameworks.py"))
        lineage = runpy.run_path(str(WEIGHTS / "lineage.py"))
    plan = frameworks["Plan"](**{**frameworks["SMALL"], "classes": classes})
    arrays = frameworks["filled"](lineage["segmentoly_shapes"](plan))
    state = {name: each * scale for name, each in arrays.items()}
    path: Path = lineage["segmentoly_file"](folder / "mask_rcnn.pth", state)
    return path
