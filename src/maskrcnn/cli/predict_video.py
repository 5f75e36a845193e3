"""A video or camera frame by frame: predicted, drawn, written and told of."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

from maskrcnn.cli.account import Account, progress
from maskrcnn.cli.recording import Recording, Showing
from maskrcnn.errors import UserError
from maskrcnn.media.find import Moving, open_live, open_video
from maskrcnn.media.frames import Frame, ahead, limited
from maskrcnn.media.live import TICK
from maskrcnn.media.sound import Sound
from maskrcnn.media.video_writer import VideoWriter, suffix_for
from maskrcnn.stream import Unreadable, predict_files
from maskrcnn.tracking import Tracked, Tracker

if TYPE_CHECKING:
    from maskrcnn.media.video import Video
    from maskrcnn.predict import Predictor
    from maskrcnn.results import Output

# Frames decoded before they are asked for.
DECODED_AHEAD = 2


@dataclass(frozen=True)
class Limits:
    """Where each video and camera ends early; None for no limit."""

    frames: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Film:
    """An open video or camera, of which there is a first frame.

    time_base, rate, sound: as VideoWriter's. suffix: of the written video. expected: frames, None for no end.
    """

    frames: Iterator[Frame]
    time_base: Fraction
    rate: Fraction | None
    expected: int | None
    sound: Sound | None = None
    suffix: str = ".mp4"


@dataclass(frozen=True)
class Wanted:
    """What is done with each video and camera. track: whether its objects get numbers."""

    limits: Limits = field(default_factory=Limits)
    track: bool = True
    showing: Showing = field(default_factory=Showing)


def predict_moving(
    predictor: "Predictor", moving: Moving, output: "Output", account: Account, wanted: Wanted
) -> bool:
    """Every frame in order -> whether to go on: False when the user ended what is shown.

    What cannot be opened is left out, what is damaged is read as far as it goes. On an interruption what is
    written ends whole with the last frame.
    """
    limits = wanted.limits
    with ExitStack() as stack:
        try:
            film = _opened(moving, output, account, limits, stack)
        except UserError as error:
            account.left_out(error)
            return True
        writer = _writer(moving, film, output, stack)
        recording = Recording(moving, output, account, writer, wanted.showing)
        if wanted.track:
            predictor = Tracked(predictor, Tracker(score=output.score))
        try:
            _predict_frames(predictor, film, recording, overlap=not moving.live)
            recording.end(at_its_own_end=limits == Limits() and not recording.is_left)
        except KeyboardInterrupt:
            stack.close()
            recording.tell()
            print(f"stopped: {recording.count} frames of {moving.place} are done", file=sys.stderr)
            raise
    recording.tell()
    return not recording.is_left


def _predict_frames(predictor: "Predictor", film: Film, recording: Recording, overlap: bool) -> None:
    outcomes = predict_files(predictor, film.frames, recording.write, recording.draws, overlap)
    with progress(film.expected, "frames") as advance, closing(outcomes):  # type: ignore[type-var]
        for outcome in outcomes:
            if isinstance(outcome, Unreadable):
                recording.damaged(outcome.error)
            else:
                recording.add(outcome)
                advance()
            if recording.is_left:
                return


def _opened(moving: Moving, output: "Output", account: Account, limits: Limits, stack: ExitStack) -> Film:
    """Open it and have its first frame. Raises UserError if there is none."""
    stem = output.stems[moving.path]
    if moving.live:
        live = stack.enter_context(open_live(moving, stem, account.say))
        frames = limited(live.frames(limits.seconds), limits.frames, None)
        return Film(_begun(frames, moving), TICK, None, limits.frames)
    video = stack.enter_context(open_video(moving, stem))
    frames = ahead(limited(video.frames(), limits.frames, limits.seconds), DECODED_AHEAD)
    stack.enter_context(closing(frames))  # type: ignore[type-var]
    sound, suffix = _sound(video, account, stack) if "image" in output.kinds else (None, ".mp4")
    return Film(_begun(frames, moving), video.time_base, video.rate, _expected(video, limits), sound, suffix)


def _begun(frames: Iterator[Frame], moving: Moving) -> Iterator[Frame]:
    first = next(frames, None)
    if first is None:
        raise UserError(f"{moving.place}: holds no frame", hint="check that a player shows it")
    return chain([first], frames)


def _expected(video: "Video", limits: Limits) -> int | None:
    most = [video.expected, limits.frames or 0]
    if limits.seconds is not None and video.rate:
        most.append(round(limits.seconds * video.rate))
    return min((frames for frames in most if frames), default=None)


def _sound(video: "Video", account: Account, stack: ExitStack) -> tuple[Sound | None, str]:
    sound = stack.enter_context(Sound(video))
    suffix = suffix_for(sound, video.place)
    if suffix is None:
        codecs = ", ".join(sorted(sound.codecs))
        account.note(f"{video.place}: its sound is left out, no container of ours takes {codecs}")
        return None, ".mp4"
    return sound, suffix


def _writer(moving: Moving, film: Film, output: "Output", stack: ExitStack) -> VideoWriter | None:
    if "image" not in output.kinds:
        return None
    path = output.folder / f"{output.stems[moving.path]}{film.suffix}"
    return stack.enter_context(VideoWriter(path, film.time_base, film.rate, film.sound))
