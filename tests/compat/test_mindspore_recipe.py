"""Every key of MindSpore's configuration is a setting of ours, says why it is none, or is told as unknown."""

from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_mindspore import write_configs, write_shapes

from maskrcnn.compat.mindspore import OPTIONS
from maskrcnn.compat.mindspore_config import merged, read_config
from maskrcnn.compat.mindspore_keys import Asked
from maskrcnn.compat.mindspore_recipe import Translation, translate
from maskrcnn.config_file import with_settings
from maskrcnn.errors import UserError
from maskrcnn.spec import Spec
from maskrcnn.training.initial import starting
from maskrcnn.training.recipe import Training
from maskrcnn.training.run_file import RunFile, read_run


def translated(folder: Path, values: dict[str, Any] | None = None, **asked: Any) -> Translation:
    config = read_config(write_configs(folder / "config"), asked.get("exact", False))
    return translate(Asked(replace(config, values=merged(config.values, values or {})), **asked))


def run_of(translation: Translation) -> RunFile:
    return read_run(None, {"data": "d", "out": "o", **translation.given}, translation.settings)


def spec_of(run: RunFile) -> Spec:
    return with_settings(starting(run.model)[0], run.settings)


def lines(translation: Translation) -> dict[str, str]:
    return {line.key: str(line) for line in translation.lines}


def test_no_key_of_their_files_is_unknown(tmp_path: Path) -> None:
    told = list(translated(tmp_path).told())
    assert told[0] == "full.yml and 5 bases"
    assert [line for line in told if line.startswith("unknown")] == []
    assert [line.partition(":")[2].split(":")[0].strip() for line in told if line.startswith("not done")] == [
        "backbone.pretrained",
        "backbone.frozen_2stage",
    ]


# Options of their train.py, eval.py and infer.py but for --config, with values.
OPTIONS_OF_THEIRS = {
    **{"seed": 1, "ms_mode": 0, "ms_loss_scaler": "static", "ms_loss_scaler_value": 256.0},
    **{"num_parallel_workers": 8, "device_target": "CPU", "resume_ckpt": "x.ckpt", "batch_size": 2},
    **{"mix": True, "run_eval": True, "eval_parallel": True, "log_interval": 100, "lr_init": 0.02},
    **{
        "save_dir": "output",
        "run_profilor": False,
        "enable_modelarts": False,
        "data_url": "",
        "ckpt_url": "",
    },
    **{"train_url": "", "data_dir": "/cache/data", "ckpt_path": "x.ckpt", "imgs": "imgs"},
}


def test_every_option_of_their_scripts_is_taken_and_has_a_meaning(tmp_path: Path) -> None:
    assert {*OPTIONS} - {"config", "exact", "model"} == {*OPTIONS_OF_THEIRS}
    told = list(translated(tmp_path, OPTIONS_OF_THEIRS).told())
    assert [line for line in told if line.startswith("unknown")] == []


def test_the_schedule_and_the_optimizer_are_theirs(tmp_path: Path) -> None:
    training = run_of(translated(tmp_path)).training
    assert (training.epochs, training.steps, training.batch, training.seed) == (12, 0, 2, 1234)
    assert (training.schedule, training.drop) == ("steps", 0.1)
    assert training.milestones == (8 / 12, 11 / 12)
    assert (training.warm_up, training.warm_up_from) == (500, 0.001)
    assert (training.learning_rate, training.peak_rate()) == (0.02, 0.02)
    assert (training.optimizer, training.momentum, training.weight_decay) == ("sgd", 0.9, 5e-5)
    assert (training.average, training.clip, training.freeze_from, training.save_every) == (0, 0, 1, 0)
    assert (training.threads, training.augment.flip, training.log_every) == (1, 0.25, 100)


def test_the_rate_of_a_step_is_that_of_their_formula(tmp_path: Path) -> None:
    """Their list: rate x (ratio + (1 - ratio) i / 500), then a tenth after each milestone."""
    training = run_of(translated(tmp_path)).training
    steps = 12_000
    assert training.rate_at(8000 - 1, steps) == pytest.approx(1)
    assert training.rate_at(8000, steps) == pytest.approx(0.1)
    assert training.rate_at(11_000, steps) == pytest.approx(0.01)
    # ours ends its straight line at the peak, theirs one step later
    assert training.rate_at(249, steps) == pytest.approx(0.001 + 0.999 * 249 / 500, abs=1 / 400)


def test_exact_has_no_warm_up_and_learns_from_turned_planes(tmp_path: Path) -> None:
    run = run_of(translated(tmp_path, exact=True))
    assert run.training.warm_up_from == 1
    assert run.training.rate_at(0, 12_000) == pytest.approx(1)
    spec = spec_of(run)
    assert spec.preprocess.channels == "bgr"
    assert (spec.model.mean, spec.model.std) == ((100, 110, 120), (70, 60, 50))
    assert (spec.model.rpn.pre_nms, spec.model.rpn.post_nms) == (200, 60)
    assert (run.training.precision, run.training.freeze_at) == ("fp16", 2)


