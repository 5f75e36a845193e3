"""What a launcher (torchrun, mpirun or Slurm) tells a process of its place among those that it started."""

import hashlib
import json
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from glob import glob

from maskrcnn.errors import UserError

# (rank, number of processes, rank on this host) as torchrun, Open MPI, MPICH, Slurm and scripts for Ascend
# name them. Of Slurm's two numbers of processes the step's: a batch script has the job's as well, and is one
# process.
NAMES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ("RANK_ID", "RANK_SIZE", "DEVICE_ID"),
)
# What tells one start of a command from another.
RUN = (
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT"),
    *("PMIX_NAMESPACE", "SLURM_JOB_ID", "SLURM_STEP_ID"),
)
GPUS = "CUDA_VISIBLE_DEVICES"
PORT = 29500


@dataclass(frozen=True)
class Place:
    """This process among all; local: its number on this host, counted anew where it is given fewer GPUs."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """The one that writes and prints."""
        return self.rank == 0


def place_of(environment: Mapping[str, str]) -> Place:
    """Which process this is, by what started it; the only one where nothing says otherwise."""
    for rank, count, local in NAMES:
        if rank in environment and count in environment:
            numbers = [environment[rank], environment[count], environment.get(local, environment[rank])]
            if not all(number.isdigit() for number in numbers) or int(numbers[0]) >= int(numbers[1]):
                raise UserError(
                    f"{rank}={numbers[0]}, {count}={numbers[1]}: are no process numbers",
                    hint="start it with torchrun, mpirun or srun",
                )
            own, all_of_them, here = map(int, numbers)
            gpus = environment.get(GPUS, "")
            return Place(own, all_of_them, here % (gpus.count(",") + 1) if gpus else here)
    return Place()


def address(environment: Mapping[str, str]) -> tuple[str, int]:
    """Host and port where processes meet: the launcher's, else of Slurm's first host, else of this one."""
    port = environment.get("MASTER_PORT", str(PORT))
    if not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"MASTER_PORT={port}: is no port", hint="set it to a number such as 29500")
    return environment.get("MASTER_ADDR") or _first_host(environment), int(port)


def run_key(environment: Mapping[str, str], words: Sequence[str]) -> str:
    """The same in all processes of one start of a command, another in every other. words: of its line."""
    parts = [environment.get(name) for name in RUN]
    return hashlib.sha256(json.dumps([parts, *words]).encode()).hexdigest()


def take_gpu(place: Place, environment: MutableMapping[str, str]) -> None:
    """Let an engine that is loaded later see one GPU of this host alone, another for each process."""
    listed = environment.get(GPUS)
    gpus = [str(number) for number in range(len(glob("/dev/nvidia[0-9]*")))]
    if listed is not None:
        gpus = [gpu for gpu in listed.split(",") if gpu]
    if gpus:
        environment[GPUS] = gpus[place.local % len(gpus)]


def _first_host(environment: Mapping[str, str]) -> str:
    """Of Slurm's list of nodes, such as `gpu[03-05,9],cpu1`; this host where there is none."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "")
    match = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    return f"{match[1]}{match[2] or ''}" if match else "127.0.0.1"
