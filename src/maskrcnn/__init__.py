"""Mask R-CNN: segment images with any public checkpoint, train on your own, measure and compare."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskrcnn.detections import Detections
    from maskrcnn.drawing import draw
    from maskrcnn.errors import UserError
    from maskrcnn.images import read_image
    from maskrcnn.predict import Predictor, open_model
    from maskrcnn.spec import Spec

__all__ = ["Detections", "Predictor", "Spec", "UserError", "__version__", "draw", "open_model", "read_image"]

# Imported when first asked for: `maskrcnn --help` needs neither numpy nor OpenCV.
_HOMES = {
    "Detections": "maskrcnn.detections",
    "Predictor": "maskrcnn.predict",
    "Spec": "maskrcnn.spec",
    "UserError": "maskrcnn.errors",
    "draw": "maskrcnn.drawing",
    "open_model": "maskrcnn.predict",
    "read_image": "maskrcnn.images",
}

try:
    __version__ = version("maskrcnn")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
