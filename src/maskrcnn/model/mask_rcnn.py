"""Mask R-CNN (He et al. 2017) with an FPN, C4 or DC5 neck.

B images, L levels, P proposals and D detections per image, M mask pixels per side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn.config import ModelConfig
from maskrcnn.detections import Raw
from maskrcnn.model.anchors import Anchors
from maskrcnn.model.box_head import BoxHead, Found
from maskrcnn.model.boxes import pyramid_level
from maskrcnn.model.fpn import FPN
from maskrcnn.model.layers import ConvNorm, LargestOfLevels, PooledLinear
from maskrcnn.model.losses import Losses, box_losses, mask_loss, mask_targets, rpn_losses
from maskrcnn.model.mask_head import MaskHead
from maskrcnn.model.matching import Sampled, Targets, sample_proposals
from maskrcnn.model.resnet import ResNet, make_stage, stage_channels
from maskrcnn.model.rpn import RPN
from maskrcnn.ops.pool_levels import pool_levels


class MaskRCNN(nn.Module):
    """The whole network; `forward` is inference and exactly what is exported."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        trunk = config.backbone
        self.backbone = ResNet(trunk, last=4 if config.neck == "c4" else 5, dilate_res5=config.neck == "dc5")
        self.res5 = make_stage(trunk, 5, on_rois=True) if config.neck == "c4" else None
        stages = [stage_channels(trunk, number) for number in (2, 3, 4, 5)]
        if config.neck == "fpn":
            self.fpn: FPN | None = FPN(stages, config.fpn)
            channels = config.fpn.channels
        else:
            self.fpn = None
            channels = stages[2 if config.neck == "c4" else 3]
        strides, roi_strides = ((4, 8, 16, 32, 64), (4, 8, 16, 32)) if self.fpn else ((16,), (16,))
        self.anchors = Anchors(config.anchors, strides, config.conventions)
        self.rpn = RPN(channels, self.anchors.per_cell, config.rpn, config.conventions)
        self.roi_scales = [1 / stride for stride in roi_strides]
        roi_channels = stages[3] if config.neck == "c4" else channels
        views = len(roi_strides) if config.roi_levels == "all" else 1
        self.box_head = BoxHead(roi_channels, config.classes, config.box_head, config.conventions, views)
        self.mask_head = MaskHead(roi_channels, config.classes, config.mask_head, views)
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.std)[:, None, None], persistent=False)

    def forward(self, image: Tensor, size: Tensor) -> Raw:
        """image (B, 3, H, W) in 0..255, padded right and below, size (B, 2) without the padding -> Raw."""
        levels = self.features(image, size)
        proposals, real = self.propose(levels, size, (image.shape[2], image.shape[3]))
        found = self.detect(levels, proposals, real, size)
        return Raw(found.boxes, found.scores, found.labels, self.segment(levels, found.boxes, found.labels))

    def losses(
        self,
        image: Tensor,
        size: Tensor,
        targets: list[Targets],
        generators: Sequence[torch.Generator] | None = None,
    ) -> Losses:
        """image (B, 3, H, W) in 0..255, size (B, 2) without padding, Targets of each image -> five losses.

        generators: of the random samples, one for each image; torch's own where they are left out.
        """
        drawn: Sequence[torch.Generator | None] = generators or [None] * len(targets)
        config, plus_one = self.config, self.config.conventions.plus_one
        levels = self.features(image, size)
        objectness, deltas = self.rpn.predict(levels)
        anchors = self.anchors(levels, (image.shape[2], image.shape[3]))
        rpn_objectness, rpn_deltas, anchors_used = rpn_losses(
            torch.cat(objectness, 1),
            torch.cat(deltas, 1),
            torch.cat(anchors),
            targets,
            config.rpn,
            plus_one,
            drawn,
        )
        with torch.no_grad():
            pre_nms, post_nms = config.rpn.pre_nms_training, config.rpn.post_nms_training
            proposals, real = self.rpn.propose(objectness, deltas, anchors, size, pre_nms, post_nms)
            sampled = sample_proposals(proposals, real, targets, config.classes, config.box_head, drawn)
        features = self.roi(levels, sampled.boxes, config.box_head.pool_side)
        logits, moved = self.box_head.predict(features)
        weights, beta = config.box_head.delta_weights, config.box_head.smooth_l1_beta
        box = box_losses(logits, moved, sampled, weights, plus_one, beta)
        masks = sampled.positive.sum()
        counts = torch.stack([torch.full_like(masks, anchors_used), sampled.used.sum(), masks]).float()
        mask = self._mask_loss(levels, self._positives(levels, features, sampled), sampled, targets)
        return Losses(rpn_objectness, rpn_deltas, *box, mask, counts)

    def _positives(self, levels: list[Tensor], features: Tensor, sampled: Sampled) -> Tensor:
        """What the mask head sees of the positives, which stand first in `sampled`.

        features: of the box head, one row for each sampled box; behind res5 (C4) both heads see the same, as
        in detectron2.
        """
        side = self.config.mask_head.pool_side
        if self.res5 is not None and side == self.config.box_head.pool_side:
            return features[sampled.positive.flatten()]
        most = max(1, int(sampled.positive.sum(1).max()))
        return self.roi(levels, sampled.boxes[:, :most], side)[sampled.positive[:, :most].flatten()]

    def _mask_loss(
        self, levels: list[Tensor], features: Tensor, sampled: Sampled, targets: list[Targets]
    ) -> Tensor:
        """features: of the positives, which alone learn masks."""
        if len(features) == 0:
            return levels[0].sum() * 0
        logits = self.mask_head(features, sampled.labels[sampled.positive])
        wanted = [
            mask_targets(
                target.instances().masks,
                sampled.rows[image][sampled.positive[image]],
                sampled.boxes[image][sampled.positive[image]],
                logits.shape[-1],
                self.config.conventions.roi_aligned,
            )
            for image, target in enumerate(targets)
        ]
        return mask_loss(logits, torch.cat(wanted))

    def features(self, image: Tensor, size: Tensor) -> list[Tensor]:
        """image (B, 3, H, W), size (B, 2) -> levels L x (B, C, H/s, W/s): P2..P6, or one of stride 16."""
        stages = self.backbone(self.normalised(image, size))
        return [stages[-1]] if self.fpn is None else self.fpn(stages)

    def normalised(self, image: Tensor, size: Tensor) -> Tensor:
        """(image - mean) / std inside each image, padding by convention. (B, 3, H, W) -> (B, 3, H, W)."""
        rows = torch.arange(image.shape[2], device=image.device) < size[:, :1]
        columns = torch.arange(image.shape[3], device=image.device) < size[:, 1:]
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        image = image.to(self.mean.dtype)
        if self.config.conventions.padding == "black":
            return (image * inside - self.mean) / self.std
        return (image - self.mean) / self.std * inside

    def propose(self, levels: list[Tensor], size: Tensor, padded: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """levels, size (B, 2), padded size of the input -> proposals (B, P, 4), real (B, P)."""
        objectness, deltas = self.rpn.predict(levels)
        anchors = self.anchors(levels, padded)
        rpn = self.config.rpn
        clip = self.config.conventions.rpn_clip
        if clip != "image":
            last = 1 if clip == "last_pixel" else 0
            size = torch.stack([torch.full_like(size[:, 0], side - last) for side in padded], 1)
        return self.rpn.propose(objectness, deltas, anchors, size, rpn.pre_nms, rpn.post_nms)

    def detect(self, levels: list[Tensor], proposals: Tensor, real: Tensor, size: Tensor) -> Found:
        """levels, proposals (B, P, 4), real (B, P), size (B, 2) -> the D best boxes of each image."""
        logits, deltas = self.box_head.predict(self.roi(levels, proposals, self.config.box_head.pool_side))
        return self.box_head.detect(logits, deltas, proposals, real, size)

    def segment(self, levels: list[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """levels, boxes (B, D, 4) in network pixels, labels (B, D) -> mask probabilities (B, D, M, M)."""
        features = self.roi(levels, boxes, self.config.mask_head.pool_side)
        return self.mask_head(features, labels.flatten()).sigmoid().unflatten(0, labels.shape)

    def roi(self, levels: list[Tensor], boxes: Tensor, side: int) -> Tensor:
        """levels, boxes (B, R, 4) in network pixels -> (B * R, C, S, S); C4 goes through res5, halving S.

        Where RoIs are pooled from all L levels it is (B * R, L * C, S, S), the finest level's channels first.
        """
        habits, count = self.config.conventions, len(self.roi_scales)
        samples, aligned = habits.roi_samples, habits.roi_aligned
        if self.config.roi_levels == "all":
            here = torch.zeros(boxes.shape[:2], dtype=torch.int64, device=boxes.device)
            pairs = zip(levels[:count], self.roi_scales, strict=True)
            return torch.cat(
                [
                    pool_levels([level], boxes, here, [scale], side, samples, aligned)
                    for level, scale in pairs
                ],
                1,
            )
        eps = (habits.level_eps_inside, habits.level_eps_outside)
        level_of = pyramid_level(boxes, count, *eps, habits.plus_one)
        pooled = pool_levels(levels[:count], boxes, level_of, self.roi_scales, side, samples, aligned)
        return pooled if self.res5 is None else self.res5(pooled)


def for_inference(model: MaskRCNN) -> MaskRCNN:
    """Change the model in place into the same function with less work, no more to be trained or saved."""
    side = model.config.box_head.pool_side
    fc1 = getattr(model.box_head, "fc1", None)
    if isinstance(fc1, PooledLinear):
        model.box_head.fc1 = fc1.as_convolution(side)
    elif isinstance(fc1, LargestOfLevels):
        for name, layer in fc1.named_children():
            assert isinstance(layer, PooledLinear)
            setattr(fc1, name, layer.as_convolution(side))
    return fold_norms(model)


def fold_norms(model: MaskRCNN) -> MaskRCNN:
    """Change the model in place: batch norms become part of their convolutions. No more to be trained."""
    for module in model.modules():
        if isinstance(module, ConvNorm):
            module.fold_norm()
    return model.eval().requires_grad_(False)
