"""A process knows its place by what started it."""

import pytest

from maskrcnn.errors import UserError
from maskrcnn.launch import Place, address, place_of, run_key, take_gpu


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Place()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Place(3, 8, 1)),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
            Place(1, 2, 1),
        ),
        ({"PMI_RANK": "2", "PMI_SIZE": "4"}, Place(2, 4, 2)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}, Place(5, 8, 1)),
        ({"RANK_ID": "9", "RANK_SIZE": "16", "DEVICE_ID": "1"}, Place(9, 16, 1)),
        ({"RANK_ID": "0", "RANK_SIZE": "1", "DEVICE_ID": "3"}, Place(0, 1, 3)),
    ],
)
def test_a_process_knows_its_place_by_what_started_it(environment: dict[str, str], expected: Place) -> None:
    assert place_of(environment) == expected


def test_the_batch_script_of_a_slurm_job_of_eight_tasks_is_one_process() -> None:
    """As sbatch 22.05 sets them: the first of the job's tasks, and of no step."""
    assert place_of({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}) == Place()


def test_a_task_that_is_given_one_gpu_takes_that_whatever_its_number() -> None:
    task = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "3"}
    assert place_of({**task, "CUDA_VISIBLE_DEVICES": "3"}).local == 0
    assert place_of({**task, "CUDA_VISIBLE_DEVICES": "4,5,6,7"}).local == 3
    assert place_of(task).local == 3


@pytest.mark.parametrize(("visible", "taken"), [("4,5,6,7", "7"), ("4,5", "5"), ("6", "6"), ("", "")])
def test_each_process_of_a_host_is_left_one_of_its_gpus(visible: str, taken: str) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": visible}
    take_gpu(Place(11, 16, 3), environment)
    assert environment["CUDA_VISIBLE_DEVICES"] == taken


@pytest.mark.parametrize(("rank", "count"), [("x", "2"), ("2", "2"), ("-1", "2")])
def test_numbers_that_are_none_of_a_process_are_refused(rank: str, count: str) -> None:
    with pytest.raises(UserError, match=f"RANK={rank}, WORLD_SIZE={count}"):
        place_of({"RANK": rank, "WORLD_SIZE": count})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("gpu[03-05,9],cpu1", "gpu03"), ("login1,gpu[1-2]", "login1"), ("node7", "node7"), ("", "127.0.0.1")],
)
def test_slurms_first_host_is_where_processes_meet(nodes: str, host: str) -> None:
    assert address({"SLURM_NODELIST": nodes}) == (host, 29500)


def test_what_the_launcher_says_of_the_meeting_goes_first() -> None:
    assert address({"MASTER_ADDR": "host", "MASTER_PORT": "1234", "SLURM_NODELIST": "n1"}) == ("host", 1234)
    with pytest.raises(UserError, match="MASTER_PORT=70000: is no port"):
        address({"MASTER_PORT": "70000"})


def test_only_processes_of_one_start_of_one_command_have_one_key() -> None:
    keys = [
        run_key(environment, words)
        for environment in ({}, {"PMIX_NAMESPACE": "1"}, {"SLURM_STEP_ID": "1"}, {"MASTER_PORT": "1"})
        for words in (["eval", "a"], ["eval", "b"])
    ]
    assert len(set(keys)) == len(keys)
    assert run_key({"RANK": "0", "PMIX_NAMESPACE": "1"}, ["a"]) == run_key(
        {"RANK": "1", "PMIX_NAMESPACE": "1"}, ["a"]
    )