def test_the_network_and_its_input_are_theirs(tmp_path: Path) -> None:
    spec = spec_of(run_of(translated(tmp_path)))
    model, preprocess = spec.model, spec.preprocess
    assert (model.backbone.depth, model.backbone.norm, model.backbone.stem_pool) == (18, "bn", "same")
    assert (model.fpn.channels, model.fpn.upsample, model.fpn.norm) == (16, "bilinear", "none")
    assert model.anchors.sizes == ((16,), (32,), (64,), (128,), (256,))
    rpn, box = model.rpn, model.box_head
    assert (rpn.pre_nms, rpn.post_nms, rpn.pre_nms_training, rpn.post_nms_training) == (100, 50, 200, 60)
    assert (rpn.batch, rpn.foreground_iou, rpn.background_iou, rpn.nms_iou) == (64, 0.7, 0.3, 0.7)
    assert (box.fc_channels, box.batch, box.positive_fraction, box.foreground_iou) == (32, 32, 0.25, 0.5)
    assert (box.score_over, box.nms_iou, box.detections) == (0.05, 0.5, 100)
    assert (model.mask_head.channels, model.mask_head.convs, model.mask_head.pool_side) == (16, 4, 14)
    assert (preprocess.resize, preprocess.short, preprocess.long) == ("fit_window", 96, 160)
    assert (preprocess.channels, preprocess.pad_to_window) == ("rgb", True)
    # of the evaluation, as shares of 255
    assert model.mean == pytest.approx((102, 127.5, 153)) and model.std == pytest.approx((51, 76.5, 102))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("det_resnet50", (50, 1, 64)),
        ("det_resnext101_64x4d", (101, 64, 4)),
        ("det_resnext50_32x4d", (50, 32, 4)),
    ],
)
def test_the_names_of_their_trunks(tmp_path: Path, name: str, expected: tuple[int, int, int]) -> None:
    trunk = spec_of(run_of(translated(tmp_path, {"backbone": {"name": name}}))).model.backbone
    assert (trunk.depth, trunk.groups, trunk.group_width) == expected


def test_each_process_has_the_batch_of_the_configuration(tmp_path: Path) -> None:
    assert run_of(translated(tmp_path, {"batch_size": 3}, processes=4)).training.batch == 12


@pytest.mark.parametrize(
    ("values", "precision"),
    [({"mix": False}, "fp32"), ({"mix": True}, "bf16"), ({"mix": True, "device_target": "Ascend"}, "fp16")],
)
def test_mix_is_a_precision(tmp_path: Path, values: dict[str, Any], precision: str) -> None:
    run = run_of(translated(tmp_path, values))
    assert run.training.precision == precision
    assert run.device == ("npu" if "device_target" in values else "auto")


def test_workers_queue_and_row_size_are_threads_batches_and_memory(tmp_path: Path) -> None:
    values = {"data": {"num_workers": 5, "prefetch_size": 8, "max_rowsize": 6}}
    values["data"]["num_parallel_workers"] = 5
    training = run_of(translated(tmp_path, values)).training
    assert (training.threads, training.ahead, training.ahead_mb) == (5, 8, 48)
    above = run_of(translated(tmp_path / "top", {"num_workers": 3, "max_rowsize": [2, 4]})).training
    # 16 is MindSpore's own length of a queue
    assert (above.threads, above.ahead, above.ahead_mb) == (3, 0, 64)
    assert run_of(translated(tmp_path / "any", {"max_rowsize": -1})).training.ahead_mb == 0


def test_rate_and_epochs_may_stand_below_the_optimizer(tmp_path: Path) -> None:
    values = {"optimizer": {"lr": {"milestones": [1, 3]}, "epochs": 4}}
    assert run_of(translated(tmp_path, values)).training.milestones == (0.25, 0.75)


def test_annotations_are_found_in_either_spelling_of_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_shapes(Path("coco"))
    given = translated(tmp_path).given
    assert (given["data"], given["images"]) == ("coco/annotation/instances_train.json", "coco/train")
    assert (given["val"], given["val_images"]) == ("coco/annotation/instances_val.json", "coco/val")
    Path("coco/annotation").rename("coco/annotations")
    assert translated(tmp_path / "b").given["data"] == "coco/annotations/instances_train.json"


def test_data_is_another_root_or_annotations_of_any_format(tmp_path: Path) -> None:
    write_shapes(tmp_path / "there")
    root = translated(tmp_path, data=str(tmp_path / "there")).given
    assert root["data"] == str(tmp_path / "there" / "annotation" / "instances_train.json")
    alone = translated(tmp_path / "b", data="my/labels.json").given
    assert alone == {"data": "my/labels.json", "model": "scratch:mindspore"}


