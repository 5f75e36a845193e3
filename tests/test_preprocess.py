"""Resized sizes, pixel values and the way back of every source, by hand, live and against recorded inputs."""

import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from maskrcnn.config import ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.host.normalise import normalised as fed_to_network
from maskrcnn.preprocess import Geometry, batch, prepare, resized_size
from maskrcnn.spec import Preprocess

GOLDEN = Path(__file__).parent / "golden"

# (400, 1000) and (375, 625) become longer than 1333; sources differ in the order of scaling and rounding.
SIZES = [
    ("torchvision", (480, 640), (800, 1066)),
    ("torchvision", (400, 1000), (533, 1333)),
    ("torchvision", (375, 625), (799, 1333)),
    ("detectron2", (480, 640), (800, 1067)),
    ("detectron2", (400, 1000), (533, 1333)),
    ("detectron2", (375, 625), (800, 1333)),
    ("mmdetection", (480, 640), (800, 1067)),
    ("mmdetection", (400, 1000), (533, 1333)),
    ("mmdetection", (375, 625), (800, 1333)),
    ("maskrcnn_benchmark", (480, 640), (800, 1066)),
    ("maskrcnn_benchmark", (400, 1000), (533, 1332)),
    ("maskrcnn_benchmark", (375, 625), (800, 1333)),
    ("caffe2", (480, 640), (800, 1067)),
    ("caffe2", (400, 1000), (533, 1333)),
    ("caffe2", (375, 625), (800, 1333)),
]

BGR = (103.53, 116.28, 123.675)
RGB = (123.675, 116.28, 103.53)
OLD_BGR = (102.9801, 115.9465, 122.7717)
ONES = (1.0, 1.0, 1.0)
WINDOW = Preprocess(resize="fit_window", size_rule="mmdetection")

# CRC-32 of the normalised, padded float32 input each source made of portrait.png at 320/533 and 800/1333.
RECORDED = [
    ("detectron2", "pillow", "bgr", 32, BGR, ONES, "3c712bbb", "ebbbb8e5"),
    ("detectron2", "pillow", "bgr", 1, BGR, ONES, "8f7ad97c", "5add8696"),
    ("mmdetection", "opencv", "rgb", 32, RGB, (58.395, 57.12, 57.375), "41dcb7fe", "b300864d"),
    ("mmdetection", "opencv", "bgr", 32, BGR, ONES, "505620de", "35b062da"),
    ("maskrcnn_benchmark", "pillow", "bgr", 32, OLD_BGR, ONES, "95776958", "01e6616b"),
]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random colours, (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def portrait() -> np.ndarray:
    """The picture that the frameworks were given."""
    return np.asarray(Image.open(GOLDEN / "portrait.png").convert("RGB"))


def normalised(preprocess: Preprocess, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """The network's first tensor for portrait.png, (1, 3, H, W)."""
    image, size = batch([prepare(portrait(), preprocess)[0]], preprocess)
    (height, width), out = size[0], np.zeros(image.shape, np.float32)
    values = (image.astype(np.float32) - np.float32(mean)[:, None, None]) / np.float32(std)[:, None, None]
    out[..., :height, :width] = values[..., :height, :width]
    return out


@pytest.mark.parametrize(("rule", "size", "expected"), SIZES, ids=str)
def test_the_shortest_edge_becomes_800_as_each_source_rounds_it(rule, size, expected):
    assert resized_size(size, Preprocess(size_rule=rule)) == expected
    assert resized_size(size[::-1], Preprocess(size_rule=rule)) == expected[::-1]


def test_caffe2_ignores_a_limit_that_is_passed_by_less_than_half_a_pixel():
    rule = Preprocess(size_rule="caffe2", filter="torch")
    # 800 / 375 * 625 = 1333.3 rounds to 1333; 800 / 374 * 625 = 1336.9 passes it.
    assert prepare(np.zeros((375, 625, 3), np.uint8), rule)[1].scale_net == 800 / 375
    assert prepare(np.zeros((374, 625, 3), np.uint8), rule)[1].scale_net == 1333 / 625


def test_sizes_equal_torchvision_for_hundreds_of_images():
    torch = pytest.importorskip("torch")
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    random = np.random.default_rng(0)
    for short, long in ((800, 1333), (320, 533)):
        transform = GeneralizedRCNNTransform(short, long, [0.0], [1.0])
        rule = Preprocess(short=short, long=long, size_rule="torchvision")
        for height, width in random.integers(20, 4000, (150, 2)).tolist():
            theirs, _ = transform.resize(torch.zeros(1, height, width, device="meta"), None)
            assert resized_size((height, width), rule) == tuple(theirs.shape[1:]), (height, width)


@pytest.mark.parametrize("rule", ["torchvision", "detectron2", "mmdetection", "maskrcnn_benchmark", "caffe2"])
@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (9_000, 12_000), (5_000, 2)], ids=str)
def test_no_side_of_any_image_vanishes(rule, size):
    for resize in ("shortest_edge", "fit_window", "letterbox"):
        height, width = resized_size(size, Preprocess(resize=resize, size_rule=rule))
        assert height >= 1
        assert width >= 1


