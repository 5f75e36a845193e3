"""Runs a `.safetensors` model file with PyTorch, on a CPU or any accelerator that torch knows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

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
        planes, sizes = self._on_device(image, size)
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

    def stages(self, image: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
        """What every stage computes for the input of `run`, by the names of `maskrcnn.compare.STAGES`.

        The network is the one that `run` uses, with its norms folded.
        """
        return self.stages_given(image, size, {})

    @torch.inference_mode()
    def stages_given(
        self, image: np.ndarray, size: np.ndarray, given: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """As `stages`, but each stage reads what is given in place of what the stages before it computed.

        given: as another model's `stages` returns it; a feature map of another shape is left out.
        """
        planes, sizes = self._on_device(image, size)
        model, config = self.model, self.model.config
        keep = _Record(given)
        with _listening(model, keep):
            levels = model.features(planes, sizes)
            proposals, real = model.propose(levels, sizes, image.shape[2:])
        proposals = keep("proposals", proposals)
        real = (proposals != 0).any(2) if "proposals" in given else real
        pooled = keep("box_pool", model.roi(levels, proposals, config.box_head.pool_side))
        logits, deltas = model.box_head.predict(pooled)
        logits, deltas = keep("class_logits", logits), keep("box_deltas", deltas)
        found = model.box_head.detect(logits, deltas, proposals, real, sizes)
        boxes, scores, labels = (
            keep(f"detections.{name}", part) for name, part in zip(found._fields, found, strict=True)
        )
        count = int((scores > 0).sum(1).max())
        boxes, labels = boxes[:, :count], labels[:, :count]
        features = keep("mask_pool", model.roi(levels, boxes, config.mask_head.pool_side))
        keep("masks", model.mask_head(features, labels.flatten()).sigmoid().unflatten(0, labels.shape))
        return keep.kept

    def _on_device(self, image: np.ndarray, size: np.ndarray) -> tuple[Tensor, Tensor]:
        planes = torch.from_numpy(image).to(self.device, torch.float32)
        sizes = torch.from_numpy(size).to(self.device)
        return planes.contiguous(memory_format=torch.channels_last), sizes


class _Record:
    """Keeps the values that pass by name, and passes on what is given in their place."""

    def __init__(self, given: Mapping[str, np.ndarray]) -> None:
        self.given = given
        self.kept: dict[str, np.ndarray] = {}

    def __call__(self, name: str, value: Tensor) -> Tensor:
        # A copy, in the usual order of dimensions: what follows may work in place.
        self.kept[name] = np.array(value.cpu().numpy(), order="C")
        if name not in self.given:
            return value
        other = torch.from_numpy(self.given[name])
        if other.shape == value.shape:
            # The same layout in memory, so that the same numbers take the same way from here on.
            return torch.empty_like(value).copy_(other)
        return other.to(value) if name.startswith(("proposals", "detections")) else value


@contextmanager
def _listening(model: MaskRCNN, keep: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Let `keep` see, and replace, what passes between the stages of trunk, pyramid and RPN."""
    trunk = model.backbone
    names = [name for name, _ in trunk.named_children()]
    levels = ["p2", "p3", "p4", "p5", "p6"] if model.fpn is not None else names[-1:]
    handles = [
        trunk.register_forward_pre_hook(lambda _, images: (keep("normalised", images[0]),)),
        *(_after(module, iter([name]), keep) for name, module in trunk.named_children()),
        _after(model.rpn.objectness, (f"objectness.{level}" for level in levels), keep),
        _after(model.rpn.deltas, (f"deltas.{level}" for level in levels), keep),
    ]
    if model.fpn is not None:
        handles.append(_after(model.fpn, iter(levels), keep))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _after(
    module: nn.Module, names: Iterator[str], keep: Callable[[str, Tensor], Tensor]
) -> torch.utils.hooks.RemovableHandle:
    """The module's results, one or a list a call, get the names in turn."""

    def listen(_: nn.Module, __: object, output: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        if isinstance(output, list):
            return [keep(next(names), level) for level in output]
        return keep(next(names), output)

    return module.register_forward_hook(listen)


def open_pytorch(path: str | Path, device: str = "auto", threads: int | None = None) -> PyTorchBackend:
    """Open a model file. device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `xpu`, `npu` or what torch names.

    threads: CPU threads of torch for the whole process, None to leave them. Raises UserError for a wrong
        file or device.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    spec, tensors = read_network(path)
    return PyTorchBackend(spec, tensors, choose_device(device))


def open_compiled(path: str | Path, device: str = "auto", threads: int | None = None) -> PyTorchBackend:
    """As `open_pytorch`, with trunk and pyramid compiled for this machine, which takes a minute or so.

    Raises UserError where torch cannot compile, as on a CPU without a C++ compiler.
    """
    backend = open_pytorch(path, device, threads)
    backend.model.features = torch.compile(backend.model.features, dynamic=True)  # type: ignore[method-assign]
    blank = np.zeros((1, 3, 128, 192), np.uint8)
    try:
        backend.run(blank, np.array([blank.shape[2:]]))
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{path}: torch {torch.__version__} cannot compile it here ({reason})",
            hint="install a C++ compiler, or use --engine pytorch",
        ) from error
    return backend


def read_network(path: str | Path) -> tuple[Spec, dict[str, Tensor]]:
    """The description in a model file, and its tensors, float32, which are exactly those of its model."""
    spec, state = read_model_file(path)
    _check_tensors(path, spec, {name: values.shape for name, values in state.items()})
    return spec, {name: torch.from_numpy(values) for name, values in state.items()}


def choose_device(name: str) -> torch.device:
    """The named device, or for `auto` the accelerator of this machine and else its CPU."""
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    if name.partition(":")[0] == "npu":
        _load_ascend(name)
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


def _load_ascend(name: str) -> None:
    """Huawei's torch_npu makes torch know the device `npu`."""
    try:
        import_module("torch_npu")
    except Exception as error:  # without a driver it raises RuntimeError and OSError as well
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--device {name}: Ascend needs torch_npu, which cannot be loaded here ({reason})",
            hint="install the torch-npu of this torch and of your CANN, or use --device cpu",
        ) from error


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
