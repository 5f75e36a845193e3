"""The compiled form of a PyTorch model: the same results, and words where torch cannot compile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.config import BackboneConfig, BoxHeadConfig, FPNConfig, MaskHeadConfig, ModelConfig, RPNConfig
from maskrcnn.errors import UserError
from maskrcnn.predict import open_model
from maskrcnn.spec import Preprocess, Spec

torch = pytest.importorskip("torch")

IMAGE = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 96), np.uint8)
SIZE = np.array([[64, 96]])


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from maskrcnn.model.mask_rcnn import MaskRCNN
    from maskrcnn.weights.model_file import write_model_file

    torch.manual_seed(0)
    config = ModelConfig(
        classes=3,
        backbone=BackboneConfig(depth=18, width=8),
        fpn=FPNConfig(channels=16),
        rpn=RPNConfig(post_nms=20),
        box_head=BoxHeadConfig(channels=16, fc_channels=32),
        mask_head=MaskHeadConfig(channels=16),
    )
    path = tmp_path_factory.mktemp("compiled") / "tiny.safetensors"
    state = MaskRCNN(config).state_dict()
    spec = Spec(model=config, preprocess=Preprocess(short=64, long=96))
    write_model_file(path, spec, {name: values.numpy() for name, values in state.items()})
    return path


def test_trunk_and_pyramid_are_compiled_for_any_size_before_the_first_image(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    def compiled(function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        assert dynamic

        def run(planes: Any, sizes: Any) -> Any:
            seen.append(tuple(planes.shape))
            return function(planes, sizes)

        return run

    plain = open_model(model_file, "cpu").backend.run(IMAGE, SIZE)
    monkeypatch.setattr(torch, "compile", compiled)
    backend = open_model(model_file, "cpu", engine="pytorch-compiled").backend
    assert len(seen) == 1
    assert all((a == b).all() for a, b in zip(plain, backend.run(IMAGE, SIZE), strict=True))
    assert seen[1] == (1, 3, 64, 96)


def test_where_torch_cannot_compile_it_is_told_when_the_model_is_opened(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("No working C++ compiler found\nin a list of many")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    words = r"cannot compile it here \(No working C\+\+ compiler found\)"
    with pytest.raises(UserError, match=words) as caught:
        open_model(model_file, "cpu", engine="pytorch-compiled")
    assert "--engine pytorch" in caught.value.hint


@pytest.mark.slow
def test_compiled_for_real_it_finds_the_same(model_file: Path) -> None:
    plain = open_model(model_file, "cpu").backend.run(IMAGE, SIZE)
    found = open_model(model_file, "cpu", engine="pytorch-compiled").backend.run(IMAGE, SIZE)
    for a, b in zip(plain, found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