def test_fit_window_fits_into_height_and_width():
    rule = Preprocess(resize="fit_window", short=800, long=1200, size_rule="detectron2")
    assert resized_size((400, 400), rule) == (800, 800)
    assert resized_size((100, 400), rule) == (300, 1200)


def test_stretch_ignores_the_aspect():
    planes, geometry = prepare(picture(40, 10), Preprocess(resize="stretch", short=20, long=30))
    assert planes.shape == (3, 20, 30)
    # y doubles back, x shrinks to a third.
    assert geometry.to_image([[3, 4, 6, 8]]).tolist() == [[1, 8, 2, 16]]


def test_a_letterbox_is_centred_and_filled():
    image = np.full((10, 20, 3), 7, np.uint8)
    rule = Preprocess(resize="letterbox", short=40, long=40, pad_value=114)
    planes, geometry = prepare(image, rule)
    assert geometry == Geometry(size=(10, 20), size_net=(20, 40), offset_net=(10, 0))
    assert planes[0, :, 5].tolist() == [114] * 10 + [7] * 20 + [114] * 10
    assert geometry.to_image([[0, 10, 40, 30]]).tolist() == [[0, 0, 20, 10]]
    assert batch([planes], rule)[1].tolist() == [[40, 40]]


def test_a_letterbox_of_the_mean_colour_is_zero_after_normalisation():
    mean = (103.53, 116.28, 123.675)
    rule = Preprocess("letterbox", 40, 40, channels="bgr", pad_multiple=8, pad_value=mean)
    planes, _ = prepare(np.full((10, 20, 3), (7, 8, 9), np.uint8), rule)
    assert planes.dtype == np.float32
    assert planes[:, 20, 20].tolist() == [9, 8, 7]
    fed = fed_to_network(*batch([planes], rule), ModelConfig(mean=mean))
    assert not fed[0, :, :10].any()
    assert not fed[0, :, 30:].any()
    assert fed[0, :, 10:30].all()


def test_a_whole_number_of_each_channel_stays_bytes():
    rule = Preprocess(resize="letterbox", short=40, long=40, pad_value=(124, 116, 104))
    planes, _ = prepare(np.full((10, 20, 3), 7, np.uint8), rule)
    assert planes.dtype == np.uint8
    assert planes[:, 0, 0].tolist() == [124, 116, 104]


@pytest.mark.parametrize("value", [-1, 256, (0, 0, 300), float("nan")])
def test_a_fill_is_a_colour(value):
    with pytest.raises(ValueError, match="must be 0 to 255"):
        Preprocess(pad_value=value)


def test_boxes_return_to_the_image_by_the_ratio_of_each_axis():
    geometry = Geometry(size=(400, 600), size_net=(800, 900))
    boxes = geometry.to_image([[90, 80, 900, 800]])
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(boxes, [[60, 40, 600, 400]], rtol=1e-6)
    np.testing.assert_allclose(geometry.to_net(boxes), [[90, 80, 900, 800]], rtol=1e-6)


