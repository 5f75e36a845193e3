"""The command lines of MindSpore's train.py, eval.py and infer.py, from pictures to average precision."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import yaml
from small_mindspore import write_configs, write_shapes
from typer.testing import CliRunner

from maskrcnn.cli.main import app
from maskrcnn.compat import mindspore
from maskrcnn.spec import Spec
from maskrcnn.training import initial
from maskrcnn.training.initial import starting
from maskrcnn.training.mindspore import read_training
from maskrcnn.weights.model_file import read_spec

CONFIG = "config/maskrcnn/full.yml"
TRAIN = ("train", "--config", CONFIG, "--device_target", "CPU", "--mix", "False")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with their configuration, of two epochs, and drawn pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mindspore"])
    write_configs(Path("config"))
    write_shapes(Path("coco"))
    monkeypatch.setattr(initial, "starting", narrow)
    small = yaml.safe_load(Path("config/optimizer_1x.yml").read_text())
    small |= {"epochs": 2, "lr": {"warmup_step": 1, "warmup_ratio": 0.001, "milestones": [1]}}
    Path("config/optimizer_1x.yml").write_text(yaml.safe_dump(small))
    return tmp_path


def narrow(model: str) -> tuple[Spec, dict[str, np.ndarray]]:
    """Their network with an eighth of the channels in its trunk, for the sake of time."""
    spec, weights = starting(model)
    trunk = replace(spec.model.backbone, width=8)
    return replace(spec, model=replace(spec.model, backbone=trunk)), weights


def test_train_writes_their_checkpoints_and_goes_on_from_one(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mindspore.main([*TRAIN, "--save_dir", "one", "--lr_init", "0.01"]) == 0
    said = capsys.readouterr()
    (log,) = Path("one/logs").iterdir()
    assert said.out == log.read_text() + "one/best.safetensors\n"
    assert "[INFO] Epoch 2/2, step 3/3, loss: " in said.out
    assert "lr_init: 0.01 -> training.learning_rate=0.01" in said.err
    names = [f"MaskRCNN_det_resnet18_epoch{epoch}_rank0.ckpt" for epoch in (1, 2)]
    assert sorted(os.listdir("one/checkpoints")) == names
    assert [read_training(Path("one/checkpoints") / name).step for name in names] == [3, 6]
    found = read_spec(Path("one/model.safetensors"))
    assert (found.classes.names, found.preprocess.short) == (("bright", "dark"), 96)
    checkpoint, quick = f"one/checkpoints/{names[0]}", ("--run_eval", "False")
    assert mindspore.main([*TRAIN, *quick, "--save_dir", "two", "--resume_ckpt", checkpoint]) == 0
    assert "going on at step 3 of 6" in capsys.readouterr().err
    assert mindspore.main([*TRAIN, "--save_dir", "one"]) == 2
    assert "error: one: already holds a run" in capsys.readouterr().err
    assert mindspore.main([*TRAIN, *quick, "--save_dir", "one", "--resume_ckpt", checkpoint]) == 0
    assert "going on at step 6 of 6" in capsys.readouterr().err


def test_eval_measures_every_checkpoint_of_a_folder_and_infer_draws(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mindspore.main([*TRAIN, "--save_dir", "one", "--run_eval", "False"]) == 0
    capsys.readouterr()
    words = ("--config", CONFIG, "--device_target", "CPU", "--mix", "True")
    assert mindspore.main(["eval", *words, "--ckpt_path", "one/checkpoints", "--save_dir", "seen"]) == 0
    said = capsys.readouterr()
    assert said.out.count("eval dataset size, 2") == 2
    assert said.out.count("coco eval segm result") == 2
    assert "one/checkpoints/MaskRCNN_det_resnet18_epoch2_rank0.ckpt" in said.err
    results = list(Path("seen/eval").glob("predict_*.json"))
    assert [type(json.loads(each.read_text())) for each in results] == [list, list]
    (log,) = Path("seen/logs").iterdir()
    assert said.out == log.read_text()
    checkpoint = "one/checkpoints/MaskRCNN_det_resnet18_epoch2_rank0.ckpt"
    named = ["--ckpt_path", checkpoint, "--imgs", "coco/val", "--save_dir", "drawn"]
    assert mindspore.main(["infer.py", *words, *named]) == 0
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["0.png", "1.png"]


@pytest.fixture
def bucket(place: Path) -> Iterator[Any]:
    """A store in memory that holds the data set."""
    memory = fsspec.filesystem("memory")
    memory.put("coco", "/bucket/coco", recursive=True)
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def test_on_modelarts_data_come_from_the_store_and_results_go_there(
    bucket: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = [
        "--data_url",
        "memory://bucket",
        "--data_dir",
        "cache/data",
        "--train_url",
        "memory://bucket/out",
    ]
    words = [*TRAIN, "--save_dir", "here", "--run_eval", "False", "--enable_modelarts", "True", *stores]
    assert mindspore.main(words) == 0
    assert "memory://bucket: 10 files fetched to cache/data" in capsys.readouterr().err
    there = {path.removeprefix("/bucket/out/") for path in bucket.find("/bucket/out")}
    assert {"checkpoint.pt", "model.safetensors", "run.yaml"} <= there
    assert "checkpoints/MaskRCNN_det_resnet18_epoch2_rank0.ckpt" in there


def test_the_data_set_of_a_configuration_may_be_in_a_store(bucket: Any) -> None:
    words = ["train", "--mindspore-config", CONFIG, "--data", "memory://bucket/coco", "--local", "cache"]
    more = ["--out", "run", "--device", "cpu", "--steps", "1", "--set", "training.precision=fp32"]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 0, done.output
    assert "memory://bucket/coco/annotation/instances_train.json: 1 file fetched to" in done.stderr
    assert "6 images, 12 objects, 2 classes; 2 images to evaluate on" in done.stderr


def test_settings_of_modelarts_may_stand_in_the_configuration(bucket: Any) -> None:
    stores = {"enable_modelarts": True, "data_url": "memory://bucket", "data_dir": "cache/data"}
    values = yaml.safe_load(Path(CONFIG).read_text()) | stores | {"train_url": "memory://bucket/out"}
    Path(CONFIG).write_text(yaml.safe_dump(values))
    assert mindspore.main([*TRAIN, "--save_dir", "here", "--run_eval", "False"]) == 0
    assert bucket.exists("/bucket/out/model.safetensors")


def test_options_that_they_do_not_have_are_told_and_not_taken(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--config", CONFIG, "--checkpoint_path", "gone.ckpt", "--frobnicate", "3"]
    assert mindspore.main(words) == 2
    said = capsys.readouterr().err
    assert "note: --frobnicate 3: is no option of eval.py and is not taken" in said
    assert "error: gone.ckpt: there is no such file" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing: is none of train, eval and infer"),
        (["fly"], "fly: is none of train, eval and infer"),
        (["train"], "the following arguments are required: --config"),
        ([*TRAIN[:3], "--mix", "maybe"], "argument --mix: maybe is neither True nor False"),
        (["train", "--config", "gone.yml"], "gone.yml: cannot be read"),
        ([*TRAIN[:3], "--device_target", "TPU"], "device_target: TPU: is no device"),
        ([*TRAIN[:3], "--device_target", "Ascend"], "--device npu: Ascend needs torch_npu"),
        (["eval", "--config", CONFIG], "--ckpt_path is missing"),
        (["eval", "--config", CONFIG, "--ckpt_path", "config"], "config: holds no .ckpt"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    sentence: str,
) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    assert mindspore.main(words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert sentence in line


def test_our_own_verb_reads_the_configuration(place: Path) -> None:
    words = ["train", "--mindspore-config", CONFIG, "--data", "coco", "--out", "run", "--steps", "1"]
    more = ["--checkpoints-for", "mindspore", "--device", "cpu", "--set", "training.precision=fp32"]
    more += ["--val-share", "0"]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 0, done.output
    assert "  lr.milestones: [1] -> training.schedule" in done.stderr
    run = yaml.safe_load(Path("run/run.yaml").read_text())
    assert (run["training"]["steps"], run["training"]["momentum"]) == (1, 0.9)
    assert os.listdir("run/checkpoints") == ["MaskRCNN_det_resnet18_epoch1_rank0.ckpt"]
    both = CliRunner().invoke(app, ["train", "run/run.yaml", "--mindspore-config", CONFIG])
    assert both.exit_code == 2 and "are both given" in both.stderr
    alone = CliRunner().invoke(app, ["train", "run/run.yaml", "--exact"])
    assert alone.exit_code == 2 and "--exact says nothing here" in alone.stderr


def test_our_own_verb_goes_on_from_their_checkpoint(place: Path) -> None:
    assert mindspore.main([*TRAIN, "--save_dir", "one", "--run_eval", "False"]) == 0
    checkpoint = "one/checkpoints/MaskRCNN_det_resnet18_epoch1_rank0.ckpt"
    words = ["train", "--mindspore-config", CONFIG, "--mindspore-resume", checkpoint, "--out", "two"]
    done = CliRunner().invoke(app, [*words, "--device", "cpu", "--set", "training.precision=fp32"])
    assert done.exit_code == 0, done.output
    assert "going on at step 3 of 6" in done.stderr


@pytest.mark.slow
def test_two_processes_as_their_scripts_start_them_share_each_batch(place: Path) -> None:
    """RANK_ID, RANK_SIZE and DEVICE_ID; of a batch of two images each."""
    command = [sys.executable, "-m", "maskrcnn.compat.mindspore", *TRAIN, "--save_dir", "one"]
    running = [
        subprocess.Popen(
            command,
            env=os.environ | {"RANK_ID": rank, "RANK_SIZE": "2", "DEVICE_ID": rank, "MASTER_PORT": "29633"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=240)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert "2 processes share each batch of 4" in said[0]
    assert len(os.listdir("one/logs")) == 1
    assert "batch_size" in said[0] and "batch_size" not in said[1]


@pytest.mark.slow
def test_two_processes_that_evaluate_have_a_result_list_each(place: Path) -> None:
    assert mindspore.main([*TRAIN, "--save_dir", "one", "--run_eval", "False"]) == 0
    words = ("eval", "--config", CONFIG, "--device_target", "CPU", "--save_dir", "seen")
    checkpoint = ("--ckpt_path", "one/checkpoints/MaskRCNN_det_resnet18_epoch2_rank0.ckpt")
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "maskrcnn.compat.mindspore", *words, *checkpoint],
            env=os.environ | {"RANK_ID": rank, "RANK_SIZE": "2", "DEVICE_ID": rank, "MASTER_PORT": "29634"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert "coco eval segm result" in said[0] and not said[1]
    folder = Path("seen/eval_parallel/eval_epoch0-step0")
    assert sorted(os.listdir(folder)) == [f"epoch0-step0-rank{rank}.json" for rank in (0, 1)]
    assert not Path("seen/eval").exists()


@pytest.mark.data
def test_real_photographs_are_learnt_and_measured(
    place: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twelve photographs in their layout, six updates; the checkpoint finds what our model file finds."""
    layout(data_dir / "coco_train_small", place / "coco")
    text = Path("config/inference.yml").read_text()
    # So that a network that has learnt next to nothing finds something.
    Path("config/inference.yml").write_text(text.replace("0.05", "0.001"))
    assert mindspore.main([*TRAIN, "--save_dir", "one", "--lr_init", "0.005"]) == 0
    assert "8 images" in capsys.readouterr().err
    checkpoint = "one/checkpoints/MaskRCNN_det_resnet18_epoch2_rank0.ckpt"
    words = ["eval", "--config", CONFIG, "--device_target", "CPU", "--ckpt_path", checkpoint]
    assert mindspore.main([*words, "--save_dir", "seen"]) == 0
    theirs = in_their_tables(capsys.readouterr().out)
    files = ["--annotations", "coco/annotation/instances_val.json", "--images", "coco/val"]
    more = ["--device", "cpu", "--save", "ours.json"]
    ours = CliRunner().invoke(app, ["eval", "one/model.safetensors", *files, *more])
    assert ours.exit_code == 0, ours.output
    assert theirs == pytest.approx(precision(ours.stdout), abs=1e-3)
    (seen,) = Path("seen/eval").glob("predict_*.json")
    found = [
        sorted(item["score"] for item in json.loads(Path(name).read_text())) for name in (seen, "ours.json")
    ]
    assert len(found[0]) == len(found[1]) > 100
    assert {"label_id", "segmentation"} < json.loads(seen.read_text())[0].keys()
    # float32: the norms of a .ckpt have their statistics, those of a model file are folded
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def layout(source: Path, folder: Path) -> None:
    """The first photographs of a set: eight to learn from, four to measure on."""
    values = json.loads(next(source.glob("*.json")).read_text())
    for name, chosen in (("train", values["images"][:8]), ("val", values["images"][8:12])):
        ids = {image["id"] for image in chosen}
        found = values | {"images": chosen}
        found["annotations"] = [each for each in values["annotations"] if each["image_id"] in ids]
        (folder / "annotation" / f"instances_{name}.json").write_text(json.dumps(found))
        for image in chosen:
            (picture,) = source.rglob(Path(image["file_name"]).name)
            target = folder / name / image["file_name"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(picture)


def in_their_tables(text: str) -> list[float]:
    """AP of boxes and masks."""
    rows = [line for line in text.splitlines() if "(AP) @[ IoU=0.50:0.95 | area=   all" in line]
    return [float(line.split("=")[-1]) for line in rows]


def precision(text: str) -> list[float]:
    """AP of boxes and masks in the table at the end."""
    (row,) = [line.split() for line in text.splitlines() if line.startswith("AP ")]
    return [float(value) for value in row[1:]]
