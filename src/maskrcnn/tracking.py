"""Numbers that stay with objects from frame to frame of a video, by the overlap of their masks.

R tracks, C candidates, N detections of a frame, h, w size of a mask's window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from maskrcnn.detections import Detections
from maskrcnn.masks import tight
from maskrcnn.predict import Predictor, Prepared

# Of a detection that belongs to no track: it was too weak to begin one.
NO_TRACK = -1
# Score below which a detection is never looked at, as in ByteTrack (Zhang et al. 2022).
WEAKEST = 0.1
# How much of each new step is taken for the velocity.
SMOOTHING = 0.5
# Boxes that grow by this share of their sides on each side (Yang et al. 2023) meet where a small or fast
# object's masks do not; and the least overlap of such boxes.
GROWTH, GROWN_IOU = 0.5, 0.3


@dataclass(frozen=True)
class Mask:
    """Pixels bool (h, w) of the window whose first column is x and first row y; area: how many they are."""

    pixels: np.ndarray
    x: int
    y: int
    area: int

    def middle(self) -> np.ndarray:
        """x, y of the middle of its window."""
        return np.array([self.x + self.pixels.shape[1] / 2, self.y + self.pixels.shape[0] / 2])


@dataclass
class Track:
    """One object. mask: as it was seen last, in frame `seen`. velocity: x, y pixels a frame."""

    number: int
    label: int
    mask: Mask
    velocity: np.ndarray
    seen: int

    def moved(self, frame: int) -> Mask:
        """Where its mask should be in a later frame."""
        dx, dy = np.round(self.velocity * (frame - self.seen)).astype(int).tolist()
        return replace(self.mask, x=self.mask.x + dx, y=self.mask.y + dy)

    def follow(self, mask: Mask, frame: int) -> None:
        """It was seen again."""
        step = (mask.middle() - self.mask.middle()) / (frame - self.seen)
        # Of what something comes to hide, the middle of the rest does not move as the object does.
        smaller, larger = sorted((mask.area, self.mask.area))
        self.velocity = self.velocity + SMOOTHING * (smaller / max(larger, 1)) ** 2 * (step - self.velocity)
        self.mask, self.seen = mask, frame


class Tracker:
    """Follows the objects of one video.

    A track and a detection of its class are one object if, the track moved on at its velocity, their masks
    overlap by more than `iou`, or else their grown boxes by more than GROWN_IOU; of all ways to pair them
    it takes the one of the greatest sum.

    age: frames that a track may be unseen before it ends. score: the least that begins a track or takes up
        one that was lost; a weaker detection can only go on with one that was seen in the frame before.
    """

    def __init__(self, iou: float = 0.5, age: int = 10, score: float = 0.5) -> None:
        self._iou, self._age, self._score = iou, age, score
        self._tracks: list[Track] = []
        self._frame = 0
        self._begun = 0

    def update(self, detections: Detections) -> np.ndarray:
        """Numbers int64 (N,) of the next frame's detections, counted from 1; NO_TRACK where none fits."""
        self._frame += 1
        self._tracks = [track for track in self._tracks if self._frame - track.seen <= self._age + 1]
        numbers = np.full(len(detections), NO_TRACK, np.int64)
        seen = detections.scores >= np.float32(min(WEAKEST, self._score))
        numbers[seen] = self._numbers(detections[seen])
        return numbers

    def _numbers(self, detections: Detections) -> np.ndarray:
        masks = [mask_of(*tight(*crop)) for crop in detections.crops()]
        numbers = np.full(len(detections), NO_TRACK, np.int64)
        strong = detections.scores >= np.float32(self._score)
        last = self._frame - 1
        for measure, least in ((overlap, self._iou), (grown_overlap, GROWN_IOU)):
            for candidates, since in ((strong, 0), (~strong, last)):
                rows = np.flatnonzero(candidates & (numbers == NO_TRACK)).tolist()
                tracks = [track for track in self._tracks if since <= track.seen <= last]
                gains = self._gains(tracks, rows, detections.labels, masks, measure)
                for place, column in best_pairs(np.where(gains > least, gains, 0)):
                    tracks[place].follow(masks[rows[column]], self._frame)
                    numbers[rows[column]] = tracks[place].number
        for row in np.flatnonzero(strong & (numbers == NO_TRACK)).tolist():
            numbers[row] = self._begin(int(detections.labels[row]), masks[row])
        return numbers

    def _gains(
        self,
        tracks: list[Track],
        rows: list[int],
        labels: np.ndarray,
        masks: Sequence[Mask],
        measure: Callable[[Mask, Mask], float],
    ) -> np.ndarray:
        """How well each track fits the detection of each row (R, C); 0 for another class."""
        gains = np.zeros((len(tracks), len(rows)))
        for place, track in enumerate(tracks):
            moved = track.moved(self._frame)
            for column, row in enumerate(rows):
                if labels[row] == track.label:
                    gains[place, column] = measure(moved, masks[row])
        return gains

    def _begin(self, label: int, mask: Mask) -> int:
        self._begun += 1
        self._tracks.append(Track(self._begun, label, mask, np.zeros(2), self._frame))
        return self._begun


