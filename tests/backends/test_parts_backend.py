"""The host between three graphs, around functions that stand for these; no engine and no torch."""

from pathlib import Path

import numpy as np
import pytest

from maskrcnn.backends.parts import Graphs, PartsBackend, open_parts
from maskrcnn.config import BoxHeadConfig, FPNConfig, MaskHeadConfig, ModelConfig, RPNConfig
from maskrcnn.errors import UserError
from maskrcnn.spec import Exported, Preprocess, Spec

K, C, ROWS = 3, 4, 5
MODEL = ModelConfig(
    classes=K,
    fpn=FPNConfig(channels=C),
    rpn=RPNConfig(pre_nms=10, post_nms=4),
    box_head=BoxHeadConfig(detections=ROWS),
    mask_head=MaskHeadConfig(channels=C),
)


class Graph:
    """Notes the shape of what each call is given."""

    def __init__(self, function: object) -> None:
        self.function = function
        self.given: list[tuple[int, ...]] = []

    def __call__(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (array,) = arrays.values()
        self.given.append(array.shape)
        return self.function(array)  # type: ignore[operator]


def dense(image: np.ndarray) -> dict[str, np.ndarray]:
    """The square anchor of side 32 around (32, 16) is the best; brighter images have higher level 0."""
    count, _, height, width = image.shape
    found = {}
    for number in range(5):
        cells = (-(-height // (4 << number)), -(-width // (4 << number)))
        found[f"objectness{number}"] = np.zeros((count, 3, *cells), np.float32)
        found[f"deltas{number}"] = np.zeros((count, 12, *cells), np.float32)
        if number < 4:
            mean = image.mean((1, 2, 3), keepdims=True).astype(np.float32)
            found[f"level{number}"] = np.broadcast_to(mean, (count, C, *cells))
    found["objectness0"][:, 1, 4, 8] = 9
    return found


def box_head(features: np.ndarray) -> dict[str, np.ndarray]:
    """In the first row an object of class 1 where features are positive, nothing elsewhere."""
    logits = np.tile(np.float32([0, 0, 0, 20]), (len(features), 1))
    logits[0, 1] = 30 if features.mean() > 0 else 0
    return {"logits": logits, "deltas": np.zeros((len(features), 4 * K), np.float32)}


def mask_head(features: np.ndarray) -> dict[str, np.ndarray]:
    """The mask of class k is k / 10 everywhere."""
    masks = np.arange(K, dtype=np.float32)[None, :, None, None] / 10
    return {"masks": np.broadcast_to(masks, (len(features), K, 28, 28))}


def backend(**exported: object) -> PartsBackend:
    spec = Spec(MODEL, Preprocess(short=64, long=96), exported=Exported(form="parts", **exported))  # type: ignore[arg-type]
    return PartsBackend(spec, Graphs(Graph(dense), Graph(box_head), Graph(mask_head)))


def inputs(*brightness: int) -> tuple[np.ndarray, np.ndarray]:
    image = np.array(brightness, np.uint8)[:, None, None, None] * np.ones((1, 3, 64, 96), np.uint8)
    return image, np.array([[64, 96]] * len(brightness))


def test_the_best_anchor_becomes_a_detection_with_the_mask_of_its_class() -> None:
    raw = backend().run(*inputs(255))
    assert raw.boxes[0, 0].tolist() == [16, 0, 48, 32]
    assert raw.scores[0, 0] == pytest.approx(1, abs=1e-4)
    assert raw.labels[0, 0] == 1
    np.testing.assert_array_equal(raw.masks[0, 0], np.full((28, 28), 0.1, np.float32))


def test_rows_without_a_detection_are_zero() -> None:
    raw = backend().run(*inputs(255))
    assert [part.shape for part in raw] == [(1, ROWS, 4), (1, ROWS), (1, ROWS), (1, ROWS, 28, 28)]
    assert not any(np.any(part[0, 1:]) for part in raw)


def test_masks_are_made_for_detections_only() -> None:
    found = backend()
    raw = found.run(*inputs(255, 0, 255))
    assert (raw.scores > 0).sum(1).tolist() == [1, 0, 1]
    assert found.graphs.mask_head.given == [(1, C, 14, 14)] * 2  # type: ignore[attr-defined]


def test_graphs_for_a_fixed_number_of_images_run_as_often_as_needed() -> None:
    found = backend(batch=2)
    raw = found.run(*inputs(255, 0, 255))
    assert found.graphs.dense.given == [(2, 3, 64, 96)] * 2  # type: ignore[attr-defined]
    assert (raw.scores > 0).sum(1).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("exported", "words"),
    [
        ({}, "an input of 64 x 100 pixels, and the model was exported for a multiple of 32 where it has 100"),
        ({"height": 96, "width": 128}, "for 96 where it has 64"),
    ],
)
def test_an_input_of_another_size_is_refused(exported: dict, words: str) -> None:
    with pytest.raises(UserError) as refused:
        backend(**exported).run(np.zeros((1, 3, 64, 100), np.uint8), np.array([[64, 100]]))
    assert words in refused.value.message


def written(folder: Path, suffix: str) -> Path:
    """A folder of parts whose graphs are empty files."""
    folder.mkdir()
    (folder / "maskrcnn.json").write_text(Spec(MODEL, exported=Exported(form="parts")).to_json())
    for name in ("dense", "box_head", "mask_head"):
        (folder / f"{name}{suffix}").touch()
    return folder


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "tiny.parts", ".onnx")
    (folder / "box_head.onnx").unlink()
    with pytest.raises(UserError, match="has no box_head.onnx or box_head.xml"):
        open_parts(folder)


def test_a_file_of_that_name_is_no_folder_of_parts(tmp_path: Path) -> None:
    (tmp_path / "tiny.parts").touch()
    with pytest.raises(UserError, match="is no folder of parts"):
        open_parts(tmp_path / "tiny.parts")


@pytest.mark.parametrize("engine", ["onnxruntime", "pplnn"])
def test_engines_of_onnx_do_not_read_openvinos_files(tmp_path: Path, engine: str) -> None:
    folder = written(tmp_path / "tiny.parts", ".xml")
    with pytest.raises(UserError, match=f"its graphs are .xml files, which {engine} does not read"):
        open_parts(folder, engine=engine)
