"""Names of segmentoly's PANet (Liu et al. 2018), instance-segmentation-security-0010.

Container: `.pth`, {"model": ...}.
Recognised: ResNeXt101PANetMaskRCNN: a path back up of deformable convolutions, RoIs of all four levels at
    once, fully connected fusion of masks.
Conventions: as segmentoly's others, but strides in the first 1x1 convolution of a block. Its deformable
    convolutions read nothing before the first cell, and the last one's value up to a cell beyond it; its
    first linear layer has no ReLU.
Notes: anchors are those that the checkpoint saved, else segmentoly's.
"""

from maskrcnn.weights.rewrite import Row, Table
from maskrcnn.weights.source import Source
from maskrcnn.weights.sources.segmentoly import HEADS, PYRAMID, SOURCE, TRUNK, describe

TABLE: Table = (
    *TRUNK,
    *PYRAMID,
    *(
        row
        for number, ours in ((1, "fpn.shrink{n+3}"), (2, "fpn.joined{n+3}"))
        for row in (
            Row(f"bupa.offset{number}.{{n}}.weight", f"{ours}.offset.weight"),
            Row(f"bupa.conv{number}.{{n}}.weight", f"{ours}.weight"),
            Row(f"bupa.gn_relu{number}.{{n}}.0.{{parameter}}", f"{ours}.norm.{{parameter}}"),
        )
    ),
    # Layers of the heads are sequences of a convolution, its norm and a ReLU; the first exist once a level.
    Row("detection_head.fc1.{n}.{parameter}", "box_head.fc1.level{n+2}.{parameter}"),
    Row("detection_head.fc2.0.{parameter}", "box_head.fc2.{parameter}"),
    Row("mask_head.conv1.{n}.0.weight", "mask_head.conv1.level{n+2}.weight"),
    Row("mask_head.conv1.{n}.1.{parameter}", "mask_head.conv1.level{n+2}.norm.{parameter}"),
    Row("mask_head.conv{i}.0.weight", "mask_head.conv{i}.weight"),
    Row("mask_head.conv{i}.1.{parameter}", "mask_head.conv{i}.norm.{parameter}"),
    *(
        row
        for theirs, ours in (("conv4_fc", "fc_conv1"), ("conv5_fc", "fc_conv2"))
        for row in (
            Row(f"mask_head.{theirs}.0.weight", f"mask_head.{ours}.weight"),
            Row(f"mask_head.{theirs}.1.{{parameter}}", f"mask_head.{ours}.norm.{{parameter}}"),
        )
    ),
    Row("mask_head.fc.0.{parameter}", "mask_head.foreground.{parameter}"),
    *HEADS,
)

# Before segmentoly's others, whose fingerprint it has as well.
PANET_SOURCE = Source(
    "segmentoly-panet", SOURCE.fingerprint | {"mask_head.conv4_fc.0.weight"}, TABLE, describe
)
