"""One HTTP GET, and what can go wrong with it in words."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from maskrcnn.errors import UserError
from maskrcnn.whole_file import shown

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

OFFLINE = "MASKRCNN_OFFLINE"
CONNECT_SECONDS = 10.0
# Nothing at all for so long, or less than SLOWEST bytes a second over so long, is a stall.
STALL_SECONDS = 30.0
SLOWEST = 1000
CHUNK = 1 << 18
MOST_REDIRECTS = 5
PARTIAL = 206
FOUND = (200, PARTIAL)
RANGE_REFUSED = 416
# What another attempt may change: time-outs, too many requests, and the server's own faults.
PASSING = (408, 425, 429, 500, 502, 503, 504)
WHY_STATUS = {
    401: "the server wants a password",
    403: "the server refuses it",
    404: "the server has no such file",
    410: "the server has no such file any longer",
    429: "the server is asked too often",
}
AN_ADDRESS = "an address is such as https://host/file"
CHECK_NETWORK = "check the address, the network and its proxy"


class Failed(Exception):
    """One attempt that failed.

    again: whether another may do better. reached: False when there was no connection, which only somebody
    who had one before will try again.
    """

    def __init__(
        self, why: str, hint: str = CHECK_NETWORK, again: bool = False, reached: bool = True
    ) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint
        self.again = again
        self.reached = reached

    def told(self, url: str) -> UserError:
        """As the user's error that names the address."""
        return UserError(f"{shown_url(url)}: {self.why}", hint=self.hint)


def offline() -> bool:
    """Whether MASKRCNN_OFFLINE forbids every connection; empty and 0 do not."""
    return os.environ.get(OFFLINE, "") not in ("", "0")


@contextmanager
def answer(url: str, headers: Mapping[str, str] | None = None) -> "Iterator[BaseHTTPResponse]":
    """A server's answer to a GET, whatever its status, redirects followed; its body is still to be read.

    Raises Failed, for what goes wrong while the body is read as well, and UserError when offline.
    """
    from urllib3.exceptions import HTTPError, LocationValueError

    if offline():
        raise UserError(
            f"{shown_url(url)}: cannot be read, this program is offline",
            hint=f"leave out --offline and unset {OFFLINE}",
        )
    try:
        for _ in range(MOST_REDIRECTS + 1):
            with _pool(url) as pool, _asked(pool, url, headers or {}) as response:
                there = response.get_redirect_location()
                if not there:
                    yield response
                    return
            url = followed(url, there)
        raise Failed(f"leads on to other addresses more than {MOST_REDIRECTS} times")
    except LocationValueError as error:
        raise Failed(f"is no address ({error})", hint=AN_ADDRESS) from error
    except HTTPError as error:
        raise in_words(error) from error


def chunks(response: "BaseHTTPResponse") -> Iterator[bytes]:
    """The body as it arrives. Raises Failed when it stalls, or crawls."""
    start, arrived = time.monotonic(), 0
    while chunk := response.read1(CHUNK):
        yield chunk
        arrived += len(chunk)
        if time.monotonic() - start > STALL_SECONDS:
            if arrived < SLOWEST * STALL_SECONDS:
                raise Failed(f"only {arrived} bytes arrived in {STALL_SECONDS:g} s", again=True)
            start, arrived = time.monotonic(), 0


def body_length(response: "BaseHTTPResponse") -> int | None:
    """How many bytes the answer announces, None when it does not."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def status_failed(status: int) -> Failed:
    """What a status other than `found` means."""
    why = WHY_STATUS.get(status, "the server failed" if status >= 500 else "the server answers otherwise")
    return Failed(f"{why} (HTTP {status})", again=status in PASSING)


def shown_url(url: str) -> str:
    """An address as one printable line, without its password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return shown(url)
    if "@" in parts.netloc:
        parts = parts._replace(netloc="...@" + parts.netloc.rpartition("@")[2])
    return shown(urlunsplit(parts))


def _asked(pool: "PoolManager", url: str, headers: Mapping[str, str]) -> "BaseHTTPResponse":
    from urllib3 import Timeout
    from urllib3.util import make_headers

    # A body that is compressed on the way has another length than the file, and no ranges.
    sent: dict[str, str] = {"User-Agent": "maskrcnn", "Accept-Encoding": "identity", **headers}
    parts = urlsplit(url)
    if parts.username is not None:
        name_and_password = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        sent |= make_headers(basic_auth=name_and_password)
    return pool.request(
        "GET",
        url,
        headers=sent,
        preload_content=False,
        decode_content=False,
        redirect=False,
        retries=False,
        timeout=Timeout(connect=CONNECT_SECONDS, read=STALL_SECONDS),
    )


def _pool(url: str) -> "PoolManager":
    """Connections to the server, or to the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name."""
    from urllib.request import getproxies, proxy_bypass

    from urllib3 import PoolManager, ProxyManager
    from urllib3.util import make_headers, parse_url

    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise Failed(f"is no address ({error})", hint=AN_ADDRESS) from error
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise Failed("is no http or https address", hint=AN_ADDRESS)
    proxies: dict[str, Any] = getproxies()
    proxy = proxies.get(parts.scheme.lower()) or proxies.get("all")
    if not proxy or proxy_bypass(parts.hostname):
        return PoolManager()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    login = parse_url(proxy).auth
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise Failed(f"the proxy {shown_url(proxy)} is not of http", hint="set HTTPS_PROXY to an http proxy")
    return ProxyManager(proxy, proxy_headers=make_headers(proxy_basic_auth=login) if login else None)


def followed(url: str, there: str) -> str:
    """The address to which `url` leads on. Raises Failed when the way there is no longer encrypted."""
    try:
        following = urljoin(url, there)
    except ValueError:
        following = there
    if urlsplit(url).scheme.lower() == "https" and urlsplit(following).scheme.lower() != "https":
        raise Failed(f"leads on to {shown_url(following)}, which is not encrypted")
    return following


def in_words(error: Exception) -> Failed:
    """What urllib3 raises, as a sentence; the order matters, for some are kinds of others."""
    from urllib3 import exceptions as kinds

    if isinstance(error, kinds.SSLError):
        reason = getattr(error.args[0], "verify_message", "")
        if not reason:
            return Failed(f"no encrypted connection can be made ({error.args[0]})", again=True)
        return Failed(
            f"the server's certificate is not trusted ({reason})",
            hint="if your network has certificates of its own, set SSL_CERT_FILE to their file",
        )
    refused = getattr(error.__cause__, "strerror", None) or "no connection"
    sentences = {
        kinds.ProxyError: "its proxy cannot be reached; see HTTP_PROXY and HTTPS_PROXY",
        kinds.NameResolutionError: "there is no such server, or no network",
        kinds.NewConnectionError: f"the server cannot be reached ({refused})",
        kinds.ConnectTimeoutError: f"the server does not answer within {CONNECT_SECONDS:g} s",
        kinds.TimeoutError: f"nothing arrived for {STALL_SECONDS:g} s",
        kinds.ProtocolError: "the connection broke off",
    }
    for kind, sentence in sentences.items():
        if isinstance(error, kind):
            return Failed(sentence, again=True, reached=kind in (kinds.TimeoutError, kinds.ProtocolError))
    return Failed(f"cannot be read ({error})")
