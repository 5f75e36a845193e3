"""Large images with known truth: `python bench/mosaics.py DATA OUT` joins the photographs of a COCO data set.

DATA holds a folder `images` and an instances.json, of photographs of at most 640 x 640 pixels. OUT gets the
same of mosaics of 6 x 6 of them, 3840 x 3840 pixels, for `maskrcnn eval --tiles 640`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle

SIDE, ACROSS = 640, 6


def main() -> None:
    """Read the arguments and write the data set."""
    parser = argparse.ArgumentParser(description="Join photographs to mosaics.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    truth = json.loads((arguments.data / "instances.json").read_text())
    (arguments.out / "images").mkdir(parents=True, exist_ok=True)
    each = ACROSS**2
    images, annotations = [], []
    for number, start in enumerate(range(0, len(truth["images"]), each)):
        photographs = truth["images"][start : start + each]
        name = f"mosaic{number}.jpg"
        picture = mosaic(arguments.data / "images", [each["file_name"] for each in photographs])
        cv2.imwrite(str(arguments.out / "images" / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
        side = SIDE * ACROSS
        images.append({"id": number, "file_name": name, "width": side, "height": side})
        places = {photograph["id"]: place for place, photograph in enumerate(photographs)}
        moved = [
            shifted(every, *corner(places[every["image_id"]]), number)
            for every in truth["annotations"]
            if every["image_id"] in places
        ]
        annotations += moved
    found = {"images": images, "annotations": annotations, "categories": truth["categories"]}
    (arguments.out / "instances.json").write_text(json.dumps(found))
    print(f"{len(images)} mosaics, {len(annotations)} annotations -> {arguments.out}")


def corner(place: int) -> tuple[int, int]:
    """x, y of the photograph at a place of its mosaic."""
    return SIDE * (place % ACROSS), SIDE * (place // ACROSS)


def mosaic(folder: Path, names: list[str]) -> np.ndarray:
    """The photographs row by row, uint8 (3840, 3840, 3), black where there is none."""
    canvas = np.zeros((SIDE * ACROSS, SIDE * ACROSS, 3), np.uint8)
    for place, name in enumerate(names):
        photograph = cv2.imread(str(folder / name))
        if photograph is None or max(photograph.shape) > SIDE:
            raise SystemExit(f"{folder / name}: is no image of at most {SIDE} x {SIDE} pixels")
        x, y = corner(place)
        canvas[y : y + photograph.shape[0], x : x + photograph.shape[1]] = photograph
    return canvas


def shifted(annotation: dict[str, Any], x: int, y: int, image: int) -> dict[str, Any]:
    """An annotation, moved by x, y pixels into a mosaic."""
    left, top, width, height = annotation["bbox"]
    outline = annotation["segmentation"]
    if isinstance(outline, list):
        moved: Any = [(np.reshape(ring, (-1, 2)) + (x, y)).ravel().tolist() for ring in outline]
    else:
        if isinstance(outline["counts"], list):
            outline = rle.frPyObjects(outline, *outline["size"])
        canvas = np.zeros((SIDE * ACROSS, SIDE * ACROSS), np.uint8, order="F")
        cells = rle.decode(outline)
        canvas[y : y + cells.shape[0], x : x + cells.shape[1]] = cells
        moved = rle.encode(canvas)
        moved["counts"] = moved["counts"].decode()
    return annotation | {"image_id": image, "bbox": [left + x, top + y, width, height], "segmentation": moved}


if __name__ == "__main__":
    main()