class Tracked(Predictor):
    """A predictor whose Detections have `tracks`; it must be given the frames of one video, in order."""

    def __init__(self, predictor: Predictor, tracker: Tracker) -> None:
        super().__init__(predictor.backend, predictor.batch)
        self.predictor, self.tracker, self.most = predictor, tracker, predictor.most

    def prepare(self, image: np.ndarray) -> Prepared:
        """As the predictor's own."""
        return self.predictor.prepare(image)

    def detect(self, prepared: Sequence[Prepared]) -> list[Detections]:
        """What the predictor finds, with the numbers of the objects."""
        found = self.predictor.detect(prepared)
        return [replace(each, tracks=self.tracker.update(each)) for each in found]


def mask_of(pixels: np.ndarray, x: int, y: int) -> Mask:
    """A mask of bool (h, w) pixels of the window from column x and row y on."""
    return Mask(pixels, x, y, int(np.count_nonzero(pixels)))


def overlap(one: Mask, other: Mask) -> float:
    """Intersection over union of two masks, of which only the common window is looked at."""
    x1, y1 = max(one.x, other.x), max(one.y, other.y)
    x2 = min(one.x + one.pixels.shape[1], other.x + other.pixels.shape[1])
    y2 = min(one.y + one.pixels.shape[0], other.y + other.pixels.shape[0])
    if x1 >= x2 or y1 >= y2:
        return 0.0
    here = one.pixels[y1 - one.y : y2 - one.y, x1 - one.x : x2 - one.x]
    there = other.pixels[y1 - other.y : y2 - other.y, x1 - other.x : x2 - other.x]
    both = np.count_nonzero(here & there)
    return both / (one.area + other.area - both) if both else 0.0


def grown_overlap(one: Mask, other: Mask) -> float:
    """Intersection over union of the masks' windows, each grown by GROWTH."""
    across = _shared(one.x, one.pixels.shape[1], other.x, other.pixels.shape[1])
    down = _shared(one.y, one.pixels.shape[0], other.y, other.pixels.shape[0])
    grown = (1 + 2 * GROWTH) ** 2
    union = grown * (one.pixels.size + other.pixels.size) - across * down
    return across * down / union if union > 0 else 0.0


def best_pairs(gains: np.ndarray) -> list[tuple[int, int]]:
    """gains (R, C), none negative -> rows and columns of the pairs of the greatest sum; none of them gains 0.

    The Hungarian method by shortest augmenting paths (Jonker and Volgenant 1987).
    """
    if gains.shape[0] > gains.shape[1]:
        return sorted((row, column) for column, row in best_pairs(gains.T))
    rows, columns = gains.shape
    # Row 0 and column 0 stand for none.
    of_rows, of_columns = np.zeros(rows + 1), np.zeros(columns + 1)
    owner = np.zeros(columns + 1, np.int64)
    for row in range(1, rows + 1):
        owner[0], column = row, 0
        least, before = np.full(columns + 1, np.inf), np.zeros(columns + 1, np.int64)
        used = np.zeros(columns + 1, bool)
        while owner[column]:
            used[column] = True
            here = owner[column]
            cost = -gains[here - 1] - of_rows[here] - of_columns[1:]
            shorter = ~used[1:] & (cost < least[1:])
            least[1:][shorter], before[1:][shorter] = cost[shorter], column
            nearest = int(np.where(used, np.inf, least)[1:].argmin()) + 1
            step = least[nearest]
            of_rows[owner[used]] += step
            of_columns[used] -= step
            least[~used] -= step
            column = nearest
        while column:
            owner[column] = owner[before[column]]
            column = int(before[column])
    pairs = [(int(owner[column]) - 1, column - 1) for column in range(1, columns + 1) if owner[column]]
    return sorted((row, column) for row, column in pairs if gains[row, column] > 0)


def _shared(start: int, length: int, other_start: int, other_length: int) -> float:
    """Pixels of an axis that two grown intervals share."""
    low = max(start - GROWTH * length, other_start - GROWTH * other_length)
    high = min(start + (1 + GROWTH) * length, other_start + (1 + GROWTH) * other_length)
    return max(0.0, high - low)
