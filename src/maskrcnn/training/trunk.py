"""Teach a trunk to name labelled crops, so that detection does not start from noise."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import BackboneConfig, ModelConfig
from maskrcnn.data.batches import in_threads
from maskrcnn.data.dataset import Dataset
from maskrcnn.model.resnet import ResNet, stage_channels
from maskrcnn.training.checkpoint import load_checkpoint, save_checkpoint
from maskrcnn.training.crops import Crops, cut, draw
from maskrcnn.training.schedule import factor


@dataclass(frozen=True)
class TrunkRecipe:
    """How to teach a trunk.

    sides: of the crops in network pixels, by equal parts of the run. held_out: one image in so many tests.
    smallest: longer side of the smallest instance used, in image pixels.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(depth=18, width=48, norm="bn"))
    steps: int = 6000
    warm_up: int = 200
    batch: int = 64
    learning_rate: float = 0.08
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    sides: tuple[int, ...] = (64, 80, 96, 112)
    crop_side: int = 128
    smallest: float = 24.0
    held_out: int = 20
    save_every: int = 500
    seed: int = 1


class Namer(nn.Module):
    """A trunk, the mean over its last map, and one linear layer."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: BackboneConfig, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.backbone = ResNet(backbone)
        self.scores = nn.Linear(stage_channels(backbone, 5), classes)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) in 0..255 -> logits (B, K)."""
        return self.scores(self.backbone((image - self.mean) / self.std)[-1].mean((2, 3)))


def train_trunk(dataset: Dataset, recipe: TrunkRecipe, out: Path) -> Path:
    """Train and test on crops of `dataset`, continuing what `out` holds; -> the file with the trunk."""
    checkpoint, done = out / "trunk_checkpoint.pt", out / "trunk.pt"
    if done.exists():
        return done
    order = np.random.default_rng(0).permutation(len(dataset))
    test = cut(dataset, order[:: recipe.held_out], recipe.crop_side, recipe.smallest)
    train = cut(dataset, np.delete(order, np.s_[:: recipe.held_out]), recipe.crop_side, recipe.smallest)
    torch.manual_seed(recipe.seed)
    defaults = ModelConfig()
    namer = Namer(recipe.backbone, len(dataset.classes), defaults.mean, defaults.std).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.SGD(
        namer.parameters(),
        recipe.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    step = _restore(checkpoint, namer, optimizer) if checkpoint.exists() else 0
    with (out / "trunk.jsonl").open("a", encoding="utf-8") as log:
        while step < recipe.steps:
            end = min(recipe.steps, step + recipe.save_every)
            metrics = _train_part(namer, optimizer, train, recipe, step, end) | _test(namer, test, recipe)
            step = end
            log.write(json.dumps(metrics) + "\n")
            log.flush()
            state = {"step": step, "namer": namer.state_dict(), "optimizer": optimizer.state_dict()}
            save_checkpoint(checkpoint, state)
    save_checkpoint(done, {"backbone": namer.backbone.state_dict(), "top1": metrics["top1"]})
    return done


def _restore(checkpoint: Path, namer: Namer, optimizer: torch.optim.Optimizer) -> int:
    state = load_checkpoint(checkpoint)
    namer.load_state_dict(state["namer"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _train_part(
    namer: Namer, optimizer: torch.optim.Optimizer, crops: Crops, recipe: TrunkRecipe, step: int, end: int
) -> dict[str, float]:
    """Steps `step` to `end`; its crops follow from the seed and the step, so a resumed run repeats none."""
    namer.train()
    side = recipe.sides[min(len(recipe.sides) - 1, step * len(recipe.sides) // recipe.steps)]
    started, losses = time.monotonic(), []

    def make(step: int) -> tuple[Tensor, Tensor]:
        return draw(crops, recipe.batch, side, np.random.default_rng((recipe.seed, step)))

    for images, labels in in_threads(make, range(step, end), threads=2, ahead=4):
        share = factor("cosine", step, recipe.steps, recipe.warm_up)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * share
        with torch.autocast("cpu", torch.bfloat16):
            logits = namer(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        step += 1
    seconds = time.monotonic() - started
    return {
        "step": end,
        "side": side,
        "loss": round(float(np.mean(losses)), 4),
        "crops_per_second": round(recipe.batch * len(losses) / seconds, 1),
        "minutes": round(seconds / 60, 2),
    }


@torch.no_grad()
def _test(namer: Namer, crops: Crops, recipe: TrunkRecipe) -> dict[str, float]:
    """Share of held-out crops named correctly, over crops and as a mean over classes."""
    namer.eval()
    side = recipe.crop_side
    margin = (crops.pixels.shape[1] - side) // 2
    right = []
    for start in range(0, len(crops), 64):
        pixels = torch.from_numpy(
            crops.pixels[start : start + 64, margin : margin + side, margin : margin + side]
        )
        with torch.autocast("cpu", torch.bfloat16):
            logits = namer(pixels.permute(0, 3, 1, 2).float())
        right.append(logits.argmax(1).numpy() == crops.labels[start : start + 64])
    correct = np.concatenate(right)
    by_class = [correct[crops.labels == label].mean() for label in np.unique(crops.labels)]
    return {"top1": round(float(correct.mean()), 4), "top1_by_class": round(float(np.mean(by_class)), 4)}
