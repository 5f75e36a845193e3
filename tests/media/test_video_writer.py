"""A written video has the frames, times and sound that it was given, and is whole or absent."""

import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.errors import UserError
from maskrcnn.media import video_writer
from maskrcnn.media.sound import Sound
from maskrcnn.media.video import video_file
from maskrcnn.media.video_writer import VideoWriter, suffix_for

av = pytest.importorskip("av")

from films import TICK, content, film, plain  # noqa: E402

UNEVEN = np.cumsum([0] + [512 if number % 3 else 1300 for number in range(299)]).tolist()


def copied(source: Path, path: Path) -> Path:
    """Read and written again, frame by frame."""
    with (
        video_file(source) as video,
        Sound(video) as sound,
        VideoWriter(path, video.time_base, video.rate, sound) as writer,
    ):
        for frame in video.frames():
            writer.add(frame.read(), frame.seconds)
        writer.add_rest_of_sound()
    return path


def written(path: Path, images: list[np.ndarray], tick: Fraction = TICK) -> Path:
    with VideoWriter(path, tick, Fraction(25)) as writer:
        for number, image in enumerate(images):
            writer.add(image, number * Fraction(1, 25))
    return path


def test_300_frames_in_are_300_frames_out_at_the_same_uneven_times(tmp_path: Path) -> None:
    source = content(film(tmp_path / "clip.mp4", UNEVEN))
    found = content(copied(tmp_path / "clip.mp4", tmp_path / "out.mp4"))
    assert len(source.images) == len(found.images) == 300
    assert found.seconds == source.seconds == [ticks * TICK for ticks in UNEVEN]
    worst = max(np.abs(a.astype(int) - b).mean() for a, b in zip(source.images, found.images, strict=True))
    assert worst < 3


@pytest.mark.parametrize(
    "tick", [Fraction(1, 90000), Fraction(1001, 30000), Fraction(1, 25), Fraction(1, 10**6)]
)
def test_times_are_kept_on_the_clock_of_the_source(tmp_path: Path, tick: Fraction) -> None:
    step = round(Fraction(1, 25) / tick)
    source = film(tmp_path / "clip.mp4", range(0, 20 * step, step), tick=tick)
    assert content(copied(source, tmp_path / "out.mp4")).seconds == content(source).seconds


def test_pictures_that_begin_after_the_sound_keep_their_times(tmp_path: Path) -> None:
    source = content(film(tmp_path / "clip.mp4", range(777, 51200, 512), sound="aac"))
    found = content(copied(tmp_path / "clip.mp4", tmp_path / "out.mp4"))
    assert found.seconds == source.seconds
    assert float(source.seconds[0]) == pytest.approx(777 / 12800, abs=0.001)


def test_the_clock_of_a_stream_that_begins_late_is_set_to_0(tmp_path: Path) -> None:
    found = content(copied(film(tmp_path / "clip.ts"), tmp_path / "out.mp4"))
    assert [round(float(at), 4) for at in found.seconds] == [round(0.04 * number, 4) for number in range(10)]


@pytest.mark.parametrize(
    ("kind", "codec"), [(".mp4", "aac"), (".mkv", "flac"), (".ts", "aac"), (".mp4", "libmp3lame")]
)
def test_sound_is_copied_packet_by_packet(tmp_path: Path, kind: str, codec: str) -> None:
    source = film(tmp_path / f"clip{kind}", range(0, 51200, 512), sound=codec)
    found = content(copied(source, tmp_path / "out.mp4"))
    expected = content(source).sound
    if kind == ".ts":  # with an ADTS header of 7 bytes before each
        expected = [packet[7:] for packet in expected]
    assert len(found.sound) > 30
    assert found.sound == expected


def test_sound_stays_beside_the_pictures_of_a_stream_that_begins_late(tmp_path: Path) -> None:
    source = film(tmp_path / "clip.ts", range(0, 51200, 512), sound="aac")
    found = copied(source, tmp_path / "out.mp4")

    def between(path: Path) -> float:
        with av.open(str(path)) as file:
            video, audio = file.streams.video[0], file.streams.audio[0]
            return float(audio.start_time * audio.time_base - video.start_time * video.time_base)

    assert between(found) == pytest.approx(between(source), abs=0.001)


