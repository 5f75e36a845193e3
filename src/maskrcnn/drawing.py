"""Draws detections over an image: tinted masks with smooth contours, and labels that stay readable."""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import ImageFont

from maskrcnn.detections import Detections
from maskrcnn.tint import INK, Colour, blend, tint

GOLDEN_ANGLE = 137.508  # degrees; consecutive multiples stay far apart on the circle
# Lightness, and degrees added to the hue, of the instances of one class one after the other: neighbours
# differ, and dark text stays readable on the darkest.
SHADES = ((0.74, 0), (0.84, 30), (0.66, -30), (0.80, -45), (0.70, 45), (0.86, -15), (0.64, 15))
FINE = 4  # letters are drawn this many times larger than needed


def draw(image: np.ndarray, detections: Detections, boxes: bool = False, scores: bool = True) -> np.ndarray:
    """A copy of image, uint8 (H, W, 3) RGB, with the masks, contours and labels of detections in its pixels.

    boxes: draw the boxes as well. scores: write them after the names. Lines and text grow with the image: a
    picture looks the same at any size.
    """
    canvas = image.copy()
    colours = instance_colours(detections)
    x1, y1, x2, y2 = detections.boxes.T
    line = line_width(detections.size)
    for index in np.argsort((y1 - y2) * (x2 - x1), kind="stable"):  # large ones below small ones
        tint(canvas, detections.roi_masks[index], detections.boxes[index], colours[index], line)
    if boxes:
        for box, colour in zip(detections.boxes, colours, strict=True):
            _draw_box(canvas, box, colour, line)
    for label in place_labels(detections, scores):
        _draw_label(canvas, label, colours[label.index])
    return canvas


def instance_colours(detections: Detections) -> list[Colour]:
    """An RGB colour for each detection: hue from its class's dataset id, shade from its turn in it.

    In a video the shade is of the object's number, so that it stays with it.
    """
    turns: dict[int, int] = {}
    colours = []
    for category, number in zip(detections.category_ids(), detections.track_ids(), strict=True):
        turns[category] = turns.get(category, -1) + 1
        colours.append(class_colour(category, turns[category] if number is None else number - 1))
    return colours


@lru_cache(maxsize=1024)
def class_colour(number: int, turn: int = 0) -> Colour:
    """The RGB colour of a class by its dataset id, the same in every picture; turn varies its shade."""
    lightness, aside = SHADES[turn % len(SHADES)]
    return _oklch(lightness, chroma=0.15, hue=math.radians(number * GOLDEN_ANGLE + 110 + aside))


def line_width(size: tuple[int, int]) -> float:
    """Width of a contour in pixels for an image of (height, width): 1.2 at 640 x 480, 4.5 at 4000 x 3000."""
    return max(1.2, math.sqrt(size[0] * size[1]) / 770)


def text_height(size: tuple[int, int]) -> int:
    """Font size in pixels for an image of (height, width): 10 at 320 x 240, 24 at 1080p, 58 at 12 MP."""
    return max(10, round(math.sqrt(size[0] * size[1]) / 60))


@dataclass(frozen=True)
class Label:
    """A text's place on an image, in whole pixels. index: of the detection. font: its size in pixels."""

    index: int
    text: str
    font: int
    x: int
    y: int
    width: int
    height: int


def place_labels(detections: Detections, scores: bool = True) -> list[Label]:
    """Labels inside the image, at the tops of their masks where possible, clear of small objects.

    Better detections choose first. A label that would hide part of another is left out, as is one that does
    not fit into the image with letters of 8 pixels.
    """
    placed = np.zeros((0, 4))
    labels = []
    for index, (name, score) in enumerate(zip(detections.names(), detections.scores, strict=True)):
        text = f"{name} {score:.2f}" if scores else name
        fitted = _fit(text, detections.size)
        if fitted is None:
            continue
        font, width, height = fitted
        chips = _candidates(detections, index, width, height)
        area = width * height
        sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
        small = detections.boxes[sides.prod(1) < 6 * area]
        hidden = _shared(chips, placed)
        costs = 3 * hidden + _shared(chips, small) + 0.1 * area * np.arange(len(chips))
        best = int(np.argmin(costs))
        if hidden[best] < 0.1 * area:
            placed = np.concatenate([placed, chips[best : best + 1]])
            labels.append(Label(index, text, font, int(chips[best, 0]), int(chips[best, 1]), width, height))
    return labels


