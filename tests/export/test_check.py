"""What counts as the same, on an engine of a few lines that finds four objects."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hand_made import BOXES, Finds, description, finds

from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.export.check import NEAR, SAME, Limits, Outcome, check, faults_of, limits_of
from maskrcnn.export.scenes import Scene, drawn_scenes, hard_cases
from maskrcnn.predict import Predictor
from maskrcnn.spec import Check, Exported, Preprocess

Change = Callable[[Raw, int], Raw]
# A photograph and what must be found to be empty.
SCENES = [drawn_scenes()[0], hard_cases()[0]]


def found(change: Change, limits: Limits = SAME, scenes: list[Scene] = SCENES, **spec: object) -> Outcome:
    return check(finds(**spec), finds(change, **spec), scenes, limits)


def with_part(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda raw, run: raw._replace(**{name: change(getattr(raw, name).copy())})


def put(place: tuple[int | slice, ...], value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[(slice(None), *place)] = value
        return values

    return change


def test_a_model_is_the_same_as_itself_in_every_image_and_again_and_together() -> None:
    outcome = found(lambda raw, run: raw)
    # Four objects alone, four when seen again, four in the batch with the blank image.
    assert outcome == Outcome(Check(images=2, matched=12))


def test_a_box_may_move_by_a_hundredth_of_a_pixel_of_the_network_and_no_more() -> None:
    # 540 x 360 pixels become 48 x 32 of the network.
    near, far = (put((0, 2), BOXES[0, 2] + moved) for moved in (0.009, 0.012))
    outcome = found(with_part("boxes", near))
    assert (outcome.fault, outcome.check.matched) == ("", 12)
    assert outcome.check.box_px == pytest.approx(0.009 * 540 / 48, rel=1e-3)
    outcome = found(with_part("boxes", far))
    assert (outcome.check.matched, outcome.check.missed) == (9, 3)
    assert (
        outcome.fault == "in 3 of 12 detections, boxes by up to 0.13 px, scores by up to 0 (drawn landscape)"
    )
    assert outcome.scene is SCENES[0]


def test_a_wider_tolerance_lets_more_pass() -> None:
    far = with_part("boxes", put((0, 2), BOXES[0, 2] + 0.012))
    assert found(far, limits_of(description(), 2.0)).passed
    assert not found(far, limits_of(description(), 1.0)).passed


def test_a_score_may_differ_by_a_ten_thousandth() -> None:
    assert found(with_part("scores", lambda scores: scores - np.float32(9e-5) * (scores > 0))).passed
    outcome = found(with_part("scores", lambda scores: scores - np.float32(2e-4) * (scores > 0)))
    assert "scores by up to 0.0002" in outcome.fault


def test_a_detection_at_the_least_score_of_the_model_may_be_missing() -> None:
    over = replace(description().model.box_head, score_over=0.19995)
    outcome = found(with_part("scores", put((3,), 0.0)), model=replace(description().model, box_head=over))
    assert (outcome.fault, outcome.check.matched) == ("", 9)
    assert "1 only in the model, 0 only in the file" in found(with_part("scores", put((3,), 0.0))).fault


def test_masks_may_differ_in_a_thousandth_of_their_pixels() -> None:
    outcome = found(with_part("masks", put((1, 0), 0.9)))
    assert outcome.check.missed == 0
    # One row of four of one mask of four is filled, and linear interpolation softens its edge.
    assert 0.85 < outcome.check.mask_pixels < 0.95
    assert outcome.fault.startswith("in its masks, which agree on ")
    assert outcome.fault.endswith(" % of pixels (drawn landscape)")


def test_few_bits_may_lose_weak_detections_and_one_sure_one() -> None:
    assert found(with_part("scores", put((3,), 0.0)), NEAR).passed
    one, two = (with_part("scores", put((slice(first, None),), 0.0)) for first in (2, 1))
    alone = {"scenes": SCENES[:1], "exported": Exported(batch=1)}
    outcome = found(one, NEAR, **alone)  # type: ignore[arg-type]
    assert (outcome.fault, outcome.check.matched, outcome.check.missed) == ("", 2, 1)
    assert not found(two, NEAR, **alone).passed  # type: ignore[arg-type]


def test_a_graph_that_finds_nothing_of_what_the_model_finds_fails_at_any_precision() -> None:
    outcome = found(with_part("scores", lambda scores: scores * 0), NEAR)
    assert outcome.check.matched == 0
    assert "3 only in the model, 0 only in the file" in outcome.fault


def test_what_a_blank_image_leaves_behind_is_found() -> None:
    seen_blank = []

    def forgets(raw: Raw, run: int) -> Raw:
        blank = not raw.scores.any()
        seen_blank.append(blank)
        return Raw(*(part * 0 for part in raw)) if any(seen_blank) else raw

    outcome = found(forgets)
    assert "4 only in the model, 0 only in the file (drawn landscape)" in outcome.fault


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        (0, [(1, 3, 64, 32), (1, 3, 32, 64), (1, 3, 64, 32), (2, 3, 64, 64)]),
        (1, [(1, 3, 64, 32), (1, 3, 32, 64), (1, 3, 64, 32)]),
    ],
)
def test_a_graph_that_takes_a_batch_gets_images_of_different_sizes_together(
    batch: int, sizes: list[tuple[int, ...]]
) -> None:
    graph = Finds(description(batch=batch))
    portrait = Scene("portrait", lambda: np.arange(90 * 60 * 3, dtype=np.uint8).reshape(90, 60, 3))
    check(finds(), Predictor(graph), [portrait, hard_cases()[0]], SAME)
    assert sorted(graph.sizes) == sorted(sizes)


def test_the_images_of_the_model_are_prepared_as_the_graph_says() -> None:
    window = Preprocess(resize="fit_window", short=32, long=64, pad_to_window=True)
    model, graph = finds(), finds(preprocess=window)
    check(model, graph, SCENES, SAME)
    assert {size[2:] for size in model.backend.sizes} == {(32, 64)}  # type: ignore[attr-defined]


def test_in_an_even_image_only_sure_detections_count() -> None:
    def ties(raw: Raw, run: int) -> Raw:
        scores = np.where(raw.scores.any(1, keepdims=True), raw.scores, np.float32([0.4, 0, 0, 0]))
        return raw._replace(scores=scores)

    assert found(ties, scenes=hard_cases()).passed
    sure = found(lambda raw, run: raw._replace(scores=np.maximum(raw.scores, 0.6)), scenes=hard_cases()[:2])
    assert "4 only in the file" in sure.fault


def test_in_few_bits_none_count_where_there_is_nothing_to_see_but_rows_must_be_sane() -> None:
    def sure(raw: Raw, run: int) -> Raw:
        return raw._replace(scores=np.maximum(raw.scores, 0.9))

    assert found(sure, NEAR, hard_cases()[:2]).passed
    assert "`boxes` is not finite" in found(with_part("boxes", put((0, 0), np.nan)), NEAR, hard_cases()).fault


@pytest.mark.parametrize(
    ("part", "place", "value", "words"),
    [
        ("boxes", (0, 0), np.nan, "`boxes` is not finite"),
        ("masks", (1, 0, 0), np.inf, "`masks` is not finite"),
        ("scores", (0,), 0.0, "`scores` is not 0..1 with the empty rows at the end"),
        ("scores", (0,), 1.5, "`scores` is not 0..1 with the empty rows at the end"),
        ("labels", (0,), 2, "`labels` is not 0..1"),
        ("masks", (1, 0, 0), 1.25, "`masks` is not 0..1"),
    ],
)
def test_rows_that_are_none_are_named(part: str, place: tuple[int, ...], value: float, words: str) -> None:
    raw = Finds().run(np.random.default_rng(0).random((1, 3, 32, 32)), np.array([[32, 32]]))
    assert faults_of(raw, description(), 1) == ""
    broken = with_part(part, put(place, value))
    assert faults_of(broken(raw, 0), description(), 1) == words
    assert found(broken).fault == f"in that {words} (drawn landscape)"


def test_rows_of_another_shape_are_named() -> None:
    outcome = found(lambda raw, run: raw._replace(boxes=raw.boxes[:, :3]))
    assert outcome.fault == "in that `boxes` is 1 x 3 x 4 where it must be 1 x 4 x 4 (drawn landscape)"


def test_what_an_engine_raises_is_a_fault_and_no_traceback() -> None:
    def fails(error: Exception) -> Change:
        def change(raw: Raw, run: int) -> Raw:
            raise error

        return change

    words = "in that its engine fails: no kernel for Loop (drawn landscape)"
    assert found(fails(RuntimeError("no kernel for Loop\nat line 7"))).fault == words
    assert found(fails(UserError("no kernel for Loop", hint="try"))).fault == words
    with pytest.raises(MemoryError):
        found(fails(MemoryError()))


def test_the_runs_are_told_while_they_go_on() -> None:
    told: list[tuple[int, int]] = []
    check(finds(), finds(), SCENES, SAME, lambda done, total: told.append((done, total)))
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_points_that_may_be_lost_follow_the_arithmetic() -> None:
    drops = [limits_of(description(each)).drop for each in ("fp32", "fp16", "bf16", "int8")]
    assert drops == [0.1, 0.2, 0.2, 0.5]
    assert limits_of(description("int8"), max_drop=1.5).drop == 1.5


def test_the_drawn_images_are_what_their_names_say_and_the_same_every_time() -> None:
    images = {scene.kind: scene.load() for scene in hard_cases()}
    assert len(np.unique(images["blank"])) == 1
    assert (images["pixel"] != images["blank"]).any(2).sum() == 1
    shapes = {scene.name: scene.load().shape[:2] for scene in drawn_scenes()}
    assert shapes == {
        "drawn landscape": (360, 540),
        "drawn portrait": (540, 360),
        "drawn small": (96, 96),
    }
    assert all((scene.load() == scene.load()).all() for scene in drawn_scenes())


def test_a_graph_without_a_session_is_compared_all_the_same() -> None:
    bare = Finds()
    graph = Predictor(SimpleNamespace(spec=bare.spec, run=bare.run))  # type: ignore[arg-type]
    assert check(finds(), graph, SCENES, SAME).passed
