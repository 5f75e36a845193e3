"""What each public source means by its numbers, input and classes, and the architectures that have names."""

from dataclasses import replace

from maskrcnn.config import (
    AnchorConfig,
    BackboneConfig,
    BoxHeadConfig,
    Conventions,
    FPNConfig,
    MaskHeadConfig,
    ModelConfig,
    RPNConfig,
)
from maskrcnn.spec import Classes, Preprocess

Triple = tuple[float, float, float]

# ImageNet statistics as 0..255, and the same in the order B, G, R.
MEAN_RGB: Triple = (123.675, 116.28, 103.53)
STD_RGB: Triple = (58.395, 57.12, 57.375)
MEAN_BGR: Triple = (103.53, 116.28, 123.675)
STD_BGR: Triple = (57.375, 57.12, 58.395)
NO_STD: Triple = (1.0, 1.0, 1.0)
# Of Detectron and what descends from it, B, G, R: an older estimate of the same mean.
MEAN_CAFFE2: Triple = (102.9801, 115.9465, 122.7717)

TORCHVISION = Conventions(
    anchor_cell="rounded",
    anchor_order="ratio_first",
    anchor_stride="from_size",
    rpn_scores="logit",
    rpn_min_size=1e-3,
    level_eps_inside=0.0,
    level_eps_outside=1e-6,
    roi_aligned=False,
    roi_samples=2,
    detection_min_size=1e-2,
    mask_paste="expanded",
)
DETECTRON2 = Conventions(clip_to_image=True)
# level = floor(log2(s / 56 + 1e-6)) + 2, and s / 56 + 1e-6 = 4 (s / 224 + 2.5e-7)
MMDETECTION = Conventions(
    anchor_order="ratio_first", rpn_scores="sigmoid", level_eps_inside=2.5e-7, clamp_shrinking=True
)
MASKRCNN_BENCHMARK = Conventions(
    plus_one=True,
    anchor_cell="legacy",
    anchor_order="ratio_first",
    rpn_scores="sigmoid",
    nms_inclusive=True,
    level_eps_inside=1e-6,
    roi_aligned=False,
    roi_samples=2,
    mask_paste="expanded",
)
MASKRCNN_BENCHMARK_C4 = replace(MASKRCNN_BENCHMARK, roi_samples=0)
# A side of less than 1 in image pixels, where its width is x2 - x1 + 1, has x2 < x1 at any scale.
CAFFE2 = replace(MASKRCNN_BENCHMARK, rpn_min_size=1.0, rpn_clip="padded")
CAFFE2_C4 = replace(CAFFE2, roi_samples=0)
SEGMENTOLY = MASKRCNN_BENCHMARK
SEGMENTOLY_C4 = MASKRCNN_BENCHMARK_C4

# Its graph has no limit of box deltas: exp(80) pixels are still a float32, and wider than any image.
TENSORRTX = replace(DETECTRON2, delta_limit=80.0)
# level = floor(log2((s / 56 + 1e-6) + 1e-4)) + 2
MINDSPORE = Conventions(
    rpn_scores="sigmoid",
    rpn_min_size=1.0,
    rpn_clip="last_pixel",
    rpn_nms_again=True,
    padding="black",
    level_eps_inside=1.01e-4 / 4,
    roi_aligned=False,
    roi_samples=2,
    delta_limit=4.0,
    clip_to_image=True,
)
MINDSPORE_ZOO = Conventions(
    plus_one=True,
    plus_one_overlaps=False,
    anchor_order="ratio_first",
    rpn_scores="sigmoid",
    rpn_clip="padded",
    padding="black",
    level_eps_inside=2.5e-7,
    roi_aligned=False,
    roi_samples=2,
    clamp_shrinking=True,
)

