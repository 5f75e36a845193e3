"""An HTTP server on this machine that can break off, stall, lie, and remember what it was asked."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Manners:
    """How it answers; tests change them between requests.

    files: content by path. breaks: after how many bytes of the body each coming answer is cut off. stalls:
    likewise, but the connection stays open and silent. delay: seconds before each answer. statuses: of the
    coming answers instead of 200. moved: where a path leads on to. announced: whether the length is told.
    ranges: whether Range is understood, if_range: whether If-Range is. asked: (path, Range header) so far.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    stalls: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    delay: float = 0.0
    moved: dict[str, str] = field(default_factory=dict)
    etag: str = '"one"'
    content_type: str = "application/octet-stream"
    announced: bool = True
    ranges: bool = True
    if_range: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    """url: `http://127.0.0.1:port`."""

    url: str
    manners: Manners


@contextmanager
def misbehaving() -> Iterator[Server]:
    """A server that runs while open."""
    manners = Manners()
    done = threading.Event()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *values: object) -> None:
            """Silent."""

        def do_GET(self) -> None:
            answer(self, manners, done)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}", manners)
    finally:
        done.set()
        server.shutdown()
        thread.join()
        server.server_close()


def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other host has an address, and nothing that the user has set leads elsewhere."""
    resolved = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolved(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("OFFLINE", "MIRROR"):
        monkeypatch.delenv(f"MASKRCNN_{name}", raising=False)


def answer(request: BaseHTTPRequestHandler, manners: Manners, done: threading.Event) -> None:
    """One answer; the connection closes after it."""
    wanted = request.headers.get("Range")
    manners.asked.append((request.path, wanted))
    request.close_connection = True
    done.wait(manners.delay)
    status = manners.statuses.pop(0) if manners.statuses else 200
    if request.path in manners.moved:
        send(request, 302, b"", {"Location": manners.moved[request.path]})
    elif status != 200 or request.path not in manners.files:
        send(request, status if status != 200 else 404, b"no")
    else:
        send_file(request, manners, wanted, done)


def send_file(
    request: BaseHTTPRequestHandler, manners: Manners, wanted: str | None, done: threading.Event
) -> None:
    """A file or its end, as far as it gets."""
    body = manners.files[request.path]
    headers = {"Content-Type": manners.content_type, "ETag": manners.etag}
    status, start = 200, 0
    same = not manners.if_range or request.headers.get("If-Range", manners.etag) == manners.etag
    if wanted and manners.ranges and same:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            send(request, 416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        status = 206
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    headers["Content-Length"] = str(len(body) - start) if manners.announced else ""
    breaks = manners.breaks.pop(0) if manners.breaks else None
    stalls = manners.stalls.pop(0) if manners.stalls else None
    send(request, status, body[start:][: breaks if stalls is None else stalls], headers)
    if stalls is not None:
        done.wait(5)


def send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
) -> None:
    """Status, headers and bytes; a client that leaves early is no matter."""
    headers = headers or {}
    try:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value != "":
                request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)
        request.wfile.flush()
    except OSError:
        pass
