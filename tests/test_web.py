"""One GET of an address: redirects, limits, proxies, and what goes wrong in words."""

import ssl
import time
from collections.abc import Iterator

import pytest
from misbehaving_server import Server, misbehaving, only_this_machine
from urllib3.exceptions import SSLError

from maskrcnn import web
from maskrcnn.download import read_url
from maskrcnn.errors import UserError
from maskrcnn.web import OFFLINE, Failed, followed

MILLION = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    only_this_machine(monkeypatch)


@pytest.fixture
def server() -> Iterator[Server]:
    with misbehaving() as server:
        server.manners.files["/model.pkl"] = MILLION
        yield server


def test_redirects_are_followed_but_not_in_circles_nor_out_of_the_web(server: Server) -> None:
    server.manners.moved = {"/a": "/b", "/b": "/model.pkl", "/round": "/round", "/file": "file:///etc/hosts"}
    assert read_url(f"{server.url}/a") == MILLION
    with pytest.raises(UserError, match="leads on to other addresses more than 5 times"):
        read_url(f"{server.url}/round")
    with pytest.raises(UserError, match="is no http or https address"):
        read_url(f"{server.url}/file")


def test_a_redirect_does_not_leave_encryption() -> None:
    assert followed("https://a/x", "//b/y") == "https://b/y"
    with pytest.raises(Failed, match="leads on to http://b/y, which is not encrypted"):
        followed("https://a/x", "http://b/y")


@pytest.mark.parametrize("announced", [True, False])
def test_more_bytes_than_allowed_are_refused(server: Server, announced: bool) -> None:
    server.manners.announced = announced
    assert len(read_url(f"{server.url}/model.pkl", most=1_024_000)) == 1_024_000
    with pytest.raises(UserError, match=r"/model.pkl: holds more than 1.02 MB"):
        read_url(f"{server.url}/model.pkl", most=1_020_000)


def test_announcing_more_than_allowed_is_enough(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "STALL_SECONDS", 0.2)
    server.manners.stalls = [10]
    with pytest.raises(UserError, match=r"holds more than 1 MB"):
        read_url(f"{server.url}/model.pkl", most=1_000_000)


def test_a_server_that_sends_a_byte_now_and_then_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Crawling:
        left = 40

        def read1(self, most: int) -> bytes:
            time.sleep(0.02)
            self.left -= 1
            return b"x" * (self.left > 0)

    monkeypatch.setattr(web, "STALL_SECONDS", 0.2)
    with pytest.raises(Failed, match=r"only \d+ bytes arrived in 0.2 s"):
        for _ in web.chunks(Crawling()):  # type: ignore[arg-type]
            pass


def test_a_server_that_takes_too_long_is_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "STALL_SECONDS", 0.2)
    server.manners.stalls = [10]
    with pytest.raises(UserError, match="nothing arrived for 0.2 s"):
        read_url(f"{server.url}/model.pkl")
    with pytest.raises(UserError, match="did not arrive within 0 s"):
        read_url(f"{server.url}/model.pkl", seconds=0)


@pytest.mark.parametrize("value", ["1", "yes"])
def test_offline_opens_no_connection(server: Server, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(OFFLINE, value)
    with pytest.raises(UserError, match="cannot be read, this program is offline"):
        read_url(f"{server.url}/model.pkl")
    assert server.manners.asked == []
    monkeypatch.setenv(OFFLINE, "0")
    assert read_url(f"{server.url}/model.pkl") == MILLION


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "ftp://host/x: is no http or https address"),
        ("http://", "http://: is no http or https address"),
        ("http://[::1", "http://[::1: is no address (Invalid IPv6 URL)"),
        ("http://nosuch.invalid/x", "http://nosuch.invalid/x: there is no such server, or no network"),
        ("http://me:secret@127.0.0.1:1/x", "http://...@127.0.0.1:1/x: the server cannot be reached"),
        ("http://127.0.0.1:99999/x", "http://127.0.0.1:99999/x: is no address"),
    ],
)
def test_a_bad_address_is_told_in_words_without_its_password(url: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_url(url)
    assert caught.value.message.startswith(words) and "secret" not in caught.value.message


def test_a_certificate_that_nobody_signed_is_not_trusted() -> None:
    cause = ssl.SSLCertVerificationError()
    cause.verify_message = "self-signed certificate"
    assert web.in_words(SSLError(cause)).why == (
        "the server's certificate is not trusted (self-signed certificate)"
    )


def test_a_proxy_is_asked_unless_the_host_is_excepted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.manners.files["http://example.invalid/x"] = b"through the proxy"
    monkeypatch.setenv("http_proxy", server.url)
    assert read_url("http://example.invalid/x") == b"through the proxy"
    monkeypatch.setenv("no_proxy", "example.invalid")
    with pytest.raises(UserError, match="there is no such server, or no network"):
        read_url("http://example.invalid/x")