def test_boxes_return_to_the_image_by_one_scale_with_caffe2():
    image = np.zeros((375, 501, 3), np.uint8)
    planes, geometry = prepare(image, Preprocess(size_rule="caffe2", filter="torch"))
    assert planes.shape == (3, 800, 1069)  # 501 * 800 / 375 = 1068.8
    np.testing.assert_allclose(geometry.to_image([800, 800, 1600, 1600]), [375, 375, 750, 750], rtol=1e-6)
    np.testing.assert_allclose(geometry.to_net([375, 375, 750, 750]), [800, 800, 1600, 1600], rtol=1e-6)


@pytest.mark.parametrize("offset", [(0, 0), (3, 5)])
def test_to_net_undoes_to_image(offset):
    boxes = np.random.default_rng(0).random((50, 4), np.float32) * 500
    geometry = Geometry((333, 501), (799, 1201), offset)
    np.testing.assert_allclose(geometry.to_image(geometry.to_net(boxes)), boxes, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("name", ["opencv", "pillow", "torch"])
def test_an_image_of_the_right_size_stays_as_it_is(name, channels):
    image = picture(32, 48)
    planes, _ = prepare(image, Preprocess(short=32, long=48, filter=name, channels=channels))
    assert planes.dtype == np.uint8
    assert planes.flags.c_contiguous
    expected = image if channels == "rgb" else image[..., ::-1]
    assert np.array_equal(planes, expected.transpose(2, 0, 1))


def test_pillow_antialiases_where_opencv_picks_neighbours():
    # Columns 255 0 0 255 shrunk to one: opencv averages the two in the middle, pillow weighs all four.
    image = np.tile(np.uint8([255, 0, 0, 255])[None, :, None], (32, 8, 3))
    small = Preprocess(resize="stretch", short=32, long=8)
    opencv, pillow = (
        prepare(image, Preprocess(**{**vars(small), "filter": name}))[0] for name in ("opencv", "pillow")
    )
    assert opencv[0, 5, 4] == 0
    assert pillow[0, 5, 4] > 60


@pytest.mark.parametrize("size", [(401, 640), (642, 430), (1200, 1600), (50, 70)], ids=str)
def test_the_torch_filter_equals_interpolate(size):
    torch = pytest.importorskip("torch")
    image = picture(*size)
    ours, geometry = prepare(image, Preprocess(size_rule="torchvision", filter="torch"))
    planes = torch.from_numpy(image).permute(2, 0, 1).float()
    theirs = torch.nn.functional.interpolate(
        planes[None], geometry.size_net, mode="bilinear", align_corners=False
    )
    assert ours.dtype == np.float32
    # torch rounds source coordinates differently on one thread and on two: 0.007 for these sizes.
    np.testing.assert_allclose(ours, theirs[0].numpy(), rtol=0, atol=0.015)


def test_caffe2_resizes_the_float_image_by_the_exact_scale():
    image = picture(375, 501)
    ours, _ = prepare(image, Preprocess(size_rule="caffe2", filter="torch", channels="bgr"))
    mean = np.float32(OLD_BGR)
    centred = image[..., ::-1].astype(np.float32) - mean
    theirs = cv2.resize(centred, None, fx=800 / 375, fy=800 / 375, interpolation=cv2.INTER_LINEAR)
    # Taking the mean off before or after differs by rounding of values up to 255.
    np.testing.assert_allclose(ours.transpose(1, 2, 0) - mean, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: f"{row[0]}-{row[2]}-{row[3]}")
def test_the_input_of_portrait_equals_the_recorded_one_bit_for_bit(row):
    rule, name, channels, multiple, mean, std, *crcs = row
    for (short, long), crc in zip(((320, 533), (800, 1333)), crcs, strict=True):
        preprocess = Preprocess(
            short=short, long=long, size_rule=rule, filter=name, channels=channels, pad_multiple=multiple
        )
        assert f"{zlib.crc32(normalised(preprocess, mean, std).tobytes()):08x}" == crc


@pytest.mark.parametrize(("short", "long", "shape"), [(320, 533, (480, 320)), (800, 1333, (1216, 800))])
def test_the_input_of_portrait_equals_torchvisions_recorded_one(short, long, shape):
    preprocess = Preprocess(short=short, long=long, size_rule="torchvision", filter="torch")
    std = tuple(255 * value for value in (0.229, 0.224, 0.225))
    image = normalised(preprocess, tuple(255 * value for value in (0.485, 0.456, 0.406)), std)
    assert image.shape == (1, 3, *shape)
    with np.load(GOLDEN / "inputs_portrait.npz") as recorded:
        # A float resize after and not before normalisation: some roundings of values around 2.
        np.testing.assert_allclose(image[0, :, 96:128, 96:128], recorded[str(short)], rtol=0, atol=1e-6)


def test_a_batch_is_padded_right_and_below_to_a_joint_multiple():
    planes = [np.full((3, 30, 50), 5, np.uint8), np.full((3, 40, 33), 6, np.uint8)]
    image, size = batch(planes, Preprocess(pad_multiple=32))
    assert (image.shape, image.dtype) == ((2, 3, 64, 64), np.uint8)
    assert (size.tolist(), size.dtype) == ([[30, 50], [40, 33]], np.int64)
    assert (image[0].sum(), image[1].sum()) == (3 * 30 * 50 * 5, 3 * 40 * 33 * 6)
    assert image[1, 2, 39, 32] == 6


def test_a_batch_without_padding_keeps_its_size():
    assert batch([np.zeros((3, 31, 47), np.uint8)], Preprocess(pad_multiple=1))[0].shape == (1, 3, 31, 47)


def test_a_batch_of_whole_and_fractional_values_is_float():
    planes = [np.zeros((3, 32, 32), np.uint8), np.full((3, 32, 32), 0.5, np.float32)]
    image, _ = batch(planes, Preprocess())
    assert (image.dtype, image[1, 0, 0, 0]) == (np.float32, 0.5)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 5), np.uint8), "uint8 (4, 5)"),
        (np.zeros((4, 5, 4), np.uint8), "uint8 (4, 5, 4)"),
        (np.zeros((4, 5, 3), np.float32), "float32 (4, 5, 3)"),
        (np.zeros((0, 5, 3), np.uint8), "uint8 (0, 5, 3)"),
        ("street.jpg", "a str"),
    ],
)
def test_what_is_no_image_is_refused_by_its_type_and_shape(image, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace(")", r"\)")) as caught:
        prepare(image, Preprocess())
    assert "uint8" in caught.value.hint


