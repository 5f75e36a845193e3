"""Masks pasted into images and their RLE, against hand-made masks, pycocotools and torchvision."""

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskrcnn import masks as pasting
from maskrcnn.masks import encode, paste, paste_crop

GOLDEN = Path(__file__).parent / "golden"
RULES = ("pixel_centres", "expanded")


def full_mask(
    *box: float, side: int = 4, size: tuple[int, int] = (10, 12), rule: str = "pixel_centres"
) -> np.ndarray:
    """The mask (H, W) of a box whose roi mask is 1 everywhere."""
    return paste(np.ones((1, side, side), np.float32), np.array([box], np.float32), size, rule)[0]


def blobs(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Smooth random probabilities (count, side, side), like a mask head's."""
    noise = np.random.default_rng(seed).normal(size=(count, side, side))
    for _ in range(2):
        noise = noise + np.roll(noise, 1, axis=1) + np.roll(noise, 1, axis=2)
    return (1 / (1 + np.exp(-noise))).astype(np.float32)


def random_boxes(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Boxes of all sizes, some partly outside the image."""
    random = np.random.default_rng(seed)
    centre = random.random((count, 2)) * [size[1], size[0]]
    half = np.exp(random.normal(np.log(min(size) / 6), 0.8, (count, 2)))
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def test_pixel_centres_fills_the_pixels_whose_centre_lies_in_the_box():
    rows, columns = np.nonzero(full_mask(2.6, 3.4, 5.4, 6.6))
    assert (rows.min(), rows.max(), columns.min(), columns.max(), len(rows)) == (3, 6, 3, 4, 8)


def test_pixel_centres_keeps_a_centre_on_the_border_of_the_box():
    # Half a cell beyond the last cell's centre the probability has sunk from 1 to exactly one half.
    assert np.nonzero(full_mask(2.5, 3, 5.5, 6).any(axis=0))[0].tolist() == [2, 3, 4, 5]


def test_pixel_centres_leaves_out_what_is_below_one_half():
    roi_mask = np.float32([[[0.5, 0.49], [0.49, 0.5]]])
    mask = paste(roi_mask, np.float32([[0, 0, 2, 2]]), (2, 2), "pixel_centres")[0]
    assert mask.tolist() == [[True, False], [False, True]]


def test_expanded_needs_more_than_one_half():
    # Box 1..5 with M = 2 grows to -1..7: nine pixels for four cells, the middle one between the inner two.
    at = paste(np.full((1, 2, 2), 0.5, np.float32), np.float32([[1, 1, 5, 5]]), (9, 9), "expanded")
    over = paste(np.full((1, 2, 2), 0.6, np.float32), np.float32([[1, 1, 5, 5]]), (9, 9), "expanded")
    assert (at.sum(), over.any()) == (0, True)


def test_expanded_truncates_the_box_to_whole_pixels():
    assert np.array_equal(
        full_mask(2, 2, 8, 8, rule="expanded"), full_mask(2.2, 2.2, 8.2, 8.2, rule="expanded")
    )
    assert not np.array_equal(full_mask(2, 2, 8, 8), full_mask(2.6, 2.6, 8.6, 8.6))


@pytest.mark.parametrize("side", [14, 28])
@pytest.mark.parametrize("size", [(97, 131), (480, 640)])
def test_expanded_equals_torchvision(side, size):
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    boxes, roi_masks = random_boxes(60, size), blobs(60, side)
    theirs = paste_masks_in_image(torch.from_numpy(roi_masks)[:, None], torch.from_numpy(boxes), size)
    assert np.array_equal(paste(roi_masks, boxes, size, "expanded"), (theirs[:, 0] > 0.5).numpy())


@pytest.mark.parametrize("side", [14, 28])
def test_pixel_centres_equals_grid_sample_over_the_whole_image(side):
    torch = pytest.importorskip("torch")
    size, boxes, roi_masks = (120, 160), random_boxes(60, (120, 160)), blobs(60, side)
    x1, y1, x2, y2 = torch.from_numpy(boxes)[:, :, None].unbind(1)
    x = (torch.arange(size[1]) + 0.5 - x1) / (x2 - x1) * 2 - 1
    y = (torch.arange(size[0]) + 0.5 - y1) / (y2 - y1) * 2 - 1
    grid = torch.stack([x[:, None, :].expand(-1, *size), y[:, :, None].expand(-1, *size)], dim=3)
    theirs = torch.nn.functional.grid_sample(torch.from_numpy(roi_masks)[:, None], grid, align_corners=False)
    assert np.array_equal(paste(roi_masks, boxes, size, "pixel_centres"), (theirs[:, 0] >= 0.5).numpy())


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # pycocotools' decode, numpy 2
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "box",
    [
        (-50, -50, -20, -20),
        (30, 30, 60, 60),
        (-5, 3, 400, 6),
        (3, -1e4, 5, 1e4),
        (4, 4, 4, 4),
        (4, 4, 4, 9),
        (12, 10, 12, 10),
    ],
    ids=str,
)
def test_boxes_outside_the_image_or_without_area_give_a_window_inside_it(rule, box):
    crop, x, y = paste_crop(np.ones((28, 28), np.float32), np.float32(box), (10, 12), rule)
    assert 0 <= x <= x + crop.shape[1] <= 12
    assert 0 <= y <= y + crop.shape[0] <= 10
    assert coco_mask.decode(encode(crop, x, y, (10, 12))).sum() == crop.sum()


@pytest.mark.parametrize("rule", RULES)
def test_a_mask_of_an_image_of_one_pixel_is_that_pixel(rule):
    crop, x, y = paste_crop(np.ones((28, 28), np.float32), np.float32([0, 0, 1, 1]), (1, 1), rule)
    assert (crop.tolist(), x, y) == ([[True]], 0, 0)
    assert encode(crop, x, y, (1, 1)) == {"size": [1, 1], "counts": "01"}


def test_a_box_without_area_covers_no_pixel():
    assert not full_mask(4, 4, 4, 9).any()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(30, 40), (200, 150), (1080, 1920)])
def test_the_rle_of_a_crop_equals_pycocotools_of_the_whole_mask(rule, size):
    boxes, roi_masks = random_boxes(20, size), blobs(20, 28)
    for mask, box, roi_mask in zip(paste(roi_masks, boxes, size, rule), boxes, roi_masks, strict=True):
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode(*paste_crop(roi_mask, box, size, rule), size)["counts"] == expected["counts"].decode()


def test_the_rle_of_any_crop_anywhere_equals_pycocotools():
    random = np.random.default_rng(0)
    for _ in range(300):
        height, width = random.integers(1, 9, 2)
        y, x = random.integers(0, height), random.integers(0, width)
        crop = (
            random.random((random.integers(0, height - y + 1), random.integers(0, width - x + 1)))
            < random.random()
        )
        whole = np.zeros((height, width), np.uint8, order="F")
        whole[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        expected = coco_mask.encode(whole)["counts"].decode()
        assert encode(crop, int(x), int(y), (height, width))["counts"] == expected


def test_the_rle_counts_down_the_columns():
    # Column 1, rows 1 and 2 of a 4 x 3 image: 5 zeros, 2 ones, 5 zeros; each is one digit, "0" + count.
    assert encode(np.ones((2, 1), bool), 1, 1, (4, 3)) == {"size": [4, 3], "counts": "525"}


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("torchvision", "expanded"),
        ("maskrcnn_benchmark", "expanded"),
        ("detectron2", "pixel_centres"),
        ("detectron2-c4", "pixel_centres"),
        ("mmdetection", "pixel_centres"),
    ],
)
def test_recorded_probabilities_give_the_recorded_masks_to_the_pixel(source, rule):
    with np.load(GOLDEN / "masks_portrait.npz") as recorded:
        boxes, roi_masks, counts = (
            recorded[f"{source}/{name}"] for name in ("boxes", "roi_masks", "rle_counts")
        )
    rles = [
        encode(*paste_crop(*pair, (642, 430), rule), (642, 430))
        for pair in zip(roi_masks, boxes, strict=True)
    ]
    assert [rle["counts"] for rle in rles] == counts.tolist()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["smooth", "noise", "zeros and ones", "halves"])
def test_a_large_mask_is_to_the_pixel_what_it_is_when_every_pixel_is_computed(
    kind: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).random((20, 28, 28))
    kinds = {
        "smooth": blobs(20, 28),
        "noise": noise.astype(np.float32),
        "zeros and ones": np.round(noise).astype(np.float32),
        "halves": (np.round(2 * noise) / 2).astype(np.float32),
    }
    boxes = random_boxes(20, (300, 400))
    boxes[:3] = [(-90, -80, 500, 400), (0, 0, 400, 300), (8, 16, 64, 72)]
    found = []
    for large in (1, 1 << 40):
        monkeypatch.setattr(pasting, "LARGE", large)
        found.append(paste(kinds[kind], boxes, (300, 400), rule))
    assert 0 < found[0].mean() < 1
    assert np.array_equal(*found)
