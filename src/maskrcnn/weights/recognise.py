"""Which source a checkpoint is of."""

from collections.abc import Mapping
from typing import Any

from maskrcnn.errors import UserError
from maskrcnn.weights.source import Source
from maskrcnn.weights.sources import (
    caffe2,
    detectron2,
    maskrcnn_benchmark,
    mindspore,
    mmdetection,
    segmentoly,
    segmentoly_panet,
    tensorrtx,
    torchvision,
)

SOURCES = {
    source.name: source
    for source in (
        torchvision.SOURCE,
        mmdetection.SOURCE,
        maskrcnn_benchmark.SOURCE,
        caffe2.SOURCE,
        caffe2.C4_SOURCE,
        segmentoly_panet.PANET_SOURCE,
        segmentoly.NORMED_SOURCE,
        segmentoly.SOURCE,
        tensorrtx.SOURCE,
        tensorrtx.PYRAMID_SOURCE,
        detectron2.SOURCE,  # after those that have its names and more
        mindspore.SOURCE,
        mindspore.ZOO_SOURCE,
    )
}


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


def source_named(name: str, tensors: Mapping[str, Any]) -> Source:
    """The source of that name, or its kind that has these names: `caffe2` stands for `caffe2-c4` too."""
    kinds = (source for kind, source in SOURCES.items() if kind.startswith(f"{name}-"))
    return next((source for source in kinds if source.fingerprint <= tensors.keys()), SOURCES[name])


_OTHERS = (
    ("rpn.objectness.", "is a maskrcnn model already", "use it as it is: `maskrcnn predict MODEL PHOTO`"),
    (
        "bbox_head.fc_cls",
        "is of mmdetection 1.x, whose numbers differ",
        "upgrade it with mmdetection 2.x first",
    ),
    (
        "roi_heads.box.",
        "is a detector of maskrcnn-benchmark without a mask head or of another kind",
        "give the checkpoint of a Mask R-CNN",
    ),
    ("cls_score_w", "is a detector of Detectron of another kind", "give the checkpoint of a Mask R-CNN"),
    ("conv1_w", "is a bare trunk of Detectron", "give the checkpoint of a whole Mask R-CNN"),
    ("stages.stage_0.", "is a bare trunk of segmentoly", "give the checkpoint of a whole Mask R-CNN"),
    ("bbox_head.", "is a detector of mmdetection without a mask head", "give the checkpoint of a Mask R-CNN"),
    ("layer1.", "is a bare trunk", "give the checkpoint of a whole Mask R-CNN"),
    ("stem.conv1", "is a bare trunk", "give the checkpoint of a whole Mask R-CNN"),
)
