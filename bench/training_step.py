"""A training step against torchvision's: same weights, images and optimiser, interleaved, the median of
the pairs.

python bench/training_step.py [--side 512 --batch 2 --threads 2 --pairs 7 --precision fp32 --json]
Forward, five losses, backward, gradient clipping by norm and a step of SGD on both sides, of an R50-FPN with
frozen batch norms, 91 classes, 512 sampled proposals an image and twelve objects in each image.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from against_torchvision import interleaved
from calibrated import calibrated_torchvision, photograph_like
from torch import Tensor, nn

from maskrcnn.data.batches import Batch, Instances
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.training.processes import Processes
from maskrcnn.training.recipe import Training
from maskrcnn.training.update import set_mode, start, update
from maskrcnn.weights.convert import convert
from maskrcnn.weights.model_file import read_model_file

OBJECTS = 12


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("side", 512), ("batch", 2), ("threads", 2), ("pairs", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    image = photograph_like(options.side, options.side)
    theirs = calibrated_torchvision(torch.from_numpy(image).permute(2, 0, 1).float() / 255)
    ours = converted(theirs, options.side)
    batch = scenes(image, options.batch)

    step_theirs = their_step(theirs.to(device).train(), batch, options.precision, device)
    step_ours = our_step(ours, batch, options.precision, device)
    first = step_theirs(), step_ours()
    seconds = interleaved(step_theirs, step_ours, options.pairs)
    report = {
        "image": [options.batch, options.side, options.side],
        "precision": options.precision,
        "threads": options.threads,
        "first_loss": [round(float(loss), 3) for loss in first],
        "torchvision_s": statistics.median(a for a, _ in seconds),
        "maskrcnn_s": statistics.median(b for _, b in seconds),
        "ratio": statistics.median(a / b for a, b in seconds),
        "ratios": [round(a / b, 2) for a, b in seconds],
    }
    lines = [f"{key:14} {value}" for key, value in report.items()]
    print(json.dumps(report) if options.json else "\n".join(lines))


def converted(theirs: nn.Module, side: int) -> MaskRCNN:
    """Our network with their weights."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "torchvision.pth"), Path(folder, "ours.safetensors")
        torch.save(theirs.state_dict(), source)
        convert(source, target, settings=[f"preprocess.short={side}", f"preprocess.long={side}"])
        spec, state = read_model_file(target)
        model = MaskRCNN(spec.model)
        model.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in state.items()})
    return model


def scenes(image: np.ndarray, count: int) -> Batch:
    """The same image `count` times with twelve elliptic objects of different sizes."""
    side = image.shape[0]
    rng = np.random.default_rng(0)
    instances = []
    rows, columns = np.mgrid[:side, :side]
    for _ in range(count):
        sides = rng.uniform(side / 16, side / 2, (OBJECTS, 2))
        corners = rng.uniform(0, 1, (OBJECTS, 2)) * (side - sides)
        boxes = np.concatenate([corners, corners + sides], 1).astype(np.float32)
        centres, radii = corners + sides / 2, sides / 2
        masks = np.stack(
            [
                ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1
                for (x, y), (a, b) in zip(centres, radii, strict=True)
            ]
        )
        labels = rng.integers(0, 90, OBJECTS)
        instances.append(Instances(boxes, labels, np.zeros(OBJECTS, bool), masks.astype(np.uint8)))
    planes = np.stack([image.transpose(2, 0, 1)] * count)
    size = np.array([[side, side]] * count)
    return Batch(planes, size, tuple(instances), tuple(range(count)), tuple(range(count)))


def their_step(model: nn.Module, batch: Batch, precision: str, device: torch.device) -> Callable[[], Tensor]:
    """As torchvision's reference trains: its transform, losses and SGD."""
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=1e-5, momentum=0.9, weight_decay=1e-4
    )
    images = [torch.from_numpy(planes).to(device).float() / 255 for planes in batch.image]
    targets = [
        {
            "boxes": torch.from_numpy(one.boxes).to(device),
            "labels": torch.from_numpy(one.labels).to(device) + 1,
            "masks": torch.from_numpy(one.masks).to(device),
        }
        for one in batch.instances
    ]

    def step() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = sum(model(images, targets).values(), torch.zeros((), device=device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        return loss.detach()

    return step


def our_step(model: MaskRCNN, batch: Batch, precision: str, device: torch.device) -> Callable[[], Tensor]:
    """As our trainer does it."""
    training = Training(
        steps=1000,
        batch=len(batch.images),
        learning_rate=1e-5,
        base_batch=0,
        precision=precision,
        average=0.0,
    )
    run = start(model, training, device, Processes())
    set_mode(run.model, training, settled=False)
    done = iter(range(10**9))

    def step() -> Tensor:
        losses = update(run, [batch], training, next(done), training.steps)
        assert losses is not None
        return losses[5]

    return step


if __name__ == "__main__":
    main()
