"""tensorrtx's text format: what it holds, how it is written, and what a damaged one says."""

import re
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frameworks import SMALL, Plan, Shapes, detectron2_shapes, filled, layer

from maskrcnn import presets
from maskrcnn.errors import UserError
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.weights.architecture import name_of
from maskrcnn.weights.convert import Report, convert
from maskrcnn.weights.model_file import read_model_file
from maskrcnn.weights.readers import read_checkpoint
from maskrcnn.weights.rewrite import rewrite_back
from maskrcnn.weights.sources import tensorrtx
from maskrcnn.weights.wts import write_wts

TEXT = b"""2
first 3  3f800000 c0000000 7fc00000
other 1  00000001
"""


def read(path: Path, content: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(content)
    return read_checkpoint(path).tensors


def folded(**changes: Any) -> Shapes:
    """Names and shapes of detectron2 after its norms were folded: biases and no norm."""
    return detectron2_shapes(Plan(**{**SMALL, "neck": "c4", "norm": "", **changes}))


def basic_c4(blocks: tuple[int, ...]) -> Shapes:
    """Of detectron2's R18 and R34 C4: basic blocks, and bottlenecks on RoIs."""
    shapes = layer("backbone.stem.conv1", (8, 3, 7, 7))
    before = 8
    for stage, count in zip((2, 3, 4), blocks, strict=True):
        out = 8 * 2 ** (stage - 2)
        for block in range(count):
            name = f"backbone.res{stage}.{block}"
            shapes |= layer(f"{name}.conv1", (out, before, 3, 3)) | layer(f"{name}.conv2", (out, out, 3, 3))
            shapes |= layer(f"{name}.shortcut", (out, before, 1, 1)) if before != out else {}
            before = out
    for block in range(3):
        name = f"roi_heads.res5.{block}"
        shapes |= layer(f"{name}.conv1", (64, before, 1, 1)) | layer(f"{name}.conv2", (64, 64, 3, 3))
        shapes |= layer(f"{name}.conv3", (64, 64, 1, 1))
        shapes |= layer(f"{name}.shortcut", (64, before, 1, 1)) if block == 0 else {}
        before = 64
    shapes |= layer("proposal_generator.rpn_head.conv", (32, 32, 3, 3))
    shapes |= layer("proposal_generator.rpn_head.objectness_logits", (15, 32, 1, 1))
    shapes |= layer("proposal_generator.rpn_head.anchor_deltas", (60, 32, 1, 1))
    shapes |= layer("roi_heads.box_predictor.cls_score", (6, 64))
    shapes |= layer("roi_heads.box_predictor.bbox_pred", (20, 64))
    shapes |= layer("roi_heads.mask_head.deconv", (64, 16, 2, 2))
    return shapes | layer("roi_heads.mask_head.predictor", (5, 16, 1, 1))


def converted(path: Path, tensors: dict[str, np.ndarray], **arguments: Any) -> Report:
    write_wts(path / "x.wts", tensors)
    return convert(path / "x.wts", path / "out.safetensors", **arguments)


def test_values_are_big_endian_float32_as_hexadecimal_digits(tmp_path: Path) -> None:
    tensors = read(tmp_path / "x.wts", TEXT)
    assert list(tensors) == ["first", "other"]
    assert tensors["first"][:2].tolist() == [1.0, -2.0] and np.isnan(tensors["first"][2])
    assert tensors["other"].tolist() == [2.0**-149]


@pytest.mark.parametrize(
    "change",
    [(b"  ", b" "), (b"\n", b"\r\n"), (b" c0", b"\t c0"), (b"7fc00000\n", b"7fc00000 \n"), (b"c0", b"C0")],
)
def test_the_white_space_and_case_of_other_writers_make_no_difference(
    tmp_path: Path, change: tuple[bytes, bytes]
) -> None:
    a, b = read(tmp_path / "a.wts", TEXT), read(tmp_path / "b.wts", TEXT.replace(*change))
    assert a.keys() == b.keys() and all(np.array_equal(a[key], b[key], equal_nan=True) for key in a)


def test_a_written_file_is_what_the_script_of_tensorrtx_writes(tmp_path: Path) -> None:
    values = {"first": np.float32([1, -2, np.nan]), "other": np.array([2.0**-149])}
    write_wts(tmp_path / "x.wts", values)
    assert (tmp_path / "x.wts").read_bytes() == TEXT


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (TEXT.replace(b"2\n", b"3\n", 1), "it has 2 tensors where its first line says 3"),
        (TEXT.replace(b"2\n", b"1\n", 1), "line 3 is one more than the 1 tensors"),
        (TEXT.replace(b"first 3", b"first 2"), "first says 2 values and has more"),
        (TEXT.replace(b"first 3", b"first 4"), "first says 4 values and has 26 letters"),
        (
            TEXT.replace(b"first 3", b"first 99999999999999"),
            "says 99999999999999 values and has 26 letters",
        ),
        (TEXT.replace(b"first 3", b"fi\x1brst 4"), r"fi\x1brst says 4 values"),
        (TEXT.replace(b"c000", b"c0g0"), "first has a letter that is no hexadecimal digit"),
        (TEXT.replace(b"c0000000 7", b"c000000 07"), "values that are not 8 digits"),
        (TEXT[:-3], "other says 1 values and has 6 letters"),
        (TEXT.replace(b"other", b"first"), "line 3 has first a second time"),
        (b"7\nhello world\n", "line 2 does not begin with a name and a count"),
        (b"7\n\n\n" + b"\n" * 100 + TEXT, "blank lines between tensors"),
        (b"999999999\n" + TEXT, "its first line is no number of tensors"),
        (TEXT.replace(b"other 1  00000001", b"other 0  00000001"), "says no values and has some"),
    ],
)
def test_a_damaged_file_is_refused_with_the_line_and_the_name(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        read(tmp_path / "x.wts", content)


def test_a_text_that_is_no_wts_is_told_as_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is text"):
        read(tmp_path / "x.wts", b"hello 2 you\n")


@pytest.mark.parametrize(
    ("shapes", "name", "source"),
    [
        (folded(), "R50-C4 folded", "tensorrtx"),
        (folded(depth=101), "R101-C4 folded", "tensorrtx"),
        (folded(depth=152, classes=1), "R152-C4 folded", "tensorrtx"),
        (basic_c4((2, 2, 2)), "R18-C4 folded", "tensorrtx"),
        (basic_c4((3, 4, 6)), "R34-C4 folded", "tensorrtx"),
        (folded(neck="dc5"), "R50-DC5 folded", "tensorrtx"),
        (folded(neck="fpn"), "R50-FPN folded", "tensorrtx-fpn"),
        (folded(neck="fpn", depth=18), "R18-FPN folded", "tensorrtx-fpn"),
        (folded(neck="fpn", groups=2, group_width=4), "X50-2x4d-FPN folded", "tensorrtx-fpn"),
        (folded(neck="fpn", box_convs=4, fcs=1), "R50-FPN 4conv1fc folded", "tensorrtx-fpn"),
    ],
)
def test_names_and_counts_tell_every_shape(tmp_path: Path, shapes: Shapes, name: str, source: str) -> None:
    theirs = filled(shapes)
    report = converted(tmp_path, theirs)
    spec, ours = read_model_file(tmp_path / "out.safetensors")
    assert (name_of(spec.model), spec.origin.source, report.tensors) == (name, source, len(shapes))
    assert {
        path: array.shape for path, array in read_checkpoint(tmp_path / "x.wts").tensors.items()
    } == shapes
    MaskRCNN(spec.model).load_state_dict({key: torch.from_numpy(array) for key, array in ours.items()})


@pytest.mark.parametrize(
    ("depth", "style", "rgb"),
    [
        (152, None, True),
        (152, "tensorrtx", True),
        (152, "caffe", False),
        (101, "tensorrtx", False),
        (152, "ixrt", False),
    ],
)
def test_depths_that_its_page_trains_from_torchvisions_trunks_see_rgb(
    tmp_path: Path, depth: int, style: str | None, rgb: bool
) -> None:
    converted(tmp_path, filled(folded(depth=depth)), style=style)
    spec, _ = read_model_file(tmp_path / "out.safetensors")
    assert spec.preprocess.channels == ("rgb" if rgb else "bgr")
    assert spec.model.backbone.stride_in_1x1 is not rgb
    assert spec.model.mean == ((123.675, 116.28, 103.53) if rgb else (103.53, 116.28, 123.675))
    assert spec.model.std == ((58.395, 57.12, 57.375) if rgb else (1.0, 1.0, 1.0))
    assert spec.preprocess.resize == ("letterbox" if style in ("tensorrtx", "ixrt") else "shortest_edge")


def test_a_file_comes_back_bit_by_bit(tmp_path: Path) -> None:
    converted(tmp_path, filled(folded()))
    _, ours = read_model_file(tmp_path / "out.safetensors")
    back = rewrite_back(ours, tensorrtx.TABLE)
    order = read_checkpoint(tmp_path / "x.wts").tensors
    write_wts(tmp_path / "y.wts", {name: back[name] for name in order})
    assert (tmp_path / "y.wts").read_bytes() == (tmp_path / "x.wts").read_bytes()


def test_folded_norms_compute_what_the_norms_computed(tmp_path: Path) -> None:
    theirs = filled(detectron2_shapes(Plan(**{**SMALL, "neck": "c4"})))
    torch.save({name: torch.from_numpy(array) for name, array in theirs.items()}, tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "norms.safetensors")
    tensors = {name: array for name, array in theirs.items() if ".norm." not in name}
    for name in [name.removesuffix(".norm.weight") for name in theirs if name.endswith(".norm.weight")]:
        gamma, beta, mean, variance = (
            theirs[f"{name}.norm.{key}"].astype(np.float64)
            for key in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + 1e-5)
        tensors[f"{name}.weight"] = (theirs[f"{name}.weight"] * scale[:, None, None, None]).astype(np.float32)
        tensors[f"{name}.bias"] = (beta - mean * scale).astype(np.float32)
    converted(tmp_path, tensors)
    image, size = torch.full((1, 3, 64, 96), 128.0), torch.tensor([[64, 96]])
    levels = []
    for file in ("norms.safetensors", "out.safetensors"):
        spec, ours = read_model_file(tmp_path / file)
        network = MaskRCNN(spec.model).eval().requires_grad_(False)
        network.load_state_dict({key: torch.from_numpy(array) for key, array in ours.items()})
        levels.append(network.features(image, size)[0])
    torch.testing.assert_close(*levels, rtol=1e-4, atol=1e-4 * float(levels[0].abs().max()))


def test_c4_has_the_numbers_of_tensorrtx(tmp_path: Path) -> None:
    report = converted(tmp_path, filled(folded()))
    model, soft = report.spec.model, report.spec.model.box_head.soft_nms
    assert model.conventions == replace(presets.DETECTRON2, delta_limit=80.0)
    assert (soft.method, soft.min_score, model.box_head.score_over) == ("linear", 0.05, 0.05)
    assert (model.rpn.pre_nms, model.rpn.post_nms, model.rpn.nms_iou) == (6000, 1000, 0.7)
    assert (model.mean, model.std) == (presets.MEAN_BGR, presets.NO_STD)
    assert (model.backbone.norm, model.backbone.stride_in_1x1) == ("none", True)
    assert report.spec.preprocess == replace(presets.DETECTRON2_INPUT, pad_multiple=1)
    assert any("preprocess.resize=letterbox" in note for note in report.notes)


def test_a_pyramid_has_the_numbers_of_detectron2(tmp_path: Path) -> None:
    report = converted(tmp_path, filled(folded(neck="fpn")))
    assert report.spec.model.conventions == presets.DETECTRON2
    assert report.spec.model.box_head.soft_nms.method == "none"


def test_constants_of_older_detectron2_are_left_out(tmp_path: Path) -> None:
    extra = {"pixel_mean": np.float32([1, 2, 3]), "pixel_std": np.float32([4, 5, 6])}
    extra["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((15, 4), np.float32)
    report = converted(tmp_path, filled(folded()) | extra)
    assert (report.spec.model.mean, report.spec.model.std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def test_a_tensor_of_another_count_is_named(tmp_path: Path) -> None:
    tensors = filled(folded())
    tensors["backbone.res3.1.conv2.weight"] = np.zeros(577, np.float32)
    with pytest.raises(UserError, match=r"backbone\.res3\.1\.conv2\.weight"):
        converted(tmp_path, tensors)
    assert not (tmp_path / "out.safetensors").exists()


def test_reading_takes_the_memory_of_the_numbers_and_little_more(tmp_path: Path) -> None:
    write_wts(tmp_path / "x.wts", {f"a{i}": np.ones(1_000_000, np.float32) for i in range(4)})
    tracemalloc.start()
    tensors = read_checkpoint(tmp_path / "x.wts").tensors
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    numbers = sum(array.nbytes for array in tensors.values())
    assert numbers == 16_000_000 and peak < numbers + 12_000_000  # a chunk's text, digits and mask


@pytest.mark.slow
def test_44_million_numbers_are_read_in_15_seconds_with_twice_their_memory(tmp_path: Path) -> None:
    write_wts(tmp_path / "x.wts", {f"a{i}": np.ones(1_000_000, np.float32) for i in range(44)})
    tracemalloc.start()
    start = time.perf_counter()
    tensors = read_checkpoint(tmp_path / "x.wts").tensors
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(tensors) == 44 and seconds < 15 and peak < 2 * 176_000_000
