"""Pictures in a window of a fake OpenCV, and in a browser over the loopback interface."""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from maskrcnn.errors import UserError
from maskrcnn.media import display
from maskrcnn.media.display import Page, Window, no_window, open_display


def picture(level: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page(0)
    yield page
    page.close()


def ask(page: Page, method: str, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    connection.request(method, path, headers=headers)
    return connection.getresponse()


class Viewer:
    """Reads the stream of a page picture by picture."""

    def __init__(self, page: Page) -> None:
        self.answer = ask(page, "GET", "/stream")
        self.boundary = b"--picture\r\n"
        assert self.answer.getheader("Content-Type") == "multipart/x-mixed-replace; boundary=picture"
        assert self.answer.readline() == self.boundary

    def next(self) -> np.ndarray | None:
        """The next picture, RGB; None at the end."""
        if self.answer.readline() != b"Content-Type: image/jpeg\r\n":
            return None
        length = int(self.answer.readline().split()[1])
        assert self.answer.readline() == b"\r\n"
        jpeg = self.answer.read(length)
        assert (self.answer.readline(), self.answer.readline()) == (b"\r\n", self.boundary)
        return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def within(seconds: float, done: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.005)
    return done()


def test_a_browser_gets_every_picture_that_it_has_time_for_in_its_colours(page: Page) -> None:
    red = np.zeros((24, 32, 3), np.uint8)
    red[..., 0] = 200
    assert page.show(red, None)
    viewer = Viewer(page)
    seen = viewer.next()
    assert seen is not None and np.abs(seen.astype(int) - red).max() < 12
    page.show(picture(90), None)
    seen = viewer.next()
    assert seen is not None and abs(int(seen.mean()) - 90) < 3


def test_the_last_picture_reaches_a_viewer_before_the_stream_ends(page: Page) -> None:
    page.show(picture(10), None)
    viewer = Viewer(page)
    viewer.next()
    page.show(picture(250), None)
    ending = threading.Thread(target=page.close)
    ending.start()
    seen = viewer.next()
    assert seen is not None and seen.mean() > 240
    assert viewer.next() is None
    ending.join(5)
    assert not ending.is_alive()


def test_a_viewer_that_takes_nothing_holds_nobody_up_and_then_sees_the_newest(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    page.show(noise, None)
    slow = Viewer(page)
    began = time.monotonic()
    for _ in range(500):
        page.show(noise, None)
    page.show(picture(77, (600, 800)), None)
    assert time.monotonic() - began < 2
    seen = []
    for _ in range(40):
        shown = slow.next()
        assert shown is not None
        seen.append(float(shown.std()))
        if seen[-1] < 1:
            break
    # what the system's buffers held, and then the last of 502
    assert seen[-1] < 1 and len(seen) < 30


def test_keys_of_the_page_end_what_is_shown_or_go_on(page: Page) -> None:
    assert b"/stream" in ask(page, "GET", "/").read()
    for key, goes_on in (("x", True), ("q", False)):
        answers: list[bool] = []
        waiting = threading.Thread(target=lambda found=answers: found.append(page.show(picture(1), 0)))
        waiting.start()
        assert not within(0.1, lambda found=answers: bool(found))
        assert ask(page, "POST", "/key", **{"X-Key": key}).status == 204
        waiting.join(5)
        assert answers == [goes_on]
    assert not page.show(picture(2), None)


def test_a_picture_stays_for_the_delay_unless_the_user_ends_it(page: Page) -> None:
    began = time.monotonic()
    assert page.show(picture(1), 150)
    assert time.monotonic() - began >= 0.15
    threading.Timer(0.05, page.press, ["Escape"]).start()
    assert not page.show(picture(2), 60000)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"Host": "evil.example:80"}, 403),
        ("GET", "/stream", {"Host": "evil.example"}, 403),
        ("POST", "/key", {"Host": "evil.example", "X-Key": "q"}, 403),
        ("POST", "/key", {}, 404),
        ("GET", "/../etc/passwd", {}, 404),
        ("OPTIONS", "/key", {}, 501),
        ("GET", "/", {"Host": "localhost:8080"}, 200),
    ],
)
def test_pages_of_others_see_and_end_nothing(
    page: Page, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert ask(page, method, path, **headers).status == status
    assert page.show(picture(1), None)


def test_a_viewer_that_breaks_off_is_not_worth_a_word(page: Page, capfd: pytest.CaptureFixture[str]) -> None:
    page.show(picture(1), None)
    for begun in (b"", b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HT"):
        with socket.create_connection(("127.0.0.1", page.port), timeout=5) as viewer:
            viewer.sendall(begun)
            time.sleep(0.05)
            # closed by a reset, and not politely
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for level in range(20):
        page.show(picture(level), None)
        time.sleep(0.005)
    assert ask(page, "GET", "/").status == 200
    assert capfd.readouterr().err == ""


def test_a_port_that_is_taken_and_a_place_that_is_none_are_said(page: Page) -> None:
    with pytest.raises(UserError, match=f"--show {page.port}: the port cannot be used"):
        open_display(str(page.port))
    for where in ("0", "70000", "-1", "screen", "٣٠٠٠", "127.0.0.1:80"):
        with pytest.raises(UserError, match="is no way to show pictures"):
            open_display(where)


def test_the_server_is_of_this_machine_alone(page: Page) -> None:
    name = socket.gethostbyname(socket.gethostname())
    if name.startswith("127."):
        pytest.skip("this machine knows itself by the loopback address alone")
    with pytest.raises(OSError):
        socket.create_connection((name, page.port), timeout=1).close()


class Screen:
    """OpenCV with windows. keys: what the user presses, one a wait, -1 for nothing. closed: by its button."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, keys: list[int]) -> None:
        self.keys, self.closed = keys, False
        self.shown: list[np.ndarray] = []
        self.waits: list[int] = []
        self.calls: list[str] = []
        for name in ("namedWindow", "resizeWindow", "destroyWindow"):
            monkeypatch.setattr(cv2, name, lambda *_, name=name: self.calls.append(name))
        monkeypatch.setattr(cv2, "imshow", lambda _, image: self.shown.append(image))
        monkeypatch.setattr(cv2, "waitKey", self.wait)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 0.0 if self.closed else 1.0)
        monkeypatch.setattr(display, "no_window", lambda: "")

    def wait(self, milliseconds: int) -> int:
        self.waits.append(milliseconds)
        return self.keys.pop(0) if self.keys else -1


def test_a_window_shows_bgr_and_ends_on_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, [-1, -1, 27])
    window = open_display("auto")
    assert isinstance(window, Window)
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 9
    assert [window.show(red, delay) for delay in (None, 40, None)] == [True, True, False]
    assert screen.shown[0][0, 0].tolist() == [0, 0, 9]
    assert screen.waits == [1, 40, 1]
    window.close()
    assert screen.calls == ["namedWindow", "resizeWindow", "destroyWindow"]


def test_without_a_delay_of_its_own_a_window_waits_for_a_key_or_its_button(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Screen(monkeypatch, [-1, -1, ord("n"), -1, ord("q")])
    window = Window()
    assert (window.show(picture(1), 0), len(screen.waits)) == (True, 3)
    assert (window.show(picture(1), 0), len(screen.waits)) == (False, 5)
    screen.closed = True
    assert (window.show(picture(1), 0), len(screen.waits)) == (False, 6)


@pytest.mark.parametrize(
    ("build", "system", "variables", "words"),
    [
        ("  GUI:                           NONE\n", "linux", {"DISPLAY": ":0"}, "has no windows"),
        ("  GUI:                           QT5\n", "linux", {}, "there is no display"),
        ("  GUI:                           GTK3\n", "linux", {"WAYLAND_DISPLAY": "w"}, ""),
        ("  GUI:                           COCOA\n", "darwin", {}, ""),
    ],
)
def test_where_there_can_be_no_window_a_browser_serves(
    monkeypatch: pytest.MonkeyPatch, build: str, system: str, variables: dict[str, str], words: str
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: build)
    monkeypatch.setattr(display.sys, "platform", system)
    assert words in no_window() and bool(words) == bool(no_window())
    if words:
        with pytest.raises(UserError, match="--show window: "):
            open_display("window")
        page = open_display("auto")
        assert page.place == f"at http://127.0.0.1:{page.port}"
        page.close()
