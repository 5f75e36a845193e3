"""A camera gives its newest picture, says how many it dropped, and is taken up again when it was lost."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn.errors import UserError
from maskrcnn.media import live
from maskrcnn.media.live import Live, Load, camera, network_stream


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost cameras are opened again after 10, 20, 40, 40 ms."""
    monkeypatch.setattr(live, "PAUSES", (0.01, 0.04))


def picture(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, np.uint8)


def opened(connect: Callable[[], Iterator[Load]], said: list[str] | None = None) -> Live:
    say = (said if said is not None else []).append
    return Live(Path("camera-0"), "camera-0", "camera:0", connect, say)


def paced(count: int, seconds: float) -> Iterator[Load]:
    for number in range(count):
        yield partial(picture, number)
        time.sleep(seconds)


def test_a_camera_faster_than_its_user_drops_pictures_and_says_how_many() -> None:
    with opened(lambda: paced(200, 0.005)) as source:
        frames = []
        for frame in source.frames(0.5):
            frames.append((int(frame.read()[0, 0, 0]), frame.dropped))
            time.sleep(0.05)
    levels = [level for level, _ in frames]
    assert levels == sorted(set(levels))
    assert 2 <= len(frames) <= 11
    assert all(
        level == sum(dropped + 1 for _, dropped in frames[: at + 1]) - 1
        for at, (level, _) in enumerate(frames)
    )
    assert sum(dropped for _, dropped in frames) > 5


