"""Processes that share a list of inputs: each takes its part, and what they find meets on the first.

The first listens, the others connect and send a line of JSON for each input: that needs neither torch nor a
disk in common, and a process that ends is seen at once by the end of its connection.
"""

import hashlib
import json
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO, TypeVar

from maskrcnn.errors import UserError
from maskrcnn.launch import Place, address, run_key

Item = TypeVar("Item")

# Until all must be there: some start late, and load their libraries from a slow disk.
PATIENCE = 300.0
# After the launcher's own port, which it may hold itself: tried one after another.
PORTS = range(1, 17)
# For an answer at a port which may be of another program.
ANSWER = 5.0
PAUSE = 0.1
LONGEST_GREETING = 1000
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# A host that is gone without a word is missed after 3 minutes.
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 6, "TCP_USER_TIMEOUT": 180_000}


class Link:
    """The connection to the process of that rank; a thread reads what comes, so that senders never wait."""

    def __init__(self, connection: socket.socket, lines: BinaryIO, rank: int) -> None:
        self.rank = rank
        self._connection, self._lines = connection, lines
        self._came: SimpleQueue[list[Any] | None] = SimpleQueue()
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError), self._lines:
            for line in self._lines:
                self._came.put(json.loads(line))
        self._came.put(None)

    @property
    def has_news(self) -> bool:
        """Whether next() returns at once."""
        return not self._came.empty()

    def next(self) -> list[Any] | None:
        """What came next; None once the other side has ended."""
        message = self._came.get()
        if message is None:
            self._came.put(None)
        return message

    def send(self, *message: Any) -> bool:
        """Whether the other side is still there."""
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def close(self) -> None:
        """After the other side has read everything, or has had time to."""
        for side in (socket.SHUT_WR, socket.SHUT_RDWR):
            with suppress(OSError):
                self._connection.shutdown(side)
            self._reader.join(ANSWER)
        self._connection.close()


class Team:
    """The processes of one command. links: of the first to the others in their order, of those to the first.

    All call the same methods in the same order; values are what JSON can hold.
    """

    def __init__(self, place: Place, links: Sequence[Link]) -> None:
        self.place = place
        self._links = links

    def share(self, items: Sequence[Item], names: Iterable[str]) -> Sequence[Item]:
        """Every n-th of the items that all processes have. names: of all of them.

        Raises UserError on the first if another has other ones.
        """
        digest = hashlib.sha256("\n".join(names).encode("utf-8", "backslashreplace")).hexdigest()
        if not self.place.is_first:
            self._links[0].send("list", digest)
        for link in self._links if self.place.is_first else ():
            if self._next(link) != digest:
                raise UserError(
                    f"process {link.rank} of {self.place.count} has found other images than process 0",
                    hint="let all processes see the same files",
                )
        return items[self.place.rank :: self.place.count]

    def collected(self, found: Iterable[Any], total: int) -> Iterator[Any]:
        """On the first what all found, in the order of the `total` items; the others send theirs, yield none.

        found: one of each item of the share. No process waits for a slower one before its own end.
        Raises UserError on the first for what failed in another, and if one has ended.
        """
        if not self.place.is_first:
            link = self._links[0]
            for value in found:
                if link.has_news or not link.send("found", value):
                    return
            return
        own: deque[Any] = deque()
        done = 0
        for value in found:
            own.append(value)
            while done < total and self._has(done, own):
                yield self._take(done, own)
                done += 1
        for number in range(done, total):
            yield self._take(number, own)

    def _has(self, number: int, own: deque[Any]) -> bool:
        rank = number % self.place.count
        return self._links[rank - 1].has_news if rank else bool(own)

    def _take(self, number: int, own: deque[Any]) -> Any:
        rank = number % self.place.count
        return self._next(self._links[rank - 1]) if rank else own.popleft()

    def _next(self, link: Link) -> Any:
        kind, *values = link.next() or ("end",)
        if kind == "end":
            raise UserError(
                f"process {link.rank} of {self.place.count} has ended before its part was done",
                hint="its own last words say why; start all of them again",
            )
        if kind == "error":
            raise UserError(values[0], hint=values[1])
        return values[0]

    def report(self, error: UserError) -> None:
        """Let the first say what failed here."""
        self._links[0].send("error", error.message, error.hint)

    def dismiss(self, code: int) -> None:
        """Of the first: the others may end, with this exit code."""
        for link in self._links:
            link.send("code", code)
        self.leave()

    def dismissed(self) -> int | None:
        """Of the others: wait for the exit code; None if the first has ended without one."""
        message = self._links[0].next()
        self.leave()
        return None if message is None else message[1]

    def leave(self) -> None:
        """Close the connections; what the others do not know yet they take for a failure."""
        for link in self._links:
            link.close()


