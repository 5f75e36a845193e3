"""Three graphs and the host between them find what the network finds, on ONNX Runtime and OpenVINO."""

import sys
from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import pytest

from maskrcnn import presets
from maskrcnn.backends import parts
from maskrcnn.backends.pytorch import PyTorchBackend, open_pytorch
from maskrcnn.config import ModelConfig, SoftNMSConfig
from maskrcnn.detections import Raw
from maskrcnn.export.form import Form
from maskrcnn.export.parts import export_parts
from maskrcnn.predict import open_model

SMALL = networks.SMALL
CONVENTIONS = {
    name: getattr(presets, name)
    for name in (
        *("TORCHVISION", "DETECTRON2", "MMDETECTION", "MASKRCNN_BENCHMARK", "CAFFE2", "CAFFE2_C4"),
        *("TENSORRTX", "MINDSPORE", "MINDSPORE_ZOO"),
    )
}
FPN = SMALL["fpn"]
FORMS = {
    "softly": replace(FPN, box_head=replace(FPN.box_head, soft_nms=SoftNMSConfig("gaussian"))),
    "agnostic": replace(
        FPN,
        box_head=replace(FPN.box_head, class_agnostic=True),
        mask_head=replace(FPN.mask_head, class_agnostic=True),
    ),
    "group norms": replace(
        FPN,
        fpn=replace(FPN.fpn, channels=32, norm="gn"),
        box_head=replace(FPN.box_head, convs=1, channels=32, norm="gn", fcs=1),
        mask_head=replace(FPN.mask_head, channels=32, norm="gn"),
    ),
    "bilinear": replace(FPN, fpn=replace(FPN.fpn, upsample="bilinear")),
    "corners": replace(
        FPN,
        fpn=replace(FPN.fpn, upsample="bilinear_corners"),
        backbone=replace(FPN.backbone, stem_pool="same"),
    ),
}


def made(folder: Path, config: ModelConfig, **how: object) -> tuple[PyTorchBackend, Path]:
    """The network of that config with PyTorch, and the folder of its parts."""
    model = networks.model_file(folder / "tiny.safetensors", config)
    export_parts(model, folder / "tiny.parts", **how)  # type: ignore[arg-type]
    return open_pytorch(model, "cpu"), folder / "tiny.parts"


