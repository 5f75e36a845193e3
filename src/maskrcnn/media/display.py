"""Shows pictures as they are made: in a window, or in a browser of this machine as an MJPEG stream."""

import os
import re
import socket
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import cv2
import numpy as np

from maskrcnn.errors import UserError

HOST = "127.0.0.1"
# A page that another name leads to may be somebody else's (DNS rebinding).
OWN_NAMES = ("127.0.0.1", "localhost")
LEAVING = ("Escape", "q", "Q")
ESCAPE = 27
# Seconds in which a viewer must take a picture, and in which the last one reaches all viewers.
PATIENCE, FAREWELL = 10.0, 1.0
# Bytes that the system keeps for a viewer: in more, pictures would queue up and be shown late.
SEND_BUFFER = 1 << 16
QUALITY = 85
# Milliseconds in which a window notices that it was closed.
GLANCE = 50
# Sides of a window at first, in pixels.
WIDEST, HIGHEST = 1280, 800
PAGE = b"""<!doctype html><meta charset="utf-8"><title>maskrcnn</title>
<style>body { margin: 0; background: #111; color: #ccc } img { max-width: 100vw; max-height: 94vh }</style>
<img src="/stream" alt="no picture yet">
<div>Esc or q ends it; any other key goes on where it waits for one.</div>
<script>
addEventListener("keydown", event => fetch("/key", {method: "POST", headers: {"X-Key": event.key}}))
</script>
"""


class Display(Protocol):
    """What shows pictures. place: where, in words."""

    place: str

    def show(self, picture: np.ndarray, delay: int | None) -> bool:
        """Show uint8 (H, W, 3) RGB from now on -> whether to go on; False when the user ends it.

        delay: milliseconds that it stays at least, 0 until a key is pressed, None for no time.
        """

    def close(self) -> None:
        """Nothing more will be shown."""


def open_display(where: str) -> Display:
    """`window`, a port of this machine for a browser, or `auto`: a window, and a free port where none can be.

    Raises UserError.
    """
    problem = no_window()
    if where == "window":
        if problem:
            raise UserError(f"--show window: {problem}", hint="use --show 8080, and open it in a browser")
        return Window()
    if where == "auto":
        return Page(0) if problem else Window()
    if not where.isascii() or not where.isdigit() or not 0 < int(where) < 65536:
        raise UserError(
            f"--show {where}: is no way to show pictures", hint="use auto, window, or a port such as 8080"
        )
    return Page(int(where))


def no_window() -> str:
    """Why no window can be opened, "" if one can."""
    if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
        return "this OpenCV has no windows (opencv-python has them, opencv-python-headless has not)"
    # Without one Qt would end the program.
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display"
    return ""


