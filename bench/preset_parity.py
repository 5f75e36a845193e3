"""Every architecture at its full width on every engine: `python bench/preset_parity.py [NAME ...]`.

Exports a network of each name of `maskrcnn.presets.ARCHITECTURES`, for any size and for a fixed batch of two,
and prints how far ONNX Runtime and OpenVINO in f32 are from PyTorch: what they miss of about 50 objects an
image, boxes in network pixels, scores, share of mask pixels that agree. Weights are random with statistics as
trained ones have, and the conventions are detectron2's. Exit code 1 where something is missed, or beyond 0.01
pixels, 1e-5 (group norm 2e-4) or below 99.99 %.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import torch
from calibrated import photograph_like
from torch import Tensor, nn

from maskrcnn.config import BoxHeadConfig, ModelConfig
from maskrcnn.detections import Raw
from maskrcnn.export.form import Form
from maskrcnn.export.onnx import export_onnx
from maskrcnn.model.layers import ConvNorm, FrozenBatchNorm
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.predict import Backend, open_model
from maskrcnn.presets import ARCHITECTURES, COCO, DETECTRON2_INPUT
from maskrcnn.spec import Spec
from maskrcnn.weights.model_file import write_model_file

SIZE = (224, 320)
FORMS = {"any": (Form(), (1, 2)), "fixed": (Form(SIZE, 2), (2,))}
# Standard deviations of what trained predictors return.
SPREADS = {
    "rpn.objectness": 2.0,
    "rpn.deltas": 0.3,
    "box_head.scores": 1.2,
    "box_head.deltas": 0.5,
    "mask_head.logits": 2.0,
}
DETECTIONS = 50
LIMITS = (0.01, 1e-5, 0.9999)
LEAST = BoxHeadConfig().score_over + LIMITS[1]
# The deviation of a few cells is small and is divided by: float32 in torch is 2e-5 from float64 there.
GROUP_NORM_SCORE = 2e-4


def main() -> None:
    """Read the arguments, compare and print."""
    parser = argparse.ArgumentParser(description="Compare engines on every architecture.")
    parser.add_argument("names", nargs="*", help="of ARCHITECTURES; all where there is none")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    heads = f"{'engine':12}{'found':>6}{'missed':>7}{'px':>10}{'score':>10}{'masks':>11}"
    print(f"{'network':16}{'input':8}{'batch':>6}  {heads}")
    within = True
    for name in arguments.names or ARCHITECTURES:
        start = process_time()
        with TemporaryDirectory() as folder:
            within &= compared(name, Path(folder), arguments.threads)
        print(f"{'':16}{process_time() - start:.0f} s of CPU time", file=sys.stderr, flush=True)
    sys.exit(0 if within else 1)


def compared(name: str, folder: Path, threads: int) -> bool:
    """Print a row for each form, batch and engine; whether all are within the limits."""
    config, source, graph = ARCHITECTURES[name], folder / "model.safetensors", folder / "graph.onnx"
    write_lively(config, source)
    model = open_model(source, "cpu", threads=threads, engine="pytorch").backend
    score = GROUP_NORM_SCORE if config.backbone.norm == "gn" else LIMITS[1]
    within = True
    for word, (form, batches) in FORMS.items():
        export_onnx(source, graph, form)
        for engine in ("onnxruntime", "openvino"):
            backend = open_model(graph, "cpu", threads=threads, engine=engine).backend
            for count in batches:
                found, missed, px, off, same = distance(model, backend, count)
                within &= missed == 0 and px <= LIMITS[0] and off <= score and same >= LIMITS[2]
                row = f"{name:16}{word:8}{count:>6}  {engine:12}{found:>6}{missed:>7}{px:>10.1e}{off:>10.1e}"
                print(f"{row}{100 * same:>10.4f}%", flush=True)
    return within


def distance(model: Backend, other: Backend, count: int) -> tuple[int, int, float, float, float]:
    """Detections, those that only one side has, and of the others the largest distance of a box and of a
    score and the share of mask pixels that agree.

    The same detection is the nearest of its class, for equal scores may change places, within a pixel. One
    that only one side has counts unless its score is at the least that a model returns.
    """
    image = scenes(count)
    size = np.array([SIZE, (SIZE[0] - 9, SIZE[1] - 20)])[:count]
    a, b = model.run(image, size), other.run(image, size)
    missed, px, off, same = 0, [0.0], [0.0], [1.0]
    for row in range(count):
        real, theirs = (np.flatnonzero(raw.scores[row] > 0) for raw in (a, b))
        apart = np.abs(a.boxes[row][real, None] - b.boxes[row][theirs]).max(2)
        apart[a.labels[row][real, None] != b.labels[row][theirs]] = np.inf
        found, nearest = apart.min(1) < 1, theirs[apart.argmin(1)]
        alone = [a.scores[row][real[~found]], b.scores[row][np.setdiff1d(theirs, nearest[found])]]
        missed += sum(int((scores > LEAST).sum()) for scores in alone)
        mine, other_rows = real[found], nearest[found]
        px.append(apart.min(1)[found].max(initial=0))
        off.append(np.abs(a.scores[row][mine] - b.scores[row][other_rows]).max(initial=0))
        same.append(((a.masks[row][mine] >= 0.5) == (b.masks[row][other_rows] >= 0.5)).mean())
    return int((a.scores > 0).sum()), missed, max(px), max(off), float(np.mean(same[1:]))


def scenes(count: int) -> np.ndarray:
    """(B, 3, H, W) in 0..255, the second one mirrored."""
    planes = photograph_like(*SIZE).transpose(2, 0, 1).astype(np.float32)
    return np.ascontiguousarray(np.stack([planes, planes[:, :, ::-1]])[:count])


@torch.no_grad()
def write_lively(config: ModelConfig, path: Path) -> None:
    """A random network that finds about DETECTIONS objects in the first scene."""
    torch.manual_seed(0)
    model = MaskRCNN(config).eval().requires_grad_(False)
    image, size = torch.from_numpy(scenes(1)), torch.tensor([SIZE])
    _take_statistics(model, image, size)
    for name, spread in SPREADS.items():
        _spread(model, name, spread, image, size)
    _bisect_background(model, image, size)
    state = {name: values.numpy() for name, values in model.state_dict().items()}
    write_model_file(path, Spec(config, DETECTRON2_INPUT, COCO), state)


def _take_statistics(model: MaskRCNN, image: Tensor, size: Tensor) -> None:
    """Each batch norm that what comes in has: without them activations grow with every block."""
    hooks = []
    for name, conv in model.named_modules():
        if isinstance(conv, ConvNorm) and isinstance(conv.norm, FrozenBatchNorm | nn.BatchNorm2d):
            # The last norm of a residual branch is small in trained networks.
            conv.norm.weight.fill_(0.3 if name.endswith("conv3") else 1.0)
            hooks.append(conv.register_forward_pre_hook(_adopt))
    model(image, size)
    for hook in hooks:
        hook.remove()


def _adopt(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(conv, ConvNorm) and isinstance(conv.norm, FrozenBatchNorm | nn.BatchNorm2d)
    seen = conv._conv_forward(inputs[0], conv.weight, conv.bias)
    assert conv.norm.running_mean is not None and conv.norm.running_var is not None
    conv.norm.running_mean.copy_(seen.mean((0, 2, 3)))
    conv.norm.running_var.copy_(seen.var((0, 2, 3)).clamp(min=1e-6))


def _spread(model: MaskRCNN, name: str, spread: float, image: Tensor, size: Tensor) -> None:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    if name == "mask_head.logits":  # its weight is read, and it is never called
        layer.weight *= spread / 0.05
        return
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model(image, size)
    hook.remove()
    layer.weight *= spread / torch.cat([each.flatten() for each in seen]).std()


def _bisect_background(model: MaskRCNN, image: Tensor, size: Tensor) -> None:
    bias = model.box_head.scores.bias
    assert bias is not None
    low, high = 0.0, 20.0
    for _ in range(10):
        bias[-1] = (low + high) / 2
        raw: Raw = model(image, size)
        found = int((torch.as_tensor(raw.scores) > 0).sum())
        low, high = (low, float(bias[-1])) if found < DETECTIONS else (float(bias[-1]), high)


if __name__ == "__main__":
    main()
