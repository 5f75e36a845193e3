"""segmentoly's PANet in names, shapes and steps, written down from its modules with torch's functions."""

from functools import reduce

import numpy as np
import torch
from frameworks import Plan
from lineage import Shapes, layer, norm, segmentoly_shapes
from torch import Tensor, nn

LEVELS = 4
State = dict[str, Tensor]


def panet_shapes(width: int = 8, channels: int = 64, classes: int = 5, fc: int = 24) -> Shapes:
    """Of ResNeXt101PANetMaskRCNN with narrow layers on a trunk of 50 layers in two groups."""
    plan = Plan(norm="bn", width=width, groups=2, group_width=4, channels=channels, fc=fc, classes=classes)
    plain = segmentoly_shapes(plan)
    left_out = ("detection_head.fc", "mask_head.conv_fcn")
    shapes = {name: shape for name, shape in plain.items() if not name.startswith(left_out)}
    for number in range(3):
        for role in (1, 2):
            shapes[f"bupa.offset{role}.{number}.weight"] = (18, channels, 3, 3)
            shapes[f"bupa.conv{role}.{number}.weight"] = (channels, channels, 3, 3)
            shapes |= dict(norm(f"bupa.gn_relu{role}.{number}.0", "gn", channels))
    for number in range(LEVELS):
        shapes |= layer(f"detection_head.fc1.{number}", (fc, 49 * channels))
        shapes |= _conv(f"mask_head.conv1.{number}", channels, channels)
    shapes |= layer("detection_head.fc2.0", (fc, fc))
    for name in ("conv2", "conv3", "conv4", "conv4_fc"):
        shapes |= _conv(f"mask_head.{name}", channels, channels)
    shapes |= _conv("mask_head.conv5_fc", channels // 2, channels)
    return shapes | layer("mask_head.fc.0", (784, channels // 2 * 196))


def _conv(name: str, out: int, channels: int) -> Shapes:
    return {f"{name}.0.weight": (out, channels, 3, 3)} | dict(norm(f"{name}.1", "gn", out))


def bottom_up(state: State, levels: list[Tensor]) -> list[Tensor]:
    """P2..P6 -> N2..N6."""
    found = levels[:1]
    for number in range(3):
        shrunk = deformable(state, 1, number, found[-1], 2)
        found.append(deformable(state, 2, number, shrunk + levels[number + 1], 1))
    return [*found, nn.functional.max_pool2d(found[-1], 1, 2)]


def deformable(state: State, role: int, number: int, x: Tensor, stride: int) -> Tensor:
    offsets = nn.functional.conv2d(x, state[f"bupa.offset{role}.{number}.weight"], stride=stride, padding=1)
    weight = state[f"bupa.conv{role}.{number}.weight"]
    sampled = torch.from_numpy(columns(x.numpy(), offsets.numpy(), stride))
    y = torch.einsum("oct,bctyx->boyx", weight.flatten(2), sampled)
    norm = f"bupa.gn_relu{role}.{number}.0"
    return nn.functional.group_norm(y, 32, state[f"{norm}.weight"], state[f"{norm}.bias"]).relu()


def columns(x: np.ndarray, offsets: np.ndarray, stride: int) -> np.ndarray:
    """x (B, C, H, W), offsets (B, 18, h, w) -> samples (B, C, 9, h, w), one by one as its kernel takes them.

    A place before 0 or from H or W on is zero; the cell after the last one is the last one.
    """
    count, channels, height, width = x.shape
    rows, places = offsets.shape[2:]
    found = np.zeros((count, channels, 9, rows, places), np.float32)
    for image, tap, row, place in np.ndindex(count, 9, rows, places):
        down = np.float32(row * stride - 1 + tap // 3) + offsets[image, 2 * tap, row, place]
        across = np.float32(place * stride - 1 + tap % 3) + offsets[image, 2 * tap + 1, row, place]
        if not (0 <= down < height and 0 <= across < width):
            continue
        y, x0 = int(down), int(across)
        beyond = down - y, across - x0
        y1, x1 = min(y + 1, height - 1), min(x0 + 1, width - 1)
        cells = x[image]
        upper = cells[:, y, x0] * (1 - beyond[1]) + cells[:, y, x1] * beyond[1]
        lower = cells[:, y1, x0] * (1 - beyond[1]) + cells[:, y1, x1] * beyond[1]
        found[image, :, tap, row, place] = upper * (1 - beyond[0]) + lower * beyond[0]
    return found


def box_head(state: State, views: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Features 4 x (R, C, 7, 7) -> logits (R, K + 1), background first, deltas (R, 4 K + 4)."""
    each = [_linear(state, f"detection_head.fc1.{n}", view.flatten(1)) for n, view in enumerate(views)]
    x = _linear(state, "detection_head.fc2.0", reduce(torch.maximum, each)).relu()
    return _linear(state, "detection_head.cls_score", x), _linear(state, "detection_head.bbox_pred", x)


def mask_head(state: State, views: list[Tensor]) -> Tensor:
    """Features 4 x (R, C, 14, 14) -> logits (R, K + 1, 28, 28), background first."""
    each = [_block(state, f"mask_head.conv1.{number}", view) for number, view in enumerate(views)]
    x = _block(state, "mask_head.conv3", _block(state, "mask_head.conv2", reduce(torch.maximum, each)))
    y = _block(state, "mask_head.conv5_fc", _block(state, "mask_head.conv4_fc", x))
    foreground = _linear(state, "mask_head.fc.0", y.flatten(1)).relu()
    x = _block(state, "mask_head.conv4", x)
    weight, bias = (state[f"mask_head.upconv.{part}"] for part in ("weight", "bias"))
    x = nn.functional.conv_transpose2d(x, weight, bias, stride=2).relu()
    x = nn.functional.conv2d(x, state["mask_head.segm.weight"], state["mask_head.segm.bias"])
    return x + foreground.reshape(-1, 1, 28, 28)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return nn.functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _block(state: State, name: str, x: Tensor) -> Tensor:
    x = nn.functional.conv2d(x, state[f"{name}.0.weight"], padding=1)
    return nn.functional.group_norm(x, 32, state[f"{name}.1.weight"], state[f"{name}.1.bias"]).relu()
