"""segmentoly's train.py by its own flags: what they become, and trainings that start from its files."""

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from small_segmentoly import their_checkpoint

from maskrcnn.compat import segmentoly_train as train
from maskrcnn.errors import UserError

OUT = Path("outputs/MaskRCNN/now")


def words_of(*flags: str) -> list[str]:
    return train.command(train.read_arguments(flags), OUT)


def settings_of(*flags: str) -> dict[str, str]:
    words = words_of(*flags)
    pairs = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    return dict(pair.split("=", 1) for pair in pairs)


def test_without_flags_it_is_the_preset_on_coco(capsys: pytest.CaptureFixture[str]) -> None:
    assert words_of() == shlex.split(
        "train --preset segmentoly --data data/coco/annotations/instances_train2017.json "
        "--images data/coco/images/train2017 --val data/coco/annotations/instances_val2017.json "
        f"--val-images data/coco/images/val2017 --out {OUT} --model scratch:segmentoly/r50-fpn "
        "--steps 90000"
    )
    assert "begins with random numbers" in capsys.readouterr().err


def test_each_flag_has_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    found = settings_of(
        *("--load_ckpt", "mine.safetensors", "--lr", "0.01", "--weight_decay", "0.0005", "--momentum", "0.8"),
        *(
            "--warmup_iters",
            "500",
            "--warmup_factor",
            "0.1",
            "--warmup_method",
            "constant",
            "--max_iter",
            "1000",
            "--drop_lr",
            "600",
            "900",
        ),
        *("--gamma", "0.2", "--max_image_size", "480", "640", "--bs", "16", "--bs_per_gpu", "4"),
        *("--display_interval", "10", "--nw", "3", "--checkpoint_interval", "200", "--test_interval", "300"),
    )
    assert found == {
        "model.backbone.norm": "frozen_bn",
        "training.freeze_at": "2",
        "training.learning_rate": "0.01",
        "training.base_batch": "0",
        "training.weight_decay": "0.0005",
        "training.momentum": "0.8",
        "training.warm_up": "500",
        "training.warm_up_from": "0.1",
        "training.warm_up_shape": "constant",
        "training.milestones": "[0.6, 0.9]",
        "training.drop": "0.2",
        "preprocess.short": "480",
        "preprocess.long": "640",
        "training.accumulate": "4",
        "training.log_every": "10",
        "training.threads": "3",
        "training.save_every": "200",
        "training.evaluate_every": "300",
    }
    words = words_of("--load_ckpt", "mine.safetensors", "--bs", "8", "--data", "fruits", "--device", "cpu")
    assert words[-4:] == ["--data", "fruits", "--device", "cpu"]
    assert words[words.index("--model") + 1] == "mine.safetensors"
    assert words[words.index("--batch") + 1] == "8"


def test_in_a_run_of_another_length_the_rate_drops_where_it_did() -> None:
    found = settings_of("--load_ckpt", "x.pth", "--max_iter", "120000")
    assert found["training.milestones"] == "[0.5, 0.666666667]"
    assert "training.milestones" not in settings_of("--load_ckpt", "x.pth")
    light = settings_of("--model", "x.InstanceSegmentationSecurity0050", "--max_iter", "500")
    assert light["training.milestones"] == "[440, 500]"  # shares above 1 never come


def test_images_on_each_gpu_and_processes_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "0"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert settings_of("--load_ckpt", "x.pth", "--bs_per_gpu", "2")["training.accumulate"] == "2"


@pytest.mark.parametrize(
    ("model", "architecture"),
    [
        ("a.b.ResNet50C4MaskRCNN", "scratch:segmentoly/r50-c4"),
        ("a.b.ResNeXt10164x4dFPNMaskRCNN", "scratch:segmentoly/x101-64x4d-fpn"),
        ("a.b.ResNeXt152FPNMaskRCNN", "scratch:segmentoly/r152-fpn"),
        ("InstanceSegmentationSecurity0050", "scratch:segmentoly/r50-fpn-light"),
    ],
)
def test_classes_of_its_model_zoo_are_architectures(model: str, architecture: str) -> None:
    words = words_of("--model", model)
    assert words[words.index("--model") + 1] == architecture
    light = "0050" in model
    assert words[2] == ("segmentoly-0050" if light else "segmentoly")
    assert words[words.index("--steps") + 1] == ("270000" if light else "90000")


