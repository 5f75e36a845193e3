"""The processes that share a training: torchrun's, mpirun's or Slurm's, or this one alone."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from maskrcnn.errors import UserError

# (rank, number of processes, rank on this host) as torchrun, Open MPI, MPICH and Slurm name them
NAMES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
)
PORT = 29500
# The first process may evaluate or write for long while the others wait.
PATIENCE = timedelta(hours=2)
# Numbers sent at once: 100 MB.
BUCKET = 25_000_000


@dataclass(frozen=True)
class Processes:
    """This process among all; local: its number on this host, by which it takes a GPU."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """The one that writes and prints."""
        return self.rank == 0

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
    for rank, count, local in NAMES:
        if rank in environment and count in environment:
            numbers = [environment[rank], environment[count], environment.get(local, environment[rank])]
            if not all(number.isdigit() for number in numbers):
                raise UserError(
                    f"{rank}={numbers[0]}, {count}={numbers[1]}: are no process numbers",
                    hint="start it with torchrun, mpirun or srun",
                )
            return Processes(*map(int, numbers))
    return Processes()


@contextmanager
def joined(device_type: str) -> Iterator[Processes]:
    """Meet the other processes, by gloo on CPUs and nccl on GPUs, and part at the end."""
    processes = placed()
    if processes.count == 1 and "WORLD_SIZE" not in os.environ:
        yield processes
        return
    os.environ.setdefault("MASTER_ADDR", _first_host(os.environ))
    os.environ.setdefault("MASTER_PORT", str(PORT))
    backend = "nccl" if device_type == "cuda" else "gloo"
    try:
        distributed.init_process_group(
            backend, rank=processes.rank, world_size=processes.count, timeout=PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"{address}: the processes could not meet there ({str(error).splitlines()[0]})",
            hint="set MASTER_ADDR and MASTER_PORT to a free port of the first host",
        ) from error
    try:
        yield processes
    finally:
        distributed.destroy_process_group()


def _first_host(environment: Mapping[str, str]) -> str:
    """Of Slurm's list of nodes, such as `gpu[03-05,9],cpu1`; this host where there is none."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "")
    match = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    return f"{match[1]}{match[2] or ''}" if match else "127.0.0.1"


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
