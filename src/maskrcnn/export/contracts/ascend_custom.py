"""Writes a model with the detection operators of Ascend's compiler, which no other engine knows.

D rows, K classes, L levels, N candidates of a level, P proposals, C channels, S bins and M mask pixels per
side, H, W size of the network's input.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from maskrcnn.backends.contracts.ascend import INPUT, OUTPUTS, raw_of
from maskrcnn.config import ModelConfig
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.export.clean import quiet
from maskrcnn.export.contracts.ascend import prepared, save
from maskrcnn.export.form import Form
from maskrcnn.export.parts import BoxHead, Dense, MaskHead, plain
from maskrcnn.host.normalise import normalised
from maskrcnn.model.boxes import decode, pyramid_level
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.model.rpn import UNIT_WEIGHTS
from maskrcnn.ops.pool_levels import pool_levels
from maskrcnn.spec import Spec
from maskrcnn.whole_file import shown

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIX = ".onnx"
OPSET = 11
# Side of the boxes of the finest level, and what keeps a rounded one on its level; fixed in RoiExtractor.
FINEST = 56
LEVEL_EPS = 1e-6


def export(model_file: Path, out: Path, form: Form) -> Spec:
    """Write a `.safetensors` model file to `out` with BatchMultiClassNMS and RoiExtractor in opset 11.

    Inputs and outputs as of `maskrcnn.export.contracts.ascend`. Boxes and scores go into BatchMultiClassNMS
    in float16, as their compiler wants them. Raises UserError for what these operators cannot do.
    """
    spec, model = prepared(model_file, out, form)
    _refuse(spec, model_file)
    save(_traced(AscendOperators(model, form)), spec, out)
    return spec


class WithOperators:
    """What such a graph computes, in torch: a backend to check it with, as no engine has its operators."""

    def __init__(self, model_file: Path, out: Path, form: Form) -> None:
        self.spec, model = prepared(model_file, out, form)
        _refuse(self.spec, model_file)
        self._network = AscendOperators(model, form).eval()

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """image (1, 3, H, W) in 0..255, size (1, 2) -> Raw of numpy arrays."""
        planes = torch.from_numpy(normalised(image, size, self.spec.model))
        with torch.inference_mode():
            dets, labels, masks = (found.numpy() for found in self._network(planes))
        return raw_of(dets, labels, masks)


class BatchMultiClassNMS(torch.autograd.Function):
    """Greedy NMS of every class by itself, and of what remains the best of all classes."""

    @staticmethod
    def symbolic(  # noqa: PLR0913
        g: Any, boxes: Any, scores: Any, score_over: float, iou: float, per_class: int, total: int
    ) -> Any:
        """The operator."""
        found = g.op(
            "BatchMultiClassNMS",
            boxes,
            scores,
            score_threshold_f=score_over,
            iou_threshold_f=iou,
            max_size_per_class_i=per_class,
            max_total_size_i=total,
            outputs=4,
        )
        for value, shape in zip(found, ([1, total, 4], [1, total], [1, total], [1]), strict=True):
            value.setType(boxes.type().with_sizes(shape))
        return found

    @staticmethod
    def forward(
        ctx: Any, boxes: Tensor, scores: Tensor, score_over: float, iou: float, per_class: int, total: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """boxes (1, N, K, 4), scores (1, N, K) -> boxes (1, D, 4), scores, classes (1, D), count (1,)."""
        candidates = (scores[0] > score_over).nonzero()
        rows, classes = candidates[:, 0], candidates[:, 1]
        box, score = boxes[0, rows, classes].float(), scores[0, rows, classes].float()
        kept = batched_nms(box, score, classes, iou)
        kept = _first_of_each(kept, classes, per_class)[:total]
        missing = total - len(kept)
        found = F.pad(torch.cat([box, score[:, None], classes[:, None]], 1)[kept], (0, 0, 0, missing))
        found = found.to(boxes.dtype)[None]
        count = torch.tensor([len(kept)], dtype=boxes.dtype)
        return found[..., :4].contiguous(), found[..., 4].clone(), found[..., 5].clone(), count


class RoiExtractor(torch.autograd.Function):
    """RoIAlign of each box on the level of its size."""

    @staticmethod
    def symbolic(
        g: Any,
        rois: Any,
        shape: Sequence[int],
        scales: Sequence[float],
        samples: int,
        aligned: bool,
        *levels: Any,
    ) -> Any:
        """The operator. shape: (R, C, S, S) of what it returns, which the exporter cannot know."""
        pooled = g.op(
            "RoiExtractor",
            *levels,
            rois,
            aligned_i=int(aligned),
            finest_scale_i=FINEST,
            pooled_height_i=shape[2],
            pooled_width_i=shape[3],
            pool_mode_s="avg",
            roi_scale_factor_i=0,
            sample_num_i=samples,
            spatial_scale_f=list(scales),
        )
        pooled.setType(levels[0].type().with_sizes(shape))
        return pooled

    @staticmethod
    def forward(
        ctx: Any,
        rois: Tensor,
        shape: Sequence[int],
        scales: Sequence[float],
        samples: int,
        aligned: bool,
        *levels: Tensor,
    ) -> Tensor:
        """rois (R, 5) image number and box, levels L x (1, C, h, w) -> (R, C, S, S)."""
        boxes = rois[None, :, 1:]
        level_of = pyramid_level(boxes, len(levels), LEVEL_EPS * FINEST / 224, 0.0)
        return pool_levels(levels, boxes, level_of, scales, shape[2], samples, aligned).contiguous()


class AscendOperators(nn.Module):
    """A model from normalised planes to the three outputs; all of the input is image."""

    limit: Tensor

    def __init__(self, model: MaskRCNN, form: Form) -> None:
        super().__init__()
        assert form.size is not None
        self.config, self.scales = model.config, tuple(model.roi_scales)
        self.dense = Dense(plain(model), torch.float32)
        self.box_head, self.mask_head = BoxHead(model, torch.float32), MaskHead(model, torch.float32)
        self.levels = len(model.anchors.strides)
        self.padded = height, width = form.size
        last = 1 if model.config.conventions.rpn_clip == "last_pixel" else 0
        ends = [width - last, height - last] * 2
        self.register_buffer("limit", torch.tensor(ends, dtype=torch.float32), persistent=False)
        cells = [
            torch.empty(1, 1, math.ceil(height / stride), math.ceil(width / stride))
            for stride in model.anchors.strides
        ]
        for number, anchors in enumerate(model.anchors(cells, self.padded)):
            self.register_buffer(f"anchors{number}", anchors, persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image (1, 3, H, W), normalised -> dets (D, 5), labels int32 (D,), masks (D, K, M, M)."""
        maps = self.dense(image)
        levels, of_rpn = maps[: len(self.scales)], maps[len(self.scales) :]
        proposals, real = self.propose(of_rpn[: self.levels], of_rpn[self.levels :])
        boxes, scores, labels = self.detect(levels, proposals, real)
        masks = self.mask_head(self.roi(levels, boxes, self.config.mask_head.pool_side))
        if self.config.mask_head.class_agnostic:
            masks = masks.expand(-1, self.config.classes, -1, -1)
        return torch.cat([boxes, scores[:, None]], 1), labels, masks

    def propose(self, objectness: Sequence[Tensor], deltas: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """objectness L x (1, A, h, w), deltas L x (1, 4 A, h, w) -> proposals (P, 4), and 1 for each that is
        one (P,). A level is what the operator calls a class.
        """
        config = self.config.rpn
        counts = [self.get_buffer(f"anchors{number}").shape[0] for number in range(self.levels)]
        most = min(config.pre_nms, max(counts))
        found = [
            self._best(number, logits, delta, most)
            for number, (logits, delta) in enumerate(zip(objectness, deltas, strict=True))
        ]
        boxes, scores = (torch.stack(each, 1)[None] for each in zip(*found, strict=True))
        limits = (0.0, config.nms_iou, config.post_nms, config.post_nms)
        kept, score, _, _ = BatchMultiClassNMS.apply(boxes.half(), scores.half(), *limits)
        return kept.float()[0], (score.float()[0] > 0).float()

    def _best(self, number: int, logits: Tensor, deltas: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """logits (1, A, h, w), deltas (1, 4 A, h, w) of a level -> boxes (N, 4), scores (N,), best first, 0
        at the end.
        """
        habits, anchors = self.config.conventions, self.get_buffer(f"anchors{number}")
        _, per_cell, height, width = (int(side) for side in logits.shape)
        count = min(self.config.rpn.pre_nms, height * width * per_cell)
        score, index = logits.permute(0, 2, 3, 1).reshape(-1).sigmoid().topk(count)
        of_anchors = deltas.reshape(per_cell, 4, height, width).permute(2, 3, 0, 1).reshape(-1, 4)
        moved = decode(
            of_anchors.index_select(0, index),
            anchors.index_select(0, index),
            UNIT_WEIGHTS,
            habits.plus_one,
            habits.clamp_shrinking,
            habits.delta_limit,
        )
        boxes = self._clipped(moved)
        score = score * _large_enough(boxes, habits.rpn_min_size)
        if count == most:
            return boxes, score
        return torch.cat([boxes, boxes.new_zeros(most - count, 4)]), F.pad(score, (0, most - count))

    def detect(
        self, levels: Sequence[Tensor], proposals: Tensor, real: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """levels, proposals (P, 4), real (P,) -> boxes (D, 4), scores (D,), labels int32 (D,)."""
        config, habits, classes = self.config.box_head, self.config.conventions, self.config.classes
        logits, deltas = self.box_head(self.roi(levels, proposals, config.pool_side))
        scores = logits.softmax(1)[:, :-1] * real[:, None]
        moved = decode(
            deltas.reshape(self.config.rpn.post_nms, -1, 4),
            proposals[:, None],
            config.delta_weights,
            habits.plus_one,
            habits.clamp_shrinking,
            habits.delta_limit,
        )
        boxes = self._clipped(moved).expand(-1, classes, -1)
        if habits.detection_min_size > 0:
            scores = scores * _large_enough(boxes, habits.detection_min_size)
        limits = (config.score_over, config.nms_iou, config.detections, config.detections)
        kept, score, label, _ = BatchMultiClassNMS.apply(boxes[None].half(), scores[None].half(), *limits)
        return kept.float()[0], score.float()[0], label[0].to(torch.int32)

    def roi(self, levels: Sequence[Tensor], boxes: Tensor, side: int) -> Tensor:
        """levels, boxes (R, 4) in network pixels -> (R, C, S, S)."""
        habits = self.config.conventions
        rois = F.pad(boxes, (1, 0))  # the number of the only image
        shape = [*map(int, (boxes.shape[0], levels[0].shape[1])), side, side]
        return RoiExtractor.apply(rois, shape, self.scales, habits.roi_samples, habits.roi_aligned, *levels)

    def _clipped(self, boxes: Tensor) -> Tensor:
        return torch.minimum(boxes.clamp(min=0), self.limit)


def _large_enough(boxes: Tensor, min_size: float) -> Tensor:
    """1 where both sides of boxes (..., 4) are at least min_size, or above 0 where that is 0, else 0."""
    sides = (boxes[..., 2:] - boxes[..., :2]).amin(-1)
    return ((sides >= min_size) if min_size > 0 else (sides > 0)).float()


def _first_of_each(kept: Tensor, classes: Tensor, most: int) -> Tensor:
    """Of rows in order the first `most` of each class."""
    of_class = classes[kept]
    before = torch.tril(of_class[:, None] == of_class[None], -1).sum(1)
    return kept[before < most]


def _traced(model: AscendOperators) -> "ModelProto":
    """By torch's older exporter, which writes the opset that Ascend's compiler reads."""
    import onnx

    file: Any = io.BytesIO()
    with quiet(), torch.inference_mode():
        torch.onnx.export(
            model.eval(),
            (torch.zeros(1, 3, *model.padded),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
        )
    graph = onnx.load_from_string(file.getvalue())
    _tell_shapes(graph, model.config)
    return graph


def _tell_shapes(graph: "ModelProto", config: ModelConfig) -> None:
    """Of the outputs; the exporter follows no shape through operators that it does not know."""
    from onnx import helper

    rows, side = config.box_head.detections, config.mask_head.pool_side * (1 if config.neck == "c4" else 2)
    shapes = (rows, 5), (rows,), (rows, config.classes, side, side)
    outputs = [
        helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape)
        for value, shape in zip(graph.graph.output, shapes, strict=True)
    ]
    del graph.graph.output[:]
    graph.graph.output.extend(outputs)


def _refuse(spec: Spec, place: Path) -> None:
    habits, config = spec.model.conventions, spec.model
    lacks = {
        "soft-NMS": config.box_head.soft_nms.method != "none",
        "NMS of boxes that are a pixel wider than their corners are apart": habits.plus_one,
        "a second NMS of the proposals": habits.rpn_nms_again,
        "RoIs of all levels at once": config.roi_levels == "all",
        "deformable convolutions": config.fpn.deformable != "none",
    }
    for what, needed in lacks.items():
        if needed:
            raise UserError(
                f"{shown(place)}: needs {what}, which Ascend's operators cannot do",
                hint="leave --flavour out",
            )
