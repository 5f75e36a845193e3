"""The flow of ModelArts with s3fs and a server that speaks S3: lost machines and a store that is away."""

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_mindspore import write_configs, write_shapes
from typer.testing import CliRunner

from maskrcnn.cli.main import app
from maskrcnn.compat import mindspore
from maskrcnn.spec import Spec
from maskrcnn.storage import Mirror
from maskrcnn.training import initial, keeping
from maskrcnn.training.checkpoint import load_checkpoint
from maskrcnn.training.initial import starting

WHY = 'needs S3: pip install s3fs "moto[s3]" flask flask-cors'
s3fs = pytest.importorskip("s3fs", reason=WHY)
server = pytest.importorskip("moto.moto_server.threaded_moto_server", reason=WHY)

CONFIG = "config/maskrcnn/full.yml"
TRAIN = ("train", "--config", CONFIG, "--device_target", "CPU", "--mix", "False", "--run_eval", "False")
STORES = ("--enable_modelarts", "True", "--data_url", "s3://bucket/data", "--data_dir", "cache/data")
OUT = ("--train_url", "s3://bucket/out", "--save_dir", "here")
FIRST, LAST = (f"checkpoints/MaskRCNN_det_resnet18_epoch{epoch}_rank0.ckpt" for epoch in (1, 3))


class Store:
    """A server of S3 on this machine, which can be away for a while; what it holds stays."""

    def __init__(self) -> None:
        self._server = server.ThreadedMotoServer("127.0.0.1", 0)
        self._server.start()
        _, self.port = self._server.get_host_and_port()

    def leave(self) -> None:
        self._server.stop()

    def come_back(self) -> None:
        self._server = server.ThreadedMotoServer("127.0.0.1", self.port)
        self._server.start()


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        found = Store()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{found.port}")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # In place of five of botocore, each of five of s3fs: a store that is away is seen at once.
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setattr(s3fs.S3FileSystem, "retries", 1)
        s3fs.S3FileSystem.clear_instance_cache()
        yield found
        s3fs.S3FileSystem.clear_instance_cache()
        found.leave()


@pytest.fixture
def bucket(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The bucket with drawn pictures, beside their configuration of three epochs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["mindspore"])
    monkeypatch.setattr(initial, "starting", narrow)
    write_configs(Path("config"))
    write_shapes(Path("coco"))
    write_optimizer(epochs=3)
    files = s3fs.S3FileSystem()
    files.mkdir("bucket")
    files.put("coco", "bucket/data/coco", recursive=True)
    shutil.rmtree("coco")
    yield files
    files.invalidate_cache()
    files.rm("bucket", recursive=True)


def write_optimizer(epochs: int) -> None:
    path = Path("config/optimizer_1x.yml")
    small = yaml.safe_load(path.read_text()) | {"epochs": epochs}
    small["lr"] |= {"warmup_step": 1, "warmup_ratio": 0.001, "milestones": [1]}
    path.write_text(yaml.safe_dump(small))


def narrow(model: str) -> tuple[Spec, dict[str, np.ndarray]]:
    """Their network with an eighth of the channels in its trunk, for the sake of time."""
    spec, weights = starting(model)
    trunk = replace(spec.model.backbone, width=8)
    return replace(spec, model=replace(spec.model, backbone=trunk)), weights


def there(bucket: Any) -> set[str]:
    bucket.invalidate_cache()
    return {path.removeprefix("bucket/out/") for path in bucket.find("bucket/out")}


def lose_the_machine() -> None:
    for folder in ("here", "cache"):
        shutil.rmtree(folder)


