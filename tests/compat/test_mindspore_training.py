"""MindSpore's checkpoint of a training holds weights, momentum and step, and a run goes on with all three."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_mindspore import TRAINING, learning, small_spec

from maskrcnn.errors import UserError
from maskrcnn.training.begun import go_on
from maskrcnn.training.initial import load_trunk, load_weights, starting
from maskrcnn.training.mindspore import (
    checkpoint_name,
    rates_of,
    read_training,
    trunk_of,
    write_training,
)
from maskrcnn.weights.convert import convert
from maskrcnn.weights.mindspore_ckpt import read_mindspore, write_mindspore
from maskrcnn.weights.model_file import read_model_file
from maskrcnn.weights.sources.mindspore import SOURCE


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A checkpoint after two updates of eight."""
    run, training = learning(small_spec(), steps=2)
    write_training(tmp_path / "x.ckpt", run, small_spec(), 2, rates_of(run, training, 2))
    return tmp_path / "x.ckpt"


def numbers_of(path: Path) -> dict[str, np.ndarray]:
    return read_mindspore(path.read_bytes(), training=True)


def test_it_has_the_names_shapes_and_types_of_a_mindspore_training(theirs: Path) -> None:
    found = numbers_of(theirs)
    assert SOURCE.fingerprint <= found.keys()
    shapes = {name: (each.shape, each.dtype.str) for name, each in found.items() if "." not in name}
    assert shapes == {
        "scale_sense": ((), "<f4"),
        "global_step": ((1,), "<i4"),
        "momentum": ((), "<f4"),
        "learning_rate": ((10,), "<f4"),  # of 4 epochs of 2 steps, and of one epoch more
    }
    weights = {name for name in found if name.endswith((".weight", ".bias", ".gamma", ".beta"))}
    moments = {name for name in weights if name.startswith("moments.")}
    assert {name.removeprefix("moments.") for name in moments} == weights - moments
    statistics = [name for name in found if "moving" in name]
    assert len(statistics) == 40 and not any(name.startswith("moments.") for name in statistics)


def test_frozen_weights_have_no_moments(tmp_path: Path) -> None:
    run, training = learning(small_spec(), steps=1)
    run.model.backbone.stem.requires_grad_(False)
    write_training(tmp_path / "x.ckpt", run, small_spec(), 1, rates_of(run, training, 2))
    found = numbers_of(tmp_path / "x.ckpt")
    assert "backbone.bottom_up.conv1.weight" in found
    assert "moments.backbone.bottom_up.conv1.weight" not in found
    assert "moments.backbone.bottom_up.layer1.0.conv1.weight" in found


def test_a_run_goes_on_with_weights_momentum_and_step(theirs: Path) -> None:
    first, _ = learning(small_spec(), steps=2)
    other, _ = learning(small_spec(), steps=0)
    assert go_on(read_training(theirs), theirs, other, steps=8).step == 2
    for run in (first, other):
        torch.manual_seed(9)
        for parameter in run.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        run.optimizer.step()
    for name, values in first.model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(other.model.state_dict()[name], values, rtol=0, atol=0, msg=name)


def test_the_average_of_a_run_that_goes_on_begins_with_the_weights(theirs: Path) -> None:
    other, _ = learning(small_spec(), steps=0)
    go_on(read_training(theirs), theirs, other, steps=8)
    torch.testing.assert_close(other.average.state["rpn.conv1.weight"], other.model.rpn.conv1.weight.detach())
    assert other.average.steps == 2


def test_a_checkpoint_of_weights_alone_begins_at_step_0_and_says_so(theirs: Path, tmp_path: Path) -> None:
    weights = {name: each for name, each in numbers_of(theirs).items() if "." in name}
    weights = {name: each for name, each in weights.items() if not name.startswith("moments.")}
    write_mindspore(tmp_path / "alone.ckpt", weights)
    other, _ = learning(small_spec(), steps=0)
    said: list[str] = []
    alone = tmp_path / "alone.ckpt"
    assert go_on(read_training(alone), alone, other, 8, said.append).step == 0
    assert said == [f"{alone} has no momentum that belongs to its weights: it begins at zero"]


def test_only_predictors_start_anew_for_other_classes(theirs: Path) -> None:
    spec = small_spec()
    other, _ = learning(replace(spec, model=replace(spec.model, classes=5)), steps=0)
    said: list[str] = []
    go_on(read_training(theirs), theirs, other, 8, said.append)
    assert said[0].startswith("starting anew for these classes: box_head.scores.weight")
    held = {name for name, each in other.model.named_parameters() if each in other.optimizer.state}
    assert "box_head.scores.weight" not in held and "box_head.fc1.weight" in held


