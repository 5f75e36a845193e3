"""Runs `.engine` files with TensorRT or with IxRT: our header, then a serialized plan."""

import weakref
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from maskrcnn.backends.tensorrt_api import cuda_runtime, load_plugins, tensorrt_api
from maskrcnn.backends.whole_graph import WholeGraph, check_names
from maskrcnn.errors import UserError
from maskrcnn.stored_spec import plan_offset, stored_spec

api = tensorrt_api()


class TensorRTSession:
    """One engine, its execution context and stream on one GPU; calls from several threads take turns."""

    def __init__(self, path: Path, plan: bytes, index: int) -> None:
        self.path = path
        self.index = index
        self.cuda = cuda = cuda_runtime()
        self.check(cuda.cudaSetDevice(index))
        logger = api.module.Logger(api.module.Logger.ERROR)
        # RoiAlign of ONNX is one of the engine's own plug-ins.
        load_plugins(api, logger)
        # An engine may not outlive the runtime that read it.
        self.runtime = api.module.Runtime(logger)
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise UserError(
                f"{path}: {api.words} cannot read it; a plan runs only with the version "
                "and kind of GPU that it was made for",
                hint="export it again on this machine",
            )
        # IxRT counts them under the name that TensorRT 8 had.
        count = getattr(self.engine, "num_io_tensors", None) or self.engine.num_bindings
        names = [self.engine.get_tensor_name(number) for number in range(count)]
        modes = {name: self.engine.get_tensor_mode(name) for name in names}
        self.inputs = tuple(name for name in names if modes[name] == api.module.TensorIOMode.INPUT)
        self.outputs = tuple(name for name in names if modes[name] == api.module.TensorIOMode.OUTPUT)
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise MemoryError(f"{path}: no room for an execution context on GPU {index}")
        self.stream = self.check(cuda.cudaStreamCreate())
        self.buffers: dict[str, tuple[int, int]] = {}
        self.lock = Lock()
        weakref.finalize(self, _free, cuda, self.buffers, self.stream)

    def __call__(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays by the names of the engine's inputs -> all its outputs by name."""
        with self.lock:
            # The current device belongs to the thread and not to the process.
            self.check(self.cuda.cudaSetDevice(self.index))
            # Held until the stream is done with them.
            given = {name: self._send(name, arrays[name]) for name in self.inputs}
            missing = self.context.infer_shapes()
            if missing:
                raise UserError(f"{self.path}: {missing[0]} has no shape", hint="export it again")
            found = {name: self._room(name) for name in self.outputs}
            if not self.context.execute_async_v3(int(self.stream)):
                raise UserError(
                    f"{self.path}: {api.words} cannot run it for an input of {list(given['image'].shape)}",
                    hint="its own messages above say why; export it again on this machine",
                )
            for name, array in found.items():
                self._copy(array.ctypes.data, self.buffers[name][0], array.nbytes, "DeviceToHost")
            self.check(self.cuda.cudaStreamSynchronize(self.stream))
            return found

    def check(self, returned: tuple[Any, ...]) -> Any:
        """The value beside the status of a CUDA call. Raises UserError for a status that is no success."""
        status, *values = returned
        if status == self.cuda.cudaError_t.cudaErrorMemoryAllocation:
            raise MemoryError(f"{self.path}: GPU {self.index} is full")
        if status != self.cuda.cudaError_t.cudaSuccess:
            _, text = self.cuda.cudaGetErrorString(status)
            raise UserError(
                f"{self.path}: CUDA on GPU {self.index} says: {text.decode()}",
                hint="check the driver with nvidia-smi",
            )
        return values[0] if values else None

    def _send(self, name: str, array: np.ndarray) -> np.ndarray:
        wanted = api.module.nptype(self.engine.get_tensor_dtype(name))
        array = np.ascontiguousarray(array, wanted)
        if not self.context.set_input_shape(name, array.shape):
            least, _, most = self.engine.get_tensor_profile_shape(name, 0)
            raise UserError(
                f"{self.path}: {name} is {list(array.shape)}, and the engine was built for {list(least)} to "
                f"{list(most)}",
                hint="leave the size to the model, or export it for other sizes",
            )
        self._copy(self._buffer(name, array.nbytes), array.ctypes.data, array.nbytes, "HostToDevice")
        return array

    def _room(self, name: str) -> np.ndarray:
        shape = tuple(self.context.get_tensor_shape(name))
        array = np.empty(shape, api.module.nptype(self.engine.get_tensor_dtype(name)))
        self._buffer(name, array.nbytes)
        return array

    def _buffer(self, name: str, size: int) -> int:
        """Device memory of at least size bytes that the tensor's address points to."""
        pointer, room = self.buffers.get(name, (0, 0))
        if room < size:
            if pointer:
                del self.buffers[name]
                self.check(self.cuda.cudaFree(pointer))
            pointer = int(self.check(self.cuda.cudaMalloc(size)))
            self.buffers[name] = pointer, size
        self.context.set_tensor_address(name, pointer)
        return pointer

    def _copy(self, to: int, source: int, size: int, kind: str) -> None:
        way = getattr(self.cuda.cudaMemcpyKind, f"cudaMemcpy{kind}")
        self.check(self.cuda.cudaMemcpyAsync(to, source, size, way, self.stream))


def open_tensorrt(path: str | Path, device: str = "auto", threads: int | None = None) -> WholeGraph:
    """Open a `.engine` file. device: `auto`, `cuda` or `cuda:1`. threads: not used by these engines.

    Raises UserError for a wrong file or device.
    """
    path = Path(path)
    spec = stored_spec(path)
    index = _index(device)
    with open(path, "rb") as file:
        file.seek(plan_offset(path))
        plan = file.read()
    graph = TensorRTSession(path, plan, index)
    check_names(path, graph.inputs, graph.outputs)
    return WholeGraph(spec, graph, f"{api.words}, GPU {index}")


def _index(device: str) -> int:
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cuda") or not (number or "0").isdecimal():
        raise UserError(f"--device {device}: {api.name} runs on CUDA devices", hint="use cuda or cuda:1")
    return int(number or 0)


def _free(cuda: ModuleType, buffers: Mapping[str, tuple[int, int]], stream: Any) -> None:
    for pointer, _ in buffers.values():
        cuda.cudaFree(pointer)
    cuda.cudaStreamDestroy(stream)
