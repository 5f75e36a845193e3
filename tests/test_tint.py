"""Large masks are drawn as small ones are, though most of their pixels are never computed."""

from pathlib import Path

import numpy as np
import pytest

from maskrcnn import tint as tinting

GOLDEN = Path(__file__).parent / "golden" / "masks_portrait.npz"
SOURCES = ("torchvision", "detectron2", "detectron2-c4", "mmdetection", "maskrcnn_benchmark")
COLOUR = (230, 40, 90)
BOXES = {
    "inside": [100.3, 50.7, 700.1, 640.9],
    "across every edge of the image": [-300.2, -99.5, 1400.0, 900.0],
    "wide": [3.0, 200.0, 1190.0, 590.0],
    "a corner outside": [700.0, -500.0, 1500.0, 330.0],
}


def both_ways(
    roi_mask: np.ndarray, box: np.ndarray, monkeypatch: pytest.MonkeyPatch, line: float = 3.7
) -> tuple[np.ndarray, np.ndarray]:
    """An image of noise with the mask, computed where its edge is, and everywhere."""
    image = np.random.default_rng(1).integers(0, 256, (800, 1200, 3), np.uint8)
    pictures = []
    for large in (1, 1 << 40):
        monkeypatch.setattr(tinting, "LARGE", large)
        pictures.append(image.copy())
        tinting.tint(pictures[-1], roi_mask, np.float32(box), COLOUR, line)
    return pictures[0], pictures[1]


def assert_same_picture(first: np.ndarray, second: np.ndarray) -> None:
    # Sums of three products differ in the last bit by the shape that BLAS computes them in, which moves a
    # level of 255 by one where it is rounded at the half: in one byte of a million or so.
    assert np.abs(first.astype(int) - second).max() <= 1
    assert (first != second).mean() < 2e-5


def blob(side: int, seed: int) -> np.ndarray:
    """A random smooth probability (M, M) with plateaus at 0 and 1, slopes, and islands."""
    rng = np.random.default_rng(seed)
    waves = sum(
        rng.normal() * np.outer(np.sin(rng.random(2) @ [9, 3] * grid), np.cos(rng.random() * 9 * grid))
        for grid in [np.linspace(0, 1, side)] * 6
    )
    return (1 / (1 + np.exp(-rng.choice([1, 4, 40]) * waves))).astype(np.float32)


@pytest.mark.parametrize("place", BOXES)
@pytest.mark.parametrize("side", [14, 28])
@pytest.mark.parametrize("seed", range(2))
def test_a_large_mask_is_the_same_picture_as_when_every_pixel_is_computed(
    place: str, side: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_same_picture(*both_ways(blob(side, seed), np.array(BOXES[place]), monkeypatch))


@pytest.mark.parametrize("name", ["full", "noise", "a chequered board", "one cell", "near one half"])
def test_so_are_masks_that_no_network_makes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = {
        "full": np.ones((28, 28)),
        "noise": np.random.default_rng(0).random((28, 28)),
        "a chequered board": np.indices((28, 28)).sum(0) % 2,
        "one cell": np.eye(1, 784, 400).reshape(28, 28),
        "near one half": 0.5 + 0.01 * np.random.default_rng(0).normal(size=(28, 28)),
    }
    mask = masks[name].astype(np.float32)
    assert_same_picture(*both_ways(mask, np.array(BOXES["inside"]), monkeypatch))


@pytest.mark.parametrize("source", SOURCES)
def test_so_are_recorded_masks(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(GOLDEN) as recorded:
        masks, boxes = recorded[f"{source}/roi_masks"], recorded[f"{source}/boxes"]
    corner = boxes.min(0)
    for mask, box in zip(masks, (boxes - np.tile(corner[:2], 2)) * 3, strict=True):
        assert_same_picture(*both_ways(mask, box, monkeypatch))


def test_most_of_a_large_mask_is_never_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    distance = tinting._Surface.distance

    def counting(self: tinting._Surface, rows: slice, columns: slice) -> np.ndarray:
        found = distance(self, rows, columns)
        computed.append(found.size)
        return found

    monkeypatch.setattr(tinting._Surface, "distance", counting)
    disc = np.hypot(*(np.mgrid[:28, :28] - 13.5)) < 10
    image = np.zeros((2160, 3840, 3), np.uint8)
    tinting.tint(image, disc.astype(np.float32), np.float32([100, 100, 2000, 2000]), COLOUR, line=3.7)
    assert sum(computed) < 0.15 * 1900 * 1900