TORCHVISION_INPUT = Preprocess(size_rule="torchvision", filter="torch", channels="rgb")
DETECTRON2_INPUT = Preprocess(size_rule="detectron2", filter="pillow", channels="bgr")
# A picture of 480 x 640 at detectron2's test size; every other one is fitted into the same window.
TENSORRTX_INPUT = Preprocess(
    resize="letterbox",
    short=800,
    long=1067,
    size_rule="torchvision",
    filter="opencv",
    channels="bgr",
    pad_multiple=1,
    pad_value=128,
)
MMDETECTION_INPUT = Preprocess(size_rule="mmdetection", filter="opencv", channels="rgb")
MMDETECTION_CAFFE_INPUT = replace(MMDETECTION_INPUT, channels="bgr")
MASKRCNN_BENCHMARK_INPUT = Preprocess(size_rule="maskrcnn_benchmark", filter="pillow", channels="bgr")
MASKRCNN_BENCHMARK_C4_INPUT = replace(MASKRCNN_BENCHMARK_INPUT, pad_multiple=1)
# OpenCV's resize by one scale, on float32 where segmentoly has bytes: closer than bytes and a scale per axis.
CAFFE2_INPUT = Preprocess(size_rule="caffe2", filter="torch", channels="bgr")
CAFFE2_C4_INPUT = replace(CAFFE2_INPUT, pad_multiple=1)
SEGMENTOLY_INPUT = CAFFE2_INPUT
# instance-segmentation-security-0050 was trained on stretched images and validated on squares.
SEGMENTOLY_LIGHT_INPUT = replace(SEGMENTOLY_INPUT, resize="stretch", short=480, long=480)
SEGMENTOLY_C4_INPUT = replace(SEGMENTOLY_INPUT, pad_multiple=16)
MINDSPORE_INPUT = Preprocess(
    resize="fit_window", short=768, long=1280, size_rule="caffe2", filter="area", pad_to_window=True
)
MINDSPORE_ZOO_INPUT = replace(MINDSPORE_INPUT, size_rule="mmdetection", filter="opencv")

# One level has all sizes where there is no pyramid (C4, DC5).
ONE_LEVEL_ANCHORS = AnchorConfig(sizes=((32.0, 64.0, 128.0, 256.0, 512.0),))
# Base-RCNN-C4 and Base-RCNN-DilatedC5 of detectron2, mask-rcnn_r50-caffe-c4 of mmdetection.
ONE_LEVEL_RPN = RPNConfig(pre_nms=6000, pre_nms_training=12000, post_nms_training=2000)


def _centred(
    widths: tuple[Triple, ...], heights: tuple[Triple, ...]
) -> tuple[tuple[tuple[float, float, float, float], ...], ...]:
    """Anchors x1, y1, x2, y2 around the middle of a cell, of levels of stride 4 and twice that each."""
    return tuple(
        tuple(
            (middle - w / 2, middle - h / 2, middle + w / 2, middle + h / 2)
            for w, h in zip(*sides, strict=True)
        )
        for middle, sides in zip((2, 4, 8, 16, 32), zip(widths, heights, strict=True), strict=True)
    )


# Of instance-segmentation-security-0050: k-means of the objects of COCO in squares of 480 pixels.
SEGMENTOLY_LIGHT_ANCHORS = AnchorConfig(
    cells=_centred(
        (
            (19.00461443977467, 29.899706148116053, 74.42073611573349),
            (55.733722536651804, 137.73193415104578, 69.17445780221439),
            (100.90277461137683, 156.060481177927, 255.14803078894226),
            (144.22154707415015, 244.36151152306752, 417.3044920416812),
            (280.57615011598125, 411.15991631559905, 451.9415967854453),
        ),
        (
            (23.358642713410788, 62.90766647668873, 47.83872274215618),
            (114.48241169265263, 90.23900340394223, 184.0552472694527),
            (281.45049255862403, 186.32713748322118, 124.3327609158835),
            (391.62539933985994, 271.83141023619, 164.83324079051005),
            (415.2871418830516, 309.4935963584353, 446.5373059473707),
        ),
    )
)

