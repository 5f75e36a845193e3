"""How much faster a video is done when decoding, the network, drawing and encoding run side by side.

Both ways do the same work on the same frames and are timed in turn; the ratio is that of the medians.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from maskrcnn import open_model
from maskrcnn.detections import Raw
from maskrcnn.drawing import draw
from maskrcnn.media.frames import ahead
from maskrcnn.media.video import video_file
from maskrcnn.media.video_writer import VideoWriter
from maskrcnn.predict import Predictor
from maskrcnn.spec import Preprocess, Spec
from maskrcnn.stream import Found, Unreadable, predict_files


class Sleeps:
    """A network on another device: it takes its time and no core, and finds ten objects."""

    def __init__(self, seconds: float) -> None:
        self.spec = Spec(preprocess=Preprocess(short=480, long=640))
        self.seconds = seconds

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """Ten boxes down the diagonal of the first image."""
        time.sleep(self.seconds)
        corners = np.arange(10, dtype=np.float32)[:, None] * 30 + np.float32([[0, 0, 120, 120]])
        masks = np.ones((1, 10, 28, 28), np.float32)
        return Raw(corners[None], np.full((1, 10), 0.9, np.float32), np.zeros((1, 10), np.int64), masks)


def main() -> None:
    """Make a video, run both ways in turn, print the figures."""
    options = arguments()
    predictor = open_model("example") if options.sleep is None else Predictor(Sleeps(options.sleep / 1000))
    with tempfile.TemporaryDirectory() as folder:
        source = drifting(Path(folder) / "in.mp4", options.frames, options.width, options.height)
        times: dict[Callable[..., int], list[float]] = {one_after_the_other: [], side_by_side: []}
        for number in range(options.runs):
            for way in (
                (one_after_the_other, side_by_side) if number % 2 else (side_by_side, one_after_the_other)
            ):
                start = time.perf_counter()
                count = way(predictor, source, Path(folder) / "out.mp4")
                times[way].append(time.perf_counter() - start)
                assert count == options.frames
    for way, seconds in times.items():
        rate = options.frames / np.median(seconds)
        print(f"{way.__name__:<20} {rate:6.1f} frames/s   {min(seconds):.1f} to {max(seconds):.1f} s")
    ratio = np.median(times[one_after_the_other]) / np.median(times[side_by_side])
    print(f"{'ratio of medians':<20} {ratio:6.2f}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--sleep", type=float, help="milliseconds of a network elsewhere; without it `example`"
    )
    return parser.parse_args()


def drifting(path: Path, frames: int, width: int, height: int) -> Path:
    """A video of smooth noise that moves by two pixels a frame."""
    noise = np.random.default_rng(0).normal(size=(height + 2 * frames, width, 3))
    spread = np.apply_along_axis(lambda row: np.convolve(row, np.ones(9) / 9, "same"), 0, noise)
    picture = (128 + 120 * spread).clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            image = np.ascontiguousarray(picture[2 * number : 2 * number + height])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode())
    return path


def one_after_the_other(predictor: Predictor, source: Path, path: Path) -> int:
    """Decode, predict, draw and encode each frame before the next; -> how many there were."""
    count = 0
    with video_file(source) as video, VideoWriter(path, video.time_base, video.rate) as writer:
        for frame in video.frames():
            image = frame.read()
            (detections,) = predictor([image])
            writer.add(draw(image, detections.above(0.5)), Fraction(frame.seconds), wait=True)
            count += 1
    return count


def side_by_side(predictor: Predictor, source: Path, path: Path) -> int:
    """As `maskrcnn predict` does it; -> how many frames there were."""

    def write(found: Found) -> np.ndarray:
        assert found.image is not None
        return draw(found.image, found.detections.above(0.5))

    count = 0
    with video_file(source) as video, VideoWriter(path, video.time_base, video.rate) as writer:
        for outcome in predict_files(predictor, ahead(video.frames(), 2), write):
            assert not isinstance(outcome, Unreadable)
            writer.add(outcome.written, outcome.found.file.seconds)  # type: ignore[attr-defined]
            count += 1
    return count


if __name__ == "__main__":
    main()