def test_a_slow_camera_drops_nothing_and_its_pictures_have_the_times_of_their_arrival(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = threading.Semaphore(0)
    clock = [100.0]
    monkeypatch.setattr(live, "_now", lambda: clock[0])

    def connect() -> Iterator[Load]:
        for number in range(5):
            yield partial(picture, number)
            taken.acquire(timeout=5)
            clock[0] += 0.5

    with opened(connect) as source:
        frames = []
        for frame in source.frames():
            frames.append(frame)
            if len(frames) == 5:
                break
            taken.release()
    assert [(frame.index, float(frame.seconds), frame.dropped) for frame in frames] == [
        (number, 0.5 * number, 0) for number in range(5)
    ]
    assert (frames[3].name, frames[3].path) == ("camera-0-000003", Path("camera-0/000003"))


def test_a_stalled_camera_does_not_fall_behind() -> None:
    """Fifty pictures that come at once after a stall are one picture, the last."""

    def connect() -> Iterator[Load]:
        yield partial(picture, 0)
        time.sleep(0.2)
        for number in range(1, 51):
            yield partial(picture, number)
        time.sleep(5)

    with opened(connect) as source:
        frames = source.frames()
        assert next(frames).read()[0, 0, 0] == 0
        time.sleep(0.3)
        frame = next(frames)
        assert (frame.read()[0, 0, 0], frame.dropped, frame.index) == (50, 49, 1)


def test_a_lost_camera_is_opened_again_with_longer_and_longer_pauses_and_said_once() -> None:
    tries: list[float] = []
    said: list[str] = []

    def connect() -> Iterator[Load]:
        tries.append(time.monotonic())
        if 1 < len(tries) < 6:
            raise UserError("camera:0: no route", hint="")
        yield partial(picture, len(tries))
        time.sleep(0.05)

    with opened(connect, said) as source:
        frames = source.frames()
        assert next(frames).read()[0, 0, 0] == 1
        assert next(frames).read()[0, 0, 0] == 6
    pauses = np.diff(tries[1:6])
    assert (pauses > np.array([0.02, 0.04, 0.04, 0.04]) - 0.001).all()
    assert pauses.max() < 2
    assert said[:2] == [
        "camera:0: is lost (it ended); connecting again until it is back",
        "camera:0: is back",
    ]


def test_a_camera_that_fails_at_first_is_told_at_once() -> None:
    def refuses() -> Iterator[Load]:
        raise UserError("camera:0: no such camera")
        yield

    with opened(refuses) as source, pytest.raises(UserError, match="no such camera"):
        next(source.frames())
    with opened(lambda: iter(())) as source, pytest.raises(UserError, match="camera:0: gives no picture"):
        next(source.frames())


def test_a_limit_of_seconds_ends_a_camera_that_gives_nothing_more() -> None:
    def connect() -> Iterator[Load]:
        yield partial(picture, 0)
        time.sleep(5)

    start = time.monotonic()
    with opened(connect) as source:
        assert len(list(source.frames(0.3))) == 1
    assert time.monotonic() - start < 1.5


def test_a_mistake_in_the_thread_is_not_a_hang() -> None:
    def connect() -> Iterator[Load]:
        yield partial(picture, 0)
        raise ZeroDivisionError

    with opened(connect) as source, pytest.raises(ZeroDivisionError):
        list(source.frames())


def test_a_camera_that_is_not_there_is_told() -> None:
    if Path("/dev/video63").exists():
        pytest.skip("this machine has 64 cameras")
    with pytest.raises(UserError, match="camera:63: cannot be opened") as caught:
        next(camera(63)())
    assert caught.value.hint


def test_the_camera_of_opencv_gives_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        def __init__(self, number: int) -> None:
            self.left = 2

        def isOpened(self) -> bool:  # noqa: N802
            return True

        def set(self, name: int, value: float) -> None:
            pass

        def read(self) -> tuple[bool, np.ndarray]:
            self.left -= 1
            return self.left >= 0, np.full((2, 2, 3), (1, 2, 3), np.uint8)

        def release(self) -> None:
            pass

    monkeypatch.setattr("cv2.VideoCapture", Device)
    pictures = camera(0)()
    assert next(pictures)().tolist() == [[[3, 2, 1]] * 2] * 2
    next(pictures)
    with pytest.raises(UserError, match="camera:0: gives no picture"):
        next(pictures)


def serve(contents: bytes, pause: float, times: int) -> int:
    """A port of this machine that sends a video to `times` callers and then stalls for `pause` s."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with server:
            for _ in range(times):
                caller, _ = server.accept()
                with caller:
                    caller.sendall(contents)
                    time.sleep(pause)

    threading.Thread(target=run, daemon=True).start()
    return int(server.getsockname()[1])


def test_a_network_stream_that_breaks_off_is_taken_up_again(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from films import film

    contents = film(tmp_path / "clip.ts", range(0, 25600, 512)).read_bytes()
    place = f"tcp://127.0.0.1:{serve(contents, 0.05, 1000)}"
    said: list[str] = []
    with Live(Path("tcp"), "tcp", place, network_stream(place, place), said.append) as source:
        seen = 0
        for frame in source.frames(30):
            assert frame.read().shape == (48, 64, 3)
            assert isinstance(frame.seconds, Fraction)
            seen += 1
            if len([word for word in said if word.endswith("is back")]) == 2:
                break
    assert seen >= 3
    assert said[:2] == [
        f"{place}: is lost (it ended); connecting again until it is back",
        f"{place}: is back",
    ]


def test_a_camera_that_sends_jpegs_over_http_is_read() -> None:
    pytest.importorskip("av")
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), (0, 0, 200), np.uint8))[1].tobytes()
    part = b"--ball\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
    head = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=ball\r\n\r\n"
    place = f"http://127.0.0.1:{serve(head + 200 * part, 2, 1)}/video"
    pictures = network_stream(place, place)()
    image = next(pictures)()
    assert np.abs(image[24, 32].astype(int) - [200, 0, 0]).max() <= 3


def test_a_network_stream_that_stalls_is_lost_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    from films import film

    monkeypatch.setattr(live, "PATIENCE", (2.0, 0.3))
    contents = film(tmp_path / "clip.ts", range(0, 512000, 512)).read_bytes()
    place = f"tcp://127.0.0.1:{serve(contents, 3, 1)}"
    start = time.monotonic()
    with pytest.raises(UserError, match=r"nothing arrived for 0.3 s"):
        list(network_stream(place, place)())
    assert time.monotonic() - start < 2.5


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    pytest.importorskip("av")
    stream = network_stream("rtsp://me:secret@127.0.0.1:9/door", "rtsp://...@127.0.0.1:9/door")
    with pytest.raises(UserError, match="refused") as caught:
        next(stream())
    assert "secret" not in caught.value.message


def test_offline_no_stream_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    monkeypatch.setenv("MASKRCNN_OFFLINE", "1")
    with pytest.raises(UserError, match="this program is offline"):
        next(network_stream("rtsp://127.0.0.1:9/door", "rtsp://127.0.0.1:9/door")())