def test_a_job_takes_data_from_the_store_leaves_all_there_and_goes_on_on_another_machine(
    bucket: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mindspore.main([*TRAIN, *STORES, *OUT]) == 0
    assert "s3://bucket/data: 10 files fetched to cache/data" in capsys.readouterr().err
    held = {"checkpoint.pt", "model.safetensors", "run.yaml", "metrics.jsonl", "report.html", FIRST, LAST}
    assert held <= there(bucket)
    assert any(name.startswith("logs/RCNN_") for name in there(bucket))
    lose_the_machine()
    assert mindspore.main([*TRAIN, *STORES, *OUT]) == 2
    refused = capsys.readouterr().err
    assert "error: s3://bucket/out: already holds a run" in refused and "--resume_ckpt" in refused
    lose_the_machine()
    write_optimizer(epochs=4)
    assert mindspore.main([*TRAIN, *STORES, *OUT, "--resume_ckpt", f"s3://bucket/out/{LAST}"]) == 0
    assert "going on at step 9 of 12" in capsys.readouterr().err
    bucket.get_file("bucket/out/checkpoint.pt", "last.pt")
    assert load_checkpoint(Path("last.pt"))["step"] == 12


def test_their_own_checkpoint_in_a_store_is_gone_on_from_in_a_new_place(
    bucket: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_optimizer(epochs=1)
    assert mindspore.main([*TRAIN, *STORES, *OUT]) == 0
    lose_the_machine()
    write_optimizer(epochs=2)
    other = ("--train_url", "s3://bucket/other", "--save_dir", "here")
    fetched = ("--ckpt_url", "s3://bucket/out/checkpoints", "--resume_ckpt", f"cache/ckpt/{Path(FIRST).name}")
    assert mindspore.main([*TRAIN, *STORES, *other, *fetched]) == 0
    assert "going on at step 3 of 6" in capsys.readouterr().err


def test_a_store_that_is_away_at_a_checkpoint_gets_it_with_the_next(
    bucket: Any, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    send, seen = keeping._sent_or_told, []

    def sending(mirror: Mirror, says: Any) -> None:
        if not seen:
            store.leave()
        send(mirror, says)
        if not seen:
            store.come_back()
        seen.append(there(bucket))

    monkeypatch.setattr(keeping, "_sent_or_told", sending)
    assert mindspore.main([*TRAIN, *STORES, *OUT]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "; kept in here" in line]
    assert len(told) == 1 and told[0].startswith("s3://bucket/out: cannot be written (Could not connect")
    assert seen[0] == {"run.yaml"} and {FIRST, "checkpoint.pt"} <= seen[1]


def test_a_store_that_stays_away_leaves_everything_here_and_gets_it_later(
    bucket: Any, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_optimizer(epochs=1)
    with monkeypatch.context() as away:
        away.setattr(keeping, "_sent_or_told", lambda mirror, says: store.leave())
        try:
            assert mindspore.main([*TRAIN, *STORES, *OUT]) == 2
        finally:
            store.come_back()
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "s3://bucket/out: cannot be written (Could not connect" in error
    assert error.endswith("; the run is complete in here")
    assert there(bucket) == {"run.yaml"} and Path("here/model.safetensors").exists()
    assert mindspore.main([*TRAIN, *STORES, *OUT, "--resume_ckpt", f"here/{FIRST}"]) == 0
    assert {"model.safetensors", "checkpoint.pt", FIRST} <= there(bucket)


def test_a_bucket_that_is_not_there_is_told_before_the_first_step(
    bucket: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mindspore.main([*TRAIN, *STORES, "--train_url", "s3://nowhere/out", "--save_dir", "here"]) == 2
    said = capsys.readouterr()
    assert "error: s3://nowhere/out: cannot be written (The specified bucket does not exist)" in said.err
    assert "loss" not in said.out


def test_models_data_and_results_of_an_evaluation_may_all_be_in_a_store(bucket: Any) -> None:
    write_optimizer(epochs=1)
    assert mindspore.main([*TRAIN, *STORES, *OUT]) == 0
    place, results = "s3://bucket/data/coco", "s3://bucket/results/val.json"
    files = ["--annotations", f"{place}/annotation/instances_val.json", "--images", f"{place}/val"]
    words = ["eval", "s3://bucket/out/model.safetensors", *files, "--device", "cpu", "--save", results]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert f"{place}/val: 2 files fetched to" in done.stderr
    assert f"-> {results}" in done.stderr
    assert bucket.cat("bucket/results/val.json").startswith(b"[")
    scored = CliRunner().invoke(app, ["eval", *files[:2], "--detections", results])
    assert scored.exit_code == 0, scored.output
    assert scored.stdout == done.stdout
    checked = CliRunner().invoke(app, ["data", "check", files[1], "--images", f"{place}/val"])
    assert checked.exit_code == 0 and "2 images, 4 instances" in checked.stdout


def test_commands_of_theirs_take_urls_as_well(bucket: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write_optimizer(epochs=1)
    text = Path("config/coco.yml").read_text()
    Path("config/coco.yml").write_text(
        text.replace("dataset_dir: coco", "dataset_dir: s3://bucket/data/coco")
    )
    assert mindspore.main([*TRAIN, "--save_dir", "s3://bucket/out"]) == 0
    assert {FIRST, "model.safetensors"} <= there(bucket)
    words = ["--config", CONFIG, "--device_target", "CPU", "--ckpt_path", f"s3://bucket/out/{FIRST}"]
    assert mindspore.main(["eval", *words, "--save_dir", "s3://bucket/out"]) == 0
    assert "coco eval segm result" in capsys.readouterr().out
    assert any(name.startswith("eval/predict_") for name in there(bucket))
    drawn = ["--imgs", "s3://bucket/data/coco/val", "--save_dir", "s3://bucket/out/drawn"]
    assert mindspore.main(["infer", *words, *drawn]) == 0
    assert {"drawn/0.png", "drawn/1.png"} <= there(bucket)
