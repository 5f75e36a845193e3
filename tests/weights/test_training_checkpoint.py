"""The weights in checkpoints of training loops: which dict they are in, averages beside them, prefixes."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from frameworks import SMALL, Plan, Shapes, detectron2_shapes, filled, mmdetection_shapes
from lineage import caffe2_shapes, maskrcnn_benchmark_shapes, segmentoly_shapes

from maskrcnn.errors import UserError
from maskrcnn.weights.convert import convert
from maskrcnn.weights.readers import read_checkpoint

PLAIN, AVERAGE = torch.tensor([1.0]), torch.tensor([2.0])


def saved(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def value(path: Path, averaged: bool = False) -> float:
    return float(read_checkpoint(path, averaged).tensors["a"][0])


def averaged_model(prefix: str = "module.") -> dict[str, torch.Tensor]:
    """What torch's AveragedModel saves, as torchvision's training scripts do."""
    return {"n_averaged": torch.tensor(7), f"{prefix}a": AVERAGE}


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"a": PLAIN}},
        {"state_dict": {"a": PLAIN}},
        {"model_state_dict": {"a": PLAIN}},
        {"net": {"a": PLAIN}},
        {"model": {"state_dict": {"a": PLAIN}}},
        {"module": {"model": {"module.a": PLAIN}}},
        {"state_dict": {"module._orig_mod.model.a": PLAIN}},
        {"model": {"a": PLAIN}, "steps": torch.tensor([5.0]), "args": {"lr": 0.1}},
        {"a": PLAIN},
    ],
)
def test_the_weights_are_found_under_every_usual_key(tmp_path: Path, content: dict[str, Any]) -> None:
    rest = {"epoch": 12, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}, "lr_scheduler": {"last": 1}}
    found = read_checkpoint(saved(tmp_path / "x.pth", content | rest if "a" not in content else content))
    assert (set(found.tensors), float(found.tensors["a"][0]), found.notes) == ({"a"}, 1.0, ())


@pytest.mark.parametrize(
    ("key", "average"),
    [
        ("model_ema", averaged_model()),
        ("model_ema", averaged_model("module.module.")),
        ("ema", {"a": AVERAGE}),
        ("ema", {"module": {"a": AVERAGE}, "updates": 7}),
        ("ema_state_dict", {"a": AVERAGE}),
        ("state_dict_ema", {"a": AVERAGE}),
    ],
)
def test_averaged_weights_are_taken_when_asked_for(tmp_path: Path, key: str, average: Any) -> None:
    path = saved(tmp_path / "x.pth", {"model": {"a": PLAIN}, key: average})
    assert (value(path), value(path, averaged=True)) == (1.0, 2.0)
    assert read_checkpoint(path).notes == (
        f"the file holds averaged weights too, in `{key}`; --ema takes them",
    )
    assert read_checkpoint(path, averaged=True).notes == (f"the averaged weights of `{key}`",)
    assert set(read_checkpoint(path, averaged=True).tensors) == {"a"}


def test_a_file_of_averaged_weights_alone_needs_no_asking(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"model_ema": averaged_model()})
    assert (value(path), value(path, averaged=True)) == (2.0, 2.0)
    assert read_checkpoint(path).notes == ("the file holds averaged weights only, in `model_ema`",)


def test_mmengine_keeps_the_average_in_state_dict(tmp_path: Path) -> None:
    content = {"state_dict": {"a": AVERAGE}, "ema_state_dict": {"module.a": PLAIN}, "message_hub": {}}
    path = saved(tmp_path / "x.pth", content)
    assert (value(path), value(path, averaged=True)) == (2.0, 2.0)


def test_asking_for_an_average_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no averaged weights") as caught:
        value(saved(tmp_path / "x.pth", {"model": {"a": PLAIN}}), averaged=True)
    assert "model_ema" in caught.value.hint


def test_a_whole_pickled_model_is_refused_by_its_name(tmp_path: Path) -> None:
    for content in ({"model": torch.nn.Linear(1, 1)}, {"ema": torch.nn.Linear(1, 1)}):
        with pytest.raises(UserError, match=r"holds a Python object \(torch.nn.modules.linear.Linear\)"):
            value(saved(tmp_path / "x.pth", content))


def test_dicts_within_dicts_without_end_are_no_checkpoint(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": np.ones(1)}
    for _ in range(50):
        content = {"model": content}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="holds no tensors by name"):
        read_checkpoint(tmp_path / "x.pkl")


SOURCES: dict[str, Callable[[Plan], Shapes]] = {
    "detectron2": detectron2_shapes,
    "mmdetection": mmdetection_shapes,
    "maskrcnn-benchmark": maskrcnn_benchmark_shapes,
    "caffe2": caffe2_shapes,
    "segmentoly": segmentoly_shapes,
}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("source", SOURCES)
def test_names_of_every_source_are_read_from_safetensors(
    tmp_path: Path, source: str, prefix: str, metadata: dict[str, str] | None
) -> None:
    state = filled(SOURCES[source](Plan(**SMALL)))
    named = {f"{prefix}{name}": array for name, array in state.items()}
    safetensors.numpy.save_file(named, tmp_path / "x.safetensors", metadata)
    style = "pytorch" if source == "mmdetection" else None
    report = convert(tmp_path / "x.safetensors", tmp_path / "out.safetensors", style=style)
    assert (report.spec.origin.source, report.container, report.tensors) == (
        source,
        "safetensors",
        len(state),
    )
