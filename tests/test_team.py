"""Processes that share a list meet, work through it once, and notice when one of them ends."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest

from maskrcnn import team as module
from maskrcnn.errors import UserError
from maskrcnn.launch import Place
from maskrcnn.team import Team, meet

Start = Callable[..., "list[Future[list[str]]]"]


@pytest.fixture
def port() -> int:
    """A port of this host above which there is room."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1]) - len(module.PORTS)


@pytest.fixture
def start(port: int) -> Iterator[Start]:
    """`start(count, work)` is what work(team) gives in each of `count` threads that stand for processes."""
    pool = ThreadPoolExecutor(4)

    def begin(rank: int, count: int, work: Callable[[Team], list[str]]) -> list[str]:
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        team = meet(Place(rank, count), environment, ["words"])
        try:
            return work(team)
        finally:
            team.leave()

    def start_all(count: int, *works: Callable[[Team], list[str]]) -> "list[Future[list[str]]]":
        chosen = [works[min(rank, len(works) - 1)] for rank in range(count)]
        return [pool.submit(partial(begin, rank, count, work)) for rank, work in enumerate(chosen)]

    yield start_all
    pool.shutdown(cancel_futures=True)


def items(total: int) -> list[str]:
    return [f"image {number}" for number in range(total)]


def upper(team: Team, total: int) -> list[str]:
    """Capitals of all items, each made by the process whose share it is in."""
    share = team.share(items(total), items(total))
    return list(team.collected((f"{item.upper()} BY {team.place.rank}" for item in share), total))


@pytest.mark.parametrize(("total", "count"), [(7, 2), (8, 4), (2, 4), (0, 2), (3, 1)])
def test_every_item_is_done_once_and_arrives_on_the_first_in_order(
    start: Start, total: int, count: int
) -> None:
    first, *others = [future.result(20) for future in start(count, lambda team: upper(team, total))]
    assert first == [f"IMAGE {number} BY {number % count}" for number in range(total)]
    assert others == [[]] * (count - 1)


def test_the_first_goes_on_while_another_is_slow(start: Start) -> None:
    """The second begins when the first has done its whole share."""
    ended = Event()

    def quick(team: Team) -> list[str]:
        def found() -> Iterator[str]:
            yield from team.share(items(9), items(9))
            ended.set()

        return list(team.collected(found(), 9))

    def slow(team: Team) -> list[str]:
        share = team.share(items(9), items(9))
        assert ended.wait(10)
        return list(team.collected(share, 9))

    assert start(2, quick, slow)[0].result(20) == items(9)


def test_the_first_says_what_another_could_not_do(
    start: Start,
) -> None:
    def fail(team: Team) -> list[str]:
        team.share(items(4), items(4))
        team.report(UserError("5.png: is no image", hint="copy it again"))
        return []

    first, _ = start(2, lambda team: upper(team, 4), fail)
    with pytest.raises(UserError, match="5.png: is no image") as failed:
        first.result(20)
    assert failed.value.hint == "copy it again"


@pytest.mark.parametrize("done", [0, 1])
def test_the_first_fails_when_another_ends_early(start: Start, done: int) -> None:
    def end(team: Team) -> list[str]:
        share = team.share(items(9), items(9))
        return list(team.collected(share[:done], 9))

    first, _ = start(2, lambda team: upper(team, 9), end)
    with pytest.raises(UserError, match="process 1 of 2 has ended before its part was done"):
        first.result(20)


def test_the_others_stop_when_the_first_has_ended(
    start: Start,
) -> None:
    def first(team: Team) -> list[str]:
        team.share(items(4), items(4))
        return []

    def other(team: Team) -> list[str]:
        def endless() -> Iterator[str]:
            while True:
                yield "more"

        team.share(items(4), items(4))
        list(team.collected(endless(), 4))
        return [str(team.dismissed())]

    assert start(2, first, other)[1].result(20) == ["None"]


def test_the_others_end_with_the_exit_code_of_the_first(
    start: Start,
) -> None:
    def work(team: Team) -> list[str]:
        upper(team, 3)
        if team.place.is_first:
            team.dismiss(1)
            return []
        return [str(team.dismissed())]

    assert [future.result(20) for future in start(3, work)] == [[], ["1"], ["1"]]


def test_processes_that_see_other_files_are_refused(
    start: Start,
) -> None:
    first, _ = start(2, lambda team: upper(team, 4), lambda team: upper(team, 5))
    with pytest.raises(UserError, match="process 1 of 2 has found other images than process 0"):
        first.result(20)


def test_a_port_that_another_program_holds_is_passed_over(
    start: Start, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port after the launcher's is taken by a server that never answers."""
    monkeypatch.setattr(module, "ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", port + 1)):
        first, other = start(2, lambda team: upper(team, 4))
        assert len(first.result(20)) == 4
        assert other.result(20) == []


def test_a_greeting_of_another_run_is_not_answered(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 2.0)
    monkeypatch.setattr(module, "ANSWER", 0.3)
    environment = {"MASTER_PORT": str(port)}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(meet, Place(0, 2), environment, ["words"])
        for greeting in (b"GET / HTTP/1.1\r\n\r\n", json.dumps(["key", 1]).encode() + b"\n", b"7\n"):
            connection = None
            while connection is None:
                try:
                    connection = socket.create_connection(("127.0.0.1", port + 1), timeout=5)
                except ConnectionRefusedError:
                    assert not first.done()
            with connection:
                connection.sendall(greeting)
                assert connection.recv(10) == b""
        with pytest.raises(UserError, match="1 of 2 processes came within 2 s"):
            first.result(20)


def test_a_process_whose_first_never_comes_gives_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    with pytest.raises(UserError, match=f"127.0.0.1:{port}: process 0 was not there within 0 s"):
        meet(Place(1, 2), {"MASTER_PORT": str(port)}, [])
