"""`maskrcnn train`: a data set in COCO format becomes a model file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from maskrcnn.data.coco import Dataset


def train(
    data: Annotated[Path, typer.Option(help="COCO JSON file, or a folder that holds instances.json.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint, metrics and model.safetensors.")],
    model: Annotated[str, typer.Option(help="Model file to start from, or `example`.")] = "example",
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the photographs; `images` beside the JSON file when left out."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps to train.", min=1)] = 1000,
    batch: Annotated[int, typer.Option(help="Images a step.", min=1)] = 2,
    rate: Annotated[float, typer.Option("--lr", help="Peak learning rate.", min=0)] = 0.0025,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, xpu.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that the folder holds.")
    ] = False,
) -> None:
    """Train a model on your own photographs."""
    import torch

    from maskrcnn.backends.pytorch import choose_device
    from maskrcnn.errors import UserError
    from maskrcnn.model.mask_rcnn import MaskRCNN
    from maskrcnn.predict import model_path
    from maskrcnn.training.initial import for_classes, initialise, load_weights
    from maskrcnn.training.loop import Training
    from maskrcnn.training.loop import train as run
    from maskrcnn.weights.model_file import read_model_file

    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists() != resume:
        problem = "there is no run to resume" if resume else "already holds a run"
        hint = "leave --resume out" if resume else "add --resume to go on, or name another --out"
        raise UserError(f"{out}: {problem}", hint=hint)
    dataset = _read(data, images)
    path = model_path(model)
    spec, state = read_model_file(path)
    spec = for_classes(spec, dataset.classes)
    torch.manual_seed(0)
    network = MaskRCNN(spec.model)
    initialise(network)
    restarted = load_weights(network, state, path)
    _say(f"{len(dataset)} images, {len(dataset.labels)} objects, {len(dataset.classes)} classes")
    if restarted:
        _say(f"starting anew for these classes: {', '.join(restarted)}")
    training = Training(steps=steps, batch=batch, learning_rate=rate)
    print(run(network, spec, dataset, training, out, choose_device(device)))


def _read(data: Path, images: Path | None) -> "Dataset":
    from maskrcnn.data.coco import read_coco

    annotations = data / "instances.json" if data.is_dir() else data
    beside = annotations.parent / "images"
    return read_coco(annotations, images or (beside if beside.is_dir() else annotations.parent))


def _say(words: str) -> None:
    print(words, file=sys.stderr)