def test_a_trunk_brings_its_input_and_stays_frozen() -> None:
    found = settings_of("--load_backbone", "R-50.pkl")
    assert found["trunk"] == str(OUT / "trunk.pt")
    assert found["training.freeze_at"] == "2" and found["model.backbone.norm"] == "frozen_bn"
    assert "model.mean" not in found
    given = settings_of("--load_backbone", "R-50.pkl", "--mean_pixel", "1", "2", "3")
    assert given["model.mean"] == "[1.0, 2.0, 3.0]"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model", "x.ResNeXt152sFPNMaskRCNN"), "ResNeXt152sFPNMaskRCNN: cannot be trained here"),
        (("--dataset", "voc"), "--dataset voc: is unknown"),
    ],
)
def test_what_it_cannot_do_is_said(flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        words_of(*flags)


def test_a_configuration_file_keeps_flags_and_wins_over_them(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    train.read_arguments(["--lr", "0.01", "--drop_lr", "5", "8", "--save_cfg", str(path)])
    assert yaml.safe_load(path.read_text()) == {"lr": 0.01, "drop_lr": [5, 8]}
    path.write_text("lr: 0.5\nload_ckpt: None\ndrop_lr: [1, 2]\n")
    loaded = train.read_arguments(["--lr", "0.01", "--bs", "4", "--load_cfg", str(path), "--save_cfg", "no"])
    assert loaded.flags == {"lr": 0.5, "bs": 4, "drop_lr": [1, 2]}
    for text, message in (("lrr: 3\n", "has lrr"), ("- 1\n", "has no flags"), ("{", "is not YAML")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            train.read_arguments(["--load_cfg", str(path)])
    with pytest.raises(UserError, match="cannot be read"):
        train.read_arguments(["--load_cfg", str(tmp_path / "none.yaml")])


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of two classes."""
    return their_checkpoint(tmp_path_factory.mktemp("theirs"), classes=2, scale=0.1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures with a bright and a dark rectangle each."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    images, objects = [], []
    for number in range(3):
        picture = np.full((64, 96, 3), 128, np.uint8)
        for category, level, x in ((1, 250, 6), (2, 5, 54)):
            picture[12:50, x : x + 32] = level
            corners = [x, 12, x + 32, 12, x + 32, 50, x, 50]
            one = {"id": len(objects) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
            objects.append(one | {"bbox": [x, 12, 32, 38], "area": 1216, "segmentation": [corners]})
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 64})
    categories = [{"id": 1, "name": "bright"}, {"id": 2, "name": "dark"}]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def test_it_fine_tunes_its_checkpoint_and_goes_on(
    theirs: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hotcoco")
    monkeypatch.chdir(tmp_path)
    flags = ["--load_ckpt", str(theirs), "--bs", "1", "--lr", "0.0001", "--max_image_size", "64", "96"]
    ours = ["--data", str(data), "--device", "cpu", "--val-share", "0"]
    train.main([*flags, "--max_iter", "2", *ours])
    (run,) = (tmp_path / "outputs/MaskRCNN").iterdir()
    assert {"start.safetensors", "model.safetensors", "checkpoint.pt", "run.yaml"} <= {
        each.name for each in run.iterdir()
    }
    said = yaml.safe_load((run / "run.yaml").read_text())
    assert said["training"]["learning_rate"] == 0.0001 and said["training"]["base_batch"] == 0
    assert said["training"]["augment"]["flip"] == 0
    train.main([*flags, "--max_iter", "3", "--resume", *ours])
    assert [each.name for each in (tmp_path / "outputs/MaskRCNN").iterdir()] == [run.name]
    with pytest.raises(SystemExit) as left:
        train.main(["--resume", "--output_dir", "elsewhere", *ours])
    assert left.value.code == 2


def test_it_goes_on_with_a_training_of_theirs_at_its_step(
    theirs: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("hotcoco")
    import torch

    monkeypatch.chdir(tmp_path)
    optimizer = {"state": {}, "param_groups": [{"params": []}] * 3}
    saved = {"step": 4, "model": torch.load(theirs)["model"], "optimizer": optimizer}
    torch.save({**saved, "optimizer_corrected": {}}, "model_step_4.pth")
    flags = ["--load_ckpt", "model_step_4.pth", "--resume", "--bs", "1", "--lr", "0.0001"]
    flags += ["--max_image_size", "64", "96", "--data", str(data), "--device", "cpu", "--val-share", "0"]
    train.main([*flags, "--max_iter", "5"])
    assert "going on at step 4 of 5" in capsys.readouterr().err
    (run,) = (tmp_path / "outputs/MaskRCNN").iterdir()
    assert yaml.safe_load((run / "run.yaml").read_text())["resume_from"] == "model_step_4.pth"
    # The same command goes on with the run that it began.
    train.main([*flags, "--max_iter", "6"])
    assert "going on at step 5 of 6" in capsys.readouterr().err
    assert [each.name for each in (tmp_path / "outputs/MaskRCNN").iterdir()] == [run.name]


@pytest.mark.parametrize("kind", ["segmentoly", "detectron"])
def test_a_trunk_of_its_own_is_the_trunk_of_the_network(theirs: Path, tmp_path: Path, kind: str) -> None:
    import pickle

    import torch

    from maskrcnn.config import ModelConfig
    from maskrcnn.model.mask_rcnn import MaskRCNN
    from maskrcnn.training.initial import load_trunk
    from maskrcnn.weights.architecture import infer
    from maskrcnn.weights.rewrite import rewrite
    from maskrcnn.weights.sources.segmentoly import TABLE

    whole = {name: each.numpy() for name, each in torch.load(theirs)["model"].items()}
    found = rewrite(whole, TABLE, "x").tensors
    config: ModelConfig = infer({name: each.shape for name, each in found.items()}, "x")
    trunk = {name: each for name, each in whole.items() if name.startswith("backbone.")}
    if kind == "segmentoly":
        torch.save(
            {name.removeprefix("backbone."): torch.from_numpy(each) for name, each in trunk.items()},
            tmp_path / "t.pth",
        )
        train.write_trunk(tmp_path / "t.pth", tmp_path / "trunk.pt")
    else:
        (tmp_path / "t.pkl").write_bytes(pickle.dumps({"blobs": _blobs(found)}, protocol=2))
        train.write_trunk(tmp_path / "t.pkl", tmp_path / "trunk.pt")
    model = MaskRCNN(config)
    load_trunk(model, tmp_path / "trunk.pt")
    expected = found["backbone.res3.0.conv1.weight"]
    assert np.array_equal(model.backbone.state_dict()["res3.0.conv1.weight"].numpy(), expected)


def _blobs(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A trunk by Detectron's names: norms are scale and bias."""
    names = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    blobs = {"fc1000_w": np.zeros((3, 4), np.float32)}
    for name, each in found.items():
        parts = name.split(".")
        if parts[0] != "backbone" or name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue
        suffix = "_w" if parts[-2] != "norm" else {"weight": "_bn_s", "bias": "_bn_b"}[parts[-1]]
        if parts[1] == "stem":
            blobs["conv1_w" if suffix == "_w" else f"res_conv1{suffix}"] = each
        else:
            blobs[f"{parts[1]}_{parts[2]}_{names[parts[3]]}{suffix}"] = each
    return blobs


def test_dry_run_prints_the_command_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train.main(["--load_ckpt", "x.pth", "--dry_run"])
    assert capsys.readouterr().out.startswith("maskrcnn train --preset segmentoly --data data/coco/")
    assert list(tmp_path.iterdir()) == []
