"""Run by a Python that has MindSpore: its own cells, named as in mindspore-lab's RCNN, load our checkpoint.

Arguments: our .ckpt, .npz of inputs and gradients, .npz to write outputs to, .ckpt to write after one update.
"""

import json
import sys

import mindspore as ms
import numpy as np
from mindspore import nn, ops


def conv(inputs, outputs, side, stride=1, bias=False):
    return nn.Conv2d(inputs, outputs, side, stride, pad_mode="pad", padding=side // 2, has_bias=bias)


class Block(nn.Cell):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.down_sample = None
        if stride > 1 or inputs != outputs:
            self.down_sample = nn.SequentialCell([conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)])

    def construct(self, x):
        y = self.bn2(self.conv2(ops.relu(self.bn1(self.conv1(x)))))
        return ops.relu(y + (x if self.down_sample is None else self.down_sample(x)))


class Trunk(nn.Cell):
    """ResNet-18 of any width."""

    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = conv(3, width, 7, 2), nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, pad_mode="same")
        sides = [width, width, 2 * width, 4 * width, 8 * width]
        for stage in range(4):
            blocks = [Block(sides[stage], sides[stage + 1], 1 if stage == 0 else 2)]
            blocks.append(Block(sides[stage + 1], sides[stage + 1], 1))
            setattr(self, f"layer{stage + 1}", nn.SequentialCell(blocks))

    def construct(self, x):
        x = self.pool(ops.relu(self.bn1(self.conv1(x))))
        levels = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            levels.append(x)
        return levels


class Wrapped(nn.Cell):
    """A convolution in a sequence."""

    def __init__(self, inputs, outputs, side):
        super().__init__()
        self.conv = nn.SequentialCell([conv(inputs, outputs, side, bias=True)])

    def construct(self, x):
        return self.conv(x)


class Pyramid(nn.Cell):
    """The trunk with its pyramid."""

    def __init__(self, width, channels):
        super().__init__()
        self.bottom_up = Trunk(width)
        self.lateral_convs = nn.CellList([Wrapped(width * 2**k, channels, 1) for k in range(4)])
        self.fpn_convs = nn.CellList([Wrapped(channels, channels, 3) for _ in range(4)])

    def construct(self, x):
        found = [each(level) for each, level in zip(self.lateral_convs, self.bottom_up(x), strict=True)]
        for k in (2, 1, 0):
            size = found[k].shape[-2:]
            found[k] = found[k] + ops.interpolate(
                found[k + 1], size=size, mode="bilinear", align_corners=False
            )
        return [each(level) for each, level in zip(self.fpn_convs, found, strict=True)]


class Cells(nn.Cell):
    """Cells by name, nothing more."""

    def __init__(self, **cells):
        super().__init__()
        for name, cell in cells.items():
            setattr(self, name, cell)


class Network(nn.Cell):
    """Everything that has parameters."""

    def __init__(self, width, channels, fc, classes):
        super().__init__()
        self.backbone = Pyramid(width, channels)
        self.rpn_head = Cells(
            rpn_feat=Cells(
                rpn_conv=conv(channels, channels, 3, bias=True),
                rpn_rois_score=conv(channels, 3, 1, bias=True),
                rpn_rois_delta=conv(channels, 12, 1, bias=True),
            )
        )
        head = Cells(fc6=nn.Dense(49 * channels, fc), fc7=nn.Dense(fc, fc))
        self.bbox_head = Cells(
            head=head, bbox_cls=nn.Dense(fc, classes + 1), bbox_delta=nn.Dense(fc, 4 * classes)
        )
        layers = []
        for _ in range(4):
            layers += [conv(channels, channels, 3, bias=True), nn.ReLU()]
        layers += [nn.Conv2dTranspose(channels, channels, 2, 2, pad_mode="valid", has_bias=True), nn.ReLU()]
        self.mask_head = Cells(
            head=Cells(upsample=nn.SequentialCell(layers)),
            mask_fcn_logits=conv(channels, classes, 1, bias=True),
        )

    def construct(self, x, pooled, pooled_mask):
        levels = self.backbone(x)
        feat = self.rpn_head.rpn_feat
        hidden = ops.relu(feat.rpn_conv(levels[0]))
        rows = ops.relu(self.bbox_head.head.fc6(pooled.reshape(pooled.shape[0], -1)))
        rows = ops.relu(self.bbox_head.head.fc7(rows))
        return {
            **{f"p{k + 2}": level for k, level in enumerate(levels)},
            "objectness": feat.rpn_rois_score(hidden),
            "deltas": feat.rpn_rois_delta(hidden),
            "scores": self.bbox_head.bbox_cls(rows),
            "box_deltas": self.bbox_head.bbox_delta(rows),
            "masks": self.mask_head.mask_fcn_logits(self.mask_head.head.upsample(pooled_mask)),
        }


def main(checkpoint, inputs, outputs, after):
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    given = np.load(inputs)
    network = Network(**json.loads(str(given["sides"])))
    params = network.trainable_params()
    groups = [
        {"params": [each for each in params if each.ndim > 1], "weight_decay": float(given["decay"])},
        {"params": [each for each in params if each.ndim <= 1]},
        {"order_params": params},
    ]
    # All zero until the checkpoint is loaded, which has them.
    optimizer = nn.Momentum(groups, [0.0] * len(given["rates"]), momentum=0.9, weight_decay=0.0)
    cell = nn.TrainOneStepWithLossScaleCell(network, optimizer, ms.Tensor(1.0, ms.float32))
    missing, left = ms.load_param_into_net(cell, ms.load_checkpoint(checkpoint), strict_load=True)
    network.set_train(False)
    images = (ms.Tensor(given[name]) for name in ("image", "pooled", "pooled_mask"))
    found = {name: each.asnumpy() for name, each in network(*images).items()}
    optimizer(tuple(ms.Tensor(given[f"gradient {each.name}"]) for each in params))
    ms.save_checkpoint(cell, after)
    np.savez(outputs, missing=np.array([*missing, *left], dtype=str), parameters=len(params), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