# The gaps are ids that COCO never used; torchvision's 91 outputs have a row for each of them.
_COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,"
    "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,"
    "skateboard,surfboard,tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,"
    "sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,"
    "dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_90 = Classes(tuple(_COCO_NAMES.split(",")), tuple(range(1, 91)))
COCO = Classes(
    tuple(name for name in COCO_90.names if name),
    tuple(number for name, number in zip(COCO_90.names, COCO_90.ids, strict=True) if name),
)

_C4 = ModelConfig(
    neck="c4",
    anchors=ONE_LEVEL_ANCHORS,
    rpn=ONE_LEVEL_RPN,
    box_head=BoxHeadConfig(kind="res5", pool_side=14),
    mask_head=MaskHeadConfig(convs=0),
)
_DC5 = ModelConfig(neck="dc5", anchors=ONE_LEVEL_ANCHORS, rpn=ONE_LEVEL_RPN)

ARCHITECTURES: dict[str, ModelConfig] = {
    "r18-fpn": ModelConfig(backbone=BackboneConfig(depth=18)),
    "r34-fpn": ModelConfig(backbone=BackboneConfig(depth=34)),
    "r50-fpn": ModelConfig(),
    "r101-fpn": ModelConfig(backbone=BackboneConfig(depth=101)),
    "r152-fpn": ModelConfig(backbone=BackboneConfig(depth=152)),
    "x50-32x4d-fpn": ModelConfig(backbone=BackboneConfig(depth=50, groups=32, group_width=4)),
    "x101-32x4d-fpn": ModelConfig(backbone=BackboneConfig(depth=101, groups=32, group_width=4)),
    "x101-32x8d-fpn": ModelConfig(backbone=BackboneConfig(depth=101, groups=32, group_width=8)),
    "x101-64x4d-fpn": ModelConfig(backbone=BackboneConfig(depth=101, groups=64, group_width=4)),
    "r50-c4": _C4,
    "r101-c4": replace(_C4, backbone=BackboneConfig(depth=101)),
    "r50-dc5": _DC5,
    "r101-dc5": replace(_DC5, backbone=BackboneConfig(depth=101)),
    # torchvision v2, detectron2's new baselines: two RPN convolutions, a 4conv1fc head, batch norm everywhere
    "r50-fpn-v2": ModelConfig(
        backbone=BackboneConfig(norm="bn"),
        fpn=FPNConfig(norm="bn"),
        rpn=RPNConfig(convs=2),
        box_head=BoxHeadConfig(convs=4, fcs=1, norm="bn"),
        mask_head=MaskHeadConfig(norm="bn"),
    ),
    # the parameters and anchors of OpenVINO's instance-segmentation-security-0050
    "r50-fpn-light": ModelConfig(
        anchors=SEGMENTOLY_LIGHT_ANCHORS,
        fpn=FPNConfig(channels=128, bottom_up="bn"),
        rpn=RPNConfig(conv_side=1, pre_nms=100, post_nms=100),
        box_head=BoxHeadConfig(fcs=3, fc_channels=512),
        mask_head=MaskHeadConfig(convs=6, channels=128, norm="bn", conv_bias=True),
    ),
    # the parameters of OpenVINO's instance-segmentation-security-0010
    "x101-32x8d-panet": ModelConfig(
        roi_levels="all",
        backbone=BackboneConfig(depth=101, groups=32, group_width=8, stride_in_1x1=True),
        fpn=FPNConfig(bottom_up="gn", deformable="held"),
        box_head=BoxHeadConfig(fc1_relu=False),
        mask_head=MaskHeadConfig(norm="gn", fully_connected=True),
    ),
    # Wu and He 2018: group norm everywhere and a 4conv1fc head
    "r50-fpn-gn": ModelConfig(
        backbone=BackboneConfig(norm="gn"),
        fpn=FPNConfig(norm="gn"),
        box_head=BoxHeadConfig(convs=4, fcs=1, norm="gn"),
        mask_head=MaskHeadConfig(norm="gn"),
    ),
}
