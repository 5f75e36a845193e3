"""A video is read frame by frame, upright and at its own times; damage is told where it begins."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.errors import UserError
from maskrcnn.media.frames import ahead, limited
from maskrcnn.media.video import is_video, video_file

av = pytest.importorskip("av")

from films import TICK, content, film, plain  # noqa: E402

UNEVEN = np.cumsum([0] + [512 if number % 3 else 1300 for number in range(29)]).tolist()


def grey(image: np.ndarray) -> int:
    return int(image[-4, -4].mean().round())


def is_red(pixel: np.ndarray) -> bool:
    return pixel[0] > 150 and pixel[1] < 100


def test_frames_come_in_order_at_their_own_times_with_their_pixels(tmp_path: Path) -> None:
    with video_file(film(tmp_path / "clip.mp4", UNEVEN)) as video:
        frames = list(video.frames())
        images = [frame.read() for frame in frames]
    assert [frame.seconds for frame in frames] == [ticks * TICK for ticks in UNEVEN]
    assert [frame.index for frame in frames] == list(range(30))
    assert all(abs(grey(image) - 40 - 2 * number) <= 3 for number, image in enumerate(images))
    assert images[0].shape == (48, 64, 3)
    assert (frames[12].name, frames[12].path) == ("clip-000012", tmp_path / "clip.mp4" / "000012")


@pytest.mark.parametrize(
    ("rotation", "shape", "red"), [(90, (64, 48), (1, 0)), (180, (48, 64), (1, 1)), (270, (64, 48), (0, 1))]
)
def test_a_lying_video_stands_upright(
    tmp_path: Path, rotation: int, shape: tuple[int, int], red: tuple[int, int]
) -> None:
    """The red quarter is at the upper left as stored; turned by 90 it is at the lower left."""
    with video_file(film(tmp_path / "clip.mp4", rotation=rotation)) as video:
        image = next(video.frames()).read()
    assert image.shape[:2] == shape
    y, x = (shape[0] // 4 + red[0] * shape[0] // 2, shape[1] // 4 + red[1] * shape[1] // 2)
    assert is_red(image[y, x])


def test_the_matrix_of_a_telephone_held_upright_turns_clockwise(tmp_path: Path) -> None:
    """QuickTime: x' = a x + c y, y' = b x + d y; b = 1, c = -1 lay the right side down: clockwise."""
    path = film(tmp_path / "clip.mp4", rotation=180)
    contents = path.read_bytes()
    half = struct.pack(">9i", -65536, 0, 0, 0, -65536, 0, 64 << 16, 48 << 16, 1 << 30)
    assert contents.count(half[:20]) == 1
    at = contents.index(half[:20])
    quarter = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(contents[:at] + quarter + contents[at + 36 :])
    with video_file(path) as video:
        image = next(video.frames()).read()
    assert image.shape == (64, 48, 3)
    assert is_red(image[16, 36])  # the red quarter is at the upper right


@pytest.mark.parametrize("kind", [".mkv", ".ts", ".avi", ".webm"])
def test_times_begin_with_0_whatever_the_container_counts_from(tmp_path: Path, kind: str) -> None:
    codec = "libvpx" if kind == ".webm" else "libx264"
    path = film(tmp_path / f"clip{kind}", range(10), tick=Fraction(1, 25), codec=codec)
    with video_file(path) as video:
        found = [float(frame.seconds) for frame in video.frames()]
    assert np.abs(np.array(found) - np.arange(10) / 25).max() < 0.001


def test_how_many_frames_are_expected_is_known_before_the_first(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.mkv"):
        with video_file(film(tmp_path / name, range(0, 12800, 512))) as video:
            assert abs(video.expected - 25) <= 1


@pytest.mark.parametrize("kind", [".mp4", ".mkv"])
def test_frames_before_the_damage_are_read_and_then_it_is_told(tmp_path: Path, kind: str) -> None:
    front = {"movflags": "faststart"} if kind == ".mp4" else {}
    path = film(tmp_path / f"clip{kind}", range(0, 51200, 512), options=front)
    whole = content(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with video_file(path) as video:
        frames = list(video.frames())
    good = [frame for frame in frames if frame.path.name != frames[-1].path.name]
    assert 20 < len(good) < 100
    for frame, image in zip(good, whole.images, strict=False):
        assert np.array_equal(frame.read(), image)
    with pytest.raises(UserError, match=rf"clip{kind}: is damaged or incomplete at \d\.\d s"):
        frames[-1].read()


def test_a_packet_that_cannot_be_decoded_does_not_end_the_video(tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4", codec="mjpeg", pix_fmt="yuvj420p")
    contents = bytearray(path.read_bytes())
    starts = [at for at in range(len(contents)) if contents[at : at + 3] == b"\xff\xd8\xff"]
    contents[starts[4] : starts[5]] = bytes(starts[5] - starts[4])
    path.write_bytes(contents)
    with video_file(path) as video:
        frames = list(video.frames())
    read = []
    for frame in frames:
        try:
            read.append(grey(frame.read()))
        except UserError:
            read.append(-1)
    assert read.count(-1) == 1
    assert read[4] == -1
    assert np.abs(np.array(read)[[*range(4), *range(5, 10)]] - 40 - 2 * np.r_[0:4, 5:10]).max() <= 3


def assert_refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        video_file(path)
    for word in words:
        assert word in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("contents", [b"", b"this is text\n" * 50, b"\0\0\0\x18ftypisom" + bytes(500)])
def test_what_is_no_video_is_told(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(contents)
    assert_refused(tmp_path / "clip.mp4", "clip.mp4: is no video, or a damaged one")


def test_a_video_without_its_table_is_told(tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[:-1000])
    assert_refused(path, "is no video, or a damaged one")


def test_sound_without_pictures_is_told(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as output:
        from films import hum

        track = output.add_stream("aac", rate=44100, layout="mono")
        for start in range(0, 44100, 1024):
            output.mux(track.encode(hum(start, "fltp")))
        output.mux(track.encode(None))
    assert_refused(path, "song.mp4: has no pictures")


def test_a_codec_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4")
    contents = path.read_bytes()
    assert contents.count(b"avc1") >= 1
    path.write_bytes(contents.replace(b"avc1", b"xyz1"))
    assert_refused(path, "clip.mp4: its codec cannot be decoded")


def test_a_playlist_cannot_lead_a_file_to_the_network(tmp_path: Path) -> None:
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "clip.mp4").write_text(text)
    assert_refused(tmp_path / "clip.mp4", "clip.mp4: ")


def test_without_pyav_one_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    path = film(tmp_path / "clip.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="clip.mp4: needs av, which is not installed") as caught:
        video_file(path)
    assert "maskrcnn[video]" in caught.value.hint


def test_limits_count_frames_and_seconds(tmp_path: Path) -> None:
    with video_file(film(tmp_path / "clip.mp4")) as video:
        assert [frame.index for frame in limited(video.frames(), 3, None)] == [0, 1, 2]
    with video_file(film(tmp_path / "clip.mp4")) as video:
        assert [frame.index for frame in limited(video.frames(), None, 0.08)] == [0, 1]


def test_items_are_made_ahead_of_their_use_but_not_more_than_that() -> None:
    made: list[int] = []

    def items():  # type: ignore[no-untyped-def]
        for number in range(100):
            made.append(number)
            yield number

    results = ahead(items(), 3)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(made) <= 10 + 3
    assert list(results) == list(range(10, 100))


@pytest.mark.parametrize("name", ["a.MP4", "b.mkv", "c.tar.mov"])
def test_videos_are_known_by_their_suffix(name: str) -> None:
    assert is_video(name)
    assert not is_video(f"{name}.jpg")


def test_plain_frames_tell_one_from_another() -> None:
    assert [grey(plain(number)) for number in range(3)] == [40, 42, 44]
