"""TensorRT and CUDA as their documentation describes them, on plain memory, strict about the order of calls.

The engine of a plan is the function that the machine has for its bytes. Copies and kernels of a stream happen
when it is synchronized and not before, so that what is read or dropped too early is noticed.
"""

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

Arrays = dict[str, np.ndarray]


@dataclass
class Plan:
    """inputs: name to dtype, least and most shape. outputs: name to dtype and shape for a batch."""

    run: Callable[[Arrays], Arrays]
    inputs: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]]
    outputs: dict[str, tuple[Any, Callable[[int], tuple[int, ...]]]]


@dataclass
class Machine:
    """One GPU computer. calls: what was called, in order. memory: live allocations by address."""

    plans: dict[bytes, Plan]
    gpus: int = 2
    room: int = 1 << 30
    calls: list[str] = field(default_factory=list)
    memory: dict[int, np.ndarray] = field(default_factory=dict)
    waiting: list[Callable[[], None]] = field(default_factory=list)
    device: int | None = None
    streams: int = 0


def install(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `import tensorrt` and `from cuda.bindings import runtime` find the machine."""
    runtime = _cuda(machine)
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = runtime  # type: ignore[attr-defined]
    cuda = ModuleType("cuda")
    cuda.bindings = bindings  # type: ignore[attr-defined]
    modules = {"cuda": cuda, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}
    for name, module in {**modules, "tensorrt": _tensorrt(machine)}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "maskrcnn.backends.tensorrt_runtime", raising=False)


class _Status(int):
    """A cudaError_t."""


SUCCESS, INVALID, FULL, NO_DEVICE = (_Status(number) for number in (0, 1, 2, 101))


def _cuda(machine: Machine) -> ModuleType:
    module = ModuleType("cuda.bindings.runtime")
    module.cudaError_t = SimpleNamespace(  # type: ignore[attr-defined]
        cudaSuccess=SUCCESS, cudaErrorMemoryAllocation=FULL
    )
    module.cudaMemcpyKind = SimpleNamespace(  # type: ignore[attr-defined]
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2
    )

    def noted(function: Callable[..., tuple[Any, ...]]) -> None:
        def call(*arguments: Any) -> tuple[Any, ...]:
            machine.calls.append(function.__name__)
            if machine.device is None and function.__name__ not in ("cudaSetDevice", "cudaGetErrorString"):
                return (INVALID,)
            return function(*arguments)

        setattr(module, function.__name__, call)

    def cudaGetErrorString(status: int) -> tuple[Any, ...]:
        return SUCCESS, b"no CUDA-capable device is detected" if status == NO_DEVICE else b"invalid argument"

    def cudaSetDevice(index: int) -> tuple[Any, ...]:
        if index >= machine.gpus:
            return (NO_DEVICE,)
        machine.device = index
        return (SUCCESS,)

    def cudaMalloc(size: int) -> tuple[Any, ...]:
        if sum(part.nbytes for part in machine.memory.values()) + size > machine.room:
            return FULL, None
        part = np.full(size, 0xAB, np.uint8)
        machine.memory[part.ctypes.data] = part
        return SUCCESS, part.ctypes.data

    def cudaFree(address: int) -> tuple[Any, ...]:
        return (SUCCESS,) if machine.memory.pop(address, None) is not None else (INVALID,)

    def cudaStreamCreate() -> tuple[Any, ...]:
        machine.streams += 1
        return SUCCESS, 77

    def cudaStreamDestroy(stream: int) -> tuple[Any, ...]:
        machine.streams -= 1
        return (SUCCESS,)

    def cudaMemcpyAsync(to: int, source: int, size: int, kind: int, stream: int) -> tuple[Any, ...]:
        inside = machine.memory.get(to if kind == 1 else source)
        if inside is None or inside.nbytes < size or stream != 77:
            return (INVALID,)
        machine.waiting.append(lambda: ctypes.memmove(to, source, size) and None)
        return (SUCCESS,)

    def cudaStreamSynchronize(stream: int) -> tuple[Any, ...]:
        for work in machine.waiting:
            work()
        machine.waiting.clear()
        return (SUCCESS,)

    for function in (cudaGetErrorString, cudaSetDevice, cudaMalloc, cudaFree, cudaStreamCreate):
        noted(function)
    for function in (cudaStreamDestroy, cudaMemcpyAsync, cudaStreamSynchronize):
        noted(function)
    return module


class _Context:
    def __init__(self, machine: Machine, plan: Plan) -> None:
        self.machine, self.plan = machine, plan
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.machine.calls.append("set_input_shape")
        _, least, most = self.plan.inputs[name]
        if len(shape) != len(least):
            return False
        if any(not low <= side <= high for low, side, high in zip(least, shape, most, strict=True)):
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.plan.inputs if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.plan.outputs[name][1](self.shapes["image"][0])

    def execute_async_v3(self, stream: int) -> bool:
        self.machine.calls.append("execute_async_v3")
        names = {*self.plan.inputs, *self.plan.outputs}
        if stream != 77 or names != set(self.addresses) or set(self.plan.inputs) != set(self.shapes):
            return False
        shapes, addresses = dict(self.shapes), dict(self.addresses)

        def work() -> None:
            given = {
                name: self._at(addresses[name], dtype, shapes[name])
                for name, (dtype, _, _) in self.plan.inputs.items()
            }
            for name, array in self.plan.run(given).items():
                self._at(addresses[name], self.plan.outputs[name][0], array.shape)[...] = array

        self.machine.waiting.append(work)
        return True

    def _at(self, address: int, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.machine.memory[address][:size].view(dtype).reshape(shape)


class _Engine:
    def __init__(self, machine: Machine, plan: Plan) -> None:
        self.machine, self.plan = machine, plan
        self.names = [*plan.inputs, *plan.outputs]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, number: int) -> str:
        return self.names[number]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.plan.inputs else "output"

    def get_tensor_dtype(self, name: str) -> Any:
        return (self.plan.inputs.get(name) or self.plan.outputs[name])[0]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        _, least, most = self.plan.inputs[name]
        return [least, least, most]

    def create_execution_context(self) -> _Context:
        return _Context(self.machine, self.plan)


def _tensorrt(machine: Machine) -> ModuleType:
    module = ModuleType("tensorrt")

    class Logger:
        ERROR = 1

        def __init__(self, level: int) -> None:
            self.level = level

    class Runtime:
        def __init__(self, logger: Logger) -> None:
            assert machine.device is not None, "a runtime belongs to the device that is current"

        def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
            machine.calls.append("deserialize_cuda_engine")
            known = machine.plans.get(plan)
            return _Engine(machine, known) if known and "plugins" in machine.calls else None

    def plugins(logger: Logger, namespace: str) -> bool:
        machine.calls.append("plugins")
        return True

    module.__version__ = "10.13.0"  # type: ignore[attr-defined]
    module.Logger = Logger  # type: ignore[attr-defined]
    module.Runtime = Runtime  # type: ignore[attr-defined]
    module.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")  # type: ignore[attr-defined]
    module.nptype = np.dtype  # type: ignore[attr-defined]
    module.init_libnvinfer_plugins = plugins  # type: ignore[attr-defined]
    return module
