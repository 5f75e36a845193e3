"""What a run's settings mean: rates, frozen stages, parts of a batch, evaluation and early ends."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_loop import CPU, SHORT, fresh, lines

from maskrcnn.data.content import Content
from maskrcnn.data.dataset import Dataset
from maskrcnn.data.read import read_annotations
from maskrcnn.detections import Detections
from maskrcnn.errors import UserError
from maskrcnn.spec import Classes, Spec
from maskrcnn.training import loop
from maskrcnn.training.checkpoint import load_checkpoint
from maskrcnn.training.loop import train
from maskrcnn.training.processes import Processes
from maskrcnn.training.progress import Line, Silent
from maskrcnn.training.recipe import Training, check, steps_of
from maskrcnn.training.run_file import read_run
from maskrcnn.training.schedule import factor
from maskrcnn.training.update import parameter_groups, start
from maskrcnn.training.validation import count_right, validation_of


@pytest.fixture
def content(shapes: Dataset) -> Content:
    """The annotations that `shapes` was read from."""
    return read_annotations(shapes.files[0].parent)


def test_the_rate_grows_with_the_batch_from_that_of_sixteen_images() -> None:
    assert Training(batch=2, learning_rate=0.02).peak_rate() == pytest.approx(0.0025)
    assert Training(batch=32, learning_rate=0.02).peak_rate() == pytest.approx(0.04)
    assert Training(batch=2, learning_rate=0.02, base_batch=0).peak_rate() == 0.02


def test_epochs_are_steps_of_whole_batches() -> None:
    assert steps_of(Training(epochs=3), steps_per_epoch=7) == 21
    assert steps_of(Training(epochs=3, steps=5), steps_per_epoch=7) == 5


def test_steps_divide_by_ten_at_each_milestone() -> None:
    found = [factor("steps", step, 100, 1, (0.5, 0.9)) for step in (1, 49, 50, 89, 90, 99)]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_frozen_stages_keep_their_weights_and_are_not_given_to_the_optimiser(spec: Spec) -> None:
    training = replace(SHORT, freeze_at=2)
    model = fresh(spec)
    start(model, training, CPU, Processes())
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen and all(name.startswith(("backbone.stem.", "backbone.res2.")) for name in frozen)
    given = sum(len(group["params"]) for group in parameter_groups(model, training))
    assert given == sum(parameter.requires_grad for parameter in model.parameters())


def test_parts_of_a_batch_add_up_to_nearly_its_losses(shapes: Dataset, spec: Spec, tmp_path: Path) -> None:
    found = []
    for parts in (1, 2):
        training = replace(SHORT, steps=1, batch=4, accumulate=parts, log_every=1)
        frozen = replace(spec.model, backbone=replace(spec.model.backbone, norm="frozen_bn"))
        own = replace(spec, model=replace(frozen, fpn=replace(frozen.fpn, norm="none")))
        own = replace(own, model=replace(own.model, mask_head=replace(own.model.mask_head, norm="none")))
        train(fresh(own), own, shapes, training, tmp_path / str(parts), CPU)
        found.append(lines(tmp_path / str(parts))[0])
    # means over images and not over samples: equal where every image has as many
    assert found[1]["rpn_objectness"] == pytest.approx(found[0]["rpn_objectness"], rel=1e-4)
    assert found[1]["mask"] == pytest.approx(found[0]["mask"], rel=0.05)


@pytest.mark.parametrize(
    ("training", "images", "processes", "message"),
    [
        (Training(batch=2), 5, 4, "training.batch is 2, for 4 processes of 1 parts"),
        (Training(batch=2, accumulate=4), 5, 1, "training.batch is 2"),
        (Training(), 0, 1, "no image to learn from"),
        (Training(average=1.0), 5, 1, "training.average is 1"),
        (Training(epochs=0), 5, 1, "epochs 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    training: Training, images: int, processes: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(training, images, processes)


def test_evaluations_are_logged_the_best_is_kept_and_no_progress_ends_the_run(
    shapes: Dataset, content: Content, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precisions = iter([0.2, 0.5, 0.4, 0.3, 0.1, 0.1])
    monkeypatch.setattr(loop, "precision_of", lambda metrics: next(precisions))
    training = replace(SHORT, steps=6, evaluate_every=1, patience=2)
    trained = train(fresh(spec), spec, shapes, training, tmp_path, CPU, validation_of(content))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "segm/AP" in row] == [1, 2, 3, 4]
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert (state["step"], state["best"], state["best_step"]) == (4, 0.5, 2)
    assert trained.best == tmp_path / "best.safetensors" and trained.judged is not None
    assert set(trained.judged.counts) == {picture.file_name for picture in content.pictures}


def test_each_detection_takes_one_object_of_its_class() -> None:
    classes = Classes(("a", "b"), (5, 9))
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60], [20, 0, 30, 10]], np.float32)
    found = Detections(
        boxes,
        np.array([0.9, 0.8, 0.7, 0.6], np.float32),
        np.array([0, 0, 1, 1]),
        np.ones((4, 2, 2), np.float32),
        (100, 100),
        classes,
    )
    objects = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [80, 80, 90, 90]], float)
    # the second of the two on the same object, and the one beside, are wrong; the third object is missed
    assert count_right(found, objects, np.array([5, 9, 5])) == (2, 2, 1)


def test_a_run_file_is_followed_by_options_and_settings(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: fruits\nout: runs/a\ntraining:\n  clip: 5\n  batch: 4\n")
    run = read_run(
        tmp_path / "run.yaml",
        {"out": "runs/b", "model": None},
        ["training.clip=2e0", "preprocess.short=480"],
    )
    assert (run.data, run.out, run.model) == ("fruits", "runs/b", "example")
    assert (run.training.clip, run.training.batch) == (2.0, 4)
    assert run.settings == ("preprocess.short=480",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: a\nout: b\nbatchsize: 3\n", "unknown key `batchsize`"),
        ("data: a\nout: b\ntraining: {lr: 3}\n", "unknown key `training.lr`"),
        ("- a\n", "holds no settings"),
        ("out: b\n", "--data is missing"),
    ],
)
def test_a_wrong_run_file_is_told_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_run(tmp_path / "run.yaml", {}, ())


def test_memory_does_not_grow_from_epoch_to_epoch(shapes: Dataset, spec: Spec, tmp_path: Path) -> None:
    import psutil

    used: list[float] = []

    class Weighing(Silent):
        def line(self, line: Line, steps: int) -> None:
            used.append(psutil.Process().memory_info().rss / 1e6)

    # 3 epochs of 30 images each, prepared by two threads
    many = shapes.take(np.arange(30) % len(shapes))
    training = replace(SHORT, steps=0, epochs=3, batch=2, threads=2, log_every=15, save_every=100)
    train(fresh(spec), spec, many, training, tmp_path, CPU, watch=Weighing())
    assert len(used) == 3
    assert used[2] - used[0] < 15
