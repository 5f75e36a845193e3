"""Which source a checkpoint is of."""

from collections.abc import Mapping
from typing import Any

from maskrcnn.errors import UserError
from maskrcnn.weights.source import Source
from maskrcnn.weights.sources import detectron2, mmdetection, torchvision

SOURCES = {source.name: source for source in (torchvision.SOURCE, detectron2.SOURCE, mmdetection.SOURCE)}


def recognise(tensors: Mapping[str, Any], place: str) -> Source:
    """The source whose fingerprint is in the names. Raises UserError when it is none that is converted."""
    for source in SOURCES.values():
        if source.fingerprint <= tensors.keys():
            return source
    for sign, sentence, hint in _OTHERS:
        if any(name.startswith(sign) for name in tensors):
            raise UserError(f"{place}: {sentence}", hint=hint)
    some = ", ".join(list(tensors)[:3])
    raise UserError(
        f"{place}: its names ({some}, ...) are of no known Mask R-CNN",
        hint=f"sources are {', '.join(SOURCES)}; name one with --from to see what is missing",
    )


_OTHERS = (
    ("rpn.objectness.", "is a maskrcnn model already", "use it as it is: `maskrcnn predict MODEL PHOTO`"),
    (
        "bbox_head.fc_cls",
        "is of mmdetection 1.x, whose numbers differ",
        "upgrade it with mmdetection 2.x first",
    ),
    (
        "roi_heads.box.predictor",
        "is of maskrcnn-benchmark, which is not converted",
        "convert a detectron2 checkpoint",
    ),
    ("conv1_w", "is a Caffe2 file of Detectron, which is not converted", "convert it with detectron2 first"),
    ("bbox_head.", "is a detector of mmdetection without a mask head", "give the checkpoint of a Mask R-CNN"),
    ("layer1.", "is a bare trunk", "give the checkpoint of a whole Mask R-CNN"),
    ("stem.conv1", "is a bare trunk", "give the checkpoint of a whole Mask R-CNN"),
)