def meet(place: Place, environment: Mapping[str, str], words: Sequence[str]) -> Team:
    """Connect the processes of one command. words: of its line, the same in all of them.

    Raises UserError if they are not all there within five minutes.
    """
    if place.count == 1:
        return Team(place, ())
    host, port = address(environment)
    key, until = run_key(environment, words), time.monotonic() + PATIENCE
    if place.is_first:
        return Team(place, _await_others(place, (host, port), key, until))
    return Team(place, [_find_first(place, (host, port), key, until)])


def _await_others(place: Place, where: tuple[str, int], key: str, until: float) -> list[Link]:
    links: dict[int, Link] = {}
    with _listening(*where) as server, ExitStack() as on_failure:
        while len(links) < place.count - 1:
            server.settimeout(max(until - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                raise UserError(
                    f"{len(links) + 1} of {place.count} processes came within {PATIENCE:.0f} s",
                    hint="set MASTER_ADDR to the first host, and start the same command in all processes",
                ) from None
            rank, lines = _greeted(connection, key)
            if lines is None or not 0 < rank < place.count:
                connection.close()
                continue
            # One that comes twice had given the first connection up.
            links[rank] = Link(connection, lines, rank)
            on_failure.callback(links[rank].close)
            links[rank].send(key, 0)
        on_failure.pop_all()
    return [links[rank] for rank in sorted(links)]


def _listening(host: str, port: int) -> socket.socket:
    """At the first port that is free; for this host alone where that is where they meet."""
    at = "127.0.0.1" if host in LOOPBACK else ""
    for number in _ports(port):
        with suppress(OSError):
            return socket.create_server((at, number))
    raise UserError(
        f"{host}:{port}: the {len(PORTS)} ports after it are taken", hint="set MASTER_PORT to another"
    )


def _ports(port: int) -> list[int]:
    return [port + more for more in PORTS if port + more < 2**16]


def _find_first(place: Place, where: tuple[str, int], key: str, until: float) -> Link:
    host, port = where
    host = "127.0.0.1" if host in LOOPBACK else host
    while time.monotonic() < until:
        for number in _ports(port):
            with suppress(OSError):
                connection = socket.create_connection((host, number), timeout=ANSWER)
                with suppress(OSError):
                    connection.sendall(json.dumps([key, place.rank]).encode() + b"\n")
                    rank, lines = _greeted(connection, key)
                    if lines is not None and rank == 0:
                        return Link(connection, lines, 0)
                connection.close()
        time.sleep(PAUSE)
    raise UserError(
        f"{host}:{port}: process 0 was not there within {PATIENCE:.0f} s",
        hint="set MASTER_ADDR and MASTER_PORT to a free port of the first host, in all processes",
    )


def _greeted(connection: socket.socket, key: str) -> tuple[int, BinaryIO | None]:
    """The rank of the process of this run on the other side, and what it will send; None for anybody else."""
    connection.settimeout(ANSWER)
    lines = connection.makefile("rb")
    with suppress(OSError, ValueError, TypeError):
        theirs, rank = json.loads(lines.readline(LONGEST_GREETING))
        if theirs == key and isinstance(rank, int):
            return rank, lines
    lines.close()
    return -1, None