def test_without_evaluation_nothing_is_held_out(tmp_path: Path) -> None:
    write_shapes(tmp_path / "there")
    given = translated(tmp_path, {"run_eval": False}, data=str(tmp_path / "there")).given
    assert given["val_share"] == 0 and "val" not in given


def test_a_trunk_is_read_where_it_is_named_and_is_then_frozen(tmp_path: Path) -> None:
    found = translated(tmp_path, {"backbone": {"pretrained": "r18.ckpt"}})
    assert found.given["trunk"] == "r18.ckpt"
    assert run_of(found).training.freeze_at == 2
    model = translated(tmp_path / "b", model="coco.safetensors")
    assert model.given["model"] == "coco.safetensors" and run_of(model).training.freeze_at == 2


@pytest.mark.parametrize(
    ("values", "key", "line"),
    [
        ({"fancy": {"new": 3}}, "fancy.new", "unknown: fancy.new: 3"),
        (
            {"optimizer": {"nesterov": True}},
            "optimizer.nesterov",
            "not done: optimizer.nesterov: True (momentum is taken as it is)",
        ),
        ({"data": {"seg_size": 14}}, "data.seg_size", "not done: data.seg_size: 14 (masks have twice "),
        (
            {"rpn_head": {"train_proposal": {"nms_thresh": 0.8}}},
            "rpn_head.train_proposal.nms_thresh",
            "not done: rpn_head.train_proposal.nms_thresh: 0.8 (one for both",
        ),
        (
            {"data": {"train_transforms": {"item_transforms": [{"Mosaic": {"prob": 1}}]}}},
            "data.train_transforms.item_transforms",
            "not done: data.train_transforms.item_transforms: [{'Mosaic': {'prob': 1}}] (there is no Mosaic",
        ),
    ],
)
def test_what_is_not_done_is_told_with_its_value(
    tmp_path: Path, values: dict[str, Any], key: str, line: str
) -> None:
    assert lines(translated(tmp_path, values))[key].startswith(line)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"net": "FasterRCNN"}, "net: FasterRCNN: is no Mask R-CNN"),
        ({"backbone": {"name": "swin"}}, "backbone.name: swin: is no trunk"),
        ({"epochs": "many"}, "epochs: many: is no positive number"),
        ({"batch_size": 0}, "batch_size: 0: is no positive number"),
        ({"lr": {"milestones": 8}}, "lr.milestones: 8: is no list"),
        ({"device_target": "TPU"}, "device_target: TPU: is no device"),
        ({"data": {"eval_transforms": {"item_transforms": [1]}}}, "item_transforms: is no list of steps"),
        (
            {"data": {"eval_transforms": {"item_transforms": [{"Resize": {"target_size": 7}}]}}},
            "Resize.target_size: 7: is no list of 2",
        ),
    ],
)
def test_a_value_that_means_nothing_is_an_error(
    tmp_path: Path, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        translated(tmp_path, values)


@pytest.mark.parametrize("odd", [None, -1, "x", [None], {"a": 1}])
def test_a_value_of_any_kind_is_taken_or_refused_in_words(tmp_path: Path, odd: Any) -> None:
    config = read_config(write_configs(tmp_path / "config"))
    more = ("prefetch_size", "max_rowsize", "device_target", "batch_size", "lr", "data", "backbone")
    for key in (*(key for key, _ in config.leaves()), *more):
        *parents, name = key.split(".")
        values = deepcopy(config.values)
        inside = values
        for parent in parents:
            inside = inside[parent]
        inside[name] = odd
        with suppress(UserError):
            list(translate(Asked(replace(config, values=values))).told())


@pytest.mark.parametrize("step", ["RandomFlip", "Resize", "NormalizeImage"])
def test_a_step_of_any_kind_is_taken_or_refused_in_words(tmp_path: Path, step: str) -> None:
    for odd in (None, -1, "x", [1], {"prob": "x"}, {"target_size": [1, None]}, {"mean": [0, 0, 0]}):
        steps = {"item_transforms": [{step: odd}]}
        with suppress(UserError):
            run_of(translated(tmp_path / repr(odd), {"data": {"train_transforms": steps}}))
        with suppress(UserError):
            run_of(translated(tmp_path / f"{odd!r} ", {"data": {"eval_transforms": steps}}))


def test_a_wrong_type_is_an_error_of_our_own_setting(tmp_path: Path) -> None:
    found = translated(tmp_path, {"optimizer": {"momentum": "high"}})
    with pytest.raises(UserError, match=r"`training.momentum` is 'high'"):
        run_of(found)


def test_settings_are_those_of_a_training(tmp_path: Path) -> None:
    assert run_of(translated(tmp_path)).training != Training()
