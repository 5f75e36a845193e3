"""The architecture of a Mask R-CNN read from the names and shapes of its parameters, and the reverse.

K classes, A anchors per cell.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from maskrcnn.config import (
    BackboneConfig,
    BoxHeadConfig,
    FPNConfig,
    MaskHeadConfig,
    ModelConfig,
    Norm,
    RPNConfig,
)
from maskrcnn.errors import UserError
from maskrcnn.presets import ONE_LEVEL_ANCHORS

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

# depth: blocks of res2..res5 (He et al. 2016, table 1)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def infer(shapes: Shapes, place: str) -> ModelConfig:
    """The ModelConfig of parameters by our names. Raises UserError when they are not a ResNet Mask R-CNN.

    What names and shapes do not say has its default: statistics, stride placement, thresholds, conventions.
    """
    shapes = _Named(shapes, place)
    neck = "fpn" if shapes.any("fpn.") else "c4" if shapes.any("res5.") else "dc5"
    classes = shapes["box_head.scores.weight"][0] - 1
    config = ModelConfig(
        classes=classes,
        neck=neck,  # type: ignore[arg-type]
        backbone=_backbone(shapes, "res5" if neck == "c4" else "backbone.res5"),
        rpn=_rpn(shapes),
        box_head=_box_head(shapes, classes, neck == "c4"),
        mask_head=_mask_head(shapes, classes),
    )
    if neck != "fpn":
        return replace(config, anchors=ONE_LEVEL_ANCHORS)
    every = shapes.first("mask_head.conv1") != "mask_head.conv1"
    return replace(config, fpn=_fpn(shapes), roi_levels="all" if every else "one")


_FULLY_CONNECTED = re.compile(
    r"(?:box_head\.(?:fc\d+(?:\.level\d)?|scores|deltas)|mask_head\.foreground)\.weight"
)


def check_sides(shapes: Shapes, theirs: Mapping[str, str], place: str) -> None:
    """Raises UserError where a weight has not as many sides as its layer, or one of 0.

    theirs: what a parameter of ours is called in the file.
    """
    for name, shape in shapes.items():
        wanted = 2 if _FULLY_CONNECTED.fullmatch(name) else 4
        if name.endswith(".weight") and ".norm." not in name and (len(shape) != wanted or 0 in shape):
            sides = " x ".join(map(str, shape)) or "one number"
            raise UserError(
                f"{place}: {theirs.get(name, name)} is {sides}, and such a layer has {wanted} sides above 0",
                hint="is the file complete?",
            )


class _Named(dict[str, Shape]):
    """Shapes by name; a missing name is the user's mistake."""

    def __init__(self, shapes: Shapes, place: str) -> None:
        super().__init__(shapes)
        self.place = place

    def __missing__(self, name: str) -> Shape:
        raise UserError(f"{self.place}: {name} is missing", hint="give the checkpoint of a whole Mask R-CNN")

    def any(self, start: str) -> bool:
        return any(name.startswith(start) for name in self)

    def count(self, start: str) -> int:
        """Of `start1`, `start2`, ... or `start.0`, `start.1`, ..., how many numbers there are."""
        pattern = re.compile(re.escape(start) + r"(\d+)\.")
        return len({match[1] for name in self if (match := pattern.match(name))})

    def first(self, layer: str) -> str:
        """The name of a head's first layer, or where it has one for each level that of the finest."""
        return f"{layer}.level2" if f"{layer}.level2.weight" in self else layer

    def norm(self, layer: str) -> Norm:
        if f"{layer}.norm.num_batches_tracked" in self:
            return "bn"
        if f"{layer}.norm.running_var" in self:
            return "frozen_bn"
        return "gn" if f"{layer}.norm.weight" in self else "none"


def _backbone(shapes: _Named, last: str) -> BackboneConfig:
    stages = ("backbone.res2", "backbone.res3", "backbone.res4", last)
    blocks = tuple(shapes.count(f"{stage}.") for stage in stages)
    basic, on_rois = "backbone.res2.0.conv3.weight" not in shapes, last == "res5"
    depths = [
        depth
        for depth, counts in BLOCKS.items()
        if (*counts[:3], 3 if on_rois else counts[3]) == blocks and basic == (depth < 50)
    ]
    if not depths:
        kind = "basic" if basic else "bottleneck"
        raise UserError(
            f"{shapes.place}: its trunk has {', '.join(map(str, blocks))} {kind} blocks",
            hint="a ResNet has 2,2,2,2 or 3,4,6,3 basic or 3,4,6,3, 3,4,23,3 or 3,8,36,3 bottleneck blocks",
        )
    middle, group_width = shapes["backbone.res2.0.conv2.weight"][:2]
    if basic:
        group_width = shapes["res5.0.conv2.weight"][0] // 8 if on_rois else BackboneConfig.group_width
    if middle % group_width and not basic:
        raise UserError(
            f"{shapes.place}: its trunk's convolutions have {middle} channels in groups of {group_width}",
            hint="is the file complete?",
        )
    return BackboneConfig(
        depth=depths[0],
        groups=1 if basic else middle // max(group_width, 1),
        group_width=group_width,
        width=shapes["backbone.stem.conv.weight"][0],
        norm=shapes.norm("backbone.stem.conv"),
    )


