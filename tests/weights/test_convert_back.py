"""What the way back writes: names, order, values, and what the other side has to be told."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frameworks import (
    SMALL_GN,
    detectron2_file,
    filled,
    hollow,
    mmdetection_file,
)
from golden.synthetic import recording
from lineage import maskrcnn_benchmark_file

from maskrcnn import presets
from maskrcnn.config import AnchorConfig, ModelConfig
from maskrcnn.errors import UserError
from maskrcnn.model.anchors import cell_anchors
from maskrcnn.model.mask_rcnn import MaskRCNN
from maskrcnn.spec import Spec
from maskrcnn.weights.architecture import infer, parameter_shapes
from maskrcnn.weights.convert import convert
from maskrcnn.weights.convert_back import BackReport, convert_back, named_tensors, target_named
from maskrcnn.weights.model_file import read_model_file, write_model_file
from maskrcnn.weights.prepare_back import prepared
from maskrcnn.weights.readers import read_checkpoint
from maskrcnn.weights.recognise import SOURCES
from maskrcnn.weights.rewrite import rewrite

SUFFIXES = {
    "torchvision": ".pth",
    "detectron2": ".pkl",
    "mmdetection": ".pth",
    "maskrcnn-benchmark": ".pth",
    "wts": ".wts",
    "mindspore": ".ckpt",
}
BN = {"norm": "bn", "head_norm": "bn", "box_convs": 4, "fcs": 1, "rpn_convs": 2}


def back(model: Path, to: str, **arguments: Any) -> tuple[Path, BackReport]:
    """Written beside the model file, differences or not."""
    out = model.with_name(f"back{SUFFIXES[to]}")
    return out, convert_back(model, out, to, **{"allow_differences": True, **arguments})


def model_file(folder: Path, make: Callable[..., Path] = detectron2_file, **changes: Any) -> Path:
    style = "pytorch" if make is mmdetection_file else None
    convert(make(folder / "x.pkl", **changes), folder / "model.safetensors", style=style)
    return folder / "model.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        "torchvision-r50-fpn",
        "torchvision-r50-fpn-v2",
        "detectron2-r50-fpn",
        "detectron2-r50-c4",
        "mmdetection-r50-fpn",
        "maskrcnn-benchmark-r50-fpn",
    ],
)
def test_names_shapes_and_order_are_those_of_a_recorded_state_dict(name: str) -> None:
    to = next(target for target in SUFFIXES if name.startswith(target))
    keys = {key: shape for key, shape, _ in recording(name).keys}
    ours = rewrite(hollow(keys), SOURCES[to].table, "x").tensors
    model = infer({key: array.shape for key, array in ours.items()}, "x")
    habits = replace(model.conventions, anchor_order=target_named(to).anchor_order)
    ready = prepared(ours, Spec(replace(model, conventions=habits)), target_named(to))
    found = named_tensors(ready, target_named(to))
    found = {key: array for key, array in found.items() if "cell_anchors" not in key}
    assert {key: array.shape for key, array in found.items()} == keys
    assert list(found) == list(keys)


ROUND_TRIPS = [
    (make, changes, to)
    for make, changes, targets in (
        (detectron2_file, {}, "torchvision detectron2 mmdetection maskrcnn-benchmark mindspore"),
        (detectron2_file, {"neck": "c4"}, "detectron2 mmdetection maskrcnn-benchmark"),
        (detectron2_file, {"neck": "dc5"}, "detectron2"),
        (detectron2_file, {"depth": 18}, "torchvision detectron2 mmdetection maskrcnn-benchmark mindspore"),
        (detectron2_file, BN, "torchvision detectron2 mmdetection"),
        (maskrcnn_benchmark_file, SMALL_GN, "torchvision detectron2 mmdetection maskrcnn-benchmark"),
        (detectron2_file, {"agnostic": True}, "detectron2 mmdetection"),
        (detectron2_file, {"groups": 2, "group_width": 4, "classes": 1}, " ".join(list(SUFFIXES)[:4])),
        (mmdetection_file, {}, "torchvision detectron2 mmdetection maskrcnn-benchmark mindspore"),
        (mmdetection_file, {"neck": "c4"}, "detectron2 mmdetection maskrcnn-benchmark"),
        (maskrcnn_benchmark_file, {}, "torchvision detectron2 mmdetection maskrcnn-benchmark mindspore"),
        (maskrcnn_benchmark_file, {"neck": "c4"}, "detectron2 mmdetection maskrcnn-benchmark"),
    )
    for to in targets.split()
]


@pytest.mark.parametrize(("make", "changes", "to"), ROUND_TRIPS)
def test_what_was_written_reads_back_to_the_same_bits(
    tmp_path: Path, make: Callable[..., Path], changes: dict[str, Any], to: str
) -> None:
    path = model_file(tmp_path, make, **changes)
    out, report = back(path, to)
    convert(out, tmp_path / "again.safetensors")
    spec, before = read_model_file(path)
    _, after = read_model_file(tmp_path / "again.safetensors")
    before, after = ({k: v for k, v in t.items() if "tracked" not in k} for t in (before, after))
    reordered = any("reordered" in note for note in report.notes)
    assert reordered == (
        spec.model.neck == "c4" and spec.model.conventions.anchor_order != target_named(to).anchor_order
    )
    assert after.keys() == before.keys()
    for name in before:
        if not (reordered and name.startswith(("rpn.objectness", "rpn.deltas"))):
            np.testing.assert_array_equal(after[name], before[name], strict=True)


@pytest.mark.parametrize(
    ("make", "to"),
    [
        (detectron2_file, "detectron2"),
        (mmdetection_file, "mmdetection"),
        (maskrcnn_benchmark_file, "maskrcnn-benchmark"),
    ],
)
@pytest.mark.parametrize("changes", [{}, {"neck": "c4"}])
def test_its_own_source_gets_back_what_it_gave_without_a_difference(
    tmp_path: Path, make: Callable[..., Path], to: str, changes: dict[str, Any]
) -> None:
    out, report = back(model_file(tmp_path, make, **changes), to)
    # The narrow trunk of these tests is the only one.
    assert [text for text in report.differences if not text.startswith("backbone: its shared head")] == []
    given, found = read_checkpoint(tmp_path / "x.pkl").tensors, read_checkpoint(out).tensors
    assert {name for name in found if "cell_anchors" not in name} == given.keys()
    for name, array in given.items():
        # The background's box and mask rows are dropped on the way in, and zero here.
        rows = (
            0 if to != "maskrcnn-benchmark" else 4 if "predictor.bbox_pred" in name else "mask_fcn_l" in name
        )
        np.testing.assert_array_equal(
            found[name][rows:] if rows else found[name], array[rows:] if rows else array
        )
        assert not rows or not found[name][:rows].any()


def test_a_file_of_mindspore_comes_back_byte_by_byte(tmp_path: Path) -> None:
    first, _ = back(model_file(tmp_path), "mindspore")
    first.rename(tmp_path / "first.ckpt")
    convert(tmp_path / "first.ckpt", tmp_path / "again.safetensors")
    second, report = back(tmp_path / "again.safetensors", "mindspore")
    assert second.read_bytes() == (tmp_path / "first.ckpt").read_bytes()
    assert report.differences == ("backbone.width: its trunks begin with 64 channels, not 8",)


@pytest.mark.parametrize("neck", ["c4", "fpn"])
def test_a_file_of_tensorrtx_comes_back_byte_by_byte(tmp_path: Path, neck: str) -> None:
    first, report = back(model_file(tmp_path, neck=neck), "wts")
    assert any("multiplied into their convolutions" in note for note in report.notes)
    assert not [name for name in read_checkpoint(first).tensors if "norm" in name]
    first.rename(tmp_path / "first.wts")
    convert(tmp_path / "first.wts", tmp_path / "again.safetensors")
    second, report = back(tmp_path / "again.safetensors", "wts")
    assert second.read_bytes() == (tmp_path / "first.wts").read_bytes()
    assert not any("multiplied" in note for note in report.notes)


def test_norms_are_folded_to_what_they_computed(tmp_path: Path) -> None:
    path = model_file(tmp_path, **BN)
    out, _ = back(path, "wts")
    convert(out, tmp_path / "folded.safetensors")
    image, size = torch.full((1, 3, 64, 96), 128.0), torch.tensor([[64, 96]])
    levels = []
    for file in (path, tmp_path / "folded.safetensors"):
        spec, tensors = read_model_file(file)
        network = MaskRCNN(spec.model).eval().requires_grad_(False)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
        levels.append(network.features(image, size))
    for normed, folded in zip(*levels, strict=True):
        torch.testing.assert_close(folded, normed, rtol=1e-4, atol=1e-5 * float(normed.abs().max()))


@pytest.mark.parametrize(("make", "to"), [(detectron2_file, "mmdetection"), (mmdetection_file, "detectron2")])
def test_rpn_outputs_follow_the_order_of_the_other_sides_anchors(
    tmp_path: Path, make: Callable[..., Path], to: str
) -> None:
    path = model_file(tmp_path, make, neck="c4")
    out, _ = back(path, to)
    convert(out, tmp_path / "again.safetensors")
    (before, ours), (after, theirs) = (
        read_model_file(file) for file in (path, tmp_path / "again.safetensors")
    )
    assert before.model.conventions.anchor_order != after.model.conventions.anchor_order
    boxes, rows = [], []
    for spec, tensors in ((before, ours), (after, theirs)):
        cell = cell_anchors(
            spec.model.anchors.sizes[0], spec.model.anchors.ratios, 16, spec.model.conventions
        )
        order = np.lexsort(cell.numpy().T)
        boxes.append(cell.numpy()[order])
        rows.append(
            [tensors["rpn.objectness.bias"][order], tensors["rpn.deltas.weight"].reshape(15, -1)[order]]
        )
    np.testing.assert_allclose(*boxes, rtol=1e-6)
    for mine, other in zip(*rows, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert not np.array_equal(ours["rpn.objectness.bias"], theirs["rpn.objectness.bias"])


def test_counters_are_made_for_mmdetection_and_left_out_for_maskrcnn_benchmark(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    out, report = back(path, "mmdetection")
    tensors = read_checkpoint(out).tensors
    counters = [array for name, array in tensors.items() if name.endswith("num_batches_tracked")]
    assert len(counters) == sum(name.endswith("running_var") for name in tensors) == 53
    assert all(array.dtype == np.int64 and array.shape == () and array == 0 for array in counters)
    assert "num_batches_tracked, which the model does not have, are zero" in report.notes
    out, report = back(model_file(tmp_path, norm="bn"), "maskrcnn-benchmark")
    assert not any("tracked" in name for name in read_checkpoint(out).tensors)
    assert "53 num_batches_tracked have no name there and are left out" in report.notes


def test_maskrcnn_benchmark_gets_the_anchors_of_the_model(tmp_path: Path) -> None:
    out, _ = back(model_file(tmp_path, maskrcnn_benchmark_file), "maskrcnn-benchmark")
    cells = read_checkpoint(out).tensors
    # Detectron's anchors of 32 pixels at stride 4, with inclusive corners
    legacy = [[-22, -10, 25, 13], [-14, -14, 17, 17], [-10, -22, 13, 25]]
    assert cells["rpn.anchor_generator.cell_anchors.0"].tolist() == legacy
    out, report = back(model_file(tmp_path), "maskrcnn-benchmark")
    exact = read_checkpoint(out).tensors["rpn.anchor_generator.cell_anchors.4"]
    assert exact[1].tolist() == [-256, -256, 256, 256]
    np.testing.assert_allclose(exact[0], [-362.0387, -181.0193, 362.0387, 181.0193], rtol=1e-6)
    assert not any("anchor" in difference for difference in report.differences)
    spec = convert(out, tmp_path / "again.safetensors").spec
    np.testing.assert_array_equal(np.float32(spec.model.anchors.cells[4]), exact)


def random_model(path: Path, model: ModelConfig, **fields: Any) -> Path:
    spec = Spec(model, **fields)
    write_model_file(path, spec, filled(parameter_shapes(model)))
    return path


@pytest.mark.parametrize(
    ("to", "changes", "sentence"),
    [
        ("torchvision", {"neck": "c4"}, "torchvision has no names for a C4 model"),
        (
            "torchvision",
            {"agnostic": True},
            "torchvision has no class-agnostic head, which box_head.deltas is",
        ),
        ("torchvision", {"box_convs": 2}, "a box head of 2 convolutions and 2 linear layers"),
        ("mmdetection", {"neck": "dc5"}, "mmdetection has no config of a Mask R-CNN on a dilated trunk"),
        ("maskrcnn-benchmark", {"rpn_convs": 2}, "has no name for rpn.conv2, of which the model has 2"),
        ("maskrcnn-benchmark", {**BN, "rpn_convs": 1}, "has no batch norm in its fpn"),
        ("maskrcnn-benchmark", {"agnostic": True}, "class-agnostic masks, which mask_head.logits makes"),
        ("maskrcnn-benchmark", {"neck": "dc5"}, "no Mask R-CNN on a dilated trunk"),
        ("wts", SMALL_GN, "group norm, which backbone has, and which cannot be folded"),
        ("mindspore", {"neck": "c4"}, "mindspore has no Mask R-CNN on C4"),
        ("mindspore", SMALL_GN, "mindspore has no names for a backbone of norm gn"),
        ("mindspore", {"rpn_convs": 2}, "mindspore has no name for rpn.conv2"),
        ("mindspore", {"agnostic": True}, "mindspore has no class-agnostic heads"),
    ],
)
def test_an_architecture_without_names_there_is_refused(
    tmp_path: Path, to: str, changes: dict[str, Any], sentence: str
) -> None:
    path = model_file(tmp_path, **changes)
    with pytest.raises(UserError, match=sentence) as caught:
        back(path, to)
    assert caught.value.hint
    assert not list(tmp_path.glob("back*"))


@pytest.mark.parametrize(
    "to", ["torchvision", "detectron2", "mmdetection", "maskrcnn-benchmark", "mindspore"]
)
def test_a_trunk_whose_norms_are_folded_has_names_in_tensorrtx_only(tmp_path: Path, to: str) -> None:
    out, _ = back(model_file(tmp_path, neck="fpn"), "wts")
    convert(out, tmp_path / "folded.safetensors")
    with pytest.raises(UserError, match=f"{to} has no .*(norms folded|backbone of norm none)"):
        back(tmp_path / "folded.safetensors", to)


def test_what_the_other_side_does_otherwise_is_refused_or_listed(tmp_path: Path) -> None:
    path = model_file(tmp_path, mmdetection_file)
    out = tmp_path / "back.pkl"
    out.write_text("before")
    with pytest.raises(
        UserError, match=r"6 of its settings have no place in detectron2: .*; and 3 more"
    ) as caught:
        convert_back(path, out, "detectron2")
    assert "--allow-differences" in caught.value.hint
    assert out.read_text() == "before"
    report = convert_back(path, out, "detectron2", allow_differences=True)
    assert report.differences == (
        "conventions.rpn_scores sigmoid, logit there",
        "conventions.level_eps_inside 2.5e-07, 1e-08 there",
        "conventions.clamp_shrinking True, False there",
        "conventions.clip_to_image False, True there",
        "preprocess.size_rule mmdetection, detectron2 there",
        "preprocess.filter opencv, pillow there",
    )
    # Stride and normalisation are what a config can say.
    assert "STRIDE_IN_1X1: false" in report.config
    assert "FORMAT: RGB" in report.config
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.pkl", "model.safetensors", "x.pkl"]


def test_half_precision_weights_are_written_as_float32(tmp_path: Path) -> None:
    spec, tensors = read_model_file(model_file(tmp_path))
    write_model_file(tmp_path / "half.safetensors", replace(spec, precision="fp16"), tensors)
    out, report = back(tmp_path / "half.safetensors", "detectron2")
    found = read_checkpoint(out).tensors["roi_heads.box_head.fc2.bias"]
    np.testing.assert_array_equal(
        found, tensors["box_head.fc2.bias"].astype(np.float16).astype(np.float32), strict=True
    )
    assert any(note.startswith("fp16 weights") for note in report.notes)


def test_a_file_that_is_not_as_it_says_is_refused(tmp_path: Path) -> None:
    spec, tensors = read_model_file(model_file(tmp_path))
    del tensors["rpn.conv1.bias"]
    write_model_file(tmp_path / "less.safetensors", spec, tensors)
    with pytest.raises(UserError, match=r"rpn.conv1.bias is not as its description says"):
        back(tmp_path / "less.safetensors", "detectron2")
    write_model_file(tmp_path / "int8.safetensors", replace(spec, precision="int8"), tensors)
    with pytest.raises(UserError, match="whole numbers"):
        back(tmp_path / "int8.safetensors", "detectron2")


def test_explicit_anchors_are_a_difference_where_they_have_no_place(tmp_path: Path) -> None:
    cells = tuple(tuple((float(-n), -8.0, float(n), 8.0) for n in (4, 8, 16)) for _ in range(5))
    anchors = AnchorConfig(sizes=((16.0, 16.0, 16.0),) * 5, ratios=(1.0,), cells=cells)
    spec, tensors = read_model_file(model_file(tmp_path))
    model = replace(spec.model, anchors=anchors, conventions=presets.MASKRCNN_BENCHMARK)
    write_model_file(tmp_path / "cells.safetensors", replace(spec, model=model), tensors)
    _, report = back(tmp_path / "cells.safetensors", "detectron2")
    assert sum(difference.startswith("anchors.cells") for difference in report.differences) == 1
    out, report = back(tmp_path / "cells.safetensors", "maskrcnn-benchmark")
    assert not any("anchor" in difference for difference in report.differences)
    saved = read_checkpoint(out).tensors["rpn.anchor_generator.cell_anchors.2"]
    assert saved.tolist() == [[-4, -8, 4, 8], [-8, -8, 8, 8], [-16, -8, 16, 8]]
