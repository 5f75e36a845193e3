"""What a Mask R-CNN is made of: every size, threshold and numeric habit as frozen dataclasses."""

import math
from dataclasses import dataclass, field
from typing import Literal

Norm = Literal["frozen_bn", "bn", "gn", "none"]


@dataclass(frozen=True)
class BackboneConfig:
    """A ResNet or ResNeXt trunk (He et al. 2016, Xie et al. 2017).

    depth: 18 and 34 have basic blocks, 50, 101 and 152 bottlenecks.
    groups, group_width: 1 and 64 for ResNet; ResNeXt 32x8d is groups 32, group_width 8 (channels of one
        group in res2).
    width: channels of the stem and of res2's basic blocks; 64 as published.
    stride_in_1x1: the stride of a bottleneck stands in its first 1x1 convolution (MSRA, Caffe) and not in
        the 3x3.
    stem_pool: the stem's pooling is padded by one on every side, or on the right and below only (`same`
        of MindSpore and TensorFlow at even sides).
    """

    depth: int = 50
    groups: int = 1
    group_width: int = 64
    width: int = 64
    norm: Norm = "frozen_bn"
    norm_eps: float = 1e-5
    stride_in_1x1: bool = False
    stem_pool: Literal["centred", "same"] = "centred"


@dataclass(frozen=True)
class FPNConfig:
    """Feature pyramid (Lin et al. 2017) over res2..res5, levels P2..P6.

    upsample: how the coarser level grows to the finer one's size: `nearest`, `bilinear` between the centres
        of cells, or `bilinear_corners` between their top left corners (MindSpore's ResizeBilinear).
    conv_bias: convolutions have a bias before their norm as well.
    bottom_up: norm of a second path, from P2 back up to P5 (PANet, Liu et al. 2018); None without one.
    deformable: the convolutions of that path read where offsets of their own point to (Dai et al. 2017).
        What is read up to a cell outside the map, `faded` fades to zero (torchvision); `held` is zero before
        the first cell and the last cell's value after the last (segmentoly, OpenVINO).
    """

    channels: int = 256
    norm: Norm = "none"
    norm_eps: float = 1e-5
    upsample: Literal["nearest", "bilinear", "bilinear_corners"] = "nearest"
    conv_bias: bool = False
    bottom_up: Norm | None = None
    deformable: Literal["none", "faded", "held"] = "none"

    def __post_init__(self) -> None:
        if self.deformable != "none" and self.bottom_up is None:
            raise ValueError("deformable convolutions are those of a bottom_up path, and there is none")


@dataclass(frozen=True)
class AnchorConfig:
    """Anchor sizes in network pixels, one tuple a level, and height / width ratios.

    cells: where a source has them as numbers, the anchors x1, y1, x2, y2 around the cell whose corner is
        (0, 0), one tuple a level, as many as sizes and ratios make; () computes them from sizes and ratios.
    """

    sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    cells: tuple[tuple[tuple[float, float, float, float], ...], ...] = ()

    def __post_init__(self) -> None:
        if self.cells and [len(cell) for cell in self.cells] != [
            len(level) * len(self.ratios) for level in self.sizes
        ]:
            raise ValueError("cells must have as many anchors in each level as sizes times ratios")


@dataclass(frozen=True)
class RPNConfig:
    """Region proposal network. pre_nms is per level; post_nms is what the box head sees of one image.

    convs: how many convolutions the two predictors share.
    conv_side: of these; 3, or 1, which sees single cells.
    """

    convs: int = 1
    conv_side: int = 3
    pre_nms: int = 1000
    post_nms: int = 1000
    nms_iou: float = 0.7
    pre_nms_training: int = 2000
    post_nms_training: int = 1000
    foreground_iou: float = 0.7
    background_iou: float = 0.3
    batch: int = 256
    positive_fraction: float = 0.5
    smooth_l1_beta: float = 0.0


@dataclass(frozen=True)
class SoftNMSConfig:
    """Soft-NMS (Bodla et al. 2017): overlapping boxes lose score instead of being removed."""

    method: Literal["none", "linear", "gaussian"] = "none"
    sigma: float = 0.5
    min_score: float = 0.001


@dataclass(frozen=True)
class BoxHeadConfig:
    """Classifies and refines proposals.

    kind: `fc` has `convs` 3x3 convolutions of `channels` (0 in the two-FC head, 4 in 4conv1fc) and then
        `fcs` layers of `fc_channels`; `res5` runs the trunk's last stage on every RoI (C4).
    fc1_relu: a ReLU follows the first of these layers as well.
    """

    kind: Literal["fc", "res5"] = "fc"
    convs: int = 0
    channels: int = 256
    fcs: int = 2
    fc_channels: int = 1024
    fc1_relu: bool = True
    norm: Norm = "none"
    norm_eps: float = 1e-5
    pool_side: int = 7
    class_agnostic: bool = False
    delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    score_over: float = 0.05
    nms_iou: float = 0.5
    detections: int = 100
    soft_nms: SoftNMSConfig = field(default_factory=SoftNMSConfig)
    foreground_iou: float = 0.5
    batch: int = 512
    positive_fraction: float = 0.25
    smooth_l1_beta: float = 0.0


