"""Graphs that torch.onnx.export makes of torchvision's Mask R-CNN, against the live model inside them."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn.backends.contracts.own_resize import own_resize
from maskrcnn.backends.contracts.pasted import unpasted, within
from maskrcnn.backends.contracts.torchvision import CONTRACT, SIDE
from maskrcnn.backends.foreign_graph import Interface, recognised
from maskrcnn.config import BoxHeadConfig, ModelConfig
from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.images import read_image
from maskrcnn.predict import Predictor, open_model
from maskrcnn.presets import COCO_90
from maskrcnn.spec import Spec
from maskrcnn.weights.graph_description import describe_graph

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from golden.synthetic import tensor  # noqa: E402
from torchvision.models.detection import MaskRCNN  # noqa: E402
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone  # noqa: E402
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead  # noqa: E402
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor  # noqa: E402
from torchvision.models.detection.roi_heads import paste_masks_in_image  # noqa: E402
from torchvision.ops import FeaturePyramidNetwork  # noqa: E402
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool  # noqa: E402

# As in parity/: rounding in the features reaches the scores multiplied by the predictors' weights.
TAME = {
    "scale": [
        ["cls_logits.weight$", 0.55],
        ["rpn.head.bbox_pred.weight$", 0.06],
        ["box_predictor.*weight$", 0.2],
        ["mask_fcn_logits.weight$", 0.5],
    ],
    "bias": {},
}
SHORT, LONG = 128, 224
CHANNELS = 32
# Its short side becomes 128 and the other 192, without rounding.
EVEN = (300, 200)
# Between the two best of the portrait, and between the best of a grey image and that.
ONE_OBJECT = 0.97
BOXES = {"boxes": (0, 4), "labels": (0,), "scores": (0,), "masks": (0, 1, 0, 0)}


@dataclass(frozen=True)
class Made:
    """A live model, a graph of it and its input (height, width), 0 for any."""

    live: MaskRCNN
    path: Path
    size: tuple[int, int]


def network(score_over: float = 0.4) -> MaskRCNN:
    """torchvision's own classes, with few channels."""
    trunk = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    trunk.fpn = FeaturePyramidNetwork([64, 128, 256, 512], CHANNELS, LastLevelMaxPool())
    trunk.out_channels = CHANNELS
    model = MaskRCNN(
        trunk,
        min_size=SHORT,
        max_size=LONG,
        box_score_thresh=score_over,
        box_head=TwoMLPHead(CHANNELS * 49, 64),
        box_predictor=FastRCNNPredictor(64, 91),
        mask_head=MaskRCNNHeads(CHANNELS, [CHANNELS], 1),
        mask_predictor=MaskRCNNPredictor(CHANNELS, CHANNELS, 91),
    )
    model.load_state_dict(
        {
            name: torch.from_numpy(tensor(name, tuple(value.shape), str(value.dtype)[6:], TAME))
            for name, value in model.state_dict().items()
        }
    )
    return model.eval()


