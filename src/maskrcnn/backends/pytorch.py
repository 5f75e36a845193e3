"""Runs a `.safetensors` model file with PyTorch, on a CPU or any accelerator that torch knows."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.model.mask_rcnn import MaskRCNN, for_inference
from maskrcnn.spec import Spec
from maskrcnn.weights.architecture import parameter_shapes
from maskrcnn.weights.model_file import read_model_file


class PyTorchBackend:
    """One model on one device, changed into its fastest form."""

    def __init__(self, spec: Spec, state: dict[str, Tensor], device: torch.device) -> None:
        self.spec = spec
        self.device = device
        model = MaskRCNN(spec.model)
        model.load_state_dict(state)
        self.model = for_inference(model)
        # NHWC is the layout in which oneDNN and cuDNN convolve fastest: 1.2x over NCHW on a CPU.
        self.model.to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """image (B, 3, H, W) uint8 or float32 in 0..255, size int64 (B, 2) -> Raw of numpy arrays."""
        planes = (
            torch.from_numpy(image)
            .to(self.device, torch.float32)
            .contiguous(memory_format=torch.channels_last)
        )
        sizes = torch.from_numpy(size).to(self.device)
        levels = self.model.features(planes, sizes)
        proposals, real = self.model.propose(levels, sizes, image.shape[2:])
        found = self.model.detect(levels, proposals, real, sizes)
        # Masks are computed for the fullest image of the batch and not for all D rows.
        count = int((found.scores > 0).sum(1).max())
        boxes, labels = found.boxes[:, :count], found.labels[:, :count]
        masks = self.model.segment(levels, boxes, labels)
        missing = found.scores.shape[1] - count
        raw = Raw(*found, torch.nn.functional.pad(masks, (0, 0, 0, 0, 0, missing)))
        return Raw(*(part.cpu().numpy() for part in raw))


def open_pytorch(path: str | Path, device: str = "auto", threads: int | None = None) -> PyTorchBackend:
    """Open a model file. device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `xpu` or any other that torch names.

    threads: CPU threads of torch for the whole process, None to leave them. Raises UserError for a wrong
        file or device.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    spec, state = read_model_file(path)
    _check_tensors(path, spec, {name: values.shape for name, values in state.items()})
    tensors = {name: torch.from_numpy(values) for name, values in state.items()}
    return PyTorchBackend(spec, tensors, choose_device(device))


def choose_device(name: str) -> torch.device:
    """The named device, or for `auto` the accelerator of this machine and else its CPU."""
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--device {name}: torch {torch.__version__} cannot use it here ({reason})",
            hint="use --device auto",
        ) from error
    return device


def _check_tensors(path: str | Path, spec: Spec, found: dict[str, tuple[int, ...]]) -> None:
    wanted = parameter_shapes(spec.model)
    faults = [f"{name} is missing" for name in wanted if name not in found]
    faults += [f"{name} is no part of its model" for name in found if name not in wanted]
    for name, shape in wanted.items():
        if name in found and found[name] != shape:
            faults.append(f"{name} is {list(found[name])} where its model has {list(shape)}")
    if faults:
        more = f", and {len(faults) - 1} more faults" if len(faults) > 1 else ""
        raise UserError(f"{path}: {faults[0]}{more}", hint="convert or copy the model again")