@dataclass(frozen=True)
class MaskHeadConfig:
    """Predicts a mask per class, or one for all, inside each final box; after res5 (C4) convs is 0.

    conv_bias: convolutions have a bias before their norm as well.
    fully_connected: what the last convolution reads goes another way too, through two convolutions and one
        linear layer to a mask of no class, and is added to those of the classes (PANet, Liu et al. 2018).
    """

    convs: int = 4
    channels: int = 256
    norm: Norm = "none"
    norm_eps: float = 1e-5
    conv_bias: bool = False
    fully_connected: bool = False
    pool_side: int = 14
    class_agnostic: bool = False

    def __post_init__(self) -> None:
        if self.fully_connected and self.convs < 2:
            raise ValueError("fully_connected needs at least two convs")


@dataclass(frozen=True)
class Conventions:
    """Numeric habits in which the public implementations differ; a checkpoint needs those of its source.

    plus_one: a box of pixels x1..x2 is x2 - x1 + 1 wide (Caffe lineage); boxes are then clipped to width - 1.
    plus_one_overlaps: plus_one holds for NMS, smallest sides and clipping as well, and not only for deltas
        and levels.
    anchor_cell: `exact` w = s / sqrt(r), `rounded` the same rounded half to even, `legacy` Detectron's
        inclusive corners.
    anchor_order: which of size and ratio runs slowest among the anchors of one cell.
    anchor_stride: the level's own stride, or padded image size // feature size (torchvision).
    rpn_scores: rank proposals by the logit or by its sigmoid (sigmoid saturates, so ties differ).
    rpn_min_size: proposals with a side below it are dropped; 0 drops sides <= 0 (network pixels).
    rpn_clip: proposals are clipped to the image, to the padded input or to that one's last pixel, width - 1.
    rpn_nms_again: after NMS on each level the best of all levels go through NMS once more, all together.
    padding: what surrounds a smaller image in the network's input: zeros after normalisation, which is the
        mean colour, or black pixels.
    nms_inclusive: suppress at IoU >= threshold and not only above it.
    level_eps_inside, level_eps_outside: RoI level = floor(4 + log2(sqrt(area) / 224 + inside) + outside).
    roi_aligned: RoIAlign subtracts half a pixel; otherwise RoIs are at least 1 x 1.
    roi_samples: sampling points per bin and side, 0 for ceil(roi side / bins).
    delta_limit: box deltas of width and height are limited to it; exp() of an untrained one overflows.
    clamp_shrinking: box deltas of width and height are limited to -delta_limit from below as well.
    detection_min_size: detections with a side below it are dropped before the best are taken (network
        pixels); 0 drops none, not even those that clipping has emptied.
    clip_to_image: boxes are clipped again in image pixels and empty ones dropped.
    detection_order: detections are given best score first, or class by class, best first in each class.
    mask_paste: `pixel_centres` samples the mask at pixel centres over the float box, >= threshold;
        `expanded` pads the mask by one, expands the box, truncates it to pixels and resizes, > threshold.
    """

    plus_one: bool = False
    plus_one_overlaps: bool = True
    anchor_cell: Literal["exact", "rounded", "legacy"] = "exact"
    anchor_order: Literal["size_first", "ratio_first"] = "size_first"
    anchor_stride: Literal["fixed", "from_size"] = "fixed"
    rpn_scores: Literal["logit", "sigmoid"] = "logit"
    rpn_min_size: float = 0.0
    rpn_clip: Literal["image", "padded", "last_pixel"] = "image"
    rpn_nms_again: bool = False
    padding: Literal["mean", "black"] = "mean"
    nms_inclusive: bool = False
    level_eps_inside: float = 1e-8
    level_eps_outside: float = 0.0
    roi_aligned: bool = True
    roi_samples: int = 0
    delta_limit: float = math.log(1000 / 16)
    clamp_shrinking: bool = False
    detection_min_size: float = 0.0
    clip_to_image: bool = False
    detection_order: Literal["score", "class"] = "score"
    mask_paste: Literal["pixel_centres", "expanded"] = "pixel_centres"


@dataclass(frozen=True)
class ModelConfig:
    """One Mask R-CNN.

    classes: number of foreground classes K. mean, std: of the network input, 0..255, in its channel order.
    roi_levels: a RoI is pooled from the one level that its size belongs to, or from all of them; then the
        first layer of each head exists once a level, and the largest of what these return counts (adaptive
        feature pooling of PANet, Liu et al. 2018).
    """

    classes: int = 80
    neck: Literal["fpn", "c4", "dc5"] = "fpn"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    roi_levels: Literal["one", "all"] = "one"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    fpn: FPNConfig = field(default_factory=FPNConfig)
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    box_head: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask_head: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    conventions: Conventions = field(default_factory=Conventions)

    def __post_init__(self) -> None:
        layers = (self.box_head.convs + self.box_head.fcs, self.mask_head.convs)
        if self.roi_levels == "all" and (self.neck != "fpn" or 0 in layers):
            raise ValueError(
                "roi_levels all needs a pyramid, and heads that begin with a layer for each level"
            )