@pytest.mark.parametrize("name", ["opencv", "pillow", "torch"])
def test_an_image_of_one_pixel_fills_the_input(name):
    planes, _ = prepare(np.uint8([[[10, 20, 30]]]), Preprocess(short=8, long=8, filter=name))
    assert planes.shape == (3, 8, 8)
    assert (planes == np.array([10, 20, 30])[:, None, None]).all()


def test_the_area_filter_averages_when_shrinking_and_is_opencvs_bilinear_when_growing():
    image = np.zeros((4, 8, 3), np.uint8)
    image[0, 0] = 200
    area = replace(WINDOW, short=2, long=4, filter="area")
    planes, _ = prepare(image, area)
    assert planes[0].tolist() == [[50, 0, 0, 0], [0, 0, 0, 0]]
    grown, _ = prepare(image, replace(area, short=8, long=16))
    assert np.array_equal(grown, prepare(image, replace(area, short=8, long=16, filter="opencv"))[0])


def test_with_caffe2s_size_rule_the_area_filters_cells_are_as_wide_as_its_scale_says():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    planes, geometry = prepare(image, replace(WINDOW, short=31, long=60, size_rule="caffe2", filter="area"))
    assert geometry.size_net == (31, 43)
    expected = cv2.resize(image, None, fx=0.62, fy=0.62, interpolation=cv2.INTER_AREA)
    assert np.array_equal(planes, expected.transpose(2, 0, 1))


def test_a_window_is_padded_whole_on_the_right_and_below():
    planes = [np.full((3, 6, 4), 9, np.uint8)]
    image, size = batch(planes, replace(WINDOW, short=6, long=10, pad_multiple=1, pad_to_window=True))
    assert (image.shape, size.tolist()) == ((1, 3, 6, 10), [[6, 4]])
    assert image[0, 0, 0].tolist() == [9] * 4 + [0] * 6