def inputs(*sizes: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Images of these sizes in one batch, padded to multiples of 32."""
    height, width = (-(-max(side) // 32) * 32 for side in zip(*sizes, strict=True))
    return networks.scene(height, width, len(sizes)), np.array(sizes)


def assert_same(mine: Raw, theirs: Raw, boxes: float = 0.01, scores: float = 1e-5) -> None:
    np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=boxes)
    np.testing.assert_allclose(mine.scores, theirs.scores, atol=scores)
    np.testing.assert_array_equal(mine.labels, theirs.labels)
    # PyTorch fills the rows of the fullest image, those without a detection too.
    real = theirs.scores > 0
    np.testing.assert_allclose(mine.masks[real], theirs.masks[real], atol=10 * scores)
    assert [part.dtype for part in mine] == [part.dtype for part in theirs]


def test_one_model_runs_on_images_of_many_sizes(tmp_path: Path) -> None:
    network, folder = made(tmp_path, SMALL["fpn"])
    backend = parts.open_parts(folder, "cpu", threads=1)
    for batch in (inputs((96, 128)), inputs((160, 90)), inputs((128, 100), (90, 160)), inputs((64, 64))):
        mine, theirs = backend.run(*batch), network.run(*batch)
        assert (theirs.scores > 0).sum() > 3
        assert_same(mine, theirs)


@pytest.mark.parametrize(("neck", "suffix"), [("c4", ".onnx"), ("dc5", ".onnx"), ("c4", ".xml")])
def test_every_neck_finds_what_the_network_finds(tmp_path: Path, neck: str, suffix: str) -> None:
    network, folder = made(tmp_path, SMALL[neck], suffix=suffix)
    batch = inputs((128, 150), (90, 160))
    theirs = network.run(*batch)
    assert (theirs.scores > 0).sum() > 3
    assert_same(parts.open_parts(folder, "cpu", threads=1).run(*batch), theirs)


# The weights of random group norms are 1 and their biases 0, so that OpenVINO leaves the last nodes out.
@pytest.mark.parametrize("config", [SMALL["fpn"], FORMS["group norms"]], ids=["plain", "group norms"])
def test_openvino_reads_the_graphs_that_onnx_runtime_reads(tmp_path: Path, config: ModelConfig) -> None:
    network, folder = made(tmp_path, config)
    batch = inputs((128, 150))
    assert_same(parts.open_parts(folder, "cpu", 1, "openvino").run(*batch), network.run(*batch))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_convention_is_kept(tmp_path: Path, name: str) -> None:
    network, folder = made(tmp_path, replace(SMALL["fpn"], conventions=CONVENTIONS[name]))
    batch = inputs((128, 150), (90, 160))
    theirs = network.run(*batch)
    assert (theirs.scores > 0).sum() > 3
    assert_same(parts.open_parts(folder, "cpu", threads=1).run(*batch), theirs)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_heads_and_pyramid_is_kept(tmp_path: Path, form: str) -> None:
    network, folder = made(tmp_path, FORMS[form])
    batch = inputs((128, 150))
    theirs = network.run(*batch)
    assert (theirs.scores > 0).sum() > 3
    assert_same(parts.open_parts(folder, "cpu", threads=1).run(*batch), theirs)


@pytest.mark.slow
def test_a_newer_opset_computes_the_same(tmp_path: Path) -> None:
    network, folder = made(tmp_path, SMALL["fpn"], opset=18)
    backend = parts.open_parts(folder, "cpu", threads=1)
    for batch in (inputs((160, 90)), inputs((128, 100), (90, 160))):
        assert_same(backend.run(*batch), network.run(*batch))


def test_a_fixed_number_of_images_is_filled_up_with_blank_ones(tmp_path: Path) -> None:
    network, folder = made(tmp_path, SMALL["fpn"], form=Form(size=(96, 128), batch=2))
    batch = inputs((96, 128), (90, 100), (70, 128))
    assert_same(parts.open_parts(folder, "cpu", threads=1).run(*batch), network.run(*batch))


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".xml", marks=pytest.mark.slow)])
def test_half_precision_finds_nearly_the_same(tmp_path: Path, suffix: str) -> None:
    network, folder = made(tmp_path, SMALL["dc5"], form=Form(precision="fp16"), suffix=suffix)
    batch = inputs((128, 150))
    mine, theirs = parts.open_parts(folder, "cpu", threads=1).run(*batch), network.run(*batch)
    assert mine.scores.dtype == np.float32
    # float16 has 11 bits; the best of a random network are far enough apart to keep their order.
    np.testing.assert_allclose(mine.scores[0, :3], theirs.scores[0, :3], atol=0.02)
    assert not np.array_equal(mine.scores, theirs.scores)


def test_nothing_found_and_then_everything_on_the_same_engine(tmp_path: Path) -> None:
    network, folder = made(tmp_path, SMALL["fpn"])
    backend = parts.open_parts(folder, "cpu", threads=1)
    strict = replace(SMALL["fpn"], box_head=replace(SMALL["fpn"].box_head, score_over=1.0))
    blind = parts.PartsBackend(replace(backend.spec, model=strict), backend.graphs)
    batch = inputs((128, 150))
    for _ in range(2):
        assert not any(np.any(part) for part in blind.run(*batch))
        assert_same(backend.run(*batch), network.run(*batch))


def test_heads_that_run_in_blocks_of_rows_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = made(tmp_path, SMALL["c4"])
    backend = parts.open_parts(folder, "cpu", threads=1)
    whole = backend.run(*inputs((128, 150)))
    monkeypatch.setattr(parts, "MOST_POOLED", 7 * 4 * 128 * 14**2)  # 7 boxes
    assert_same(backend.run(*inputs((128, 150))), whole)


def test_bytes_and_floats_of_the_same_value_find_the_same(tmp_path: Path) -> None:
    _, folder = made(tmp_path, SMALL["fpn"])
    backend, (image, size) = parts.open_parts(folder, "cpu", threads=1), inputs((128, 150))
    for mine, theirs in zip(backend.run(image.astype(np.uint8), size), backend.run(image, size), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_folder_of_parts_is_a_model_that_finds_objects_in_images(tmp_path: Path) -> None:
    _, folder = made(tmp_path, SMALL["fpn"], form=Form(size=(96, 160)))
    image = networks.scene(300, 200)[0].transpose(1, 2, 0).astype(np.uint8)
    mine = open_model(folder, "cpu", threads=1)([image])[0]
    assert len(mine) > 0
    assert mine.size == (300, 200)
    assert mine.masks().shape == (len(mine), 300, 200)


@pytest.mark.parametrize("neck", SMALL)
def test_every_stage_is_that_of_the_network(tmp_path: Path, neck: str) -> None:
    network, folder = made(tmp_path, SMALL[neck])
    backend, (image, size) = parts.open_parts(folder, "cpu", threads=1), inputs((128, 150))
    theirs = network.stages(image, size)
    for mine in (backend.stages(image, size), backend.stages_given(image, size, theirs)):
        assert set(mine) <= set(theirs)
        assert {"normalised", "proposals", "class_logits", "detections.boxes", "masks"} <= set(mine)
        for name, values in mine.items():
            rows = theirs[name][:, : values.shape[1]] if name == "proposals" else theirs[name][: len(values)]
            np.testing.assert_allclose(values, rows, atol=2e-3, err_msg=name)


def test_a_stage_reads_what_is_given_to_it(tmp_path: Path) -> None:
    network, folder = made(tmp_path, SMALL["fpn"])
    backend, (image, size) = parts.open_parts(folder, "cpu", threads=1), inputs((128, 150))
    given = network.stages(image, size)
    given["proposals"] = np.float32([[[10, 10, 60, 60], [20, 30, 100, 90], [0, 0, 0, 0]]])
    given = {name: given[name] for name in ("p2", "p3", "p4", "p5", "proposals")}
    mine, theirs = backend.stages_given(image, size, given), network.stages_given(image, size, given)
    assert len(mine["class_logits"]) == 2
    np.testing.assert_allclose(mine["class_logits"], theirs["class_logits"][:2], atol=1e-4)
    np.testing.assert_allclose(mine["masks"], theirs["masks"], atol=1e-4)


def test_pplnn_finds_what_the_network_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "backends" / "fake_pyppl"))
    network, folder = made(tmp_path, SMALL["fpn"])
    model = open_model(folder, engine="pplnn")
    batch = inputs((128, 100), (90, 160))
    assert_same(model.backend.run(*batch), network.run(*batch))
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyppl"]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", presets.ARCHITECTURES)
def test_every_architecture_finds_what_the_network_finds(tmp_path: Path, name: str) -> None:
    published = presets.ARCHITECTURES[name]
    grouped = published.backbone.norm == "gn"  # 32 groups need more channels than that
    width = 64 if grouped else 32
    trunk = replace(published.backbone, width=width, group_width=min(published.backbone.group_width, width))
    config = replace(
        published,
        classes=3,
        backbone=trunk,
        fpn=replace(published.fpn, channels=width),
        rpn=replace(published.rpn, pre_nms=200, post_nms=100),
        box_head=replace(published.box_head, channels=width, fc_channels=64, detections=20),
        mask_head=replace(published.mask_head, channels=width),
    )
    network, folder = made(tmp_path, config)
    batch = inputs((128, 150), (160, 90))
    theirs = network.run(*batch)
    assert (theirs.scores > 0).sum() > 3
    # Random networks with group norms lie 2e-5 from float64 with PyTorch too.
    limits = (0.05, 5e-4) if grouped else (0.01, 1e-5)
    assert_same(parts.open_parts(folder, "cpu", threads=1).run(*batch), theirs, *limits)