def _fpn(shapes: _Named) -> FPNConfig:
    norm = shapes.norm("fpn.output2")
    return FPNConfig(
        channels=shapes["fpn.output2.weight"][0],
        norm=norm,
        conv_bias=norm != "none" and "fpn.output2.bias" in shapes,
        bottom_up=shapes.norm("fpn.joined3") if shapes.any("fpn.joined") else None,
        deformable="faded" if shapes.any("fpn.joined3.offset.") else "none",
    )


def _rpn(shapes: _Named) -> RPNConfig:
    convs = shapes.count("rpn.conv")
    shape = shapes.get("rpn.conv1.weight", ())
    return RPNConfig(convs=convs, conv_side=shape[-1] if len(shape) == 4 else RPNConfig.conv_side)


def _box_head(shapes: _Named, classes: int, res5: bool) -> BoxHeadConfig:
    # With one class 4 rows are both, and mean the same.
    agnostic = shapes["box_head.deltas.weight"][0] == 4 and classes > 1
    if res5:
        return BoxHeadConfig(kind="res5", pool_side=14, class_agnostic=agnostic)
    convs = shapes.count("box_head.conv")
    conv1, fc1 = shapes.first("box_head.conv1"), shapes.first("box_head.fc1")
    out, pooled = shapes[f"{fc1}.weight"]
    channels = (
        shapes[f"{conv1}.weight"][0] if convs else shapes[f"{shapes.first('mask_head.conv1')}.weight"][1]
    )
    return BoxHeadConfig(
        convs=convs,
        channels=channels if convs else BoxHeadConfig.channels,
        fcs=shapes.count("box_head.fc"),
        fc_channels=out,
        norm=shapes.norm(conv1),
        pool_side=math.isqrt(pooled // max(channels, 1)),
        class_agnostic=agnostic,
    )


def _mask_head(shapes: _Named, classes: int) -> MaskHeadConfig:
    conv1 = shapes.first("mask_head.conv1")
    norm, fully_connected = shapes.norm(conv1), shapes.any("mask_head.foreground.")
    foreground = shapes.get("mask_head.foreground.weight", (4 * MaskHeadConfig.pool_side**2,))
    return MaskHeadConfig(
        convs=shapes.count("mask_head.conv"),
        channels=shapes["mask_head.upsample.weight"][1],
        norm=norm,
        conv_bias=norm != "none" and f"{conv1}.bias" in shapes,
        fully_connected=fully_connected,
        pool_side=math.isqrt(foreground[0]) // 2,
        class_agnostic=shapes["mask_head.logits.weight"][0] == 1 and classes > 1,
    )


def parameter_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Name and shape of everything in the state dict of `MaskRCNN(config)`, without building it."""
    trunk = config.backbone
    stages = [(1 if trunk.depth < 50 else 4) * trunk.width * 2**index for index in range(4)]
    shapes = dict(_conv("backbone.stem.conv", trunk.width, 3, 7, trunk.norm))
    for number in (2, 3, 4, 5):
        name = "res5" if number == 5 and config.neck == "c4" else f"backbone.res{number}"
        shapes |= _stage(name, number, stages, trunk)
    channels = config.fpn.channels if config.neck == "fpn" else stages[2 if config.neck == "c4" else 3]
    if config.neck == "fpn":
        shapes |= dict(_fpn_shapes(config.fpn, stages))
    per_cell = len(config.anchors.sizes[0]) * len(config.anchors.ratios)
    for number in range(1, config.rpn.convs + 1):
        shapes |= _conv(f"rpn.conv{number}", channels, channels, config.rpn.conv_side)
    shapes |= _conv("rpn.objectness", per_cell, channels, 1)
    shapes |= _conv("rpn.deltas", 4 * per_cell, channels, 1)
    roi_channels = stages[3] if config.neck == "c4" else channels
    return shapes | dict(_box_shapes(config, roi_channels)) | dict(_mask_shapes(config, roi_channels))


def _stage(name: str, number: int, stages: list[int], trunk: BackboneConfig) -> dict[str, Shape]:
    out, channels_in = stages[number - 2], stages[number - 3] if number > 2 else trunk.width
    middle = trunk.groups * trunk.group_width * 2 ** (number - 2)
    on_rois = name == "res5"  # bottlenecks whatever the trunk is made of
    shapes: dict[str, Shape] = {}
    for index in range(3 if on_rois else BLOCKS[trunk.depth][number - 2]):
        block = f"{name}.{index}"
        if index == 0 and (number > 2 or channels_in != out):
            shapes |= _conv(f"{block}.shortcut", out, channels_in, 1, trunk.norm)
        if trunk.depth < 50 and not on_rois:
            shapes |= _conv(f"{block}.conv1", out, channels_in, 3, trunk.norm)
            shapes |= _conv(f"{block}.conv2", out, out, 3, trunk.norm)
        else:
            shapes |= _conv(f"{block}.conv1", middle, channels_in, 1, trunk.norm)
            shapes |= _conv(f"{block}.conv2", middle, middle // trunk.groups, 3, trunk.norm)
            shapes |= _conv(f"{block}.conv3", out, middle, 1, trunk.norm)
        channels_in = out
    return shapes


def _fpn_shapes(config: FPNConfig, stages: list[int]) -> Iterator[tuple[str, Shape]]:
    width = config.channels
    for number, channels_in in enumerate(stages, start=2):
        yield from _conv(f"fpn.lateral{number}", width, channels_in, 1, config.norm, config.conv_bias)
        yield from _conv(f"fpn.output{number}", width, width, 3, config.norm, config.conv_bias)
    for number in (3, 4, 5) if config.bottom_up else ():
        for name in (f"fpn.shrink{number}", f"fpn.joined{number}"):
            yield from _conv(name, width, width, 3, config.bottom_up or "none")
            if config.deformable != "none":
                yield f"{name}.offset.weight", (2 * 3 * 3, width, 3, 3)


def _box_shapes(config: ModelConfig, channels: int) -> Iterator[tuple[str, Shape]]:
    head = config.box_head
    fc = head.kind == "fc"
    first = 1 if config.roi_levels == "all" else 0
    for number in range(1, (head.convs if fc else 0) + 1):
        for name in _names(f"box_head.conv{number}", number == first):
            yield from _conv(name, head.channels, channels, 3, head.norm)
        channels = head.channels
    features = channels * (head.pool_side**2 if fc and head.fcs else 1)
    for number in range(1, (head.fcs if fc else 0) + 1):
        for name in _names(f"box_head.fc{number}", number == first and not head.convs):
            yield from _linear(name, head.fc_channels, features)
        features = head.fc_channels
    yield from _linear("box_head.scores", config.classes + 1, features)
    yield from _linear("box_head.deltas", 4 if head.class_agnostic else 4 * config.classes, features)


def _mask_shapes(config: ModelConfig, channels: int) -> Iterator[tuple[str, Shape]]:
    head = config.mask_head
    for number in range(1, head.convs + 1):
        for name in _names(f"mask_head.conv{number}", number == 1 and config.roi_levels == "all"):
            yield from _conv(name, head.channels, channels, 3, head.norm, head.conv_bias)
        channels = head.channels
    if head.fully_connected:
        half, cells = channels // 2, head.pool_side**2
        yield from _conv("mask_head.fc_conv1", channels, channels, 3, head.norm, head.conv_bias)
        yield from _conv("mask_head.fc_conv2", half, channels, 3, head.norm, head.conv_bias)
        yield from _linear("mask_head.foreground", 4 * cells, half * cells)
    yield "mask_head.upsample.weight", (channels, head.channels, 2, 2)
    yield "mask_head.upsample.bias", (head.channels,)
    yield from _conv("mask_head.logits", 1 if head.class_agnostic else config.classes, head.channels, 1)


def _names(layer: str, each_level: bool) -> list[str]:
    """What a layer of a head is called, or those that it has for each level that RoIs are pooled from."""
    return [f"{layer}.level{number}" for number in (2, 3, 4, 5)] if each_level else [layer]


def _conv(
    name: str, channels_out: int, channels_in: int, side: int, norm: Norm = "none", bias: bool = False
) -> list[tuple[str, Shape]]:
    shapes: list[tuple[str, Shape]] = [(f"{name}.weight", (channels_out, channels_in, side, side))]
    if bias or norm == "none":
        shapes.append((f"{name}.bias", (channels_out,)))
    if norm == "none":
        return shapes
    kinds = ["weight", "bias"] if norm == "gn" else ["weight", "bias", "running_mean", "running_var"]
    shapes += [(f"{name}.norm.{kind}", (channels_out,)) for kind in kinds]
    return [*shapes, (f"{name}.norm.num_batches_tracked", ())] if norm == "bn" else shapes


def _linear(name: str, features_out: int, features_in: int) -> list[tuple[str, Shape]]:
    return [(f"{name}.weight", (features_out, features_in)), (f"{name}.bias", (features_out,))]


def name_of(config: ModelConfig) -> str:
    """How people call it: `R50-FPN`, `X101-32x8d-PANet`, `R50-FPN 4conv1fc gn`, `R50-C4 folded`."""
    trunk, box = config.backbone, config.box_head
    parts = [f"X{trunk.depth}-{trunk.groups}x{trunk.group_width}d" if trunk.groups > 1 else f"R{trunk.depth}"]
    panet = config.fpn.bottom_up is not None and config.roi_levels == "all"
    words = ["-".join([*parts, "PANet" if panet else config.neck.upper()])]
    if box.kind == "fc" and (box.convs, box.fcs) != (0, 2):
        words.append(f"{box.convs}conv{box.fcs}fc")
    if trunk.norm != "frozen_bn":
        words.append("folded" if trunk.norm == "none" else trunk.norm)
    if config.fpn.bottom_up is not None and config.neck == "fpn" and not panet:
        words.append("bottom-up")
    if box.class_agnostic or config.mask_head.class_agnostic:
        words.append("class-agnostic")
    return " ".join(words)
