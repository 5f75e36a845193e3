"""What a comparison says of all images together, with figures made by hand."""

import json
import math
from dataclasses import replace

import pytest

from maskrcnn.agreement import Agreement, Pair, Single, Tolerance
from maskrcnn.compare import Compared, Report, Setting, Stage, number, spec_differences, stages_verdict
from maskrcnn.config import ModelConfig, RPNConfig
from maskrcnn.spec import Classes, Origin, Spec
from maskrcnn.stages import Difference

SAME = Difference(1e-6, 8.0, 0.0, True, "channel 0, y 0, x 0", image="1.jpg")
FAR = Difference(0.013, 8.125, 0.25, False, "channel 17, y 12, x 40", image="street.jpg")
MISFIT = Difference(math.nan, None, 1.0, False, words="only in B", image="1.jpg", fits=False)
PAIR = Pair("dog", 0.5, 0.5, 0.25, 0.0, 1.0)


def stage(name: str, as_run: Difference = SAME, by_itself: Difference | None = SAME) -> Stage:
    return Stage(name, as_run, by_itself)


def report(*images: Compared) -> Report:
    return Report("a.safetensors", "b.safetensors", Tolerance(), (), images)


def compared(*stages: Stage, pairs: tuple[Pair, ...] = (PAIR,), only_a: tuple[Single, ...] = ()) -> Compared:
    return Compared("1.jpg", stages, Agreement(pairs, only_a, ()))


@pytest.mark.parametrize(
    ("stages", "verdict"),
    [
        (
            [stage("res3"), stage("res4", FAR, FAR), stage("res5", FAR)],
            "same up to res3; res4 differs: 0.013 of 8.1 at channel 17, y 12, x 40 (street.jpg); "
            "given the same inputs no other stage differs",
        ),
        (
            [stage("res3"), stage("res4", FAR, FAR), stage("res5", FAR, FAR)],
            "same up to res3; res4 differs: 0.013 of 8.1 at channel 17, y 12, x 40 (street.jpg); "
            "given the same inputs res4, res5 differ",
        ),
        (
            [stage("res3"), stage("res4", FAR), stage("res5", FAR)],
            "same up to res3; res4 differs: 0.013 of 8.1 at channel 17, y 12, x 40 (street.jpg); "
            "given the same inputs no stage differs",
        ),
        (
            [stage("input", FAR, None), stage("normalised", FAR, FAR), stage("stem"), stage("res2")],
            "input differs: 0.013 of 8.1 at channel 17, y 12, x 40 (street.jpg); "
            "given the same inputs normalised differs; the same again from stem on",
        ),
        (
            [stage("res4"), stage("res5", MISFIT, None)],
            "same up to res4; res5 differs: only in B (1.jpg)",
        ),
        (
            [stage("box_pool"), stage("class_logits", SAME, FAR)],
            "same up to box_pool; class_logits differs: 0.013 of 8.1 at channel 17, y 12, x 40 (street.jpg)",
        ),
        ([stage("res4"), stage("res5")], ""),
    ],
    ids=["one", "two", "inputs only", "the same again", "only in one", "by itself only", "same"],
)
def test_the_verdict_names_the_first_stage_that_differs_and_those_that_do_by_themselves(
    stages: list[Stage], verdict: str
) -> None:
    assert stages_verdict(stages) == verdict


def test_a_stage_is_reported_from_the_image_where_it_is_worst() -> None:
    near = replace(SAME, largest=4e-6, image="2.jpg")
    found = report(compared(stage("res2"), stage("res3", FAR)), compared(stage("res2", near), stage("res3")))
    res2, res3 = found.stages()
    assert (res2.as_run, res2.by_itself) == (near, SAME)
    assert res3.as_run.image == "street.jpg"
    assert not found.within()


def test_without_stages_the_verdict_is_that_of_the_detections() -> None:
    assert report(compared()).verdict() == (
        "same: 1 object in 1 image, boxes within 0.25 px, scores within 0, mask IoU from 1.0000"
    )
    alone = Single("cat", 0.5, (0, 0, 1, 1), "")
    different = report(compared(only_a=(alone,)), compared())
    assert not different.within()
    assert different.verdict() == (
        "different: 2 objects in 2 images matched, 1 only in A, 0 only in B, "
        "boxes within 0.25 px, scores within 0, mask IoU from 1.0000"
    )


def test_images_in_which_nothing_is_found_say_nothing_unless_stages_were_compared() -> None:
    empty = report(compared(pairs=()))
    assert not empty.within()
    assert empty.verdict() == "neither model finds anything in 1 image: nothing was compared"
    staged = report(compared(stage("res2"), pairs=()))
    assert staged.within()
    assert staged.verdict() == "same: neither model finds anything in 1 image"


def test_json_holds_every_image_and_no_value_that_json_has_not() -> None:
    told = report(compared(stage("res4", FAR), stage("res5", MISFIT, None))).to_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["same"] is False
    assert [each["name"] for each in told["stages"]] == ["res4", "res5"]
    res4, res5 = told["images"][0]["stages"]
    assert res4["as_run"]["relative"] == pytest.approx(0.0016)
    assert (res4["as_run"]["within"], res4["by_itself"]["within"]) == (False, True)
    assert (res5["as_run"]["largest"], res5["by_itself"]) == (None, None)
    assert told["detections"]["box"] == {"median": 0.25, "worst": 0.25, "image": "1.jpg"}
    assert told["images"][0]["detections"]["pairs"][0]["name"] == "dog"


def test_settings_that_inference_reads_are_told_and_no_others() -> None:
    a = Spec(ModelConfig(classes=2), classes=Classes(("cat", "dog")), origin=Origin("detectron2"))
    rpn = RPNConfig(post_nms=300, pre_nms_training=9, batch=9)
    b = Spec(ModelConfig(classes=2, rpn=rpn), classes=Classes(("dog", "cat")), precision="fp16")
    assert spec_differences(a, b) == [
        Setting("model.rpn.post_nms", 1000, 300),
        Setting("classes.names", ("cat", "dog"), ("dog", "cat")),
        Setting("precision", "fp32", "fp16"),
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.0131, "0.013"), (3e-7, "3e-07"), (8.125, "8.1"), (255.0, "255")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