def test_sound_with_no_place_in_an_mp4_makes_it_an_mkv(tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mkv", range(0, 51200, 512), sound="pcm_u8")
    with video_file(source) as video, Sound(video) as sound:
        assert suffix_for(sound, "clip.mkv") == ".mkv"
    found = content(copied(source, tmp_path / "out.mkv"))
    assert found.sound == content(source).sound
    assert found.sound_codec == "pcm_u8"
    with video_file(film(tmp_path / "clip.mp4", sound="aac")) as video, Sound(video) as sound:
        assert suffix_for(sound, "clip.mp4") == ".mp4"


def test_sound_ends_with_the_frames_unless_the_rest_is_asked_for(tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mp4", range(0, 51200, 512), sound="aac")
    with (
        video_file(source) as video,
        Sound(video) as sound,
        VideoWriter(tmp_path / "out.mp4", video.time_base, video.rate, sound) as writer,
    ):
        for frame in list(video.frames())[:25]:
            writer.add(frame.read(), frame.seconds)
    found = content(tmp_path / "out.mp4")
    assert len(found.images) == 25
    assert 0.9 < len(found.sound) * 1024 / 44100 < 1.1


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64), (1, 1), (2, 2), (1, 3000)])
def test_an_odd_side_gets_its_last_row_or_column_twice(tmp_path: Path, size: tuple[int, int]) -> None:
    height, width = size
    found = content(written(tmp_path / "out.mp4", [plain(5, size)] * 3)).images[0]
    assert found.shape == (height + height % 2, width + width % 2, 3)
    if height > 40:
        assert np.abs(found[:height, :width].astype(int) - plain(5, size)).mean() < 4


def test_colours_come_back(tmp_path: Path) -> None:
    colours = [(200, 10, 20), (10, 180, 30), (20, 30, 220), (250, 250, 250), (5, 5, 5), (120, 60, 200)]
    images = [np.full((720, 1280, 3), colour, np.uint8) for colour in colours]
    found = content(written(tmp_path / "out.mp4", images)).images
    pairs = zip(found, colours, strict=True)
    assert max(np.abs(image[99, 99].astype(int) - colour).max() for image, colour in pairs) <= 4


def test_later_frames_of_another_size_are_resized(tmp_path: Path) -> None:
    found = content(written(tmp_path / "out.mp4", [plain(1), plain(2, (96, 128)), plain(3)]))
    assert [image.shape for image in found.images] == [(48, 64, 3)] * 3


def test_times_that_do_not_grow_are_moved_by_a_tick(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", TICK, Fraction(25)) as writer:
        for seconds in (0, 0, Fraction(1, 25), Fraction(1, 50)):
            writer.add(plain(1), Fraction(seconds))
    found = content(tmp_path / "out.mp4").seconds
    assert all(after > before for before, after in pairwise(found))


def test_an_interrupted_video_is_whole(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", TICK, None) as writer:
        for number in range(10):
            writer.add(plain(number), number * Fraction(1, 25))
        raise KeyboardInterrupt
    assert len(content(tmp_path / "out.mp4").images) == 10
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_without_a_frame_there_is_no_file_and_an_older_one_stays(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("older")
    with VideoWriter(tmp_path / "out.mp4", TICK, None):
        pass
    assert (tmp_path / "out.mp4").read_text() == "older"
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_a_disk_that_refuses_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="out.mp4: cannot be written"):
        written(tmp_path / "file" / "out.mp4", [plain(1)] * 10)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("count", [1, 100])
def test_a_full_disk_is_told_and_an_older_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("maskrcnn.media.video_writer.temporary_path", lambda path: tmp_path / "full")
    (tmp_path / "full").symlink_to("/dev/full")
    (tmp_path / "out.mp4").write_text("older")
    noise = np.random.default_rng(0).integers(0, 256, (count, 240, 320, 3), np.uint8)
    with pytest.raises(UserError, match="out.mp4: cannot be written"):
        written(tmp_path / "out.mp4", list(noise))
    assert (tmp_path / "out.mp4").read_text() == "older"
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_without_h264_it_is_mpeg4_whose_clock_is_coarser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_writer, "CODECS", ("h264_of_nobody", "mpeg4"))
    written(tmp_path / "out.mp4", [plain(number) for number in range(5)], Fraction(1, 90000))
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.streams.video[0].codec_context.name == "mpeg4"
    assert content(tmp_path / "out.mp4").seconds == [number * Fraction(1, 25) for number in range(5)]
