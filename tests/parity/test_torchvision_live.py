"""The live torchvision models and ours, through `convert`, on the same random weights."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from golden.synthetic import IMAGE, tensor
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from maskrcnn import open_model
from maskrcnn.detections import Detections
from maskrcnn.model.mask_rcnn import MaskRCNN as OurMaskRCNN
from maskrcnn.predict import Predictor
from maskrcnn.weights.convert import convert
from maskrcnn.weights.model_file import read_model_file

# The predictors are tame: rounding in the features reaches the scores multiplied by their weights.
TAME = {
    "scale": [
        ["cls_logits.weight$", 0.55],
        ["rpn.head.bbox_pred.weight$", 0.06],
        ["box_predictor.*weight$", 0.2],
        ["mask_fcn_logits.weight$", 0.5],
    ],
    "bias": {},
}
SCORE_OVER = 0.0125


def published_v1() -> MaskRCNN:
    """As torchvision builds it for its published weights: frozen norms with eps 0."""
    trunk = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=lambda count: FrozenBatchNorm2d(count, eps=0.0)
    )
    return MaskRCNN(trunk, 91, min_size=320, max_size=533)


def v2() -> MaskRCNN:
    return maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, min_size=320, max_size=533)


def resnext() -> MaskRCNN:
    """Trained by users from scratch: ordinary batch norms, and a deeper trunk with other class counts."""
    trunk = resnet_fpn_backbone(backbone_name="resnext50_32x4d", weights=None, norm_layer=nn.BatchNorm2d)
    return MaskRCNN(trunk, 4, min_size=320, max_size=533)


class Pair(NamedTuple):
    theirs: MaskRCNN
    ours: Predictor
    plain: OurMaskRCNN
    image: np.ndarray


@pytest.fixture(
    scope="module",
    params=[published_v1, v2, resnext],
    ids=lambda make: make.__name__,
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    theirs = request.param()
    theirs.roi_heads.score_thresh = SCORE_OVER
    theirs.load_state_dict(
        {
            name: torch.from_numpy(tensor(name, tuple(value.shape), str(value.dtype)[6:], TAME))
            for name, value in theirs.state_dict().items()
        }
    )
    image = np.array(Image.open(IMAGE).convert("RGB"))
    folder: Path = tmp_path_factory.mktemp("torchvision")
    torch.save(theirs.state_dict(), folder / "theirs.pth")
    settings = ["preprocess.short=320", "preprocess.long=533", f"model.box_head.score_over={SCORE_OVER}"]
    convert(folder / "theirs.pth", folder / "ours.safetensors", settings=settings)
    spec, state = read_model_file(folder / "ours.safetensors")
    plain = OurMaskRCNN(spec.model).eval()
    plain.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
    return Pair(theirs.eval(), open_model(folder / "ours.safetensors", device="cpu"), plain, image)


def as_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


@torch.inference_mode()
def test_features_agree_to_1e_5_of_the_largest(pair: Pair):
    batch, _ = pair.theirs.transform([as_tensor(pair.image)])
    expected = pair.theirs.backbone(batch.tensors)
    planes = torch.from_numpy(pair.ours.prepare(pair.image).planes)[None]
    height, width = planes.shape[2:]
    padded = nn.functional.pad(planes, (0, -width % 32, 0, -height % 32))
    levels = pair.plain.features(padded, torch.tensor([[height, width]]))
    assert list(batch.image_sizes[0]) == [height, width]
    for mine, theirs in zip(levels, expected.values(), strict=True):
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@torch.inference_mode()
def test_detections_agree(pair: Pair):
    expected = pair.theirs([as_tensor(pair.image)])[0]
    found = pair.ours([pair.image])[0]
    order = counterparts(found, expected["boxes"].numpy(), expected["labels"].numpy() - 1)
    assert len(found) == len(order) > 20
    np.testing.assert_allclose(found.scores[order], expected["scores"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(found.boxes[order], expected["boxes"], atol=1e-3, rtol=0)
    agreeing = found.masks()[order] == (expected["masks"][:, 0] > 0.5).numpy()
    assert agreeing.mean() >= 0.9999


def counterparts(found: Detections, boxes: np.ndarray, labels: np.ndarray) -> list[int]:
    """For each of boxes (N, 4) the row of its label with the nearest box: equal scores may swap ranks."""
    far = 1e9 * (found.labels != labels[:, None])
    return (np.abs(found.boxes - boxes[:, None]).sum(2) + far).argmin(1).tolist()