class Window:
    """A window of OpenCV, which ends when it is closed, or on Esc or q."""

    def __init__(self) -> None:
        self.place, self._open = "in a window", False

    def show(self, picture: np.ndarray, delay: int | None) -> bool:
        """As Display's; in the thread that began the program, as macOS asks."""
        if not self._open:
            cv2.namedWindow("maskrcnn", cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            shrink = min(1.0, WIDEST / picture.shape[1], HIGHEST / picture.shape[0])
            cv2.resizeWindow("maskrcnn", *(max(1, round(side * shrink)) for side in picture.shape[1::-1]))
            self._open = True
        cv2.imshow("maskrcnn", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        if delay:
            return self._goes_on(cv2.waitKey(delay))
        key = cv2.waitKey(1 if delay is None else GLANCE)
        while delay == 0 and key < 0 and self._goes_on(key):
            key = cv2.waitKey(GLANCE)
        return self._goes_on(key)

    def close(self) -> None:
        """Close it."""
        if self._open:
            with suppress(cv2.error):
                cv2.destroyWindow("maskrcnn")

    def _goes_on(self, key: int) -> bool:
        if key >= 0 and (key & 0xFF == ESCAPE or chr(key & 0xFF) in LEAVING):
            return False
        return cv2.getWindowProperty("maskrcnn", cv2.WND_PROP_VISIBLE) >= 1


class Page:
    """A page at a port of this machine, 0 for a free one, with what is newest whenever a viewer is ready.

    port: where it is. Pictures are coded in the threads of viewers, and none of them holds up who shows.
    """

    def __init__(self, port: int) -> None:
        self._changed = threading.Condition()
        self._picture: np.ndarray | None = None
        self._number = 0
        self._coding = threading.Lock()
        self._coded: tuple[int, bytes] = (0, b"")
        self._viewers = 0
        self._keys = 0
        self._left = self._closed = False
        try:
            self._server = _Server(port, self)
        except OSError as error:
            raise UserError(
                f"--show {port}: the port cannot be used ({error.strerror})", hint="choose another one"
            ) from error
        self.port = self._server.server_port
        self.place = f"at http://{HOST}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def show(self, picture: np.ndarray, delay: int | None) -> bool:
        """As Display's; picture must not change afterwards."""
        with self._changed:
            self._picture, self._number = picture, self._number + 1
            self._changed.notify_all()
            keys = self._keys
            if delay:
                self._changed.wait_for(lambda: self._left, delay / 1000)
            while delay == 0 and keys == self._keys:
                self._changed.wait(GLANCE / 1000)  # with an end, for Ctrl-C on every system
            return not self._left

    def close(self) -> None:
        """Let viewers have the last picture, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._viewers == 0, FAREWELL)
        self._server.shutdown()
        self._server.server_close()

    def press(self, key: str) -> None:
        """A viewer pressed a key, as browsers name it."""
        with self._changed:
            self._keys += 1
            self._left = self._left or key in LEAVING
            self._changed.notify_all()

    def watch(self, come: int) -> None:
        """A viewer comes, 1, or goes, -1."""
        with self._changed:
            self._viewers += come
            self._changed.notify_all()

    def newer_than(self, number: int) -> tuple[int, bytes]:
        """Number and JPEG of the newest picture, once it is newer; (0, b"") when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number or self._closed)
            if self._number <= number or self._picture is None:
                return 0, b""
            newest, picture = self._number, self._picture
        with self._coding:
            if self._coded[0] < newest:
                bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
                good, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
                assert good
                self._coded = newest, jpeg.tobytes()
            return self._coded


class _Server(ThreadingHTTPServer):
    """Serves one page."""

    def __init__(self, port: int, page: Page) -> None:
        self.page = page
        super().__init__((HOST, port), _Viewer)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing for a viewer that has left."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Viewer(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server: _Server

    def get(self) -> None:
        """The page, and its stream of pictures."""
        if self._refused():
            return
        if self.path == "/stream":
            self.server.page.watch(1)
            try:
                with suppress(OSError):  # the viewer has left, or takes no more
                    self._stream()
            finally:
                self.server.page.watch(-1)
        elif self.path == "/":
            self._answer(200, "text/html; charset=utf-8", PAGE)
        else:
            self._answer(404, "text/plain", b"there is / and /stream\n")

    def post(self) -> None:
        """A key; pages of others cannot send its header here without a permission that is never given."""
        if self._refused():
            return
        key = self.headers.get("X-Key")
        if self.path == "/key" and key is not None:
            self.server.page.press(key)
            self._answer(204, "text/plain", b"")
        else:
            self._answer(404, "text/plain", b"there is /key with X-Key\n")

    do_GET, do_POST = get, post

    def log_message(self, *_: object) -> None:
        """Nothing: standard error is for the words of the run."""

    def _refused(self) -> bool:
        if self.headers.get("Host", "").partition(":")[0] in OWN_NAMES:
            return False
        self._answer(403, "text/plain", b"only http://127.0.0.1 and http://localhost\n")
        return True

    def _answer(self, code: int, kind: str, contents: bytes) -> None:
        with suppress(OSError):
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(contents)))
            self.end_headers()
            self.wfile.write(contents)

    def _stream(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(b"--picture\r\n")
        number, jpeg = self.server.page.newer_than(0)
        while jpeg:
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            # Browsers show a picture when they see the line after it.
            self.wfile.write(head.encode() + jpeg + b"\r\n--picture\r\n")
            number, jpeg = self.server.page.newer_than(number)
