"""Boxes and 28 x 28 masks of a real mobile Mask R-CNN give, by our paste and RLE, its AP on photographs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn.detections import Detections
from maskrcnn.masks import encode
from maskrcnn.spec import Classes

pytestmark = [
    pytest.mark.data,
    # pycocotools' decode under numpy 2; torch's notices about TorchScript and its quantised tensors.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

# The model gives COCO's own ids, 1..90.
COCO_90 = Classes(names=("",) * 90, ids=tuple(range(1, 91)))


@pytest.fixture(scope="module")
def truth(data_dir: Path) -> COCO:
    """Instances of the 215 photographs."""
    return COCO(str(data_dir / "coco_val215" / "instances.json"))


@pytest.fixture(scope="module")
def found(data_dir: Path, truth: COCO) -> dict[int, Detections]:
    """Detections of d2go's FBNetV3-A Mask R-CNN by image id: half a minute on one idle core."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")  # registers the NMS that the file calls
    if "qnnpack" not in torch.backends.quantized.supported_engines:
        pytest.skip("this build of torch has no qnnpack, for which the weights are packed")
    before = torch.backends.quantized.engine, torch.get_num_threads()
    torch.backends.quantized.engine = "qnnpack"
    torch.set_num_threads(1)  # its layers are too small to share
    try:
        return dict(_run(torch, data_dir, truth))
    finally:
        torch.backends.quantized.engine = before[0]
        torch.set_num_threads(before[1])


def _run(torch: Any, data_dir: Path, truth: COCO) -> Iterator[tuple[int, Detections]]:
    path = data_dir / "d2go_mask_rcnn_int8" / "d2go_mask_rcnn_fbnetv3a.pt"
    model = torch.jit.load(str(path))
    for image_id, facts in sorted(truth.imgs.items()):
        image = cv2.imread(str(data_dir / "coco_val215" / "images" / facts["file_name"]))
        planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
        with torch.no_grad():
            rows = {name: values.numpy() for name, values in model([planes])[1][0].items()}
        yield (
            image_id,
            Detections(
                boxes=rows["boxes"],
                scores=rows["scores"],
                labels=rows["labels"] - 1,
                roi_masks=rows["masks"][:, 0],
                size=image.shape[:2],
                classes=COCO_90,
                mask_paste="pixel_centres",
            ),
        )


@pytest.fixture(scope="module")
def published(data_dir: Path) -> list[dict[str, Any]]:
    """The results list that comes with the model: box AP .266, segm AP .233."""
    return json.loads((data_dir / "baseline_detections" / "d2go_fbnetv3a_coco_val215.json").read_text())


def average_precision(truth: COCO, items: list[dict[str, Any]], kind: str, image_ids: list[int]) -> float:
    """AP at IoU .50:.95 by pycocotools, over some images."""
    evaluation = COCOeval(truth, truth.loadRes(items), kind)
    evaluation.params.imgIds = image_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def coco_items(found: dict[int, Detections]) -> list[dict[str, Any]]:
    """A results list that has been through a file."""
    items = [item for image_id, detections in found.items() for item in detections.to_coco(image_id=image_id)]
    return json.loads(json.dumps(items))


def whole_image_probability(detection: Detections) -> np.ndarray:
    """One detection's probability (H, W) by torch's grid_sample at every pixel centre of the image."""
    import torch

    (height, width), (x1, y1, x2, y2) = detection.size, detection.boxes[0].tolist()
    x = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
    y = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
    grid = torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], dim=2)[None]
    roi_mask = torch.from_numpy(detection.roi_masks)[:, None]
    return torch.nn.functional.grid_sample(roi_mask, grid, align_corners=False)[0, 0].numpy()


def reproduced(found: dict[int, Detections], published: list[dict[str, Any]]) -> list[int]:
    """Images for which the int8 network gave here the scores that it gave its publisher."""
    theirs: dict[int, list[float]] = {image_id: [] for image_id in found}
    for item in published:
        theirs[item["image_id"]].append(item["score"])
    return [
        image_id
        for image_id, detections in found.items()
        if detections.scores.tolist() == pytest.approx(theirs[image_id], abs=1e-5)
    ]


@pytest.mark.parametrize(("kind", "expected"), [("bbox", 0.266), ("segm", 0.233)])
def test_real_boxes_and_masks_give_about_the_ap_of_their_model(truth, found, kind, expected):
    # The int8 network differs by thread count and instruction set: single scores move by .01 and more, the AP
    # by some thousandths. The next test leaves the network out.
    assert average_precision(truth, coco_items(found), kind, list(found)) == pytest.approx(
        expected, abs=0.004
    )


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_where_the_network_is_reproduced_the_ap_is_the_published_one(truth, found, published, kind):
    image_ids = reproduced(found, published)
    if len(image_ids) < 20:
        pytest.skip(f"the int8 network gave its published scores on {len(image_ids)} images only")
    kept = {image_id: found[image_id] for image_id in image_ids}
    theirs = [item for item in published if item["image_id"] in kept]
    expected = average_precision(truth, theirs, kind, image_ids)
    assert average_precision(truth, coco_items(kept), kind, image_ids) == pytest.approx(expected, abs=0.002)


def test_real_masks_equal_grid_sample_over_the_whole_image(found):
    for image_id in sorted(found)[:20]:
        for detection in found[image_id]:
            probability = whole_image_probability(detection)
            differ = detection.masks()[0] != (probability >= 0.5)
            # An int8 head has neighbouring cells of exactly one half, between them it is rounding.
            assert np.abs(probability[differ] - 0.5).max(initial=0) < 1e-6
            assert differ.sum() <= 100


def test_published_masks_keep_their_rle(published):
    for item in published[::20]:
        rle = item["segmentation"]
        mask = coco_mask.decode(rle).astype(bool)
        y, x = (int(places.min()) for places in np.nonzero(mask)) if mask.any() else (0, 0)
        assert encode(mask[y:, x:], x, y, tuple(rle["size"])) == rle