def exported(path: Path, model: MaskRCNN, size: tuple[int, int], free: bool, opset: int, rank: int) -> Path:
    """As a user does it: TorchScript, names left to torch unless sides are to be free."""
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    example = ([image],) if rank == 3 else (image[None],)
    axes = {"input_names": ["picture"], "dynamic_axes": {"picture": {rank - 2: "h", rank - 1: "w"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, example, path, opset_version=opset, dynamo=False, **(axes if free else {}))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torchvision")


@pytest.fixture(scope="module")
def free(folder: Path) -> Made:
    live = network()
    return Made(live, exported(folder / "free.onnx", live, (100, 150), True, 17, 3), (0, 0))


@pytest.fixture(scope="module")
def fixed(folder: Path) -> Made:
    live = network()
    return Made(live, exported(folder / "fixed.onnx", live, EVEN, False, 11, 3), EVEN)


@pytest.fixture(scope="module")
def batched(folder: Path) -> Made:
    """Of a model that finds one object in the portrait and none in a grey image."""
    live = network(ONE_OBJECT)
    return Made(live, exported(folder / "batched.onnx", live, EVEN, True, 11, 4), (0, 0))


@pytest.fixture(scope="module")
def portrait(repository: Path) -> np.ndarray:
    image = read_image(repository / "tests" / "golden" / "portrait.png")
    return np.ascontiguousarray(image[: EVEN[0] * 2 : 2, : EVEN[1] * 2 : 2])


@pytest.fixture
def grey() -> np.ndarray:
    return np.full((*EVEN, 3), 128, np.uint8)


@torch.inference_mode()
def found_live(live: MaskRCNN, image: np.ndarray) -> dict[str, np.ndarray]:
    planes = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    return {name: value.numpy() for name, value in live([planes])[0].items()}


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(image, size[::-1])


def assert_equal(found: Detections, expected: dict[str, np.ndarray]) -> Detections:
    """Ours in the order of theirs: equal scores may swap ranks."""
    ours = np.array(found.category_ids())
    far = 1e9 * (ours != expected["labels"][:, None])
    order = (np.abs(found.boxes - expected["boxes"][:, None]).sum(2) + far).argmin(1)
    assert sorted(order) == list(range(len(found)))
    assert ours[order].tolist() == expected["labels"].tolist()
    np.testing.assert_allclose(found.boxes[order], expected["boxes"], atol=0.02)
    np.testing.assert_allclose(found.scores[order], expected["scores"], atol=1e-4)
    return found[order]


def overlaps(found: Detections, expected: dict[str, np.ndarray]) -> np.ndarray:
    ours, theirs = found.masks(), expected["masks"][:, 0] > 0.5
    return (ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2))


def test_detections_of_a_graph_of_one_size_are_those_of_the_live_model(
    fixed: Made, portrait: np.ndarray
) -> None:
    found = open_model(fixed.path, threads=1)([portrait])[0]
    expected = found_live(fixed.live, portrait)
    assert len(found) > 10
    assert overlaps(assert_equal(found, expected), expected).min() > 0.99


@pytest.mark.parametrize(("width", "size"), [(200, (192, 128)), (150, (224, 112))])
def test_detections_of_a_graph_of_any_size_are_those_of_the_live_model(
    free: Made, portrait: np.ndarray, width: int, size: tuple[int, int]
) -> None:
    image = np.ascontiguousarray(portrait[:, :width])
    model = open_model(free.path, threads=1)
    assert model.prepare(image).planes.shape[1:] == size
    found = model([image])[0]
    assert len(found) > 10
    assert_equal(found, found_live(free.live, image))


def test_a_side_that_was_rounded_down_is_not_resized_once_more(free: Made, portrait: np.ndarray) -> None:
    image = np.ascontiguousarray(portrait[:, :197])
    model = open_model(free.path, threads=1)
    planes = model.prepare(image).planes
    assert planes.shape == (3, 194, SHORT - 1)
    fed = CONTRACT.feed(model.spec, planes[None], np.array([planes.shape[1:]]))["image"]
    assert fed.shape == (1, 3, 194, SHORT)
    seen, expected = (
        free.live.transform([each])[0].tensors
        for each in (torch.from_numpy(fed[0]), torch.from_numpy(image).permute(2, 0, 1).float() / 255)
    )
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_masks_are_those_of_the_live_model_where_the_graph_sees_the_image_as_it_is(
    free: Made, portrait: np.ndarray
) -> None:
    model = open_model(free.path, threads=1)
    small = resized(portrait, (192, SHORT))
    found, expected = model([small])[0], found_live(free.live, small)
    assert overlaps(assert_equal(found, expected), expected).min() > 0.99


def test_one_object_and_none_of_a_graph_with_a_batch_of_one(
    batched: Made, portrait: np.ndarray, grey: np.ndarray
) -> None:
    found = open_model(batched.path, threads=1, batch=3)([grey, portrait, grey])
    assert [len(each) for each in found] == [0, 1, 0]
    assert_equal(found[1], found_live(batched.live, portrait))


def test_openvino_is_refused_as_it_finds_objects_where_there_are_none(batched: Made) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(UserError, match="OpenVINO .* finds one object in every image that has none") as told:
        open_model(batched.path, engine="openvino", threads=1)
    assert "--engine onnxruntime" in told.value.hint


def test_images_of_several_sizes_in_one_batch_are_not_seen_with_padding(
    free: Made, portrait: np.ndarray
) -> None:
    model = open_model(free.path, threads=1)
    lying = np.ascontiguousarray(portrait[:150])
    together = Predictor(model.backend, batch=2)([lying, portrait])
    for found, image in zip(together, (lying, portrait), strict=True):
        assert found.boxes.tolist() == model([image])[0].boxes.tolist()


def test_a_graph_of_one_size_sees_the_image_in_a_window_of_the_mean_colour(
    fixed: Made, portrait: np.ndarray
) -> None:
    upper = np.ascontiguousarray(portrait[:160])
    model = open_model(fixed.path, threads=1)
    found = model([upper])[0]
    window = np.empty((*EVEN, 3), np.float32)
    window[:] = np.float32(model.spec.model.mean)
    window[:160] = upper
    expected = found_live(fixed.live, window)
    assert found.scores.tolist() == pytest.approx(expected["scores"].tolist(), abs=1e-4)
    np.testing.assert_allclose(found.boxes, np.clip(expected["boxes"], 0, [200, 160, 200, 160]), atol=0.02)


def test_the_sizes_inside_are_those_that_the_image_is_resized_to(free: Made, fixed: Made) -> None:
    assert own_resize(free.path) == own_resize(fixed.path) == (SHORT, LONG)
    rule = open_model(free.path, threads=1).spec.preprocess
    assert (rule.resize, rule.short, rule.long, rule.filter) == ("shortest_edge", SHORT, LONG, "torch")
    assert (rule.size_rule, rule.pad_multiple) == ("torchvision", 1)
    rule = open_model(fixed.path, threads=1).spec.preprocess
    assert (rule.resize, rule.short, rule.long, rule.pad_to_window) == ("fit_window", *EVEN, True)


def test_a_graph_without_such_constants_tells_no_size(tmp_path: Path) -> None:
    from mmdetection_graph import write_tiny

    assert own_resize(write_tiny(tmp_path / "g.onnx")) is None


def test_classes_are_those_of_coco_with_its_gaps(free: Made) -> None:
    spec = open_model(free.path, threads=1).spec
    assert (spec.classes, spec.model.classes, spec.origin.source) == (COCO_90, 90, "torchvision")
    assert spec.exported and spec.exported.contract == "torchvision"


def test_a_description_stays_with_the_graph(free: Made, portrait: np.ndarray) -> None:
    out = free.path.with_name("described.onnx")
    describe_graph(free.path, out, settings=["preprocess.filter=opencv"])
    model = open_model(out, threads=1)
    assert model.spec.preprocess.filter == "opencv"
    assert len(model([portrait])[0]) > 10


def test_a_graph_is_known_by_the_ranks_of_its_outputs() -> None:
    assert CONTRACT.fits(Interface({"x": (3, 0, 0)}, BOXES))
    numbered = dict(zip(("boxes.55", "onnx::Shape_2234", "2233", "2741"), BOXES.values(), strict=True))
    assert (
        recognised(Path("g.onnx"), Interface({"image.1": (1, 3, 800, 800)}, numbered)).name == "torchvision"
    )
    assert not CONTRACT.fits(Interface({"x": (2, 3, 0, 0)}, BOXES))
    assert not CONTRACT.fits(Interface({"x": (3, 0, 0), "y": (3, 0, 0)}, BOXES))
    assert not CONTRACT.fits(Interface({"x": (3, 0, 0)}, {**BOXES, "masks": (0, 80, 28, 28)}))
    assert not CONTRACT.fits(Interface({"x": (3, 0, 0)}, {**BOXES, "boxes": (0, 5)}))


def test_labels_are_known_by_their_type_in_any_order() -> None:
    interface = Interface({"x": (3, 4, 6)}, {"a": (0, 4), "b": (0,), "c": (0,), "d": (0, 1, 4, 6)})
    found = {"a": np.zeros((1, 4)), "b": np.float32([0.5]), "c": np.int64([3]), "d": np.zeros((1, 1, 4, 6))}
    fed = []

    def session(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        fed.append(arrays["x"].shape)
        return found

    assert CONTRACT.named
    named = CONTRACT.named(session, interface)({"image": np.zeros((1, 3, 4, 6), np.float32)})
    assert (named["labels"].tolist(), named["scores"].tolist(), fed) == ([3], [0.5], [(3, 4, 6)])


def test_more_boxes_than_the_description_allows_are_an_error() -> None:
    found = {
        "boxes": np.zeros((3, 4), np.float32),
        "labels": np.ones(3, np.int64),
        "scores": np.ones(3, np.float32),
        "masks": np.zeros((3, 1, 4, 6), np.float32),
    }
    with pytest.raises(UserError, match="3 objects in one image, and the model's description allows 2"):
        CONTRACT.read(Spec(model=ModelConfig(box_head=BoxHeadConfig(detections=2))), found, SIZE)


SIZE = np.array([[4, 6]])


def laid(crop: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What torchvision pastes."""
    masks, boxes = torch.from_numpy(crop[None, None]), torch.from_numpy(box[None])
    return paste_masks_in_image(masks, boxes, size)[0, 0].numpy()


@pytest.mark.parametrize(
    "box",
    [(10.3, 20.7, 70.2, 95.9), (0.0, 0.0, 29.0, 29.0), (-12.0, 30.0, 40.5, 130.0), (50.0, 50.0, 55.5, 93.1)],
    ids=["larger", "a cell a pixel", "cut by the edge", "narrow"],
)
def test_a_crop_laid_on_the_same_pixels_is_the_mask_that_torchvision_pasted(
    box: tuple[float, float, float, float],
) -> None:
    numbers = np.random.default_rng(0)
    mask = laid(numbers.random((SIDE, SIDE), np.float32), np.float32(box), (100, 90))
    again = laid(unpasted(mask, np.float32(box), SIDE), np.float32(box), (100, 90))
    np.testing.assert_allclose(again, mask, atol=2e-3)


def test_the_crop_itself_comes_back_where_every_cell_has_its_pixel() -> None:
    crop = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    box = np.float32([10.3, 20.7, 70.2, 95.9])
    np.testing.assert_allclose(unpasted(laid(crop, box, (100, 90)), box, SIDE), crop, atol=1e-3)


def test_cells_that_no_pixel_shows_lie_between_those_that_some_do() -> None:
    crop = np.full((SIDE, SIDE), 0.75, np.float32)
    box = np.float32([10, 10, 14, 14])
    found = unpasted(laid(crop, box, (30, 30)), box, SIDE)
    np.testing.assert_allclose(found, 0.75, atol=1e-3)
    assert unpasted(np.zeros((30, 30), np.float32), np.float32([40, 40, 50, 50]), SIDE).max() == 0


def test_the_crop_of_a_part_of_a_box_is_that_part() -> None:
    crop = np.repeat(np.arange(4, dtype=np.float32)[None], 4, axis=0)
    box, left = np.float32([0, 0, 8, 8]), np.float32([0, 0, 4, 8])
    # Centres of the cells of the left half, in cells of the whole: -0.25, 0.25, 0.75 and 1.25.
    assert within(crop, box, left)[0].tolist() == [0, 0.25, 0.75, 1.25]
    assert within(crop, box, box) is crop
