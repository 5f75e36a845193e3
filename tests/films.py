"""Videos that tests make with PyAV itself, and what is in a video by PyAV itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from pathlib import Path
from typing import Any

import av
import numpy as np

TICK = Fraction(1, 12800)
SOUND_RATE = 44100


def plain(number: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A frame of one grey, 40 + 2 * number, whose upper left quarter is red."""
    image = np.full((*size, 3), (40 + 2 * number) % 256, np.uint8)
    image[: size[0] // 2, : size[1] // 2] = (220, 30, 30)
    return image


def film(
    path: Path,
    ticks: Sequence[int] = range(0, 5120, 512),
    size: tuple[int, int] = (48, 64),
    tick: Fraction = TICK,
    sound: str = "",
    rotation: int = 0,
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> Path:
    """A video of `plain` frames at these ticks; its kind is the suffix. rotation: counterclockwise."""
    with av.open(str(path), "w", options=options or {}) as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = stream.time_base = tick
        if rotation:
            stream.set_display_rotation(rotation)
        tone = output.add_stream(sound, rate=SOUND_RATE, layout="mono") if sound else None
        sent = 0
        for number, at in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(plain(number, size), format="rgb24")
            frame.pts, frame.time_base = at, tick
            output.mux(stream.encode(frame))
            while tone is not None and sent < at * tick * SOUND_RATE:
                output.mux(tone.encode(hum(sent, tone.format.name)))  # type: ignore[attr-defined]
                sent += 1024
        output.mux(stream.encode())
        if tone is not None:
            output.mux(tone.encode(None))  # type: ignore[attr-defined]
    return path


def hum(start: int, format: str) -> av.AudioFrame:
    """1024 samples of a tone of 440 Hz."""
    wave = np.sin(2 * np.pi * 440 / SOUND_RATE * (start + np.arange(1024)))[None] * 0.3
    kind = format.removesuffix("p")
    if kind == "u8":
        samples = (wave * 127 + 128).astype(np.uint8)
    else:
        scale, dtype = {"s16": (32767, np.int16), "s32": (2**31 - 1, np.int32), "flt": (1, np.float32)}[kind]
        samples = (wave * scale).astype(dtype)
    frame = av.AudioFrame.from_ndarray(samples, format=format, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
    return frame


@dataclass(frozen=True)
class Content:
    """What a video holds: times in seconds, frames uint8 (H, W, 3) RGB, bytes of the sound's packets."""

    seconds: list[Fraction]
    images: list[np.ndarray]
    sound: list[bytes]
    sound_codec: str


def content(path: Path) -> Content:
    """Everything in a video."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        seconds = [frame.pts * Fraction(frame.time_base or 0) for frame in frames if frame.pts is not None]
        images = [frame.to_ndarray(format="rgb24") for frame in frames]
    with av.open(str(path)) as file:
        tracks = file.streams.audio
        codec = tracks[0].codec_context.name if tracks else ""
        packets = file.demux(tracks[0]) if tracks else iter(())
        sound = [bytes(packet) for packet in takewhile(lambda packet: packet.size > 0, packets)]
    return Content(seconds, images, sound, codec)


def content_times(path: Path) -> list[Fraction]:
    """Times of the frames, in seconds."""
    with av.open(str(path)) as file:
        return [frame.pts * Fraction(frame.time_base or 0) for frame in file.decode(video=0)]  # type: ignore[operator]
