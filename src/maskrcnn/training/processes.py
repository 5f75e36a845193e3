"""The processes that share a training: torchrun's, mpirun's or Slurm's, or this one alone."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from maskrcnn.errors import UserError
from maskrcnn.launch import Place, address, place_of

# The first process may evaluate or write for long while the others wait.
PATIENCE = timedelta(hours=2)
BACKENDS = {"cuda": "nccl", "npu": "hccl"}
# Numbers sent at once: 100 MB.
BUCKET = 25_000_000


@dataclass(frozen=True)
class Processes(Place):
    """This process among all; local: the GPU of this host that it takes."""

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Every gradient becomes the sum over all processes; a missing one counts as zero."""
        learnt = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in learnt:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.count == 1:
            return
        for bucket in _buckets([parameter.grad for parameter in learnt if parameter.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            distributed.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in their order; any that can be pickled."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()


def placed(environment: Mapping[str, str] = os.environ) -> Processes:
    """Which process this is, by what started it; the only one where nothing says otherwise."""
    return Processes(*astuple(place_of(environment)))


@contextmanager
def joined(device_type: str) -> Iterator[Processes]:
    """Meet the other processes, by gloo on CPUs, nccl on GPUs and hccl on Ascend, and part at the end."""
    processes = placed()
    if processes.count == 1 and "WORLD_SIZE" not in os.environ:
        yield processes
        return
    host, port = address(os.environ)
    os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
    backend = BACKENDS.get(device_type, "gloo")
    try:
        distributed.init_process_group(
            backend, rank=processes.rank, world_size=processes.count, timeout=PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{host}:{port}: the processes could not meet there ({str(error).splitlines()[0]})",
            hint="set MASTER_ADDR and MASTER_PORT to a free port of the first host",
        ) from error
    try:
        yield processes
    finally:
        distributed.destroy_process_group()


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(each.numel() for each in bucket) + gradient.numel() > BUCKET
        if bucket and (full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
