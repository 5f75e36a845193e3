"""torchvision's reference recipe for Mask R-CNN on a COCO data set: the peer of `maskrcnn train`.

python bench/torchvision_recipe.py --data DIR --weights START.pth --steps 500 --out THEIRS.pth
DIR holds `images` and an instances.json. As references/detection/train.py: SGD 0.02 at 16 images, momentum
0.9, weight decay 1e-4, steps at 16/26 and 22/26 of the run, horizontal flips, batches of like shapes, crowds
left out, frozen batch norms, three trainable stages. A short run warms up for a tenth of it, not 1,000 steps.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

BATCH = 2
SHAPES = 2.0 ** np.linspace(-1, 1, 7)


def main() -> None:
    """Train, and write the state dict and a line of losses and times every 20 steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="state dict to start from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--short", type=int, default=320)
    parser.add_argument("--long", type=int, default=533)
    options = parser.parse_args()
    torch.manual_seed(0)
    data = Photographs(options.data)
    model = network(len(data.labels) + 1, options.short, options.long)
    model.load_state_dict(torch.load(options.weights, weights_only=True))
    train(model.train(), data, options.steps, options.out.with_suffix(".jsonl"))
    torch.save(model.state_dict(), options.out)


def network(classes: int, short: int, long: int) -> MaskRCNN:
    """R50-FPN as `maskrcnn_resnet50_fpn` builds it from a pretrained trunk."""
    trunk = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    return MaskRCNN(trunk, num_classes=classes, min_size=short, max_size=long)


class Photographs:
    """Images with annotations, as tensors; one in two mirrored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "images"
        self.coco = COCO(folder / "instances.json")
        self.labels = {category: place + 1 for place, category in enumerate(sorted(self.coco.getCatIds()))}
        self.ids = [image for image in sorted(self.coco.getImgIds()) if self.annotations(image)]
        shapes = [self.coco.imgs[image]["width"] / self.coco.imgs[image]["height"] for image in self.ids]
        self.groups = np.digitize(shapes, SHAPES)

    def annotations(self, image: int) -> list[dict]:
        """Those with a box; crowds count, as in the reference, until targets are made."""
        found = self.coco.loadAnns(self.coco.getAnnIds([image]))
        return [each for each in found if min(each["bbox"][2:]) > 1]

    def __getitem__(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        entry = self.coco.imgs[self.ids[number]]
        pixels = np.array(Image.open(self.folder / entry["file_name"]).convert("RGB"))
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        kept = [each for each in self.annotations(self.ids[number]) if not each["iscrowd"]]
        boxes = torch.tensor([each["bbox"] for each in kept]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([self.labels[each["category_id"]] for each in kept], dtype=torch.int64)
        masks = [torch.from_numpy(self.coco.annToMask(each)) for each in kept]
        stacked = torch.stack(masks) if masks else torch.zeros((0, *image.shape[1:]), dtype=torch.uint8)
        if torch.rand(1) < 0.5:
            image, stacked = image.flip(-1), stacked.flip(-1)
            boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
        return image, {"boxes": boxes, "labels": labels, "masks": stacked}

    def batches(self) -> Iterator[list[int]]:
        """Numbers of images of like shape, without end."""
        while True:
            waiting: dict[int, list[int]] = {}
            for number in torch.randperm(len(self.ids)).tolist():
                group = waiting.setdefault(self.groups[number], [])
                group.append(number)
                if len(group) == BATCH:
                    yield waiting.pop(self.groups[number])


def train(model: nn.Module, data: Photographs, steps: int, log: Path) -> None:
    """The loop of the reference, with CPU time in its log."""
    peak, warm_up = 0.02 * BATCH / 16, max(1, min(1000, steps // 10))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=peak, momentum=0.9, weight_decay=1e-4)
    began = time.monotonic()
    with log.open("w") as file:
        for step, numbers in zip(range(steps), data.batches(), strict=False):
            share = min(1.0, 0.001 + 0.999 * step / warm_up)
            share *= 0.1 ** sum(step >= round(steps * part / 26) for part in (16, 22))
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            images, targets = zip(*(data[number] for number in numbers), strict=True)
            losses = model(list(images), list(targets))
            total = sum(losses.values(), torch.zeros(()))
            if not math.isfinite(total.item()):
                raise SystemExit(f"step {step}: the loss is {total.item()}")
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            if step % 20 == 0 or step == steps - 1:
                line = {"step": step, "loss": total.item(), "cpu_s": time.process_time()}
                file.write(json.dumps(line | {"wall_s": time.monotonic() - began}) + "\n")
                file.flush()


if __name__ == "__main__":
    main()