def _oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """OKLCH (Ottosson 2020), where equal lightness looks equally light, to sRGB; hue in radians."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    return (_gamma(red), _gamma(green), _gamma(blue))


def _gamma(linear: float) -> int:
    linear = min(max(linear, 0.0), 1.0)
    return round(255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055))


def _draw_box(canvas: np.ndarray, box: np.ndarray, colour: Colour, line: float) -> None:
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = (int(v) for v in np.clip(np.round(box), 0, (width - 1, height - 1) * 2))
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, max(1, round(line * 0.8)), cv2.LINE_AA)


def _fit(text: str, size: tuple[int, int]) -> tuple[int, int, int] | None:
    """The font size at which text fits into the image, and its chip's width and height."""
    font = text_height(size)
    while font >= 8:
        width = round(_font(FINE * font).getlength(text) / FINE) + font * 2 // 3
        height = round(font * 1.4)
        if width <= size[1] and height <= size[0]:
            return font, width, height
        font -= 1
    return None


def _candidates(detections: Detections, index: int, width: int, height: int) -> np.ndarray:
    """Places for a chip (C, 4), best first, all inside the image: above the mask, in it, around it."""
    middle, top, bottom = _mask_extent(detections.roi_masks[index], detections.boxes[index])
    left, above = middle - width / 2, top - 1.2 * height
    wanted = [(left, above), (left, top + 0.3 * height), (left, bottom + 0.2 * height)]
    wanted += [(left + dx * width, above + dy * height) for dx in (-0.6, 0.6) for dy in (0, 1.4)]
    wanted += [(left, top + share * (bottom - top)) for share in (0.3, 0.5, 0.7)]
    room = np.array([detections.size[1] - width, detections.size[0] - height])
    corners = np.clip(np.round(wanted), 0, room)
    return np.concatenate([corners, corners + (width, height)], axis=1)


def _mask_extent(roi_mask: np.ndarray, box: np.ndarray) -> tuple[float, float, float]:
    """Image x of the middle of a mask's topmost cells, and y of its top and bottom."""
    inside = roi_mask >= 0.5
    rows = np.flatnonzero(inside.any(1))
    if len(rows) == 0:
        rows, inside = np.arange(len(roi_mask)), np.ones_like(inside)
    columns = np.flatnonzero(inside[rows[0] : rows[0] + 3].any(0)) + 0.5
    x1, y1, x2, y2 = (float(v) for v in box)
    cell = (y2 - y1) / len(roi_mask)
    middle = x1 + float(columns.mean()) * (x2 - x1) / roi_mask.shape[1]
    return middle, y1 + float(rows[0]) * cell, y1 + float(rows[-1] + 1) * cell


def _shared(chips: np.ndarray, others: np.ndarray) -> np.ndarray:
    """chips (C, 4), others (R, 4) -> pixels that each chip shares with all others (C,)."""
    near = np.maximum(chips[:, None, :2], others[:, :2])
    far = np.minimum(chips[:, None, 2:], others[:, 2:])
    return np.clip(far - near, 0, None).prod(2).sum(1)


def _draw_label(canvas: np.ndarray, label: Label, colour: Colour) -> None:
    pixels = canvas[label.y : label.y + label.height, label.x : label.x + label.width]
    blend(pixels, colour, 0.92 * _rounded(label.width, label.height, label.font / 4))
    ink, dx, dy = _letters(label.text, label.font)
    left, top = label.font // 3 + dx, round(label.font * 0.2) + dy
    target = pixels[top : top + ink.shape[0], left : left + ink.shape[1]]
    blend(target, INK, ink[: target.shape[0], : target.shape[1]])


def _rounded(width: int, height: int, radius: float) -> np.ndarray:
    """Coverage (height, width) of a rectangle with round corners, 0..1."""
    across = np.abs(np.arange(width) + 0.5 - width / 2) - (width / 2 - radius)
    down = np.abs(np.arange(height) + 0.5 - height / 2) - (height / 2 - radius)
    beyond = np.hypot(np.maximum(across[None], 0), np.maximum(down[:, None], 0))
    return np.clip(radius + 0.5 - beyond, 0, 1)


@lru_cache(maxsize=512)
def _letters(text: str, font: int) -> tuple[np.ndarray, int, int]:
    """Coverage (h, w) of a text, 0..1, and the place of its corner from the pen's.

    Drawn larger and averaged: at 10 pixels FreeType puts letters on whole pixels, and words run together.
    """
    mask, (dx, dy) = _font(FINE * font).getmask2(text, mode="L")
    width, height = mask.size
    left, top = dx % FINE, dy % FINE
    fine = np.zeros((-(-(top + height) // FINE) * FINE, -(-(left + width) // FINE) * FINE), np.float32)
    fine[top : top + height, left : left + width] = np.frombuffer(bytes(mask), np.uint8).reshape(
        height, width
    )
    coverage = cv2.resize(fine, None, fx=1 / FINE, fy=1 / FINE, interpolation=cv2.INTER_AREA) / 255
    return coverage, dx // FINE, dy // FINE


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # the wheels of Pillow hold FreeType
    return font
