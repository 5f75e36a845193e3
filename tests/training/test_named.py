"""Trainings that have names: segmentoly's numbers, what a file and options change, and real images."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from maskrcnn.cli.main import app
from maskrcnn.config import ModelConfig
from maskrcnn.config_file import with_settings
from maskrcnn.errors import UserError
from maskrcnn.flops import count_stages
from maskrcnn.presets import ARCHITECTURES
from maskrcnn.spec import Spec
from maskrcnn.training.named import PRESETS, preset_named
from maskrcnn.training.recipe import Training
from maskrcnn.training.run_file import read_run
from maskrcnn.weights.architecture import parameter_shapes
from maskrcnn.weights.model_file import read_model_file

GIVEN = {"data": "fruits", "out": "run"}


def light() -> Spec:
    run = PRESETS["segmentoly-0050"]
    return with_settings(Spec(ARCHITECTURES[run.model.removeprefix("scratch:segmentoly/")]), run.settings)


def test_segmentoly_warms_up_from_a_third_and_drops_at_60000_and_80000() -> None:
    training = PRESETS["segmentoly"].training
    assert (training.steps, training.batch, training.peak_rate()) == (90_000, 16, 0.02)
    rates = {step: 0.02 * training.rate_at(step, 90_000) for step in (0, 499, 999, 1000, 59_999)}
    # 0.33 (1 - a) + a of the peak, where a is the share of the warm-up that is over
    expected = {0: 0.33, 499: 0.33 + 0.67 * 0.499, 999: 0.33 + 0.67 * 0.999, 1000: 1.0, 59_999: 1.0}
    assert rates == pytest.approx({step: 0.02 * share for step, share in expected.items()})
    later = [0.02 * training.rate_at(step, 90_000) for step in (60_000, 79_999, 80_000, 89_999)]
    assert later == pytest.approx([0.002, 0.002, 0.0002, 0.0002])
    assert training.augment.flip == 0 and training.weight_decay == 1e-4 and training.momentum == 0.9
    assert training.frozen() == ()  # of a network that begins with random numbers


def test_its_light_training_drops_at_220000_and_250000_of_270000() -> None:
    training = PRESETS["segmentoly-0050"].training
    assert (training.steps, training.peak_rate(), training.augment.flip) == (270_000, 0.02, 0.5)
    found = [training.rate_at(step, 270_000) for step in (219_999, 220_000, 249_999, 250_000)]
    assert found == pytest.approx([1, 0.1, 0.1, 0.01])
    sides = (416, 448, 480, 512, 544)
    assert (training.shorts, training.augment.sides) == ((), (sides, sides))


def test_without_a_first_share_and_a_drop_of_its_own_a_run_learns_as_before() -> None:
    training = Training(steps=100, warm_up=10, schedule="steps", milestones=(0.5,))
    assert [training.rate_at(step, 100) for step in (0, 4, 9, 49, 50)] == pytest.approx([0.1, 0.5, 1, 1, 0.1])
    halved = Training(schedule="steps", milestones=(0.5,), drop=0.5)
    assert halved.rate_at(60, 100) == 0.5


def test_the_light_network_has_the_parameters_of_0050_and_a_third_of_r50_fpn_s_operations() -> None:
    """59 of 221 GFLOP at 480 x 480; OpenVINO's model zoo says 30.4 M parameters."""
    spec = light()
    shapes = dict(parameter_shapes(spec.model))
    stages = count_stages(spec.model, shapes, (480, 480), 100, 100)
    usual = ModelConfig()
    whole = count_stages(usual, dict(parameter_shapes(usual)), (480, 480), 1000, 100)
    assert sum(each.gflops for each in stages) < sum(each.gflops for each in whole) / 3
    assert round(sum(each.parameters for each in stages) / 1e6, 1) == 30.4
    assert shapes["box_head.fc3.weight"] == (512, 512)
    assert shapes["mask_head.conv6.weight"] == (128, 128, 3, 3)
    assert (spec.preprocess.resize, spec.preprocess.short, spec.preprocess.long) == ("stretch", 480, 480)


def test_a_file_changes_a_preset_and_options_change_both(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("training: {steps: 100, augment: {jitter: 0.1}}\nsettings: [model.rpn.post_nms=7]\n")
    run = read_run(path, GIVEN, ["training.batch=4", "preprocess.short=320"], "segmentoly")
    training = run.training
    assert (training.steps, training.batch, training.warm_up, training.clip) == (100, 4, 1000, 0.0)
    assert (training.augment.flip, training.augment.jitter) == (0.0, 0.1)
    assert run.settings[:4] == PRESETS["segmentoly"].settings[:4]
    assert run.settings[-2:] == ("model.rpn.post_nms=7", "preprocess.short=320")
    alone = read_run(path, GIVEN, (), None)
    assert (alone.training.warm_up, alone.settings) == (500, ("model.rpn.post_nms=7",))


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UserError, match="--preset detectron: there is none"):
        preset_named("detectron")


def trained(data: Path, out: Path, *more: str) -> Any:
    words = ["train", "--preset", "segmentoly-0050", "--data", str(data), "--out", str(out)]
    return CliRunner().invoke(app, [*words, "--device", "cpu", *more])


@pytest.mark.data
def test_the_light_network_trains_on_real_photographs_of_480_by_480(data_dir: Path, tmp_path: Path) -> None:
    """Three steps of one image of fruits, with a trunk of 18 layers, for time."""
    pytest.importorskip("hotcoco")
    out = tmp_path / "run"
    done = trained(
        data_dir / "fruits_nuts",
        out,
        *("--steps", "3", "--batch", "1", "--val-share", "0", "--set", "model.backbone.depth=18"),
        *("--set", "training.augment.sides=[[480], [480]]", "--set", "training.log_every=1"),
    )
    assert done.exit_code == 0, done.output
    assert "18 images, 165 objects, 3 classes" in done.stderr
    spec, state = read_model_file(out / "model.safetensors")
    assert (spec.preprocess.resize, spec.preprocess.short, spec.preprocess.long) == ("stretch", 480, 480)
    assert (spec.model.mask_head.pool_side, spec.model.fpn.channels) == (7, 128)
    assert state["mask_head.logits.weight"].shape[0] == 3
    losses = [
        float(line.split("loss ")[1].split()[0]) for line in done.stderr.splitlines() if "loss " in line
    ]
    assert len(losses) == 3 and all(0 < loss < 10 for loss in losses)