def test_names_may_have_the_prefix_of_a_wrapped_network(theirs: Path, tmp_path: Path) -> None:
    found = {
        f"moments.network.{name.removeprefix('moments.')}"
        if name.startswith("moments.")
        else f"network.{name}"
        if "." in name
        else name: each
        for name, each in numbers_of(theirs).items()
    }
    write_mindspore(tmp_path / "wrapped.ckpt", found)
    plain, wrapped = read_training(theirs), read_training(tmp_path / "wrapped.ckpt")
    assert plain.weights.keys() == wrapped.weights.keys() and plain.moments.keys() == wrapped.moments.keys()


def test_a_training_that_has_nothing_left_to_do_is_told(theirs: Path) -> None:
    other, _ = learning(small_spec(), steps=0)
    with pytest.raises(UserError, match=r"x\.ckpt: is at step 2, and the run ends at step 2"):
        go_on(read_training(theirs), theirs, other, steps=2)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "is no MindSpore checkpoint"), (b"\x0a\xff", "is no MindSpore checkpoint, cut short or damaged")],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_training(tmp_path / "x.ckpt")
    write_mindspore(tmp_path / "y.ckpt", {"a.weight": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match="is not of mindspore-lab's MaskRCNN"):
        read_training(tmp_path / "y.ckpt")
    with pytest.raises(UserError, match="cannot be read"):
        read_training(tmp_path / "gone.ckpt")


def test_the_momentum_of_another_optimizer_is_refused(theirs: Path) -> None:
    run, _ = learning(small_spec(), steps=0)
    adamw = torch.optim.AdamW(run.model.parameters())
    with pytest.raises(UserError, match=r"has the momentum of SGD"):
        go_on(read_training(theirs), theirs, replace(run, optimizer=adamw), 8)


def test_the_checkpoint_converts_to_a_model_file_with_the_same_weights(theirs: Path, tmp_path: Path) -> None:
    convert(theirs, tmp_path / "m.safetensors")
    run, _ = learning(small_spec(), steps=2)
    _, state = read_model_file(tmp_path / "m.safetensors")
    for name, values in run.model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(state[name], values.numpy(), err_msg=name)


def test_norms_that_are_constants_in_a_model_file_learn_again(theirs: Path, tmp_path: Path) -> None:
    convert(theirs, tmp_path / "m.safetensors")
    spec, state = starting(str(tmp_path / "m.safetensors"))
    assert spec.model.backbone.norm == "frozen_bn"
    run, _ = learning(small_spec(), steps=0)
    assert load_weights(run.model, state, theirs) == []
    found = run.model.state_dict()
    assert int(found["backbone.stem.conv.norm.num_batches_tracked"]) == 0
    np.testing.assert_array_equal(
        found["backbone.stem.conv.norm.running_var"], state["backbone.stem.conv.norm.running_var"]
    )


def test_a_trunk_comes_from_a_detector_or_from_a_classifier(theirs: Path, tmp_path: Path) -> None:
    found = numbers_of(theirs)
    begin = "backbone.bottom_up."
    classifier = {name.removeprefix(begin): each for name, each in found.items() if name.startswith(begin)}
    classifier["classifier.weight"] = np.zeros((10, 64), np.float32)
    write_mindspore(tmp_path / "r18.ckpt", classifier)
    one, two = trunk_of(theirs), trunk_of(tmp_path / "r18.ckpt")
    assert one.keys() == two.keys() and "res5.1.conv2.weight" in one
    run, _ = learning(small_spec(), steps=0)
    load_trunk(run.model, tmp_path / "r18.ckpt")
    torch.testing.assert_close(run.model.backbone.state_dict()["stem.conv.weight"], one["stem.conv.weight"])
    other = small_spec()
    trunk = replace(other.model.backbone, width=16)
    wide, _ = learning(replace(other, model=replace(other.model, backbone=trunk)), steps=0)
    with pytest.raises(UserError, match="is a trunk of another shape"):
        load_trunk(wide.model, tmp_path / "r18.ckpt")


def test_checkpoints_are_called_as_theirs() -> None:
    spec = small_spec()
    assert checkpoint_name(spec, 12) == "MaskRCNN_det_resnet18_epoch12_rank0.ckpt"
    trunk = replace(spec.model.backbone, depth=101, groups=64, group_width=4)
    grouped = replace(spec, model=replace(spec.model, backbone=trunk))
    assert checkpoint_name(grouped, 1) == "MaskRCNN_det_resnext101_64x4d_epoch1_rank0.ckpt"


def test_the_learning_rates_are_those_of_every_step_and_one_epoch_more() -> None:
    run, training = learning(small_spec(), steps=0)
    assert training is TRAINING
    rates = rates_of(run, training, 2)
    expected = [0.01] * 4 + [0.001] * 2 + [0.0001] * 4
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "depth"), [("mindspore", 50), ("r101-fpn", 101)])
def test_random_weights_have_norms_that_learn(name: str, depth: int) -> None:
    spec, weights = starting(f"scratch:{name}")
    assert (spec.model.backbone.depth, spec.model.backbone.norm, weights) == (depth, "bn", {})
    with pytest.raises(UserError, match="--model scratch:r7: is no architecture"):
        starting("scratch:r7")
