"""Images of any sizes go through any engine in batches and come back in their own pixels."""

import sys
from pathlib import Path

import numpy as np
import pytest

import maskrcnn
from maskrcnn import predict
from maskrcnn.detections import Raw
from maskrcnn.errors import UserError
from maskrcnn.predict import Predictor, model_path, open_model
from maskrcnn.spec import Classes, Preprocess, Spec


class OneBox:
    """An engine that finds, in each image, the box (10, 20)..(30, 60) of the network's input, of class 1."""

    def __init__(self) -> None:
        self.spec = Spec(
            preprocess=Preprocess(short=100, long=200, pad_multiple=32),
            classes=Classes(("cat", "dog"), (17, 18)),
        )
        self.inputs: list[tuple[tuple[int, ...], list[list[int]]]] = []

    def run(self, image: np.ndarray, size: np.ndarray) -> Raw:
        """Remembers what it was given."""
        self.inputs.append((image.shape, size.tolist()))
        count = len(image)
        boxes = np.zeros((count, 3, 4), np.float32)
        boxes[:, 0] = 10, 20, 30, 60
        scores = np.zeros((count, 3), np.float32)
        scores[:, 0] = 0.9
        return Raw(boxes, scores, np.ones((count, 3), np.int64), np.ones((count, 3, 28, 28), np.float32))


def blank(height: int, width: int) -> np.ndarray:
    """A black image."""
    return np.zeros((height, width, 3), np.uint8)


def test_boxes_come_back_in_the_pixels_of_their_own_image() -> None:
    found = Predictor(OneBox(), batch=2)([blank(200, 300), blank(50, 50)])
    assert [each.size for each in found] == [(200, 300), (50, 50)]
    # 200 x 300 was halved to 100 x 150, 50 x 50 doubled to 100 x 100.
    assert found[0].boxes.tolist() == [[20, 40, 60, 120]]
    assert found[1].boxes.tolist() == [[5, 10, 15, 30]]
    assert found[0].names() == ["dog"]


def test_images_of_a_batch_share_one_padded_input_with_their_true_sizes() -> None:
    backend = OneBox()
    Predictor(backend, batch=2)([blank(100, 150), blank(150, 100)])
    assert backend.inputs == [((2, 3, 160, 160), [[100, 150], [150, 100]])]


def test_five_images_in_batches_of_two_make_three_runs_and_keep_their_order() -> None:
    backend = OneBox()
    images = [blank(100, 100 + 10 * number) for number in range(5)]
    found = Predictor(backend, batch=2)(images)
    assert [each.size for each in found] == [image.shape[:2] for image in images]
    assert [len(size) for _, size in backend.inputs] == [2, 2, 1]


def test_no_images_give_no_results() -> None:
    assert Predictor(OneBox())([]) == []


def test_an_image_that_is_no_uint8_rgb_is_refused() -> None:
    with pytest.raises(UserError, match=r"float64 \(4, 4, 3\)"):
        Predictor(OneBox())([np.zeros((4, 4, 3))])


def test_the_package_offers_its_names_without_importing_torch() -> None:
    assert maskrcnn.open_model is open_model
    assert maskrcnn.Predictor is Predictor
    with pytest.raises(AttributeError, match="no attribute `?'?nothing"):
        _ = maskrcnn.nothing


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("missing.safetensors", "no such model file", "example"),
        ("model_final.pkl", "is a checkpoint of another tool", "maskrcnn convert"),
        ("net.pth", "is a checkpoint of another tool", "maskrcnn convert"),
        ("notes.txt", "no engine reads .txt", ".safetensors"),
        ("folder", "is a folder", ".safetensors"),
    ],
)
def test_what_is_no_model_file_is_told_with_the_way_out(
    tmp_path: Path, name: str, message: str, hint: str
) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif "missing" not in name:
        path.touch()
    with pytest.raises(UserError) as caught:
        open_model(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_example_is_a_file_of_the_package() -> None:
    try:
        path = model_path("example")
    except UserError as error:
        assert "example.safetensors" in error.message
    else:
        assert path == Path(maskrcnn.__file__).with_name("example.safetensors")


def test_without_torch_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    monkeypatch.delitem(sys.modules, "maskrcnn.backends.pytorch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="needs torch, which is not installed") as caught:
        open_model(path)
    assert caught.value.hint == 'install it with `pip install "maskrcnn[torch]"`'


def test_a_batch_is_at_least_one() -> None:
    with pytest.raises(UserError, match="batch is 0"):
        predict.Predictor(OneBox(), batch=0)
