"""Two networks that differ in one thing: the comparison says in which stage, and in which by itself."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from maskrcnn.agreement import Tolerance
from maskrcnn.compare import (
    Comparison,
    Report,
    Setting,
    spec_differences,
)
from maskrcnn.config import (
    AnchorConfig,
    BackboneConfig,
    BoxHeadConfig,
    FPNConfig,
    MaskHeadConfig,
    ModelConfig,
    RPNConfig,
)
from maskrcnn.predict import Predictor
from maskrcnn.spec import Classes, Preprocess, Spec
from maskrcnn.stages import STAGES

torch = pytest.importorskip("torch")

State = dict[str, np.ndarray]
NAMES = ("cat", "dog", "cow")
FPN_STAGES = list(STAGES)
C4_STAGES = [name for name in STAGES if name not in ("res5", "p2", "p3", "p4", "p5", "p6")]
DC5_STAGES = [name for name in STAGES if name not in ("p2", "p3", "p4", "p5", "p6")]
ONE_LEVEL = AnchorConfig(sizes=((16.0, 32.0, 64.0),))
MODELS = {
    "fpn": ModelConfig(
        classes=3,
        backbone=BackboneConfig(18, width=8),
        fpn=FPNConfig(16),
        rpn=RPNConfig(pre_nms=100, post_nms=40),
        box_head=BoxHeadConfig(fc_channels=32, detections=20),
        mask_head=MaskHeadConfig(convs=1, channels=16),
    ),
    "c4": ModelConfig(
        classes=3,
        neck="c4",
        backbone=BackboneConfig(50, width=8, group_width=8),
        anchors=ONE_LEVEL,
        rpn=RPNConfig(pre_nms=100, post_nms=40),
        box_head=BoxHeadConfig(kind="res5", pool_side=14, detections=20),
        mask_head=MaskHeadConfig(convs=0, channels=16),
    ),
    "dc5": ModelConfig(
        classes=3,
        neck="dc5",
        backbone=BackboneConfig(18, width=8, norm="bn"),
        anchors=ONE_LEVEL,
        rpn=RPNConfig(pre_nms=100, post_nms=40),
        box_head=BoxHeadConfig(fc_channels=32, detections=20, class_agnostic=True),
        mask_head=MaskHeadConfig(convs=1, channels=16),
    ),
}


def image() -> np.ndarray:
    """Noise of 100 x 150, that no two resize filters treat alike."""
    return np.random.default_rng(1).integers(0, 256, (100, 150, 3), np.uint8)


def spec(neck: str = "fpn", **model: Any) -> Spec:
    return Spec(replace(MODELS[neck], **model), Preprocess(short=64, long=128), Classes(NAMES))


def state(described: Spec) -> State:
    """Random weights, the same each time."""
    from maskrcnn.model.mask_rcnn import MaskRCNN

    torch.manual_seed(0)
    return {name: values.numpy().copy() for name, values in MaskRCNN(described.model).state_dict().items()}


def predictor(described: Spec, weights: State | None = None) -> Predictor:
    from maskrcnn.backends.pytorch import PyTorchBackend

    tensors = {
        name: torch.from_numpy(values.copy()) for name, values in (weights or state(described)).items()
    }
    return Predictor(PyTorchBackend(described, tensors, torch.device("cpu")))


def compare(a: Predictor, b: Predictor, **tolerance: float) -> Report:
    limits = Tolerance(**tolerance)
    found = Comparison(a, b, limits, stages=True)("noise.png", image())
    return Report("a", "b", limits, tuple(spec_differences(a.spec, b.spec)), (found,))


def changed(weights: State, name: str, change: Callable[[np.ndarray], None]) -> State:
    other = weights | {name: weights[name].copy()}
    change(other[name])
    return other


def add_one(values: np.ndarray) -> None:
    values[0, 0] += 1


def first_difference(report: Report) -> str:
    return next(stage.name for stage in report.stages() if not stage.within)


def by_themselves(report: Report) -> list[str]:
    """The stages that differ on equal inputs."""
    return [each.name for each in report.stages() if each.by_itself and not each.by_itself.within]


@pytest.mark.parametrize(("neck", "names"), [("fpn", FPN_STAGES), ("c4", C4_STAGES), ("dc5", DC5_STAGES)])
def test_equal_models_differ_by_nothing_in_every_stage(neck: str, names: list[str]) -> None:
    described = spec(neck)
    report = compare(predictor(described), predictor(described), relative=0, box=0)
    assert [stage.name for stage in report.stages()] == names
    for stage in report.stages():
        assert stage.as_run.largest == 0
        assert (stage.by_itself is None) == (stage.name == "input")
        assert stage.by_itself is None or stage.by_itself.largest == 0
    assert report.within()
    assert report.totals().matched > 5
    assert report.verdict().startswith("same: ")


@pytest.mark.parametrize("neck", MODELS)
def test_the_stages_end_in_what_the_network_returns_and_leave_it_as_it_was(neck: str) -> None:
    model = predictor(spec(neck))
    planes = model.prepare(image()).planes[None]
    size = np.array([[60, 90]])
    before = model.backend.run(planes, size)
    stages = model.backend.stages(planes, size)  # type: ignore[attr-defined]
    after = model.backend.run(planes, size)
    count = stages["masks"].shape[1]
    assert count == (before.scores > 0).sum() > 5
    for raw in (before, after):
        assert np.array_equal(stages["detections.boxes"], raw.boxes)
        assert np.array_equal(stages["detections.scores"], raw.scores)
        assert np.array_equal(stages["detections.labels"], raw.labels)
        assert np.array_equal(stages["masks"], raw.masks[:, :count])


@pytest.mark.parametrize(
    ("parameter", "stage"),
    [
        ("backbone.stem.conv.weight", "stem"),
        ("backbone.res4.1.conv1.weight", "res4"),
        ("fpn.output3.weight", "p3"),
        ("rpn.objectness.weight", "objectness"),
        ("rpn.deltas.weight", "deltas"),
        ("box_head.fc2.weight", "class_logits"),
        ("box_head.deltas.weight", "box_deltas"),
        ("mask_head.upsample.weight", "masks"),
    ],
)
def test_one_changed_weight_is_found_in_its_stage(parameter: str, stage: str) -> None:
    described = spec()
    weights = state(described)

    def add(values: np.ndarray) -> None:
        values[0] += 1

    report = compare(predictor(described, weights), predictor(described, changed(weights, parameter, add)))
    assert first_difference(report) == stage
    both = ["class_logits", "box_deltas"] if parameter == "box_head.fc2.weight" else [stage]
    assert by_themselves(report) == both
    assert f"same up to {STAGES[STAGES.index(stage) - 1]}; {stage} differs: " in report.verdict()
    assert not report.within()


@pytest.mark.parametrize(
    ("neck", "parameter", "stages"),
    [
        ("c4", "backbone.res3.0.conv1.weight", ["res3"]),
        ("c4", "res5.0.conv1.weight", ["box_pool", "mask_pool"]),
        ("dc5", "backbone.res5.0.conv1.weight", ["res5"]),
        ("dc5", "rpn.objectness.weight", ["objectness"]),
    ],
)
def test_a_weight_of_another_neck_is_found_in_its_stages(
    neck: str, parameter: str, stages: list[str]
) -> None:
    described = spec(neck)
    weights = state(described)
    report = compare(
        predictor(described, weights), predictor(described, changed(weights, parameter, add_one))
    )
    assert (first_difference(report), by_themselves(report)) == (stages[0], stages)


def convention(**values: Any) -> Spec:
    return spec(conventions=replace(MODELS["fpn"].conventions, **values))


@pytest.mark.parametrize(
    ("other", "first", "themselves", "field"),
    [
        (convention(roi_aligned=False), "box_pool", ["box_pool", "mask_pool"], "roi_aligned"),
        (convention(anchor_cell="legacy"), "proposals", ["proposals"], "anchor_cell"),
        (convention(mask_paste="expanded"), "pasted", ["pasted"], "mask_paste"),
        (convention(detection_min_size=30.0), "detections", ["detections"], "detection_min_size"),
        (spec(mean=(100.0, 116.28, 103.53)), "normalised", ["normalised"], "mean"),
        (spec(rpn=replace(MODELS["fpn"].rpn, post_nms=20)), "proposals", ["proposals"], "post_nms"),
    ],
    ids=["RoIAlign", "anchors", "paste", "smallest detection", "mean", "proposals"],
)
def test_a_convention_is_found_in_its_stage_and_among_the_settings(
    other: Spec, first: str, themselves: list[str], field: str
) -> None:
    weights = state(spec())
    report = compare(predictor(spec(), weights), predictor(other, weights))
    assert first_difference(report) == first
    assert by_themselves(report) == themselves
    (setting,) = report.settings
    assert setting.field.endswith(field)


def test_another_resize_filter_is_found_in_the_input_and_nowhere_else_by_itself() -> None:
    weights, other = (
        state(spec()),
        replace(spec(), preprocess=Preprocess(short=64, long=128, filter="pillow")),
    )
    report = compare(predictor(spec(), weights), predictor(other, weights))
    assert first_difference(report) == "input"
    assert by_themselves(report) == []
    assert report.settings == (Setting("preprocess.filter", "opencv", "pillow"),)
    assert report.verdict().endswith("given the same inputs no other stage differs")


def test_another_input_size_is_said_and_the_stages_are_still_compared_on_equal_inputs() -> None:
    weights, other = state(spec()), replace(spec(), preprocess=Preprocess(short=96, long=192))
    report = compare(predictor(spec(), weights), predictor(other, weights))
    stages = {stage.name: stage for stage in report.stages()}
    assert stages["input"].as_run.words == "A is 3 x 64 x 96, B 3 x 96 x 160"
    assert stages["res4"].as_run.words == "A is 32 x 4 x 6, B 32 x 6 x 10"
    assert by_themselves(report) == []
    assert stages["masks"].by_itself is not None
    assert report.totals().images == 1


def test_classes_in_another_order_are_compared_by_name() -> None:
    weights, order = state(spec()), [2, 0, 1]
    permuted = dict(weights)
    for part in ("weight", "bias"):
        scores, deltas = weights[f"box_head.scores.{part}"], weights[f"box_head.deltas.{part}"]
        permuted[f"box_head.scores.{part}"] = scores[[*order, 3]]
        permuted[f"box_head.deltas.{part}"] = deltas.reshape(3, 4, -1)[order].reshape(deltas.shape)
        permuted[f"mask_head.logits.{part}"] = weights[f"mask_head.logits.{part}"][order]
    other = replace(spec(), classes=Classes(tuple(NAMES[label] for label in order)))
    report = compare(predictor(spec(), weights), predictor(other, permuted), relative=1e-5, box=1e-3)
    assert by_themselves(report) == []
    assert report.within(), report.verdict()
    assert report.totals().matched > 5


def test_other_classes_are_compared_as_far_as_they_are_shared() -> None:
    weights = state(spec())
    other = replace(spec(classes=2), classes=Classes(("dog", "owl")))
    kept = dict(weights)
    for part in ("weight", "bias"):
        scores, deltas = weights[f"box_head.scores.{part}"], weights[f"box_head.deltas.{part}"]
        kept[f"box_head.scores.{part}"] = scores[[1, 2, 3]]
        kept[f"box_head.deltas.{part}"] = deltas[4:]
        kept[f"mask_head.logits.{part}"] = weights[f"mask_head.logits.{part}"][1:]
    report = compare(predictor(spec(), weights), predictor(other, kept))
    stages = {stage.name: stage for stage in report.stages()}
    for name in ("class_logits", "box_deltas"):
        assert stages[name].as_run.relative < 1e-5
        assert stages[name].by_itself is not None
    assert stages["detections"].by_itself is None
    found = report.images[0].agreement
    assert {pair.name for pair in found.pairs} <= {"dog"}
    assert "dog" not in {single.other for single in found.only_a if single.name == "dog"}
    assert not report.within()


def test_another_neck_is_said_where_it_begins_and_the_comparison_goes_on() -> None:
    report = compare(predictor(spec("c4")), predictor(spec("fpn", backbone=MODELS["c4"].backbone)))
    stages = {stage.name: stage for stage in report.stages()}
    assert list(stages) == FPN_STAGES
    assert stages["res4"].by_itself is not None
    assert stages["res4"].by_itself.fits
    assert stages["res5"].as_run.words == stages["p2"].as_run.words == "only in B"
    assert stages["p2"].by_itself is None
    assert stages["objectness"].as_run.words.startswith("only in ")
    assert "matched" in stages["proposals"].as_run.words
    assert not report.within()


@pytest.mark.parametrize(
    ("broken", "owners"), [((False, True), "B"), ((True, False), "A"), ((True, True), "A and B")]
)
def test_the_stage_that_first_is_not_finite_is_named(broken: tuple[bool, bool], owners: str) -> None:
    weights = state(spec())

    def spoil(values: np.ndarray) -> None:
        values[0, 0] = math.nan

    bad = changed(weights, "backbone.res4.1.conv1.weight", spoil)
    report = compare(*(predictor(spec(), bad if each else weights) for each in broken))
    assert report.verdict().startswith(f"same up to res3; res4 differs: not finite in {owners} at channel")
    assert not report.within()
    json.dumps(report.to_json(), allow_nan=False)


def test_boxes_that_are_not_finite_have_no_partner() -> None:
    weights = state(spec())

    def spoil(values: np.ndarray) -> None:
        values[:] = math.nan

    bad = changed(weights, "box_head.deltas.bias", spoil)
    report = compare(predictor(spec(), weights), predictor(spec(), bad))
    assert report.verdict().startswith("same up to class_logits; box_deltas differs: not finite in B")
    assert report.totals().matched == 0
    json.dumps(report.to_json(), allow_nan=False)


class Engine:
    """A backend that gives less than PyTorch's: its stages but not on others' values, or no stages."""

    def __init__(self, model: Predictor, staged: bool) -> None:
        self.spec, self.run = model.spec, model.backend.run
        if staged:
            self.stages: Callable[..., Mapping[str, np.ndarray]] = model.backend.stages  # type: ignore[attr-defined]


def test_an_engine_without_stages_is_compared_by_what_it_finds() -> None:
    model = predictor(spec())
    for pair in ((model, Predictor(Engine(model, False))), (Predictor(Engine(model, False)), model)):
        report = compare(*pair)
        assert report.stages() == []
        assert report.within()
        assert report.totals().matched > 5


@pytest.mark.parametrize("engine_first", [False, True])
def test_where_one_engine_cannot_be_fed_the_other_one_is(engine_first: bool) -> None:
    weights = state(spec())
    a = predictor(spec(), weights)
    b = Predictor(Engine(predictor(spec(), changed(weights, "backbone.res4.1.conv1.weight", add_one)), True))
    report = compare(*((b, a) if engine_first else (a, b)))
    assert (first_difference(report), by_themselves(report)) == ("res4", ["res4"])


def test_two_engines_that_cannot_be_fed_are_compared_as_run() -> None:
    model = Predictor(Engine(predictor(spec()), True))
    report = compare(model, model)
    assert report.within()
    assert all(stage.by_itself is None for stage in report.stages())
